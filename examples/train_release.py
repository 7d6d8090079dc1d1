"""Train the released weights and their baselines from the source data, one stage per call.

    python examples/train_release.py DATA OUT pretrain
    python examples/train_release.py DATA OUT streamflow
    python examples/train_release.py DATA OUT streamflow --baseline
    ...

DATA holds camels_us.nc, mopex_us.nc, fluxnet_daily.nc, conus_smap_nldas.nc and drb_hru.nc. Every
site for which `held_out` is true is left out of all stages. With the same seed, threads and
versions the result is the same. Times on 2 cores: see the model cards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
import xarray as xr

from xstefa.binding import bind
from xstefa.evaluation.holdout import RELEASE_SALT, held_out
from xstefa.inference.engine import Engine, EngineKey
from xstefa.inference.windows import WindowPolicy
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.model.checkpoint import Model, load_model
from xstefa.schema import load_schema
from xstefa.training.finetune import train_head, variance_weights
from xstefa.training.loop import Schedule
from xstefa.training.pretrain import pretrain_encoder
from xstefa.training.samples import Record, fit_scaler

SCHEMA = load_schema()
WINDOWS = WindowPolicy(length=365, spin_up=150, blend=30)
ENCODER = EncoderSize(width=128, layers=4, heads=4, feedforward=256, hidden=32, positions=366)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset: its file, what names its sites, how often pretraining draws from it."""

    file: str
    ids: str | None
    share: float


SOURCES = {
    "camels": Source(file="camels_us.nc", ids="basin", share=0.45),
    "mopex": Source(file="mopex_us.nc", ids="basin", share=0.2),
    "smap": Source(file="conus_smap_nldas.nc", ids=None, share=0.17),
    "fluxnet": Source(file="fluxnet_daily.nc", ids="station_id", share=0.15),
    "drb": Source(file="drb_hru.nc", ids="hru_id", share=0.03),
}


# Single precision: a cell state of 8 significant bits forgets a snow pack that grows by millimetres
# (measured: 6 % error of the state, 17 % of the gradient).
HEAD_SCHEDULE = Schedule(
    steps=4500, batch_size=64, learning_rate=1e-3, precision="fp32", seed=1
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A target: where it is observed, and how its head is trained."""

    target: str
    support: str
    sources: dict[str, float]
    head: HeadSize
    schedule: Schedule
    token_dropout: float = 0.1
    centred: float = 0.7
    stride: int = 61


TASKS = {
    "streamflow": Task(
        target="streamflow",
        support="any",
        sources={"camels": 0.75, "mopex": 0.25},
        head=HeadSize(hidden=192, link="softplus", scale=2.0),
        schedule=HEAD_SCHEDULE,
        token_dropout=0.03,
        centred=0.0,
        stride=215,
    ),
    "soil-moisture-grid": Task(
        target="soil_moisture",
        support="grid",
        sources={"smap": 1.0},
        head=HeadSize(hidden=128, link="logistic"),
        schedule=replace(HEAD_SCHEDULE, steps=800),
    ),
    "soil-moisture-point": Task(
        target="soil_moisture",
        support="point",
        sources={"fluxnet": 1.0},
        head=HeadSize(hidden=128, link="logistic"),
        schedule=replace(HEAD_SCHEDULE, steps=800),
    ),
}


def read(data: Path, name: str, *, target: str | None = None) -> tuple[Record, Record]:
    """Return the training sites and the held-out sites of a source."""
    source = SOURCES[name]
    dataset = xr.open_dataset(data / source.file)
    binding = bind(dataset, SCHEMA)
    if source.ids is None:
        cells = dataset[list(binding.layout.site_dims)].stack(site=binding.layout.site_dims)
        ids = [f"{name}:{cell}" for cell in cells.site.to_index()]
    else:
        ids = [str(i) for i in dataset[source.ids].values]
    record = Record.from_binding(binding, ids=ids, target=target)
    land = np.isfinite(record.forcing[..., 0]).any(axis=1)
    out = held_out(ids)
    return record.select(land & ~out), record.select(land & out)


def predict_record(model: Model, record: Record) -> np.ndarray:
    """Predict all days of a record, shape (site, day)."""
    key = EngineKey(model=model, device="cpu", precision="fp32", batch_size=32)
    days = record.first_day + np.arange(record.forcing.shape[1], dtype=np.int64)
    return Engine(key).predict(
        record.forcing.copy(), record.static.copy(), days=days, record=days, out=days
    )


def score(predicted: np.ndarray, observed: np.ndarray) -> dict[str, float]:
    """Return medians over sites of NSE, correlation and unbiased RMSE."""
    rows = []
    for found, known in zip(predicted, observed, strict=True):
        both = np.isfinite(found) & np.isfinite(known)
        if both.sum() < 30:
            continue
        f, k = found[both].astype(float), known[both].astype(float)
        rows.append(
            (
                1 - ((f - k) ** 2).sum() / ((k - k.mean()) ** 2).sum(),
                np.corrcoef(f, k)[0, 1],
                np.std(f - k),
                np.sqrt(((f - k) ** 2).mean()),
            )
        )
    median = np.median(np.array(rows), axis=0)
    return dict(zip(("nse", "correlation", "ubrmse", "rmse"), map(float, median), strict=True)) | {
        "sites": len(rows)
    }


def provenance(schedule: Schedule, sources: dict[str, float]) -> dict[str, object]:
    """Return what is needed to train the same model again."""
    return {
        "recipe": "examples/train_release.py",
        "sources": sources,
        "holdout": RELEASE_SALT,
        "steps": schedule.steps,
        "batch_size": schedule.batch_size,
        "learning_rate": schedule.learning_rate,
        "seed": schedule.seed,
        "torch": torch.__version__,
    }


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.argument("stage", type=click.Choice(["pretrain", *TASKS]))
@click.option("--baseline", is_flag=True, help="Train the plain LSTM instead.")
@click.option("--threads", default=2)
@click.option("--steps", type=int, help="Instead of the recipe's number.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--sources", help="Comma-separated subset of the task's sources.")
@click.option("--tag", default="", help="Appended to the model's name.")
def main(data, out, stage, baseline, threads, steps, seed, sources, tag):
    """Run one stage; the model, its scores and its learning curve go to OUT."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    name = ("lstm-" if baseline else "stefaland-") + stage + tag
    changes = {k: v for k, v in {"steps": steps, "seed": seed}.items() if v is not None}

    def report(step: int, model: Model, held: dict[str, Record] | None = None) -> None:
        model.save(out / name)
        scores = {k: score(predict_record(model, r), r.target) for k, r in (held or {}).items()}
        print(step, json.dumps(scores), flush=True)

    if stage == "pretrain":
        schedule = replace(Schedule(steps=1600, batch_size=32, learning_rate=1e-3), **changes)
        records = [read(data, source)[0] for source in SOURCES]
        shares = {source: SOURCES[source].share for source in SOURCES}
        model, progress = pretrain_encoder(
            records,
            schema=SCHEMA,
            scaler=fit_scaler(SCHEMA, records),
            size=ENCODER,
            windows=WINDOWS,
            schedule=schedule,
            shares=list(shares.values()),
            name=name,
            provenance=provenance(schedule, shares),
            every=report,
            interval=200,
        )
        held = {}
    else:
        task = TASKS[stage]
        schedule = replace(task.schedule, **changes)
        shares = {k: v for k, v in task.sources.items() if not sources or k in sources.split(",")}
        pairs = {source: read(data, source, target=task.target) for source in shares}
        records = [training for training, _ in pairs.values()]
        held = {source: validation for source, (_, validation) in pairs.items()}
        first = next(iter(held))
        weights = [
            variance_weights(r) if task.target == "streamflow" else np.full(len(r.ids), 1e2, "f4")
            for r in records
        ]
        model, progress = train_head(
            records,
            foundation=load_model(out / "stefaland-pretrain.safetensors"),
            encoder="none" if baseline else "frozen",
            head=replace(task.head, kind="lstm") if baseline else task.head,
            target=task.target,
            support=task.support,
            windows=WINDOWS,
            schedule=schedule,
            shares=list(shares.values()),
            weights=weights,
            token_dropout=task.token_dropout,
            stride=task.stride,
            centred=task.centred,
            name=name,
            provenance=provenance(schedule, shares),
            every=lambda step, model: report(step, model, {first: held[first]}),
            interval=500,
        )
    report(schedule.steps, model, held)
    (out / f"{name}.json").write_text(
        json.dumps({"losses": progress.losses, "seconds": progress.seconds})
    )
    print(f"{name}: {progress.seconds / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
