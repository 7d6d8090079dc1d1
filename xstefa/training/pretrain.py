"""Pretraining: learn weather and landscape together by filling in what is hidden."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import reduce

from xstefa.arguments import checked
from xstefa.model.architecture import Architecture, EncoderSize
from xstefa.model.arithmetic import require_bfloat16
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.masking import GroupMasking
from xstefa.model.network import StefaLand
from xstefa.model.ranges import join_ranges
from xstefa.schema import Schema, load_schema
from xstefa.splits.holdout import Holdout
from xstefa.training.checkpoints import Checkpoint, as_checkpoint
from xstefa.training.data import Datasets, TrainingData, fold_all, provenance, read_all, share_list
from xstefa.training.devices import Runner, launch
from xstefa.training.losses import MaskedReconstruction
from xstefa.training.options import RunOptions, Schedule
from xstefa.training.records import Record, fit_scaler
from xstefa.training.runs import Training, versions
from xstefa.training.sampling import Windows
from xstefa.typed import Count, Natural, Positive
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
    patience: Count | None = None,
    steps: Count | None = None,
    epochs: Positive | None = None,
    batch_size: Count = 256,
    learning_rate: Positive = 1e-4,
    seed: Natural = 0,
    schedule: Schedule | None = None,
    rename: Mapping[str, str] | None = None,
    sites: str | Mapping[str, str] | None = None,
    device: str | None = None,
    devices: Count = 1,
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
    sites : str or mapping of str to str, optional
        Variable that names the sites, or one for each dataset.
    memory : str or int
        As for `StefaAccessor.finetune`. The moments of a dataset on disk are fitted to a sample of
        its sites.
    validation, patience, steps, epochs, seed, schedule
        As for `StefaAccessor.finetune`.
    rename, device, devices, precision, checkpoint, name
        Likewise.
    batch_size, learning_rate
        By default as in the paper's Table 15.

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
    given = locals()
    run = RunOptions(**{item.name: given[item.name] for item in fields(RunOptions)})
    if not isinstance(schema, Schema):
        schema = load_schema(schema or "stefaland")
    windows = windows or WindowPolicy()
    data = read_all(
        datasets,
        schema=schema,
        target=None,
        length=windows.length,
        rename=rename,
        sites=sites,
        memory=memory,
    )
    folds = fold_all(data, holdout)
    data = [part.on(fold, validation) for part, fold in zip(data, folds, strict=True)]
    ranges = reduce(join_ranges, (part.survey.ranges for part in data))
    schedule = run.schedule_for(days=sum(part.survey.days for part in data), length=windows.length)
    require_bfloat16(run.resolved.device, schedule.precision)
    scaler = fit_scaler(schema, [part.sample() for part in data])

    def prepared(part: TrainingData) -> Record:
        def prepare(record: Record) -> Record:
            return record.observed_on(part.split.days).standardised(scaler)

        return part.prepared(prepare, part.split.in_use)

    training = Pretraining(
        records=list(map(prepared, data)),
        splits=[part.split.of(part.split.in_use) for part in data],
        strides=[part.stride for part in data],
        shares=share_list(shares, data),
        spec=ModelSpec(
            name=name,
            target=None,
            support="any",
            architecture=Architecture(
                forcings=len(schema.forcings),
                statics=len(schema.statics),
                encoder=size or EncoderSize(positions=windows.length + 1),
                decoder=True,
            ),
            schema=schema,
            scaler=scaler,
            windows=windows,
            tokens=tuple(
                name for name in (*schema.forcing_names, *schema.static_names) if name in ranges
            ),
            ranges=ranges,
            provenance={
                "task": "pretraining",
                **provenance(data, holdout),
                "schedule": asdict(schedule),
                "versions": versions(),
            },
        ),
        schedule=schedule,
        patience=patience,
        checkpoint=as_checkpoint(checkpoint),
    )
    return launch(training, device=run.resolved.device, count=devices)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretraining(Training):
    """Training of encoder and decoder to reconstruct masked groups of variables (appendix A.2)."""

    def windows(self) -> Windows:
        """List the windows in which precipitation is known on half of the days."""
        length = self.spec.windows.length
        return Windows.find(
            self.records, length=length, spin_up=0, least_known=0.5, strides=self.strides
        )

    def objective(self, runner: Runner) -> MaskedReconstruction:
        """Build encoder and decoder, and the masks."""
        return MaskedReconstruction(
            StefaLand(self.spec.architecture),
            runner=runner,
            masking=GroupMasking.from_schema(self.spec.schema),
            seed=self.schedule.seed,
        )
