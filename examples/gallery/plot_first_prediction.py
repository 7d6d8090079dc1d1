"""
A first prediction
==================

A dataset of basins goes in, streamflow comes out, in the same frame: the same dimensions,
coordinates and labels, with units and attributes.
"""

import xstefa
from xstefa.plotting import hydrograph

ds = xstefa.open_sample("camels_us")
ds = ds.set_coords("gauge_name").isel(basin=ds.held_out.values)  # basins that no training has seen
ds.sizes

# %%
# The accessor shows what was understood: which variable is which token of the model, by which rule,
# in which units, and what is missing. What is missing is "not known" to the model, not zero.

ds.stefa

# %%
# One line predicts. A dataset opened with ``chunks={}`` would give a lazy result.

streamflow = ds.stefa.predict("streamflow")
streamflow

# %%
# These basins have gauges, so the prediction can be judged. NSE is 1 where all is right, and 0 for
# a model that always says the mean.

ds.stefa.evaluate("streamflow", scores=["nse", "kge"])[["nse", "kge"]].to_dataframe().round(2)

# %%
# A year of one of them.

basin = ds.basin.values[0]
figure = hydrograph(
    streamflow.sel(basin=basin),
    ds.streamflow.sel(basin=basin),
    precipitation=ds.prcp.sel(basin=basin),
    period=slice("1995-10-01", "1996-09-30"),
)
