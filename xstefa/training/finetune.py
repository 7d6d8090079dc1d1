"""Fine-tuning: match, read, split, choose a head, window and standardise, fit, save."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial, reduce
from typing import Any

import numpy as np

from xstefa.arguments import checked
from xstefa.errors import ModelError, OptionError, TrainingError
from xstefa.inference.sites import AT_ONCE, only_one, refuse_daily
from xstefa.model.architecture import STATIC, HeadSize
from xstefa.model.arithmetic import require_bfloat16
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.ranges import join_ranges
from xstefa.model.registry import ModelLike
from xstefa.model.variants import BASELINES, VARIANTS, EncoderUse
from xstefa.schema import Targets, load_targets
from xstefa.splits.holdout import Fold, Holdout
from xstefa.training.checkpoints import Checkpoint, as_checkpoint
from xstefa.training.data import (
    Datasets,
    TrainingData,
    fold_all,
    provenance,
    share_list,
)
from xstefa.training.devices import launch
from xstefa.training.heads import HeadTask, HeadTraining
from xstefa.training.options import HeadOptions, HeadRecipe
from xstefa.training.records import Record
from xstefa.training.runs import versions
from xstefa.training.site_errors import train_validated
from xstefa.training.sites import SiteTask
from xstefa.windows import Days, Floats

__all__ = ["HeadRecipe", "HeadTask", "finetune", "train_heads"]


@checked
def finetune(
    datasets: Datasets,
    target: Targets,
    *,
    model: ModelLike | None = None,
    holdout: Holdout | None = None,
    shares: Mapping[str, float] | None = None,
    support: str | None = None,
    rename: Mapping[str, str] | None = None,
    sites: str | Mapping[str, str] | None = None,
    memory: str | int = "8 GiB",
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    name: str | None = None,
    **how: Any,
) -> Model:
    """Learn a target on one or several datasets; see `StefaAccessor.finetune`.

    Parameters
    ----------
    datasets : Dataset or mapping of str to Dataset
    shares : mapping of str to float, optional
        How often each dataset is drawn from; by default as often as it has observations.
    support : {"grid", "point", "any"}, optional
        Spatial support that the model is for; by default that of the datasets.
    **how
        Of `HeadOptions`.
    """
    options, target = HeadOptions.of(how), load_targets(target)
    of_sites = SiteTask.of(target, model=model, how=options)
    if of_sites is not None:
        refuse_daily(AT_ONCE, shares=shares, checkpoint=checkpoint)
        known = of_sites.read(datasets, rename=rename, sites=sites)
        folds = fold_all(known, holdout)
        to = {"holdout": holdout, "support": support, "name": name}
        return train_validated(of_sites, known, folds, **to)
    task = HeadTask.of(only_one(target), model=model, how=options)
    data = task.read(datasets, rename=rename, sites=sites, memory=memory)
    return train_heads(
        task,
        data,
        fold_all(data, holdout),
        holdout=holdout,
        shares=shares,
        support=support,
        checkpoint=checkpoint,
        name=name,
    )


def train_heads(
    task: HeadTask,
    data: Sequence[TrainingData],
    folds: Sequence[Fold],
    *,
    holdout: Holdout | None = None,
    shares: Mapping[str, float] | None = None,
    support: str | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    name: str | None = None,
    keep_sites: bool = False,
) -> Model:
    """Learn a target on datasets that have been read, on one fold of each.

    Parameters
    ----------
    keep_sites : bool
        Keep the embeddings of all sites, also of those that this fold does not learn from, so that
        all folds share them.
    """
    how, foundation, target, windows = task.how, task.foundation, task.target, task.windows
    recipe, options = task.recipe, how.resolved
    data = [part.on(fold, how.validation) for part, fold in zip(data, folds, strict=True)]
    schedule = how.schedule_for(
        days=sum(part.survey.days for part in data), length=windows.length - windows.spin_up
    )
    require_bfloat16(options.device, schedule.precision, recipe.encoding)
    for part in data:
        if (length := int(np.ptp(part.binding.layout.days)) + 1) < windows.least:
            raise TrainingError(
                f"the record of {part.name!r} is too short: no day of it would have an answer",
                variable=part.binding.layout.time,
                found=f"{length} days",
                expected=f"at least {windows.least}, most of the spin-up of {windows.spin_up} days",
                fix="recipe=HeadRecipe(windows=...) with a shorter spin-up, or a longer record",
            )
        if not part.survey.days:
            raise TrainingError(
                f"nothing to learn from in {part.name!r}",
                variable=target.name,
                found=f"no day with an observation at {part.split.train.sum()} training sites",
                expected="observations at sites and on days that are not held out",
                fix="see that the variable has values there, or hold out less",
            )
    sizes, use = choose_head(task, (part.sample().learned for part in data))
    supports = {part.binding.layout.support for part in data}
    spec = task.spec(
        name=name or f"{target.name}-{sizes[0].kind}",
        support=support or (supports.pop() if len(supports) == 1 else "any"),
        encoder=use,
        sizes=sizes,
        ranges=reduce(join_ranges, (part.survey.ranges for part in data)),
        attributes=np.concatenate([part.attributes for part in data]),
        provenance={
            "task": "fine-tuning",
            "foundation": {
                "name": foundation.name,
                "sha256": foundation.content_hash,
                "provenance": dict(foundation.spec.provenance),
            },
            "encoder": use,
            **provenance(data, holdout),
            "schedule": asdict(schedule),
            "recipe": asdict(recipe),
            "versions": versions(),
        },
    )
    kept = [part.split.in_use | keep_sites for part in data]
    records = []
    for part, sites in zip(data, kept, strict=True):
        prepare = partial(_prepared, spec=spec, days=part.split.days, recipe=recipe, head=sizes[0])
        records.append(part.prepared(prepare, sites))
    cached = recipe.cache and use == "frozen" and not any(r.on_disk for r in records)
    training = HeadTraining(
        records=records,
        splits=[part.split.of(sites) for part, sites in zip(data, kept, strict=True)],
        strides=[recipe.stride or windows.length - windows.spin_up - windows.blend] * len(data),
        shares=share_list(shares, data),
        spec=spec,
        schedule=schedule,
        patience=how.patience,
        checkpoint=as_checkpoint(checkpoint),
        task=task,
        encoder=use,
        encoding=(recipe.encoding or schedule.precision) if cached else None,
    )
    return launch(training, device=options.device, count=how.devices)


def _prepared(
    record: Record, *, spec: ModelSpec, days: Days | None, recipe: HeadRecipe, head: HeadSize
) -> Record:
    """Return a record as the network reads it in prediction, with the weight of its sites."""
    schema = spec.schema
    hidden = {token.name for token in schema.tokens} - set(spec.tokens)
    ready = record.without(hidden, schema)
    if not spec.windows.causal:  # what bridges a gap knows its far end
        ready = ready.bridged()
    observed = record.observed_on(days)
    weight = site_weights(observed, recipe=recipe, head=head)
    return replace(ready.standardised(spec.scaler), weight=weight)


def choose_head(
    task: HeadTask, observed: Iterable[Floats]
) -> tuple[tuple[HeadSize, ...], EncoderUse]:
    """Return the heads of a task, and what becomes of the encoder.

    Parameters
    ----------
    observed : iterable of ndarray
        Target at training sites; link and scale of a head follow from its range and spread.

    Raises
    ------
    OptionError
        If there is no head of that name.
    ModelError
        If the model has no heads for the target.
    """
    head, use = task.how.head, task.how.encoder
    foundation, target = task.foundation, task.target
    own = foundation.spec.architecture.heads
    if head is None:
        if not own or foundation.spec.target != target.name:
            raise ModelError(
                "head=None trains the model's own heads on",
                variable=foundation.name,
                found=f"a model of {foundation.spec.target or 'no target'}",
                expected=f"a model of {target.name}",
                fix='head="resconn" for a new head',
            )
        bare = foundation.spec.architecture.encoder is None
        return own, use or ("none" if bare else "frozen")
    if not isinstance(head, str):
        sizes = head if isinstance(head, tuple) else (head,)
        if not sizes:
            raise OptionError(
                variable="head",
                found="no head",
                expected="sizes of one head or several",
                fix='head="resconn"',
            )
        _refuse_static(size.kind for size in sizes)
        bare = all(size.kind in BASELINES for size in sizes)
        return sizes, use or ("none" if bare else "frozen")
    if head not in VARIANTS:
        raise OptionError(
            variable="head",
            found=repr(head),
            expected=", ".join(VARIANTS),
            fix='leave it out for the paper\'s head, "resconn"',
        )
    variant = VARIANTS[head]
    _refuse_static([variant.head])
    low, high = target.valid_range
    if variant.head == "hbv":
        size = HeadSize(kind="hbv", hidden=64)
    elif (low, high) == (0, 1):
        hidden = 32 if variant.head == "reservoirs" else 256
        size = HeadSize(kind=variant.head, hidden=hidden, link="logistic")
    else:
        values = np.concatenate([part[np.isfinite(part)] for part in observed])
        size = HeadSize(
            kind=variant.head,
            link="softplus" if low == 0 else "identity",
            scale=float(values.std()) or 1.0,
            offset=0.0 if low == 0 else float(values.mean()),
        )
    return (size,), use or variant.encoder


def _refuse_static(kinds: Iterable[str]) -> None:
    """Refuse heads of static targets."""
    if wrong := [kind for kind in kinds if kind in STATIC]:
        raise OptionError(
            "heads of static targets answer for sites, not for days",
            variable="head",
            found=repr(wrong[0]),
            expected=", ".join(name for name, each in VARIANTS.items() if each.head not in STATIC),
            fix='leave it out: head="resconn" is the default',
        )


def site_weights(record: Record, *, recipe: HeadRecipe, head: HeadSize) -> Floats:
    """Return the loss weight of each site, shape (site,)."""
    std = np.zeros(len(record.ids), dtype=np.float32)
    if (recipe.loss or ("mse" if head.link == "logistic" else "nse")) == "nse":
        counted = np.isfinite(record.learned).sum(axis=1) > 1
        std[counted] = np.nanstd(record.learned[counted], axis=1)
    return (1 / (std + recipe.scale) ** 2).astype(np.float32)
