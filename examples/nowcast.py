"""Predict the days that came in since the last call, and append them to a store.

    python examples/nowcast.py weather.zarr streamflow.zarr state.nc --target streamflow

Every morning, one call at a time, it is a line of cron:

    0 6 * * *  cd /forecasts && flock -n state.nc.lock python nowcast.py weather.zarr ...

Each day is a chunk of its own, so that no day is written twice. The state is saved last: up to its
day the store is whole. What a call that was killed has left after that day, which may be arrays of
several lengths, is cut off, and those days are predicted again.
"""

from __future__ import annotations

import os

import click
import numpy as np
import xarray as xr
import zarr

import xstefa


def nowcast(
    weather: xr.Dataset,
    store: str,
    saved: str,
    *,
    target: str,
    model: str | None = None,
    step: int = 365,
) -> int:
    """Bring a store up to the last day of the weather, and return how many days that were.

    A long record, as at the first call, is handed on from state to state every `step` days, which
    is what a call that is killed can lose.
    """
    state, known = None, 0
    if os.path.exists(saved):
        with xstefa.open_state(saved) as opened:
            state = opened.load()
        cut(store, state["time"])
        known = int((weather["time"] <= state["time"]).sum())
    for first in range(known, weather.sizes["time"], step):
        days = weather.isel(time=slice(first, first + step))
        append(days.stefa.predict(target, model=model, state=state), store, new=state is None)
        state = days.stefa.spin_up(target, model=model, state=state).compute()
        xstefa.save_state(state, saved)
    return weather.sizes["time"] - known


def append(prediction: xr.DataArray, store: str, *, new: bool) -> None:
    """Write days after those that are there."""
    found = prediction.to_dataset(promote_attrs=False).compute()
    if new:
        chunks = tuple(1 if dim == "time" else size for dim, size in found.sizes.items())
        encoding = {
            prediction.name: {"chunks": chunks},
            "time": {"units": "hours since 1970-01-01"},
        }
        # Zarr has no settled form for text of fixed length.
        text = {name: v.astype(object) for name, v in found.coords.items() if v.dtype.kind == "U"}
        found = found.assign_coords(text)
        found.to_zarr(store, mode="w", consolidated=False, encoding=encoding)
    else:
        places = [name for name in found.variables if "time" not in found[name].dims]
        found = found.drop_vars(places).drop_encoding()
        found.to_zarr(store, append_dim="time", consolidated=False)


def cut(store: str, last: xr.DataArray) -> None:
    """Remove what is after a day; the lengths of what is there may differ."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    others = [name for name in group.array_keys() if name != "time"]
    time = xr.open_zarr(store, consolidated=False, drop_variables=others)["time"]
    days = int(np.flatnonzero(time == last)[0]) + 1
    for _, array in group.arrays():
        dims = array.metadata.dimension_names
        if "time" in dims and array.shape[dims.index("time")] > days:
            array.resize(
                [days if d == "time" else n for d, n in zip(dims, array.shape, strict=True)]
            )


@click.command(help=__doc__.splitlines()[0])
@click.argument("weather")
@click.argument("store")
@click.argument("saved", metavar="STATE.nc")
@click.option("--target", required=True)
@click.option("--model")
def main(weather: str, **given: str) -> None:
    engine = "zarr" if weather.endswith(".zarr") else None
    with xr.open_dataset(weather, engine=engine, chunks={}) as opened:
        click.echo(f"{nowcast(opened, **given)} days")


if __name__ == "__main__":
    main()
