"""The tour that ``xstefa demo`` gives: three bundled datasets, from token table to picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import xarray as xr

from xstefa.datasets import open_sample
from xstefa.errors import need
from xstefa.inference.store import to_zarr

MAP_DAYS = ("2012-05-15", "2012-06-15", "2012-07-15", "2012-08-15", "2012-09-15", "2012-10-15")


def run(output: Path, *, say: Callable[[str], object]) -> list[Path]:
    """Give the tour.

    Parameters
    ----------
    output : path
        Folder for what is made; stores of an earlier tour are replaced.
    say : callable
        Receives the lines that lead through it.

    Returns
    -------
    list of Path
        What was made.

    Raises
    ------
    MissingExtraError
        Before anything is predicted, if it cannot be drawn.
    """
    need("plot", "matplotlib", job="the demo")
    output.mkdir(parents=True, exist_ok=True)
    return [
        *_maps(output, say=say),
        *_hydrographs(output, say=say),
        *_tower(output, say=say),
    ]


def _predicted(
    dataset: xr.Dataset, target: str, store: Path, *, say: Callable[[str], object]
) -> xr.DataArray:
    """Show the tokens, predict lazily, stream to Zarr, and open what was written."""
    say(repr(dataset.stefa))
    prediction = dataset.stefa.predict(target)
    say(f"\n{target}: {dict(prediction.sizes)} by {prediction.attrs['model_name']}, lazy")
    to_zarr(prediction, store, overwrite=True)
    return xr.open_zarr(store, decode_coords="all", consolidated=False)[target]


def _maps(output: Path, *, say: Callable[[str], object]) -> list[Path]:
    from xstefa.plotting import soil_moisture_maps

    say("\n== Soil moisture in the drought of 2012, on a map interpolated from basins ==\n")
    dataset = open_sample("conus_grid", chunks={}).sel(time=slice(None, MAP_DAYS[-1]))
    store = output / "soil_moisture_conus.zarr"
    moisture = _predicted(dataset, "soil_moisture", store, say=say)
    picture = output / "soil_moisture_maps.png"
    title = (
        "Predicted surface soil moisture, drought of 2012\n"
        "A demonstration: weather and land interpolated from 609 CAMELS-US basins"
    )
    soil_moisture_maps(moisture, dates=MAP_DAYS, title=title).savefig(picture, dpi=150)
    return [store, picture]


def _hydrographs(output: Path, *, say: Callable[[str], object]) -> list[Path]:
    from xstefa.plotting import hydrograph

    say("\n== Streamflow of basins the model never saw ==\n")
    basins = open_sample("camels_us", chunks={}).set_coords("gauge_name")
    basins = basins.isel(basin=basins.held_out.values.nonzero()[0])
    store = output / "streamflow_basins.zarr"
    streamflow = _predicted(basins, "streamflow", store, say=say)
    made = [store]
    for basin in basins.basin.values:
        picture = output / f"hydrograph_{basin}.png"
        hydrograph(
            streamflow.sel(basin=basin),
            basins.streamflow.sel(basin=basin),
            precipitation=basins.prcp.sel(basin=basin),
            period=slice("1995-10-01", "1997-09-30"),
        ).savefig(picture, dpi=150)
        made.append(picture)
    return made


def _tower(output: Path, *, say: Callable[[str], object]) -> list[Path]:
    from xstefa.plotting import series

    say("\n== Soil moisture at towers the model never saw ==\n")
    towers = open_sample("fluxnet", chunks={}).set_coords("station_id")
    towers = towers.isel(station=towers.held_out.values.nonzero()[0])
    store = output / "soil_moisture_towers.zarr"
    moisture = _predicted(towers, "soil_moisture", store, say=say)
    made = [store]
    for number, name in enumerate(towers.station_id.values.tolist()):
        picture = output / f"tower_{name}.png"
        series(
            moisture.isel(station=number),
            towers.swc.isel(station=number, swc_layer=0, drop=True),
            precipitation=towers.precipitation.isel(station=number),
        ).savefig(picture, dpi=150)
        made.append(picture)
    return made
