"""Draw where a streamflow model is better, and where worse, than another one.

    python examples/change_map.py DATA OLD NEW OUT.png

DATA as for `train_release.py`. OLD and NEW are models, by name or file, or predictions in a NetCDF
file: those of a model that only an older version of the package can read. Draws the change of NSE
at the CAMELS-US basins of validation, and prints its median by aridity, snow and size.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import xarray as xr
from robustness import PERIODS
from train_release import SCHEMA, aligned, held_out_sites

from xstefa.binding import bind
from xstefa.datasets import US_OUTLINE
from xstefa.errors import XstefaWarning
from xstefa.evaluation.evaluate import METRICS
from xstefa.plotting.scores import plot_map

REGIMES = {"aridity": (1.0,), "snow_fraction": (0.2,), "catchment_area": (200.0, 1000.0)}


def predicted(dataset: xr.Dataset, source: str) -> xr.DataArray:
    """Return the predictions of a model, or those in a file."""
    if source.endswith(".nc"):
        return xr.open_dataarray(source).sel(basin=dataset.basin)
    return dataset.stefa.predict("streamflow", model=source).compute()


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("old")
@click.argument("new")
@click.argument("out", type=click.Path(path_type=Path))
def main(data: Path, old: str, new: str, out: Path) -> None:
    """Compare OLD with NEW, and draw OUT."""
    warnings.simplefilter("ignore", XstefaWarning)
    begin, since, end = PERIODS["camels"]
    dataset = held_out_sites(aligned(data, "camels"), "camels").sel(time=slice(begin, end)).load()
    bound = bind(dataset, SCHEMA)
    observed = bound.observed("streamflow").sel(time=slice(since, end))
    found = [predicted(dataset, source).sel(time=observed.time) for source in (old, new)]
    known = np.isfinite(found[0]) & np.isfinite(found[1])
    before, after = (METRICS["nse"](each.where(known), observed) for each in found)
    change = (after - before).rename("change of NSE").assign_attrs(units="1")
    print(f"all: {float(change.median()):+.3f}, better at {int((change > 0).sum())}/{change.size}")
    for name, limits in REGIMES.items():
        values = bound.static[name].values
        borders = (-np.inf, *limits, np.inf)
        for low, high in pairwise(borders):
            part = change.values[(values >= low) & (values < high)]
            print(f"{name} {low:g} to {high:g}: {np.median(part):+.3f} at {part.size}")
    change = change.assign_coords(lat=dataset.lat, lon=dataset.lon)
    change.attrs["long_name"] = "change of NSE"
    title = f"NSE of {Path(new).stem} less that of {Path(old).stem}"
    plot_map(change, limits=(-0.1, 0.1), outline=US_OUTLINE, title=title).savefig(out, dpi=90)


if __name__ == "__main__":
    main()
