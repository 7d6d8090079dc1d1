"""Where and why a streamflow model errs, beside another one, at sites of validation.

    python examples/diagnose.py DATA OLD NEW [--picture map.png]

DATA as for `train_release.py`; OLD and NEW are names or files of models. Prints, as medians over
CAMELS-US basins (1989-10 to 1999-09), the NSE by aridity, snow, size and season, and what an
oracle would gain: one that knew the mean flow, its standard deviation, or by how many days the
answer is late; and the medians of other sources, all years. The picture shows the difference
between both at basins of the United States.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import xarray as xr
from train_release import SCHEMA, aligned, held_out_sites

import xstefa
from xstefa.binding import bind
from xstefa.datasets import US_OUTLINE
from xstefa.errors import XstefaWarning
from xstefa.evaluation.metrics import nse
from xstefa.model.checkpoint import Model
from xstefa.plotting.scores import plot_map

PERIOD = slice("1989-10-01", "1999-09-30")
SEASONS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}
# Of attributes under their names in CAMELS-US.
GROUPS = {
    "aridity": (0, 0.7, 1.2, np.inf),
    "frac_snow": (0, 0.1, 0.3, 1.01),
    "area_gages2": (0, 100, 500, np.inf),
}
WORLD = ("mopex", "france", "germany", "britain", "thur", "caravan")


def shifted(days: int) -> Callable[[xr.DataArray, xr.DataArray], xr.DataArray]:
    """Return an oracle that gives the answer some days earlier."""
    return lambda simulated, observed: simulated.shift(time=-days)


def unbiased(simulated: xr.DataArray, observed: xr.DataArray) -> xr.DataArray:
    """Give the answer the mean of what was observed, by a factor."""
    return simulated * observed.mean("time") / simulated.where(observed.notnull()).mean("time")


def stretched(simulated: xr.DataArray, observed: xr.DataArray) -> xr.DataArray:
    """Give the answer the mean and the standard deviation of what was observed."""
    known = simulated.where(observed.notnull())
    ratio = observed.std("time") / known.std("time")
    return (simulated - known.mean("time")) * ratio + observed.mean("time")


ORACLES = {
    "as it is": lambda simulated, observed: simulated,
    "a day earlier": shifted(1),
    "a day later": shifted(-1),
    "knows the mean": unbiased,
    "knows mean and standard deviation": stretched,
}


def both(data: Path, source: str, models: dict[str, Model]) -> tuple[xr.Dataset, xr.DataArray]:
    """Return the sites of a source, and observations and answers along a dimension ``series``."""
    sites = held_out_sites(aligned(data, source), source)
    observed = bind(sites, SCHEMA).observed("streamflow")
    assert observed is not None
    answers = {label: sites.stefa.predict(model).load() for label, model in models.items()}
    series = [observed.transpose(*sites.dims), *answers.values()]
    joined = xr.concat(series, dim="series", coords="minimal", compat="override")
    return sites, joined.drop_attrs().assign_coords(series=["observed", *answers])


def row(label: str, *cells: object) -> None:
    """Print a row in Markdown."""
    print(f"| {label} | {' | '.join(map(str, cells))} |", flush=True)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("old")
@click.argument("new")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False))
def main(data, old, new, picture):
    """Print tables; draw a map."""
    warnings.simplefilter("ignore", XstefaWarning)
    models = {label: xstefa.load_model(name) for label, name in {"old": old, "new": new}.items()}
    sites, series = both(data, "camels", models)
    series = series.sel(time=PERIOD)
    observed = series.sel(series="observed")
    answers = {label: series.sel(series=label).where(observed.notnull()) for label in models}
    total = {label: nse(answer, observed, dim="time") for label, answer in answers.items()}

    row("basins", "number", *models)
    print("|---" * 4 + "|")
    for name, edges in GROUPS.items():
        for low, high in pairwise(edges):
            chosen = ((sites[name] >= low) & (sites[name] < high)).values
            medians = [f"{float(scores[chosen].median()):.3f}" for scores in total.values()]
            row(f"{name} {low} to {high}", int(chosen.sum()), *medians)
    for season, months in SEASONS.items():
        part = observed.where(observed.time.dt.month.isin(months))
        scores = (nse(answer, part, dim="time") for answer in answers.values())
        row(season, len(sites.basin), *(f"{float(score.median()):.3f}" for score in scores))

    print()
    row("oracle", *models)
    print("|---" * 3 + "|")
    for label, oracle in ORACLES.items():
        gains = (nse(oracle(a, observed), observed, dim="time") for a in answers.values())
        row(label, *(f"{float(score.median()):.3f}" for score in gains))

    print()
    row("source", "sites", *models)
    print("|---" * 4 + "|")
    change = [total["new"] - total["old"]]
    for source in WORLD:
        _, found = both(data, source, models)
        before, after = (
            nse(found.sel(series=label), found.sel(series="observed"), dim="time")
            for label in models
        )
        medians = (f"{float(scores.median()):.3f}" for scores in (before, after))
        row(source, int((after - before).notnull().sum()), *medians)
        if source == "mopex":
            change.append(after - before)
    if picture is not None:
        joined = xr.concat(change, dim="basin", coords="minimal", compat="override")
        joined.attrs["long_name"] = "difference of NSE, new less old"
        plot_map(joined, limits=(-0.3, 0.3), outline=US_OUTLINE).savefig(picture, dpi=120)


if __name__ == "__main__":
    main()
