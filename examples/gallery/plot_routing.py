"""
From runoff to discharge
========================

A prediction on a grid is the water that leaves each cell. Where it goes then is the task of a
routing model: here ECMWF's ``earthkit-hydro``, to which the prediction is one more xarray array
(``pip install earthkit-hydro earthkit-data``; where they are not, this page is built but not run).

.. image:: /_static/routing.png
"""

# sphinx_gallery_thumbnail_path = "_static/routing.png"

import heapq
from pathlib import Path
from tempfile import mkdtemp

import earthkit.hydro as ekh
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm

import xstefa

grid = xstefa.open_sample("conus_grid").sel(time=slice("2011-01-01", "2012-12-31"))
runoff = grid.stefa.predict("streamflow", model="water-balance")
runoff = runoff.sel(time="2012").mean("time", keep_attrs=True)
runoff

# %%
# A river network for a grid of yours comes with it, or from HydroSHEDS, MERIT or CaMa-Flood. For
# cells of one degree there is none, so this one follows the elevation of the sample: from the rim
# inwards each cell drains to the neighbour from which it was reached first, lowest first (priority
# flood). Directions are those of PCRaster, as on the number pad.

height = grid["elev_mean"].load()
land = height.notnull().values
rows, columns = land.shape
pad = {(i, j): 5 + 3 * i + j for i in (-1, 0, 1) for j in (-1, 0, 1)}  # north is up: i along lat
direction = np.where(land, 0, 255).astype("u1")
reached = []
for row, column in np.argwhere(land):
    near = [(row + i, column + j) for i, j in pad]
    if not all(0 <= r < rows and 0 <= c < columns and land[r, c] for r, c in near):
        direction[row, column] = 5
        reached.append((float(height[row, column]), int(row), int(column)))
heapq.heapify(reached)
while reached:
    level, row, column = heapq.heappop(reached)
    for (i, j), back in pad.items():
        at = row + i, column + j
        if 0 <= at[0] < rows and 0 <= at[1] < columns and direction[at] == 0:
            direction[at] = 10 - back
            heapq.heappush(reached, (max(level, float(height[at])), *at))

folder = Path(mkdtemp())
north_up = height.copy(data=direction).drop_attrs().sortby("lat", ascending=False)
north_up.to_dataset(name="ldd").drop_vars("crs").to_netcdf(folder / "ldd.nc")
network = ekh.river_network.create(str(folder / "ldd.nc"), "pcr_d8", use_cache=False)
network

# %%
# Runoff is a depth a day: times the area of the cell, added up along the rivers, it is discharge.

width = np.deg2rad(1) * 6371e3
area = width**2 * np.cos(np.deg2rad(runoff["lat"]))
volume = (runoff / 1000 / 86400 * area).sortby("lat", ascending=False).fillna(0.0)
discharge = ekh.upstream.sum(network, volume)
discharge = xr.DataArray(discharge).assign_attrs(long_name="mean discharge 2012", units="m3 s-1")

figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
discharge.where(discharge > 0).plot(ax=axis, norm=LogNorm(10, 1e4), cmap="Blues")
_ = axis.set_title("No real rivers: the network follows interpolated elevation")
