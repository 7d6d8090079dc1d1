"""
Published weights
=================

A checkpoint of the authors' training script becomes an encoder like the bundled one, to train heads
on. The file here is one of the golden vectors of the repository, small and with random weights, so
do not look for skill; the steps are those for a real one.
"""

from pathlib import Path

import matplotlib.pyplot as plt

import xstefa
from xstefa.model.scaler import Moments, Scaler

plt.rcParams["date.converter"] = "concise"

above = (folder / "tests/golden/pretrained.pt" for folder in (Path.cwd(), *Path.cwd().parents))
checkpoint = next(path for path in above if path.exists())

basins = xstefa.open_sample("camels_us").sel(time=slice("1989-10-01", "1993-09-30")).load()
basins["tmean"] = ((basins.tmin + basins.tmax) / 2).assign_attrs(units="degC")

# %%
# Sizes, layers and variables are read from the file; nothing in it is executed. Its names are
# turned into tokens. ``srad`` may mean several things, so it stays a name, and its units
# are to be said.
#
# The file does not hold how the numbers were standardised. Take the means and deviations that the
# authors' script wrote beside it; here they are those of the sample.

found = xstefa.import_published(checkpoint).spec.provenance["variables"]
print(found)
moments = {n: Moments(mean=float(basins[n].mean()), std=float(basins[n].std())) for n in found}
weather = {n: moments.pop(n) for n in ("prcp", "tmean", "srad")}
scaler = Scaler(forcings=weather, statics=moments)

encoder = xstefa.import_published(checkpoint, scaler, units={"srad": "W m-2"})
basins.stefa.tokens(encoder.schema).to_pandas()[["variable", "rule"]]

# %%
# It embeds, reconstructs, and takes a head.

basins.stefa.embed(model=encoder).sizes

# %%

model = basins.stefa.finetune("streamflow", model=encoder, steps=20, batch_size=8)
flow = basins.isel(basin=[0]).stefa.predict("streamflow", model=model)
flow.attrs["model_name"], flow.attrs["model_hash"][:12]

# %%

figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
basins.streamflow.isel(basin=0).plot(ax=axis, color="black", linewidth=0.8, label="observed")
flow.plot(ax=axis, color="tab:blue", label="random encoder, 20 steps")
axis.set(title="", xlabel="")
_ = axis.legend()
