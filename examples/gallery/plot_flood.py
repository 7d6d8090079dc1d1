"""
What made this flood
====================

``explain`` takes one answer apart: what each forcing of each day, and the land, add to it. The
parts add up to the prediction.
"""

import xstefa
from xstefa.plotting import contributions

basins = xstefa.open_sample("camels_us").sel(time=slice("1997-10-01", None))

# %%
# September 1999: the remains of a hurricane reach a basin in the White Mountains.

flood = basins.stefa.explain("streamflow", site="01054200", day="1999-09-17", samples=2)
flood

# %%
# The parts are Shapley values: averages over all orders in which inputs can become known. Together
# with the answer of the model where nothing is known they are the prediction.

names = [name for name in flood if name.startswith("contribution") and "error" not in name]
parts = sum(float(flood[name].sum()) for name in names)
print(f"{float(flood['baseline']):.2f} + {parts:.2f} = {float(flood['prediction']):.2f} mm/d")

# %%
# Rain of the day, of the days before, and what kept the flood from being larger.

figure = contributions(flood)

# %%
# The other way round: does the model behave like water? Each probe changes the weather and asks one
# question; a row says which number was found, and between which it has to be.

probes = basins.isel(basin=[0, 3]).stefa.probe("streamflow")
probes
