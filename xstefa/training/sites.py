"""Training of static targets: match, read attributes, split, standardise, fit, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xstefa.errors import MissingTokenError, OptionError, TrainingError
from xstefa.inference.sites import AT_ONCE
from xstefa.model.architecture import STATIC, HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.heads.attributes import StaticHead
from xstefa.model.heads.kernel import CENTRES, KernelHead
from xstefa.model.heads.site import SiteHead
from xstefa.model.network import StefaLand
from xstefa.model.ranges import join_ranges, ranges_of
from xstefa.model.registry import ModelLike, foundation_model
from xstefa.model.scaler import Scaler
from xstefa.model.variants import EncoderUse
from xstefa.options import as_list
from xstefa.progress import progress
from xstefa.schema import Schema, Target, load_tokens
from xstefa.splits.holdout import Fold, Holdout
from xstefa.training.data import Datasets, by_name, provenance_of, require_added
from xstefa.training.loop import History
from xstefa.training.options import HeadOptions, HeadRecipe, Schedule
from xstefa.training.runs import card_of, versions
from xstefa.training.site_data import SiteData
from xstefa.windows import Floats

MEMBERS = 4
"""Networks of a head whose size is not given."""

EPOCHS = 100
STEPS = 1500
"""Least number of steps, if nothing is said of the length."""

_OF_THE_TARGET = ("link", "scale", "offset", "outputs", "levels")

RECIPE = HeadRecipe(token_dropout=0.2)
WEIGHT_DECAY = 0.05


@dataclass(frozen=True, kw_only=True)
class SiteTask:
    """Static targets, the model that gives schema and perhaps encoder, and how to learn.

    Attributes
    ----------
    foundation : Model
    targets : tuple of Target
        One, or all parts of a composition.
    schema : Schema
        That of the foundation, with the targets.
    how : HeadOptions
    added : tuple of str
        Tokens beside those of the foundation, of which one dataset has to have each.
    """

    foundation: Model
    targets: tuple[Target, ...]
    schema: Schema
    how: HeadOptions
    added: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: object, *, model: ModelLike | None, how: HeadOptions) -> SiteTask | None:
        """Find the model and the targets; None if these are daily.

        Raises
        ------
        SchemaError
            If there is no such target.
        OptionError
            If several targets are no composition, or an option is about days.
        """
        foundation = foundation_model(model, causal=True)
        schema = foundation.schema
        given = as_list(target)
        new = [each for each in given if isinstance(each, Target)]
        schema = schema.with_targets(*new) if set(new) - {*schema.targets} else schema
        names = [each.name if isinstance(each, Target) else each for each in given]
        asked = [schema.target(name) for name in schema.expanded(names)]
        if not any(each.static for each in asked):
            return None
        targets = schema.parts_of(asked[0])
        if not set(asked) <= set(targets):
            raise OptionError(
                "a model learns one target, or the parts of one composition",
                variable="target",
                found=", ".join(each.name for each in asked),
                expected=f"{asked[0].name!r}"
                + (f", or some of {', '.join(t.name for t in targets)}" if targets[1:] else ""),
                fix="train a model for each",
            )
        added = load_tokens(how.tokens)
        task = cls(
            foundation=foundation,
            targets=targets,
            schema=schema.with_extras(added),
            how=how,
            added=tuple(token.name for token in added),
        )
        task._check_options()
        return task

    def _check_options(self) -> None:
        """Refuse what means nothing to a static target."""
        recipe, plain = self.how.recipe or RECIPE, HeadRecipe()
        wrong = [
            f"recipe.{item.name}"
            for item in fields(HeadRecipe)
            if item.name != "token_dropout"
            and getattr(recipe, item.name) != getattr(plain, item.name)
        ]
        unset = HeadOptions()
        wrong += [
            name
            for name in ("patience", "devices")
            if getattr(self.how, name) != getattr(unset, name)
        ]
        if wrong:
            raise OptionError(
                AT_ONCE,
                variable=wrong[0],
                found=f"{wrong[0]}=",
                expected="head, encoder, holdout, validation, schedule and recipe.token_dropout",
                fix="leave it out",
            )

    def read(
        self,
        datasets: Datasets,
        *,
        rename: Mapping[str, str] | None,
        sites: str | Mapping[str, str] | None,
    ) -> list[SiteData]:
        """Match and read datasets, see `SiteData.read`.

        Raises
        ------
        MissingTokenError
            If no dataset has a token that is to be added.
        """
        found = [
            SiteData.read(
                dataset,
                name=name,
                schema=self.schema,
                targets=self.targets,
                rename={k: v for k, v in (rename or {}).items() if k in dataset.variables},
                sites=sites.get(name) if isinstance(sites, Mapping) else sites,
                added=self.added,
            )
            for name, dataset in by_name(datasets, rename).items()
        ]
        require_added(self.added, [part.binding for part in found])
        for name in self.added:
            column = [*self.schema.site_columns].index(self.schema[name].columns[0])
            if all(np.isnan(part.static[:, column]).all() for part in found):
                raise MissingTokenError(
                    "a token that is to be added is known nowhere",
                    variable=name,
                    found="at no site with an observation all of its numbers, but NaN",
                    expected="known values at some sites",
                    fix=f"see where {name} is known; of a vector fill or leave out bands of NaN",
                )
        return found

    def heads(self, observed: Floats) -> tuple[tuple[HeadSize, ...], EncoderUse]:
        """Return the heads, whose link and scale follow from the target, and the encoder's use.

        Raises
        ------
        OptionError
            If a head is none of static targets.
        """
        head, use = self.how.head, self.how.encoder or "none"
        own = self._size(observed)
        if isinstance(head, str):
            default = HeadOptions().head
            if head not in (default, *STATIC):
                raise OptionError(
                    variable="head",
                    found=repr(head),
                    expected=f"{' or '.join(STATIC)} for a static target",
                    fix="leave it out for both, which are averaged",
                )
            kinds = STATIC if head == default else (head,)
            sizes = tuple(replace(own, kind=kind, members=MEMBERS) for kind in kinds)
        else:
            sizes = head if isinstance(head, tuple) else (head,) if head is not None else ()
        if not sizes or any(size.kind not in STATIC for size in sizes):
            raise OptionError(
                variable="head",
                found=repr(head),
                expected=f"sizes of kinds {' and '.join(STATIC)}",
                fix='HeadSize(kind="site", hidden=64)',
            )
        same = {name: getattr(own, name) for name in _OF_THE_TARGET}
        centres = min(CENTRES, len(observed))
        return tuple(
            replace(own, kind="kernel", hidden=centres)
            if size.kind == "kernel"
            else replace(size, **same)
            for size in sizes
        ), use

    def _size(self, observed: Floats) -> HeadSize:
        first = self.targets[0]
        size = HeadSize(
            kind="site",
            hidden=64,
            dropout=0.1,
            outputs=len(self.targets),
            levels=max(1, len(first.depths)),
        )
        low, high = first.valid_range
        if first.composition:
            return replace(size, link="softmax")
        if (low, high) == (0, 1):
            return replace(size, link="logistic")
        known = observed[np.isfinite(observed)]
        return replace(
            size,
            link="softplus" if low == 0 else "identity",
            scale=float(known.std()) or 1.0,
            offset=0.0 if low == 0 else float(known.mean()),
        )


def check_folds(task: SiteTask, data: Sequence[SiteData], folds: Sequence[Fold]) -> None:
    """Refuse what static targets cannot be learned on.

    Raises
    ------
    TrainingError
        If a fold holds out days, or leaves no site to learn from.
    """
    for part, fold in zip(data, folds, strict=True):
        if (fold.train_sites & fold.test_sites).any():
            raise TrainingError(
                "a static target can be held out at sites only",
                variable="holdout",
                found=f"{fold.name}, which learns from the sites that it tests",
                expected="a holdout of sites",
                fix="holdout=RandomSites(0.1), or BlocksOfSpace(5.0).fold(0)",
            )
        if not fold.train_sites.any():
            raise TrainingError(
                f"nothing to learn from in {part.name!r}",
                variable=task.targets[0].name,
                found="no site with an observation, and an attribute that does not tell it, "
                "that is not held out",
                expected="at least one",
                fix="see that the variables have values there, or hold out less",
            )


def train_sites(
    task: SiteTask,
    data: Sequence[SiteData],
    folds: Sequence[Fold],
    *,
    holdout: Holdout | None = None,
    support: str | None = None,
    name: str | None = None,
) -> Model:
    """Learn static targets on datasets that have been read, on one fold of each.

    Raises
    ------
    TrainingError
        As `check_folds` does.
    """
    check_folds(task, data, folds)
    static = np.concatenate([p.static[f.train_sites] for p, f in zip(data, folds, strict=True)])
    observed = np.concatenate([p.observed[f.train_sites] for p, f in zip(data, folds, strict=True)])
    _require_both(task.targets, observed)
    schedule = _schedule(task.how, len(static))
    supports = {part.binding.layout.support for part in data}
    spec = _spec(
        task,
        static,
        observed,
        name=name or f"{task.targets[0].composition or task.targets[0].name}-site",
        support=support or (supports.pop() if len(supports) == 1 else "any"),
        provenance={
            "task": "fine-tuning",
            "datasets": {
                p.name: p.learned(f.train_sites) for p, f in zip(data, folds, strict=True)
            },
            **provenance_of(holdout),
            "schedule": asdict(schedule),
            "recipe": asdict(task.how.recipe or RECIPE),
            "versions": versions(),
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        network, history = _fitted(task, spec, static, observed, schedule)
    provenance = {**spec.provenance, "learning_curve": history.curve()}
    spec = replace(spec, provenance=provenance, card=card_of(spec, history))
    return create_model(spec, network.state_dict())


def _require_both(targets: Sequence[Target], observed: Floats) -> None:
    """Refuse a class of which all training sites have one label."""
    for target, labels in zip(targets, observed.swapaxes(0, 1), strict=True):
        known = labels[np.isfinite(labels)]
        if target.kind == "class" and np.ptp(known) == 0:
            raise TrainingError(
                "from one label nobody learns what the others have in common",
                variable=target.name,
                found=f"{known.size} sites to learn from, all labeled {known[0]:g}",
                expected="sites of the class (1), and others (0)",
                fix="add sites of the other label, or hold out less",
            )


def _schedule(how: HeadOptions, sites: int) -> Schedule:
    if how.schedule is None and how.steps is None and how.epochs is None:
        how = replace(how, steps=max(STEPS, EPOCHS * sites // how.batch_size))
    found = how.schedule_for(days=sites, length=1)
    return found if how.schedule else replace(found, weight_decay=WEIGHT_DECAY)


def _spec(
    task: SiteTask,
    static: Floats,
    observed: Floats,
    *,
    name: str,
    support: str,
    provenance: dict[str, Any],
) -> ModelSpec:
    """Describe the model that is to be."""
    foundation, schema = task.foundation.spec, task.schema
    sizes, use = task.heads(observed)
    nothing = np.empty((len(static), 0, len(schema.forcings)), dtype=np.float32)
    ranges, fitted = ranges_of(schema, nothing, static), Scaler.fit(schema, nothing, static)
    moments = fitted.statics
    hidden = {token for target in task.targets for token in target.hidden}
    tokens = tuple(
        token.name
        for token in schema.attributes
        if token.columns[0] in ranges and token.name not in hidden
    )
    if use != "none":
        task.foundation.require("encoder")
        own = {
            "name": foundation.name,
            "sha256": task.foundation.content_hash,
            "provenance": dict(foundation.provenance),
        }
        provenance = {**provenance, "foundation": own}
        if use == "frozen":  # what it never read is noise to it
            learned = {*foundation.tokens, *(token.name for token in schema.extras)}
            tokens = tuple(token for token in tokens if token in learned)
        ranges = join_ranges(foundation.ranges, ranges)
        moments = {**moments, **foundation.scaler.statics}
    return replace(
        foundation,
        name=name,
        target=task.targets[0].name,
        support=support,
        architecture=replace(
            foundation.architecture,
            decoder=False,
            heads=sizes,
            encoder=None if use == "none" else foundation.architecture.encoder,
            extras=tuple(token.length for token in schema.extras),
        ),
        schema=schema,
        scaler=replace(foundation.scaler, statics=moments),
        tokens=tokens,
        ranges={c: ranges[c] for token in tokens for c in schema[token].columns},
        provenance={**provenance, "encoder": use},
        card="",
        needs=(),
        distribution=None,
        distributions=(),
        neighbourhood=None,
    )


def _fitted(
    task: SiteTask, spec: ModelSpec, static: Floats, observed: Floats, schedule: Schedule
) -> tuple[StefaLand, History]:
    """Train the network of a description."""
    use = spec.provenance["encoder"]
    network = StefaLand(spec.architecture)
    if network.encoder is not None and use != "scratch":
        foundation = task.foundation.network()
        assert foundation.encoder is not None
        network.encoder.load_state_dict(foundation.encoder.state_dict())
        network.encoder.requires_grad_(use == "tuned")
    read = np.array([token.name in spec.tokens for token in spec.schema.site_columns.values()])
    nothing = np.empty((len(static), 0, len(spec.schema.forcings)), dtype=np.float32)
    _, ready = spec.scaler.standardise(nothing, np.where(read, static, np.float32(np.nan)))
    device = torch.device(task.how.resolved.device or "cpu")
    inputs, target = torch.from_numpy(ready), torch.from_numpy(observed)
    size = spec.architecture.heads[0]
    target = (target - size.offset) / size.scale
    history = History()
    for head in network.heads:
        assert isinstance(head, StaticHead)
        head.attributes.fit(inputs)
        if isinstance(head, KernelHead):
            head.fit(inputs, target)
            history.losses.append(float((head(inputs, None) - target).square().nanmean()))
    if any(isinstance(head, SiteHead) for head in network.heads):
        network, inputs, target = network.to(device), inputs.to(device), target.to(device)
        _descend(network, inputs, target, task, spec, schedule, history)
    return network.eval().cpu(), history


def _descend(
    network: StefaLand,
    inputs: Tensor,
    target: Tensor,
    task: SiteTask,
    spec: ModelSpec,
    schedule: Schedule,
    history: History,
) -> None:
    """Train all that has gradients, in place: attributes (N, S) and targets in units of heads."""
    heads = [head for head in network.heads if isinstance(head, SiteHead)]
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    generator = torch.Generator().manual_seed(schedule.seed)
    dropout = (task.how.recipe or RECIPE).token_dropout
    lengths = torch.tensor([token.length for token in spec.schema.attributes])
    labels = spec.schema.target(str(spec.target)).kind == "class"
    spread = 1.0 if labels else float(target[target.isfinite()].std()) or 1.0
    mean: dict[str, Tensor] = {}
    order = torch.empty(0, dtype=torch.int64)
    network.train()
    with progress(f"training {spec.name}", total=schedule.steps, unit="steps") as bar:
        for step in range(schedule.steps):
            while len(order) < schedule.batch_size:
                order = torch.cat([order, torch.randperm(len(inputs), generator=generator)])
            rows, order = order[: schedule.batch_size], order[schedule.batch_size :]
            hide = torch.rand((len(rows), len(lengths)), generator=generator) < dropout
            hide = hide.repeat_interleave(lengths, dim=1).to(inputs.device)
            read = inputs[rows].masked_fill(hide, torch.nan)
            site = network.represent_sites(read)
            losses = [
                site_loss(head.each(read, site), target[rows], spread, labels=labels)
                for head in heads
            ]
            value = torch.stack(losses).sum()
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip, error_if_nonfinite=True)
            optimizer.step()
            history.losses.append(float(value.detach()))
            if schedule.average:
                share = 1 - min(schedule.average, step / (step + 9))
                for name, weight in network.named_parameters():
                    mean.setdefault(name, weight.detach().clone()).lerp_(weight.detach(), share)
            bar.update()
    network.load_state_dict(mean, strict=False)


def site_loss(answers: Tensor, observed: Tensor, spread: float, *, labels: bool) -> Tensor:
    """Return the loss of a head, summed over its members: cross entropy, or squared errors.

    Parameters
    ----------
    answers : Tensor, shape (member, B, target, depth)
    observed : Tensor, shape (B, target, depth)
        NaN where missing, which does not count.
    spread : float
        Standard deviation of the target.
    labels : bool
        Whether these are labels of a class.
    """
    observed = observed.expand_as(answers)
    known = observed.isfinite()
    found, wanted = answers[known], observed[known]
    if labels:
        loss = functional.binary_cross_entropy(found.clamp(1e-6, 1 - 1e-6), wanted)
    else:
        loss = ((found - wanted) / spread).square().mean()
    return len(answers) * loss
