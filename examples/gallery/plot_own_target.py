"""
A target of your own
====================

Anything that is observed daily at some sites can be a target: here the greenness of the land,
the share of light that plants take up, at eight flux towers. One entry describes it.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt

import xstefa
from xstefa.splits.holdout import NamedSites

plt.rcParams["date.converter"] = "concise"

towers = xstefa.open_sample("fluxnet").sel(time=slice("2008", "2011")).load()
towers = towers.assign_coords(station=towers.station_id.values)

# %%
# The name, which the observations have as well; units, to which they are converted; the range,
# outside of which a value is an error. Greenness is also something that models read: ``hidden``
# keeps it from this one, and whoever forgets it is told.

described = Path(mkdtemp()) / "greenness.toml"
_ = described.write_text("""\
[[target]]
name = "fapar"
units = "1"
long_name = "share of light that plants take up"
cell_methods = "time: mean"
valid_range = [0, 1]
hidden = ["fapar"]
""")

# %%
# Two towers are held out. So few steps are for this page: leave ``steps`` out for a better model.

out = ["IT-Ren", "US-Ton"]
model = towers.stefa.finetune(
    described, holdout=NamedSites(out), steps=40, batch_size=8, learning_rate=3e-3
)
print(model)

# %%
# The model is a file like any other: ``predict``, ``evaluate``, ``explain`` and the command line
# take it. At the towers that it has not seen:

model.save(described.with_suffix(".safetensors"))
unseen = towers.sel(station=out)
unseen.stefa.evaluate(model, scores=["nse", "correlation"]).to_dataframe().round(2)

# %%

found = unseen.stefa.predict(model)
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for axis, name in zip(axes, out, strict=True):
    unseen.fapar.sel(station=name).plot(ax=axis, color="black", label="observed")
    found.sel(station=name).plot(ax=axis, color="tab:green", label="predicted")
    axis.set(title=name, xlabel="")
_ = axes[1].legend()
