"""The main job once, end to end: what an installation must be able to do, whatever its versions."""

import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

import xstefa

with tempfile.TemporaryDirectory() as place, xstefa.set_options(cache_dir=place):
    folder = Path(place)
    basins = xstefa.open_sample("camels_us", chunks={}).isel(basin=slice(0, 3), time=slice(0, 800))
    print(basins.stefa)
    flow = basins.stefa.predict("streamflow")
    xstefa.to_zarr(flow, folder / "flow.zarr")
    xstefa.to_netcdf(flow, folder / "flow.nc")
    with (
        xr.open_zarr(folder / "flow.zarr") as stored,
        xr.open_dataset(folder / "flow.nc", decode_coords="all") as written,
    ):
        np.testing.assert_array_equal(stored.streamflow, flow)
        np.testing.assert_array_equal(written.streamflow, flow)
    grid = xstefa.open_sample("conus_grid", chunks={}).isel(time=slice(0, 400))
    few = grid.isel(lat=slice(8, 10), lon=slice(20, 22))
    assert np.isfinite(few.stefa.predict("soil_moisture")).any()
    model = basins.load().stefa.finetune("streamflow", steps=2, batch_size=4)
    print(basins.stefa.evaluate("streamflow", model=model).nse.values)
print("all is well")
