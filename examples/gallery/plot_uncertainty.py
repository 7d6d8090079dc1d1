"""
How far to trust it
===================

Intervals that were learned at basins no training has seen, and the skill to expect at each site.
"""

import xstefa
from xstefa.plotting import hydrograph

ds = xstefa.open_sample("camels_us").set_coords("gauge_name")
ds = ds.isel(basin=ds.held_out.values)

# %%
# ``interval=0.9`` adds the bounds between which nine of ten observations should lie.

found = ds.stefa.predict("streamflow", quantiles=[0.05, 0.25, 0.5, 0.75, 0.95])
flow = ds.stefa.predict("streamflow")

basin = ds.basin.values[1]
figure = hydrograph(
    flow.sel(basin=basin),
    ds.streamflow.sel(basin=basin),
    quantiles=found.sel(basin=basin),
    precipitation=ds.prcp.sel(basin=basin),
    period=slice("1995-10-01", "1996-09-30"),
)

# %%
# Do they hold? Of these few basins, the share of days on which the gauge was inside.

scores = ds.stefa.evaluate("streamflow", scores=["coverage", "sharpness", "crps"])
scores[["coverage", "sharpness", "crps"]]

# %%
# What to expect where there is no gauge: how far a site is from those of training, in the model's
# own space, and what held-out sites at that distance had.

ds.stefa.trust("streamflow")
