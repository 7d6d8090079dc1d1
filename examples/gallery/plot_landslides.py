"""
Where landslides begin
======================

A target of one's own, a class, from attributes of one's own: 350 points in a valley of Ecuador, at
half of which a landslide began, teach a head what the terrain has to do with it, and the head draws
a map.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
from matplotlib.colors import LightSource

import xstefa
from xstefa.splits.holdout import BlocksOfSpace

points = xstefa.open_sample("landslides").drop_vars(["point_x", "point_y"])
terrain = xstefa.open_sample("landslide_terrain").load()

# %%
# Slope and elevation are tokens that every model knows. Curvature and contributing area are not:
# one entry each describes them, and one the target. Of a class 0 and 1 are observed, and the
# probability is predicted.

described = Path(mkdtemp()) / "landslides.toml"
_ = described.write_text("""\
[[target]]
name = "landslide"
static = true
kind = "class"
units = "1"
long_name = "susceptibility to landslides"
valid_range = [0, 1]

[[static]]
name = "plan_curvature"
units = "rad m-1"
long_name = "plan curvature"
valid_range = [-100, 100]
aliases = [{ name = "cplan", source = "RSAGA" }]

[[static]]
name = "profile_curvature"
units = "rad m-1"
long_name = "profile curvature"
valid_range = [-100, 100]
aliases = [{ name = "cprof", source = "RSAGA" }]

[[static]]
name = "log_contributing_area"
units = "1"
long_name = "log10 of the contributing area in m2"
valid_range = [-1, 12]
aliases = [{ name = "log10_carea", source = "RSAGA" }]
""")

# %%
# Neighbours are alike, so whole squares of about 500 m are held out, and none of their neighbours
# within 50 m teaches. An AUC of 0.5 is chance. Where the terrain is beyond that of the points, it
# is read as the nearest of theirs, and a warning says so.

blocks = BlocksOfSpace(degrees=0.005, groups=5, buffer=0.05)
scores = points.stefa.cross_validate(described, tokens=described, holdout=blocks, steps=100)
scores[["auc", "brier", "sites"]].to_dataframe().round(3)

# %%
# The map, from all points, over the shaded terrain. As many points without landslides as with were
# chosen, so it ranks places, and does not say how many slides there will be (:doc:`/landslides`).

model = points.stefa.finetune(described, tokens=described, steps=100)
likely = terrain.stefa.predict(model)

figure, axis = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
shade = LightSource(azdeg=315, altdeg=45).hillshade(terrain.elev.values, dx=20, dy=20)
terrain.elev.copy(data=shade).plot.imshow(ax=axis, cmap="gray", add_colorbar=False)
likely.plot.imshow(ax=axis, cmap="YlOrRd", vmin=0, vmax=1, alpha=0.55)
axis.set(title="Relative susceptibility to landslides", xlabel="x [m]", ylabel="y [m]")
axis.set_aspect("equal")
axis.ticklabel_format(style="plain", useOffset=False)
axis.locator_params(nbins=5)
