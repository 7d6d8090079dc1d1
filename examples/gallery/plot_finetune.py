"""
Fine-tune on ten basins
=======================

The bundled encoder has learned weather and land from many places. A head on top of it learns a
target from few sites; here from ten basins, in less than a minute.
"""

import xstefa
from xstefa.plotting.curves import plot_learning
from xstefa.splits.holdout import NamedSites

ds = xstefa.open_sample("camels_us").sel(time=slice("1989-10-01", "1993-09-30")).load()
train, test = ds.basin.values[:10].tolist(), ds.basin.values[10:].tolist()

# %%
# The holdout leaves sites out of training; the model remembers which. So few steps are for this
# page: leave ``steps`` out, and there are as many as the data are worth.

model = ds.stefa.finetune(
    "streamflow", holdout=NamedSites(tuple(test)), steps=60, batch_size=16, learning_rate=3e-3
)
print(model)

# %%
# How it learned.

figure = plot_learning(model)

# %%
# And how it does at sites that it has not seen, beside the bundled model of hundreds of basins.

own = ds.sel(basin=test).stefa.evaluate("streamflow", model=model, scores=["nse"])
bundled = ds.sel(basin=test).stefa.evaluate("streamflow", scores=["nse"])
table = own["nse"].to_dataframe(name="ten basins, 60 steps")
table.assign(bundled=bundled["nse"].values).round(2)
