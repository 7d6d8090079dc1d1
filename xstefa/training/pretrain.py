"""Pretraining: learn weather and landscape together by filling in what is hidden."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from xstefa.arguments import checked
from xstefa.model.architecture import Architecture, EncoderSize
from xstefa.model.arithmetic import require_bfloat16
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.masking import GroupMasking
from xstefa.model.network import StefaLand
from xstefa.model.scaler import Scaler
from xstefa.options import resolve_options
from xstefa.schema import Schema, load_schema
from xstefa.splits.holdout import Holdout
from xstefa.training.checkpoints import Checkpoint, as_checkpoint
from xstefa.training.devices import Devices, Runner, default_device
from xstefa.training.loop import (
    History,
    Schedule,
    Supply,
    Validation,
    fit,
    looks,
    make_schedule,
)
from xstefa.training.material import Datasets, fold_all, read_all, share_list
from xstefa.training.objectives import Reconstruction
from xstefa.training.runs import finished, seeded, versions
from xstefa.training.samples import Record, Split, fit_scaler, known_tokens
from xstefa.training.sampling import Windows, validation_windows
from xstefa.training.streaming import Stream, StreamedWindows, seen
from xstefa.windows import WindowPolicy


@checked
def pretrain(
    datasets: Datasets,
    schema: Schema | str | None = None,
    *,
    size: EncoderSize | None = None,
    windows: WindowPolicy | None = None,
    shares: Mapping[str, float] | None = None,
    holdout: Holdout | None = None,
    validation: Holdout | None = None,
    patience: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-4,
    seed: int = 0,
    schedule: Schedule | None = None,
    rename: Mapping[str, str] | None = None,
    sites: str | Mapping[str, str] | None = None,
    device: str | None = None,
    devices: int = 1,
    precision: str | None = None,
    memory: str | int = "8 GiB",
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    name: str = "stefaland-pretrained",
) -> Model:
    """Pretrain a foundation model: fill in what is hidden of weather and landscape (appendix A.2).

    Parameters
    ----------
    datasets : Dataset or mapping of str to Dataset
        Daily forcings and site attributes, of any layout; no target is needed.
    schema : Schema or str, optional
        What tokens the model reads; by default ``"stefaland"``.
    size : EncoderSize, optional
        By default the paper's.
    windows : WindowPolicy, optional
        How the model will read long records.
    shares : mapping of str to float, optional
        How often each dataset is drawn from; by default as often as it has known site-days.
    holdout : Holdout, optional
        Sites that are left out, of each dataset. It has to have one fold.
    validation : Holdout, optional
        Training sites whose loss is watched instead.
    patience : int, optional
        Stop early: after this many looks at the validation loss without a lower one. There are 40
        looks in a full run.
    steps : int, optional
    epochs : float, optional
        Length of the training; by default 25 epochs (Table 15), but at least 500 steps.
    batch_size, learning_rate, seed
        By default as in Table 15.
    schedule : Schedule, optional
        Everything about the length and speed of training, in place of the five above and
        `precision`.
    rename : mapping of str to str, optional
        Dataset variable to token.
    sites : str or mapping of str to str, optional
        Variable that names the sites, or one for each dataset.
    device : str, optional
        Torch device; default as set by `set_options`.
    devices : int
        Number of devices; on CPUs, of processes.
    precision : {"fp32", "bf16"}, optional
        Default as set by `set_options`.
    memory : str or int
        What a chunked dataset may take; a larger one streams, block by block. Its moments are then
        fitted to a sample.
    checkpoint : path-like or Checkpoint, optional
        File to save the state of training to, and to go on from if it is there.
    name : str

    Returns
    -------
    Model
        A foundation model; it predicts nothing before it is fine-tuned.

    Raises
    ------
    TrainingError
        If a predictor leaks a target, there is nothing to learn from, or the numbers run away.
    XstefaError
        Of binding, if a dataset does not fit the schema.
    """
    if not isinstance(schema, Schema):
        schema = load_schema(schema or "stefaland")
    windows = windows or WindowPolicy()
    options = resolve_options(device=device, precision=precision)
    material = read_all(
        datasets,
        schema=schema,
        target=None,
        length=windows.length,
        rename=rename,
        sites=sites,
        memory=memory,
    )
    folds = fold_all(material, holdout)
    whole = [part.split(fold, validation) for part, fold in zip(material, folds, strict=True)]
    streams = [part.streamed(f, s) for part, f, s in zip(material, folds, whole, strict=True)]
    records = [
        part.record.select(split.in_use)
        if split.days is None
        else part.record.select(split.in_use).observed_on(split.days)
        for part, split in zip(material, whole, strict=True)
    ]
    splits = [split.used() for split in whole]
    training = [r.select(split.train) for r, split in zip(records, splits, strict=True)]
    days = [int(np.isfinite(record.forcing[..., 0]).sum()) for record in training]
    schedule = make_schedule(
        schedule,
        steps=steps,
        epochs=epochs,
        days=sum(days),
        length=windows.length,
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=options.precision or "fp32",
        seed=seed,
    )
    require_bfloat16(options.device, schedule.precision)
    size = size or EncoderSize(positions=windows.length + 1)
    model, _ = pretrain_encoder(
        records,
        schema=schema,
        scaler=fit_scaler(schema, training),
        size=size,
        windows=windows,
        schedule=schedule,
        shares=share_list(shares, material, days),
        name=name,
        provenance={
            "task": "pretraining",
            "datasets": {
                part.name: part.describe(split, stream)
                for part, split, stream in zip(material, whole, streams, strict=True)
            },
            "held_out": None if holdout is None else holdout.to_dict(),
            "schedule": asdict(schedule),
            "versions": versions(),
        },
        splits=splits,
        streams=streams,
        validation=looks(validation, patience, schedule),
        checkpoint=as_checkpoint(checkpoint),
        devices=Devices(device=options.device or default_device(), count=devices),
    )
    return model


def pretrain_encoder(
    records: Sequence[Record],
    *,
    schema: Schema,
    scaler: Scaler,
    size: EncoderSize,
    windows: WindowPolicy,
    schedule: Schedule,
    shares: Sequence[float],
    name: str,
    provenance: Mapping[str, Any],
    splits: Sequence[Split] | None = None,
    streams: Sequence[Stream | None] | None = None,
    validation: Validation | None = None,
    checkpoint: Checkpoint | None = None,
    devices: Devices | None = None,
) -> tuple[Model, History]:
    """Train encoder and decoder to reconstruct masked groups of variables (appendix A.2).

    Parameters
    ----------
    records : sequence of Record
        In canonical units.
    shares : sequence of float
        How often each record is drawn from.
    splits : sequence of Split, optional
        Which sites of each record train and validate; by default all train.
    streams : sequence of Stream or None, optional
        Datasets larger than memory that are learned from instead of their records.
    validation : Validation, optional
    checkpoint : Checkpoint, optional
    devices : Devices, optional
        By default one CPU.

    Returns
    -------
    Model
        Foundation model with encoder and decoder, no head.
    History
    """
    splits = splits or [Split.all_of(record) for record in records]
    training = [r.select(split.train) for r, split in zip(records, splits, strict=True)]
    spec = ModelSpec(
        name=name,
        target=None,
        support="any",
        architecture=Architecture(
            forcings=len(schema.forcings), statics=len(schema.statics), encoder=size, decoder=True
        ),
        schema=schema,
        scaler=scaler,
        windows=windows,
        tokens=known_tokens(schema, training),
        ranges=seen(schema, training, streams),
        provenance=provenance,
    )
    job = _Job(
        records=[record.standardised(scaler) for record in records],
        splits=splits,
        streams=streams if any(stream is not None for stream in streams or ()) else None,
        spec=spec,
        schedule=schedule,
        shares=shares,
        validation=validation,
        checkpoint=checkpoint,
    )
    return (devices or Devices()).launch(partial(_pretrain, job=job))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """All that a process has to know."""

    records: Sequence[Record]
    splits: Sequence[Split]
    streams: Sequence[Stream | None] | None
    spec: ModelSpec
    schedule: Schedule
    shares: Sequence[float]
    validation: Validation | None
    checkpoint: Checkpoint | None


def _pretrain(runner: Runner, *, job: _Job) -> tuple[Model, History]:
    spec, schedule = job.spec, job.schedule
    with seeded(schedule.seed, runner):
        network = StefaLand(spec.architecture)
        objective = Reconstruction(
            network,
            runner=runner,
            masking=GroupMasking.from_schema(spec.schema),
            seed=schedule.seed,
        )
        find = partial(Windows.find, length=spec.windows.length, spin_up=0, least_known=0.5)
        found = find(job.records, shares=job.shares)
        history = fit(
            objective,
            _supply(job, found, partial(find, each=False)),
            schedule=schedule,
            runner=runner,
            description=f"pretraining {spec.name}",
            validation=job.validation,
            validation_windows=validation_windows(found, job.splits, job.records),
            checkpoint=job.checkpoint,
            recipe={"model": json.loads(spec.to_json())},
        )
        return finished(spec, network, history, runner)


def _supply(job: _Job, found: Windows, find: Callable[..., Windows]) -> Supply:
    """Return what is drawn from: the training sites' windows, or streams of them."""
    if job.streams is None:
        return found.restricted([split.train for split in job.splits])
    sources = [
        record.select(split.train) if stream is None else stream
        for record, split, stream in zip(job.records, job.splits, job.streams, strict=True)
    ]
    return StreamedWindows(
        sources,
        prepare=partial(_prepared, scaler=job.spec.scaler),
        find=find,
        shares=job.shares,
        seed=job.schedule.seed,
    )


def _prepared(record: Record, *, scaler: Scaler, raw: bool) -> tuple[Record, None]:
    """Return a record as the network reads it; there are no site weights."""
    return (record.standardised(scaler) if raw else record), None
