"""Fine-tuning on labeled datasets: read, split, choose a head, train, describe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, TypedDict, Unpack, get_args

import numpy as np

from xstefa.arguments import checked
from xstefa.errors import ModelError, OptionError, TrainingError, did_you_mean
from xstefa.model.architecture import HeadSize
from xstefa.model.arithmetic import require_bfloat16
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike, foundation_model
from xstefa.model.variants import VARIANTS, EncoderUse
from xstefa.options import resolve_options
from xstefa.schema import Needs, Schema, Target
from xstefa.splits.holdout import Fold, Holdout
from xstefa.training.checkpoints import Checkpoint, as_checkpoint
from xstefa.training.devices import Devices, default_device
from xstefa.training.heads import train_head
from xstefa.training.loop import History, Schedule, looks, make_schedule
from xstefa.training.material import Datasets, Material, fold_all, read_all, share_list
from xstefa.training.runs import versions
from xstefa.training.samples import Record, Split
from xstefa.training.streaming import Stream
from xstefa.typed import fits
from xstefa.windows import Floats, WindowPolicy

__all__ = [
    "HeadRecipe",
    "TrainingOptions",
    "finetune",
    "finetune_material",
    "train_head",
    "variance_weights",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRecipe:
    """How a head learns, beyond how long and how fast.

    Attributes
    ----------
    loss : {"nse", "mse"}, optional
        Squared errors weighted by ``1 / (std + scale)**2`` of each site's observations, so that
        every site counts (Kratzert et al. 2019), or by ``1 / scale**2``, so that every day counts.
        By default "nse", but "mse" for fractions, whose sites vary alike.
    scale : float
        In the unit of the target.
    centred : float
        Share of the loss that forgives a constant error; see `weighted_mse`.
    token_dropout : float
        Probability with which each token that can be done without is hidden from a window, so that
        the head also serves datasets with fewer tokens.
    group_dropout : float
        Probability with which a window is made one of a poorer dataset, which has precipitation and
        temperature only, say, or no attributes; see `xstefa.training.dropout.TokenDropout`.
    perturbation : float
        Probability with which the weather of a window is changed as products of it differ; see
        `xstefa.training.perturbation.Perturbation`.
    needs : tuple of tuple of str, optional
        Groups of forcings, of each of which a dataset has to have one: with ``(("precipitation",),
        ("temperature_mean", "potential_evapotranspiration"))`` rain and either of the others are
        enough. By default as the model that is fine-tuned, precipitation and temperature, and for
        the head "hbv" all three.
    windows : WindowPolicy, optional
        Windows that the head learns on, and how it reads records in prediction: a `SegmentPolicy`
        with an encoder that looks back only. By default those of the model that is fine-tuned.
    stride : int, optional
        Days between the windows of a site; by default as in prediction.
    cache : bool
        Let a frozen encoder read each window once, and keep what it says on disk.
    encoding : {"fp32", "bf16"}, optional
        Precision of the encoder and of what is kept, with `cache`; by default that of the schedule.
    """

    loss: Literal["nse", "mse"] | None = None
    scale: float = 0.1
    centred: float = 0.0
    token_dropout: float = 0.0
    group_dropout: float = 0.0
    perturbation: float = 0.0
    needs: Needs | None = None
    windows: WindowPolicy | None = None
    stride: int | None = None
    cache: bool = True
    encoding: Literal["fp32", "bf16"] | None = None

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("loss", self.loss in (None, "nse", "mse"), '"nse", "mse" or None'),
            ("scale", self.scale > 0, "more than 0, in the unit of the target"),
            ("centred", 0 <= self.centred <= 1, "a share between 0 and 1"),
            ("token_dropout", 0 <= self.token_dropout < 1, "a probability below 1"),
            ("group_dropout", 0 <= self.group_dropout <= 1, "a probability"),
            ("perturbation", 0 <= self.perturbation <= 1, "a probability"),
            (
                "needs",
                fits(self.needs, Needs | None) and self.needs != (),
                "groups of names, (('precipitation',), ...)",
            ),
            ("stride", self.stride is None or self.stride >= 1, "a number of days, or None"),
            ("encoding", self.encoding in (None, "fp32", "bf16"), '"fp32", "bf16" or None'),
        ):
            if not holds:
                raise OptionError(variable=name, found=repr(getattr(self, name)), expected=expected)


class TrainingOptions(TypedDict, total=False):
    """Keywords about how a head learns, as in `StefaAccessor.finetune`."""

    head: str | HeadSize | tuple[HeadSize, ...] | None
    encoder: EncoderUse | None
    validation: Holdout | None
    patience: int | None
    steps: int | None
    epochs: float | None
    batch_size: int
    learning_rate: float
    seed: int
    schedule: Schedule | None
    recipe: HeadRecipe | None
    device: str | None
    devices: int
    precision: str | None


@checked
def finetune(
    datasets: Datasets,
    target: str | Target,
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
    **how: Unpack[TrainingOptions],
) -> Model:
    """Learn a target on one or several datasets; see `StefaAccessor.finetune`.

    Parameters
    ----------
    datasets : Dataset or mapping of str to Dataset
    shares : mapping of str to float, optional
        How often each dataset is drawn from; by default as often as it has observations.
    support : {"grid", "point", "any"}, optional
        Spatial support that the model is for; by default that of the datasets.
    """
    foundation = foundation_model(model, causal=True)
    found = target if isinstance(target, Target) else foundation.schema.target(target)
    schema = with_target(foundation.schema, found)
    material = read_all(
        datasets,
        schema=schema,
        target=found.name,
        length=windows_of(how.get("recipe"), foundation).length,
        rename=rename,
        sites=sites,
        needs=needs_of(how.get("recipe"), foundation),
        memory=memory,
    )
    trained, _ = finetune_material(
        material,
        fold_all(material, holdout),
        foundation=foundation,
        schema=schema,
        target=found,
        holdout=holdout,
        shares=shares,
        support=support,
        checkpoint=checkpoint,
        name=name,
        **how,
    )
    return trained


def finetune_material(
    material: Sequence[Material],
    folds: Sequence[Fold],
    *,
    foundation: Model,
    schema: Schema,
    target: Target,
    holdout: Holdout | None = None,
    shares: Mapping[str, float] | None = None,
    support: str | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    name: str | None = None,
    head: str | HeadSize | tuple[HeadSize, ...] | None = "resconn",
    encoder: EncoderUse | None = None,
    validation: Holdout | None = None,
    patience: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    schedule: Schedule | None = None,
    recipe: HeadRecipe | None = None,
    device: str | None = None,
    devices: int = 1,
    precision: str | None = None,
    keep_sites: bool = False,
) -> tuple[Model, History]:
    """Learn a target on datasets that have been read, on one fold of each.

    Parameters
    ----------
    keep_sites : bool
        Let the frozen encoder read the windows of all sites, also those that this fold does not
        learn from, so that all folds share what it says.
    """
    recipe = recipe or HeadRecipe()
    options = resolve_options(device=device, precision=precision)
    windows = windows_of(recipe, foundation)
    described: dict[str, Any] = {}
    splits: list[Split] = []
    records: list[Record] = []
    streams: list[Stream | None] = []
    for part, fold in zip(material, folds, strict=True):
        split = part.split(fold, validation)
        streams.append(part.streamed(fold, split))
        described[part.name] = part.describe(split, streams[-1])
        splits.append(split if keep_sites else split.used())
        records.append(part.record if keep_sites else part.record.select(split.in_use))
    known = [
        record if split.days is None else record.observed_on(split.days)
        for record, split in zip(records, splits, strict=True)
    ]
    training = [r.select(split.train) for r, split in zip(known, splits, strict=True)]
    days = [0 if r.target is None else int(np.isfinite(r.target).sum()) for r in training]
    schedule = make_schedule(
        schedule,
        steps=steps,
        epochs=epochs,
        days=sum(days),
        length=windows.length - windows.spin_up,
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=options.precision or "fp32",
        seed=seed,
    )
    require_bfloat16(options.device, schedule.precision, recipe.encoding)
    for part, record, count, stream in zip(material, training, days, streams, strict=True):
        if (length := int(np.ptp(part.binding.layout.days)) + 1) < windows.least:
            raise TrainingError(
                f"the record of {part.name!r} is too short: no day of it would have an answer",
                variable=part.binding.layout.time,
                found=f"{length} days",
                expected=f"at least {windows.least}, most of the spin-up of {windows.spin_up} days",
                fix="recipe=HeadRecipe(windows=...) with a shorter spin-up, or a longer record",
            )
        if not count and stream is None:
            raise TrainingError(
                f"nothing to learn from in {part.name!r}",
                variable=target.name,
                found=f"no day with an observation at {len(record.ids)} training sites",
                expected="observations at sites and on days that are not held out",
                fix="see that the variable has values there, or hold out less",
            )
    variant = choose_head(head, foundation=foundation, target=target, records=training)
    use = encoder or variant.encoder
    if use not in get_args(EncoderUse):
        raise OptionError(
            variable="encoder",
            found=repr(use),
            expected=" or ".join(map(repr, get_args(EncoderUse))),
        )
    supports = {part.binding.layout.support for part in material}
    return train_head(
        records,
        foundation=foundation,
        schema=schema,
        encoder=use,
        head=variant.sizes,
        target=target.name,
        support=support or (supports.pop() if len(supports) == 1 else "any"),
        windows=windows,
        schedule=schedule,
        shares=share_list(shares, material, days),
        weights=[site_weights(record, recipe=recipe, head=variant.sizes[0]) for record in known],
        token_dropout=recipe.token_dropout,
        group_dropout=recipe.group_dropout,
        perturbation=recipe.perturbation,
        needs=recipe.needs,
        centred=recipe.centred,
        stride=recipe.stride or windows.length - windows.spin_up - windows.blend,
        cache=recipe.cache,
        encoding=recipe.encoding,
        name=name or f"{target.name}-{variant.sizes[0].kind}",
        provenance={
            "task": "fine-tuning",
            "foundation": {
                "name": foundation.name,
                "sha256": foundation.content_hash,
                "provenance": dict(foundation.spec.provenance),
            },
            "encoder": use,
            "datasets": described,
            "held_out": None if holdout is None else holdout.to_dict(),
            "schedule": asdict(schedule),
            "recipe": asdict(recipe),
            "versions": versions(),
        },
        splits=splits,
        validation=looks(validation, patience, schedule),
        checkpoint=as_checkpoint(checkpoint),
        devices=Devices(device=options.device or default_device(), count=devices),
        warm_start=variant.warm_start,
        streams=streams,
        weigh=partial(site_weights, recipe=recipe, head=variant.sizes[0]),
    )


def windows_of(recipe: HeadRecipe | None, foundation: Model) -> WindowPolicy:
    """Return the windows that a head learns on.

    Raises
    ------
    OptionError
        If the encoder reads windows of another kind.
    """
    if recipe is None or recipe.windows is None:
        return foundation.spec.windows
    if recipe.windows.causal != foundation.spec.windows.causal:
        raise OptionError(
            variable="windows",
            found=repr(recipe.windows),
            expected="a SegmentPolicy, for a model that looks back only"
            if foundation.spec.windows.causal
            else "a WindowPolicy, for a model that reads windows as a whole",
            fix="leave it out for those of the model",
        )
    return recipe.windows


def needs_of(recipe: HeadRecipe | None, foundation: Model) -> Needs:
    """Return what training data have to have.

    Raises
    ------
    OptionError
        If the recipe names what is no forcing.
    """
    if recipe is None or recipe.needs is None:
        return foundation.spec.needs
    schema = foundation.schema
    if not schema.allows(recipe.needs, schema.forcing_names):
        names = [name for group in recipe.needs for name in group]
        wrong = [name for name in names if name not in schema.forcing_names]
        raise OptionError(
            "a model needs groups of forcings",
            variable="needs",
            found=", ".join(map(repr, wrong)) or "a group of none",
            expected=f"some of {', '.join(schema.forcing_names)}",
            fix=did_you_mean(wrong[0] if wrong else "", schema.forcing_names) or "leave it out",
        )
    return recipe.needs


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenHead:
    """Heads with their sizes, and what becomes of the encoder."""

    sizes: tuple[HeadSize, ...]
    encoder: EncoderUse
    warm_start: bool = False


def choose_head(
    head: str | HeadSize | tuple[HeadSize, ...] | None,
    *,
    foundation: Model,
    target: Target,
    records: Sequence[Record],
) -> ChosenHead:
    """Return the head of a name; its link and scale follow from the target's range and spread.

    Parameters
    ----------
    head : str, HeadSize, tuple of HeadSize or None
        A name of `xstefa.model.variants.VARIANTS`; sizes of a head or several; or None for the
        heads that the model has.
    records : sequence of Record
        Training sites.

    Raises
    ------
    OptionError
        If there is no such name.
    ModelError
        If the model has no heads for the target.
    """
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
        return ChosenHead(
            sizes=own,
            encoder="none" if foundation.spec.architecture.encoder is None else "frozen",
            warm_start=True,
        )
    if not isinstance(head, str):
        sizes = head if isinstance(head, tuple) else (head,)
        if not sizes:
            raise OptionError(
                variable="head",
                found="no head",
                expected="sizes of one head or several",
                fix='head="resconn"',
            )
        alone = all(size.kind == "lstm" for size in sizes)
        return ChosenHead(sizes=sizes, encoder="none" if alone else "frozen")
    if head not in VARIANTS:
        raise OptionError(
            variable="head",
            found=repr(head),
            expected=", ".join(VARIANTS),
            fix='leave it out for the paper\'s head, "resconn"',
        )
    variant = VARIANTS[head]
    low, high = target.valid_range
    if variant.head == "hbv":
        size = HeadSize(kind="hbv", hidden=64)
    elif (low, high) == (0, 1):
        size = HeadSize(kind=variant.head, link="logistic")
    else:
        targets = [record.target for record in records if record.target is not None]
        values = np.concatenate([target[np.isfinite(target)] for target in targets])
        size = HeadSize(
            kind=variant.head,
            link="softplus" if low == 0 else "identity",
            scale=float(values.std()) or 1.0,
            offset=0.0 if low == 0 else float(values.mean()),
        )
    return ChosenHead(sizes=(size,), encoder=variant.encoder)


def site_weights(record: Record, *, recipe: HeadRecipe, head: HeadSize) -> Floats:
    """Return the loss weight of each site, shape (site,)."""
    loss = recipe.loss or ("mse" if head.link == "logistic" else "nse")
    if loss == "nse":
        return variance_weights(record, floor=recipe.scale)
    return np.full(len(record.ids), 1 / recipe.scale**2, dtype=np.float32)


def variance_weights(record: Record, *, floor: float = 0.1) -> Floats:
    """Return ``1 / (std + floor)**2`` of each site's observations, scaled to their own unit."""
    assert record.target is not None
    counted = np.isfinite(record.target).sum(axis=1) > 1
    std = np.zeros(len(record.ids), dtype=np.float32)
    std[counted] = np.nanstd(record.target[counted], axis=1)
    return (1 / (std + floor) ** 2).astype(np.float32)


def with_target(schema: Schema, target: Target) -> Schema:
    """Return the schema with a target of this name, replaced or added."""
    others = tuple(known for known in schema.targets if known.name != target.name)
    return replace(schema, targets=(*others, target)) if target not in schema.targets else schema
