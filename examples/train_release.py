"""Train the released weights and their baselines from the source data, one stage per call.

    python examples/train_release.py DATA OUT pretrain
    python examples/train_release.py DATA OUT streamflow
    python examples/train_release.py DATA OUT streamflow --baseline
    ...

DATA holds camels_us.nc, mopex_us.nc, fluxnet_daily.nc, conus_smap_nldas.nc and drb_hru.nc. Every
site for which `held_out` is true is left out of all stages. With the same seed, threads and
versions the result is the same: the released heads were made with the seeds 1 and 2 (--seed 2
--tag -2), those of points and the encoder with --threads 2, all else with 1. Times: see the model
cards.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
import xarray as xr

import xstefa
from xstefa.binding import bind
from xstefa.evaluation.evaluate import METRICS
from xstefa.evaluation.holdout import HashedSites
from xstefa.evaluation.intervals import median_interval
from xstefa.evaluation.sites import Sites, only_sites
from xstefa.inference.windows import WindowPolicy
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.schema import load_schema
from xstefa.training.finetune import HeadRecipe, finetune
from xstefa.training.loop import Schedule

SCHEMA = load_schema()
HOLDOUT = HashedSites()
WINDOWS = WindowPolicy(length=365, spin_up=150, blend=30)
ENCODER = EncoderSize(width=128, layers=4, heads=4, feedforward=256, hidden=32, positions=366)
PRETRAINING = Schedule(steps=1600, batch_size=32, learning_rate=1e-3)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset: its file, what names its sites, how often pretraining draws from it."""

    file: str
    ids: str
    share: float


SOURCES = {
    "camels": Source(file="camels_us.nc", ids="basin", share=0.45),
    "mopex": Source(file="mopex_us.nc", ids="basin", share=0.2),
    "smap": Source(file="conus_smap_nldas.nc", ids="cell", share=0.17),
    "fluxnet": Source(file="fluxnet_daily.nc", ids="station_id", share=0.15),
    "drb": Source(file="drb_hru.nc", ids="hru_id", share=0.03),
}


# Single precision: a cell state of 8 significant bits forgets a snow pack that grows by millimetres
# (measured: 6 % error of the state, 17 % of the gradient).
HEAD_SCHEDULE = Schedule(steps=10_000, batch_size=64, learning_rate=1e-3, precision="fp32", seed=1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A target: where it is observed, and how its head is trained."""

    target: str
    support: str
    sources: dict[str, float]
    head: HeadSize
    schedule: Schedule
    recipe: HeadRecipe


TASKS = {
    "streamflow": Task(
        target="streamflow",
        support="any",
        sources={"camels": 0.75, "mopex": 0.25},
        head=HeadSize(hidden=192, link="softplus", scale=2.0),
        schedule=HEAD_SCHEDULE,
        recipe=HeadRecipe(token_dropout=0.03, stride=215, encoding="bf16"),
    ),
    "soil-moisture-grid": Task(
        target="soil_moisture",
        support="grid",
        sources={"smap": 1.0},
        head=HeadSize(hidden=128, link="logistic"),
        schedule=replace(HEAD_SCHEDULE, steps=2000),
        recipe=HeadRecipe(token_dropout=0.1, centred=0.7, stride=61, encoding="bf16"),
    ),
    # Soil moisture is known at some fifty towers only. The satellite's cells teach the course of
    # drying and wetting; half of the windows are theirs, and the head is small.
    "soil-moisture-point": Task(
        target="soil_moisture",
        support="point",
        sources={"fluxnet": 0.5, "smap": 0.5},
        head=HeadSize(hidden=64, link="logistic"),
        schedule=replace(HEAD_SCHEDULE, steps=400),
        recipe=HeadRecipe(
            loss="nse", scale=0.02, token_dropout=0.25, centred=0.9, stride=61, encoding="bf16"
        ),
    ),
}


def opened(data: Path, name: str) -> xr.Dataset:
    """Open a source; the cells of the lattice get names, by which they are held out."""
    dataset = xr.open_dataset(data / SOURCES[name].file)
    if name != "smap":
        return dataset
    cells = dataset[["lat", "lon"]].stack(site=("lat", "lon")).site.to_index()
    names = np.array([f"{name}:{cell}" for cell in cells])
    shape = (dataset.sizes["lat"], dataset.sizes["lon"])
    return dataset.assign_coords(cell=(("lat", "lon"), names.reshape(shape)))


def aligned(data: Path, name: str) -> xr.Dataset:
    """Open a source to learn a target from: the same weather on the same day in all of them."""
    dataset = opened(data, name)
    if name == "mopex":
        # Its days of precipitation end earlier: at 47 gauges that CAMELS-US has too, the median
        # correlation with Daymet is 0.58 on the same day and 0.76 a day later.
        dataset["prcp"] = dataset["prcp"].shift(time=1)
    return dataset


def held_out_sites(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Return the sites of a source that no stage of training saw."""
    sites = Sites.of(dataset, bind(dataset, SCHEMA).layout, name=SOURCES[source].ids)
    return only_sites(dataset, sites, HOLDOUT.folds(sites)[0].test_sites)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.argument("stage", type=click.Choice(["pretrain", *TASKS]))
@click.option("--baseline", is_flag=True, help="Train the plain LSTM instead.")
@click.option("--threads", default=2, help="Two stages with one each beat one with two.")
@click.option("--steps", type=int, help="Instead of the recipe's number.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--sources", help="Comma-separated subset of the task's sources.")
@click.option("--tag", default="", help="Appended to the model's name.")
def main(data, out, stage, baseline, threads, steps, seed, sources, tag):
    """Run one stage; the model, its checkpoint and its learning curve go to OUT.

    A stage that was interrupted goes on where it was when it is called again.
    """
    torch.set_num_threads(threads)
    xstefa.set_options(progress=True)
    name = ("lstm-" if baseline else "stefaland-") + stage + tag
    changes = {k: v for k, v in {"steps": steps, "seed": seed}.items() if v is not None}
    common = {
        "holdout": HOLDOUT,
        "checkpoint": out / "checkpoints" / name,
        "device": "cpu",
        "name": name,
    }
    started = time.monotonic()
    if stage == "pretrain":
        model = xstefa.pretrain(
            {source: opened(data, source) for source in SOURCES},
            SCHEMA,
            size=ENCODER,
            windows=WINDOWS,
            shares={source: SOURCES[source].share for source in SOURCES},
            sites={source: SOURCES[source].ids for source in SOURCES},
            schedule=replace(PRETRAINING, **changes),
            **common,
        )
    else:
        task = TASKS[stage]
        shares = {k: v for k, v in task.sources.items() if not sources or k in sources.split(",")}
        model = finetune(
            {source: aligned(data, source) for source in shares},
            task.target,
            model=out / "stefaland-pretrain.safetensors",
            head=replace(task.head, kind="lstm") if baseline else task.head,
            support=task.support,
            shares=shares,
            sites={source: SOURCES[source].ids for source in shares},
            schedule=replace(task.schedule, **changes),
            recipe=task.recipe,
            **common,
        )
    model.save(out / name)
    seconds = time.monotonic() - started
    curve = model.spec.provenance["learning_curve"]
    (out / f"{name}.json").write_text(json.dumps({**curve, "seconds": seconds}))
    print(f"{model}: {seconds / 60:.1f} min", flush=True)
    for source in () if stage == "pretrain" else shares:
        scores = held_out_sites(aligned(data, source), source).stefa.evaluate(
            task.target, model=model, scores=["nse", "correlation", "ubrmse", "rmse"]
        )
        print(
            source, {k: str(median_interval(v.values)) for k, v in scores.items() if k in METRICS}
        )


if __name__ == "__main__":
    main()
