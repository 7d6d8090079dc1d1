"""Train the released weights and their baselines from the source data, one stage per call.

    python examples/train_release.py DATA OUT pretrain
    python examples/train_release.py DATA OUT streamflow
    python examples/train_release.py DATA OUT streamflow --baseline
    ...

DATA holds the files named in `SOURCES`. What `HOLDOUT` marks is left out of all stages: two tenths
of all sites by a hash of their names, and whole rivers outside the United States. `VALIDATION` is
what choices are made on; `tests` is scored once, at the end. With the same seed, threads and
versions the result is the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import xarray as xr

import xstefa
from xstefa.binding import bind
from xstefa.evaluation.evaluate import METRICS
from xstefa.evaluation.intervals import median_interval
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.model.checkpoint import Model
from xstefa.schema import load_schema
from xstefa.splits.holdout import TEST_SALT, AllTests, HashedSites, NamedSites
from xstefa.splits.sites import Sites, only_sites
from xstefa.training.finetune import HeadRecipe, finetune
from xstefa.training.options import Schedule
from xstefa.windows import SegmentPolicy, WindowPolicy

SCHEMA = load_schema()

# The network, the windows that it is pretrained on, and those that heads learn on and predict with.
ENCODER = EncoderSize(
    attention="causal", band=128, width=128, layers=4, heads=4, feedforward=256, hidden=32
)
PRETRAINING_WINDOWS = SegmentPolicy(length=640, spin_up=128)
WINDOWS = SegmentPolicy(length=1095, spin_up=365)
# Soil forgets within months, and its records are short.
SHORT_WINDOWS = SegmentPolicy(length=548, spin_up=183)
PRETRAINING = Schedule(steps=3000, batch_size=32, learning_rate=1e-3, precision="bf16")

# Basins outside the United States by river system: gauges that are nested, on one river, or (upper
# Danube) joined by karst are never on both sides of a split. A system is held out as a whole if the
# hash holds out one of its gauges; and the Thur, the Severn, the Durance and the Pascoe are, by
# choice, to have alpine, humid, snow-fed and tropical rivers among those that are judged by.
RIVERS = {
    "bruche": ("A273011002",),
    "moselle": ("A605102001", "camelslx_054", "camelslx_055"),
    "meuse": ("B222001001",),
    "canche": ("E540031001",),
    "somme": ("E645651001",),
    "seine": ("F439000101", "H010002001", "H120101001", "H622101001"),
    "trieux": ("J171171001",),
    "odet": ("J421191001",),
    "loire": ("K134181001", "K265401001", "K731261001"),
    "fier": ("V123521001",),
    "durance": ("X031001001", "X045401001"),
    "var": ("Y643401001",),
    "taravo": ("Y862000101",),
    "danube": (
        "DE110000", "DE110010", "DE110020", "DE110030", "DE110080", "DE110090", "DE110100",
    ),
    "rot": ("DE110040",),
    "iller": ("DE110060",),
    "riss": ("DE110120",),
    "westernach": ("lamah_1145",),
    "severn": (
        "camelsgb_54001", "camelsgb_54002", "camelsgb_54029", "camelsgb_54032", "camelsgb_54057",
        "camelsgb_54095",
    ),
    "wissey": ("camelsgb_33029",),
    "coln": ("camelsgb_39020",),
    "brathay": ("camelsgb_73014",),
    "thur": (
        "foen_2044", "foen_2112", "foen_2126", "foen_2181", "foen_2303", "foen_2305", "foen_2374",
        "foen_2386", "foen_2414", "foen_2468",
    ),
    "wiese": ("camelsch_4001",),
    "wutach": ("camelsch_4003",),
    "sueiro": ("camelses_1414",),
    "pascoe": ("camelsaus_102101A",),
    "cascapedia": ("01BG005",),
    "salmon": ("08KC001",),
}  # fmt: skip
VALIDATION_RIVERS = ("trieux", "odet", "danube", "coln", "thur", "severn", "durance", "pascoe")
TEST_RIVERS = ("seine", "loire")


def gauges(rivers: tuple[str, ...]) -> NamedSites:
    """Hold out whole rivers."""
    return NamedSites(tuple(gauge for river in rivers for gauge in RIVERS[river]))


VALIDATION = AllTests((HashedSites(), gauges(VALIDATION_RIVERS)))
HOLDOUT = AllTests((VALIDATION, HashedSites(salt=TEST_SALT), gauges(TEST_RIVERS)))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset: its file, what names its sites, how often pretraining draws from it."""

    file: str
    ids: str | None = "basin"
    share: float = 0.0


SOURCES = {
    "camels": Source(file="camels_us.nc", share=0.36),
    "mopex": Source(file="mopex_us.nc", share=0.15),
    "smap": Source(file="conus_smap_nldas.nc", ids="cell", share=0.14),
    "fluxnet": Source(file="fluxnet_daily.nc", ids="station_id", share=0.12),
    "drb": Source(file="drb_hru.nc", ids="hru_id", share=0.03),
    "france": Source(file="world/camels_fr_sample.nc", share=0.05),
    "germany": Source(file="world/camels_de_sample.nc", share=0.03),
    "britain": Source(file="world/camels_gb_sample.nc", share=0.02),
    "thur": Source(file="world/switzerland_thur.nc"),
    "caravan": Source(file="world/caravan_sample.nc", share=0.04),
    "canada": Source(file="world/canada_sample.nc", share=0.02),
    "rhine": Source(file="world/rhine_grid_1990.nc", ids=None, share=0.02),
    "moselle": Source(file="world/moselle_grid.nc", ids=None, share=0.01),
    "stehekin": Source(file="world/stehekin_grid.nc", ids=None, share=0.01),
}


# Single precision: a cell state of 8 significant bits forgets a snow pack that grows by millimetres
# (measured: 6 % error of the state, 17 % of the gradient).
HEAD_SCHEDULE = Schedule(
    steps=10_000, batch_size=64, learning_rate=1e-3, average=0.998, precision="fp32", seed=1
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A target: where it is observed, and how its head is trained."""

    target: str
    support: str
    sources: dict[str, float]
    judged: tuple[str, ...]
    windows: WindowPolicy
    heads: tuple[HeadSize, ...]
    schedule: Schedule
    recipe: HeadRecipe


# The shares of the world: by how many rivers there are to learn from.
RIVER_SHARES = {
    "camels": 0.6,
    "mopex": 0.2,
    "france": 0.08,
    "germany": 0.03,
    "britain": 0.02,
    "caravan": 0.05,
    "canada": 0.02,
}
JUDGED_RIVERS = ("camels", "mopex", "france", "germany", "britain", "thur", "caravan")

# Soil moisture is known at some fifty towers only. The satellite's cells teach the course of drying
# and wetting; half of the windows are theirs, and the head is small.
TOWERS = Task(
    target="soil_moisture",
    support="point",
    sources={"fluxnet": 0.5, "smap": 0.5},
    judged=("fluxnet",),
    windows=SHORT_WINDOWS,
    heads=(HeadSize(hidden=64, link="logistic"),),
    schedule=replace(HEAD_SCHEDULE, steps=400),
    recipe=HeadRecipe(
        loss="nse", scale=0.02, token_dropout=0.25, centred=0.9, stride=61, encoding="bf16"
    ),
)

TASKS = {
    "streamflow": Task(
        target="streamflow",
        support="any",
        sources=RIVER_SHARES,
        judged=JUDGED_RIVERS,
        # Many different windows teach more than long ones.
        windows=replace(WINDOWS, length=730),
        heads=(HeadSize(hidden=128, link="softplus", scale=2.0),),
        schedule=replace(HEAD_SCHEDULE, steps=8000, batch_size=32, learning_rate=3e-3),
        # What is hidden and changed costs skill where all is known: 0.05 of NSE at 40 and 50 %.
        recipe=HeadRecipe(
            token_dropout=0.03,
            group_dropout=0.15,
            perturbation=0.1,
            needs=(("precipitation",), ("temperature_mean", "potential_evapotranspiration")),
            encoding="bf16",
        ),
    ),
    # The head that conserves water. It cannot do without any of its three drivers.
    "water-balance": Task(
        target="streamflow",
        support="any",
        sources=RIVER_SHARES,
        judged=JUDGED_RIVERS,
        windows=WINDOWS,
        heads=(HeadSize(kind="hbv", hidden=64),),
        # Parameters are bounded by sigmoids, which take large steps. Rain that is changed and flow
        # that is not cannot be had together, so little of it.
        schedule=replace(HEAD_SCHEDULE, steps=2000, learning_rate=8e-3),
        recipe=HeadRecipe(
            token_dropout=0.03, group_dropout=0.4, perturbation=0.2, stride=1460, encoding="bf16"
        ),
    ),
    "soil-moisture-grid": Task(
        target="soil_moisture",
        support="grid",
        sources={"smap": 1.0},
        judged=("smap",),
        windows=SHORT_WINDOWS,
        heads=(HeadSize(hidden=128, link="logistic"),),
        schedule=replace(HEAD_SCHEDULE, steps=1000),
        recipe=HeadRecipe(token_dropout=0.1, centred=0.7, stride=61, encoding="bf16"),
    ),
    "soil-moisture-point": TOWERS,
    # Reservoirs know before training how soil dries, which fifty towers cannot teach better: see
    # `towers.py`. At cells, which teach more, `resconn` alone is best.
    "soil-water-point": replace(
        TOWERS,
        heads=(HeadSize(kind="reservoirs", hidden=32, link="logistic"),),
        schedule=replace(HEAD_SCHEDULE, steps=200, learning_rate=1e-3),
        recipe=replace(TOWERS.recipe, centred=0.5),
    ),
}


@cache
def opened(data: Path, name: str) -> xr.Dataset:
    """Open a source, mended where its description says that it is wrong."""
    dataset = xr.open_dataset(data / SOURCES[name].file)
    if name == "smap":  # the cells of the lattice get names, by which they are held out
        cells = dataset[["lat", "lon"]].stack(site=("lat", "lon")).site.to_index()
        names = np.array([f"{name}:{cell}" for cell in cells])
        shape = (dataset.sizes["lat"], dataset.sizes["lon"])
        return dataset.assign_coords(cell=(("lat", "lon"), names.reshape(shape)))
    if name == "caravan":  # potential evapotranspiration of ERA5-Land
        return dataset.drop_vars("pet")
    if name == "canada":  # the unit of the slope is not known
        dataset["elev_mean"].attrs["units"] = "m"
        return dataset.drop_vars("slope_mean")
    if name == "rhine":  # its neighbours are alike
        dataset = dataset.isel(lat=slice(None, None, 6), lon=slice(None, None, 6))
    if SOURCES[name].ids is None:
        dataset["precipitation"] = dataset["precipitation"].where(~near_held_out(data, dataset))
    return dataset


@cache
def held_out_gauges(data: Path) -> list[tuple[float, float]]:
    """Return latitude and longitude of the gauges in Europe that are held out."""
    basins = [opened(data, source) for source in ("france", "germany", "thur")]
    held = [part.isel(basin=HOLDOUT.named(part.basin.values.astype(str))) for part in basins]
    return [place for part in held for place in zip(part.lat.values, part.lon.values, strict=True)]


def near_held_out(data: Path, grid: xr.Dataset, degrees: float = 0.6) -> xr.DataArray:
    """Mark the cells around gauges of rivers that are held out."""
    near = xr.zeros_like(grid.lat * grid.lon, dtype=bool)
    for lat, lon in held_out_gauges(data):
        near |= (abs(grid.lat - lat) < degrees) & (abs(grid.lon - lon) < degrees)
    return near


def aligned(data: Path, name: str) -> xr.Dataset:
    """Open a source to learn a target from: the same weather on the same day in all of them."""
    dataset = opened(data, name)
    if name == "mopex":
        # Its days of precipitation end earlier: at 47 gauges that CAMELS-US has too, the median
        # correlation with Daymet is 0.58 on the same day and 0.76 a day later.
        return dataset.assign(prcp=dataset["prcp"].shift(time=1))
    return dataset


def pretrained(
    data: Path,
    *,
    size: EncoderSize = ENCODER,
    windows: WindowPolicy = PRETRAINING_WINDOWS,
    **how: Any,
) -> Model:
    """Pretrain an encoder on the sources that have a share of it, as `xstefa.pretrain` does."""
    drawn = {name: source.share for name, source in SOURCES.items() if source.share}
    return xstefa.pretrain(
        {source: opened(data, source) for source in drawn},
        SCHEMA,
        size=size,
        windows=windows,
        shares=drawn,
        sites={source: ids for source in drawn if (ids := SOURCES[source].ids)},
        **how,
    )


def held_out_sites(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Return the sites of a source that no stage of training saw, and choices are made on."""
    sites = Sites.of(dataset, bind(dataset, SCHEMA).layout, name=SOURCES[source].ids)
    return only_sites(dataset, sites, VALIDATION.named(sites.ids))


def with_rivers(sites: xr.Dataset, source: str) -> xr.Dataset:
    """Say on which river each site is: what is wrong at one gauge is often so at the next."""
    names = sites[SOURCES[source].ids]
    rivers = {gauge: river for river, gauges in RIVERS.items() for gauge in gauges}
    found = [rivers.get(str(name), str(name)) for name in names.values]
    return sites.assign_coords(river=(names.dims, found))


def tests(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Return the sites that neither training nor any choice saw: to be scored once, at the end."""
    sites = Sites.of(dataset, bind(dataset, SCHEMA).layout, name=SOURCES[source].ids)
    return only_sites(dataset, sites, HOLDOUT.named(sites.ids) & ~VALIDATION.named(sites.ids))


def baselines(heads: tuple[HeadSize, ...]) -> Iterator[HeadSize]:
    """Yield a plain LSTM in the place of each head."""
    for head in heads:
        link = "softplus" if head.kind == "hbv" else head.link
        yield replace(head, kind="lstm", link=link)


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
        model = pretrained(data, schedule=replace(PRETRAINING, **changes), **common)
    else:
        task = TASKS[stage]
        shares = {k: v for k, v in task.sources.items() if not sources or k in sources.split(",")}
        model = finetune(
            {source: aligned(data, source) for source in shares},
            task.target,
            model=out / "stefaland-pretrain.safetensors",
            head=tuple(baselines(task.heads) if baseline else task.heads),
            # Also of heads that do not read it: they are to stand beside others.
            encoder="none" if baseline else "frozen",
            support=task.support,
            shares=shares,
            sites={source: ids for source in shares if (ids := SOURCES[source].ids)},
            schedule=replace(task.schedule, **changes),
            recipe=replace(task.recipe, windows=task.windows),
            **common,
        )
    model.save(out / name)
    seconds = time.monotonic() - started
    curve = model.spec.provenance["learning_curve"]
    (out / f"{name}.json").write_text(json.dumps({**curve, "seconds": seconds}))
    print(f"{model}: {seconds / 60:.1f} min", flush=True)
    for source in () if stage == "pretrain" else task.judged:
        scores = held_out_sites(aligned(data, source), source).stefa.evaluate(
            task.target, model=model, scores=["nse", "correlation", "ubrmse", "rmse"]
        )
        print(
            source, {k: str(median_interval(v.values)) for k, v in scores.items() if k in METRICS}
        )


if __name__ == "__main__":
    main()
