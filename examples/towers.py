"""Cross-validate soil moisture at towers, to see what a kind of head learns from so few of them.

    python examples/towers.py DATA                     # reservoirs, resconn and the plain LSTM
    python examples/towers.py DATA reservoirs --folds 3

DATA as for `train_release.py`. Each tower is left out once, of all but those that are kept for a
test. Prints the medians over towers, beside those of an index that is the same at all of them: one
reservoir of rain that drains in 45 days at 10 degC and 2 mm d-1 of potential evapotranspiration,
faster where it is warm; its constants were chosen at these towers
(`xstefa.model.heads.reservoirs`).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import xarray as xr
from train_release import HOLDOUT, SCHEMA, TASKS, VALIDATION, aligned

from xstefa.binding import bind
from xstefa.evaluation.evaluate import METRICS
from xstefa.evaluation.intervals import median_interval
from xstefa.model.heads.reservoirs import DEMAND, Q10
from xstefa.splits.holdout import RandomGroups
from xstefa.splits.sites import Sites

TARGET, DEPTH = "soil_moisture", 10.0
TASK = {"reservoirs": "soil-water-point", "resconn": "soil-moisture-point"}


def towers(data: Path) -> xr.Dataset:
    """Open the towers that measure near the surface, but those of the test."""
    dataset = aligned(data, "fluxnet")
    sites = Sites.of(dataset, bind(dataset, SCHEMA).layout, name="station_id")
    tested = HOLDOUT.named(sites.ids) & ~VALIDATION.named(sites.ids)
    observed = dataset["swc"].isel(swc_layer=0).notnull().sum("time") > 60
    return dataset.isel(station=observed.values & ~tested).load()


def index(dataset: xr.Dataset) -> xr.DataArray:
    """Return the antecedent precipitation index, log(1 + S / 10 mm)."""
    bound = bind(dataset, SCHEMA)
    rain, warmth, demand = (
        bound.forcing[name].transpose("station", "time").values
        for name in ("precipitation", "temperature_mean", "potential_evapotranspiration")
    )
    hurried = np.log(Q10) * (np.nan_to_num(warmth, nan=10) - 10) / 10
    hurried += DEMAND * (np.nan_to_num(demand, nan=2) - 2)
    store, found = np.zeros(len(rain)), np.empty_like(rain)
    for day in range(rain.shape[1]):
        store = (store + np.nan_to_num(rain[:, day])) * np.exp(-np.exp(hurried[:, day]) / 45)
        found[:, day] = np.log1p(store / DEPTH)
    return xr.DataArray(found, dims=("station", "time"), coords={"time": dataset.time})


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("kinds", nargs=-1)
@click.option("--folds", default=5)
@click.option("--model", default="stefaland-causal", help="Foundation of the heads.")
def main(data: Path, kinds: tuple[str, ...], folds: int, model: str) -> None:
    """Cross-validate heads of KINDS."""
    warnings.simplefilter("ignore")
    dataset = towers(data)
    observed = bind(dataset, SCHEMA).observed(TARGET).compute()
    print("index", median_interval(METRICS["correlation"](index(dataset), observed).values))
    for kind in kinds or ("reservoirs", "resconn", "lstm"):
        task = TASKS[TASK.get(kind, TASK["resconn"])]
        scores = dataset.stefa.cross_validate(
            TARGET,
            holdout=RandomGroups(folds),
            sites="station_id",
            model=model,
            head=tuple(replace(head, kind=kind) for head in task.heads),
            schedule=task.schedule,
            recipe=replace(task.recipe, windows=task.windows),
        )
        found = {name: median_interval(scores[name].values) for name in ("correlation", "ubrmse")}
        print(kind, *(f"{name} {value}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
