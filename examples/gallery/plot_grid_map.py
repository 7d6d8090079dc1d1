"""
A grid to a map
===============

Soil moisture of a grid, lazily, to a Zarr store, and as maps of a drought.
"""

from pathlib import Path
from tempfile import mkdtemp

import rioxarray  # noqa: F401 - so that arrays have .rio
import xarray as xr

import xstefa
from xstefa.plotting import soil_moisture_maps

# %%
# ``chunks={}`` keeps the file's own chunks. Nothing is read yet. The weather of this sample was
# interpolated from basins: it stands for a grid of yours.

grid = xstefa.open_sample("conus_grid", chunks={}).sel(time=slice("2011-10-01", "2012-08-31"))
moisture = grid.stefa.predict("soil_moisture")
moisture

# %%
# ``to_zarr`` writes block by block, needs the memory of a few blocks, and with ``resume=True`` goes
# on where an interrupted call stopped.

store = Path(mkdtemp()) / "soil_moisture.zarr"
xstefa.to_zarr(moisture, store)
written = xr.open_zarr(store, decode_coords="all", consolidated=False)["soil_moisture"]
written.attrs["model_name"], written.rio.crs.to_string()

# %%
# The drought of 2012: the soil of the plains dries from May to August.

figure = soil_moisture_maps(written, dates=["2012-05-15", "2012-07-01", "2012-08-15"])
