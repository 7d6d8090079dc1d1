"""
On a cluster
============

A prediction of a chunked dataset is a dask graph of few, large tasks: each reads its piece, runs
the network and hands its block on. Any scheduler runs it; the weights are loaded once a process.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import xarray as xr
from dask.distributed import Client

import xstefa

# %%
# Two workers in this process stand for a cluster: give ``Client`` the address of yours.

client = Client(
    processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=40
)

grid = xstefa.open_sample("conus_grid", chunks={"time": -1, "lat": 6, "lon": 12})
grid = grid.sel(time=slice("2011-10-01", "2012-08-31"))
moisture = grid.stefa.predict("soil_moisture")
print(len(moisture.__dask_graph__()), "tasks for", moisture.data.npartitions, "blocks")

# %%
# Workers write their blocks into one store. A journal beside it says which are whole: after a
# crash, of a worker or of all, ``resume=True`` computes the others only.

store = Path(mkdtemp()) / "soil_moisture.zarr"
xstefa.to_zarr(moisture, store)
xstefa.to_zarr(moisture, store, resume=True)  # nothing is left to do

client.close()

# %%
written = xr.open_zarr(store, decode_coords="all", consolidated=False)["soil_moisture"]
figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
change = written.sel(time="2012-08-15") - written.sel(time="2012-05-15")
change.attrs = {"long_name": "change of soil moisture", "units": "m3 m-3"}
change.plot(ax=axis, cmap="BrBG")
_ = axis.set_title("From May to August 2012")
