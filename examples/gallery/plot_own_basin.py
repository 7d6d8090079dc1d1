"""
My basin, from a polygon and a grid, to a forecast
==================================================

All there is are a polygon and gridded weather in a Zarr store. ``aggregate`` averages the grid over
the polygon, by the share of each cell that lies in it; then the basin is predicted, and a forecast
goes on from there.
"""

from pathlib import Path
from tempfile import mkdtemp

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import shapely
import xarray as xr

import xstefa

plt.rcParams["date.converter"] = "concise"

store = Path(mkdtemp()) / "weather.zarr"
sample = xstefa.open_sample("conus_grid").sel(time=slice("2011-01-01", "2012-06-30"))
_ = sample.load().drop_encoding().chunk(time=90).to_zarr(store, consolidated=False)

# %%
# The polygon, as from a shapefile. It lies over some cells as a whole and over others in part.

outline = shapely.Polygon(
    [(-94.1, 41.2), (-91.0, 40.3), (-90.4, 42.6), (-92.6, 43.8), (-94.6, 43.1)]
)
basin = geopandas.GeoDataFrame({"name": ["mine"]}, geometry=[outline], crs="EPSG:4326")
basin = basin.set_index("name")

weather = xr.open_zarr(store, consolidated=False)
mine = weather.stefa.aggregate(basin)
mine

# %%
# The prediction up to today, and the state that it ends with.

history = mine.sel(time=slice(None, "2012-06-15"))
flow = history.stefa.predict("streamflow")
state = history.stefa.spin_up("streamflow")

# %%
# A forecast of a weather model has initial and lead times, and members. Here it is made from the
# days that came, with rain that the members disagree about more and more.

coming = mine.sel(time=slice("2012-06-16", None)).load()
leads = pd.to_timedelta(np.arange(1, coming.sizes["time"] + 1), unit="D")
spread = np.random.default_rng(1).lognormal(
    0, 0.1 * np.arange(1, leads.size + 1) ** 0.5, (20, leads.size)
)
forecast = coming.rename(time="lead_time").assign_coords(
    lead_time=leads, init_time=np.datetime64("2012-06-15")
)
rain = xr.DataArray(spread, dims=("member", "lead_time")) * forecast["prcp"]
forecast["prcp"] = rain.astype("float32").assign_attrs(coming["prcp"].attrs)

ahead = forecast.stefa.predict("streamflow", state=state)
ahead.sizes

# %%
# The members share the state of their day; nothing before it is read again.

figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
past = flow.isel(basin=0).sel(time=slice("2012-05-01", None))
axis.plot(past["time"], past, color="black", label="until today")
members = ahead.isel(basin=0).transpose("member", ...)
axis.plot(members["valid_time"], members.T, color="tab:blue", alpha=0.3, linewidth=0.8)
axis.plot(
    members["valid_time"], members.mean("member"), color="tab:blue", label="mean of the members"
)
axis.set(ylabel="streamflow [mm d-1]", title="A basin of one polygon: 15 days ahead")
_ = axis.legend()
