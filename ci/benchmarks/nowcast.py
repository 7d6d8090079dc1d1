"""What a new day costs, going on from a state, against predicting the last year again.

    python ci/benchmarks/nowcast.py --sites 960

Both answer for the same day of the same sites: basins of the bundled sample, over and over. One
process, one thread, interleaved; the ratio of the fastest runs is printed, the size of a state, and
how far the answers lie apart.
"""

from __future__ import annotations

import time
import warnings

import click
import dask
import numpy as np
import torch
import xarray as xr

import xstefa

YEAR = 365


@click.command()
@click.option("--sites", default=960)
@click.option("--model", default="streamflow")
@click.option("--repeats", default=3)
def main(sites, model, repeats):
    """Measure."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dask.config.set(scheduler="synchronous")
    sample = xstefa.open_sample("camels_us").isel(time=slice(0, 2 * YEAR + 1)).load()
    which = np.arange(sites) % sample.sizes["basin"]
    record = sample.isel(basin=which).drop_vars("basin").chunk(basin=sites)
    loaded = xstefa.load_model(model)
    target = loaded.spec.target
    state = record.isel(time=slice(0, 2 * YEAR)).stefa.spin_up(loaded).compute()
    today, year = record.isel(time=[2 * YEAR]), record.isel(time=slice(YEAR + 1, 2 * YEAR + 1))
    period = str(today["time"].values[0])[:10]

    def timed(ds: xr.Dataset, **options) -> tuple[float, xr.DataArray]:
        started = time.perf_counter()
        found = ds.stefa.predict(target, model=loaded, **options).compute()
        return time.perf_counter() - started, found

    runs: dict[str, list[float]] = {"day": [], "year": [], "state": []}
    for _ in range(repeats):
        seconds, day = timed(today, state=state)
        runs["day"].append(seconds)
        seconds, again = timed(year, period=period)
        runs["year"].append(seconds)
        started = time.perf_counter()
        today.stefa.spin_up(loaded, state=state).compute()
        runs["state"].append(time.perf_counter() - started)
    fastest = {name: min(seconds) for name, seconds in runs.items()}
    kept = state.drop_vars("record_days").nbytes / sites / 1000
    print(f"{model}, {sites} sites, {kept:.0f} kB a site")
    for name in ("day", "state"):
        ratio = fastest["year"] / fastest[name]
        print(f"{name}: {fastest[name]:.2f} s, 1/{ratio:.0f} of the year ({fastest['year']:.2f} s)")
    print(f"apart by {float(abs(day - again).max()):.1e} {day.attrs['units']}: one year of spin-up")


if __name__ == "__main__":
    main()
