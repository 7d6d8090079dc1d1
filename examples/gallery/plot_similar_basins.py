"""
What the model knows: similar basins
====================================

The encoder makes a vector of each site, from weather and land. Places that are near in this space
behave alike, however far they are on the map.
"""

import matplotlib.pyplot as plt
import numpy as np

import xstefa

ds = xstefa.open_sample("camels_us").isel(time=slice(0, 1096))
vectors = ds.stefa.embed()
vectors

# %%
# Distances between all pairs, and the two nearest of each basin.

z = (vectors - vectors.mean("basin")) / vectors.std("basin")
apart = np.sqrt(((z - z.rename(basin="other")) ** 2).mean("feature"))
order = np.argsort(apart.values, axis=1)[:, 1:3]
names = ds["gauge_name"].values
for i in range(4):
    print(f"{names[i]}: like {names[order[i, 0]]}, and {names[order[i, 1]]}")

# %%
# The first two directions in which basins differ, coloured by aridity, which the map cannot show.

scores = z.values @ np.linalg.svd(z.values, full_matrices=False)[2][:2].T
figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
dots = axis.scatter(*scores.T, c=ds["aridity"], cmap="BrBG_r", norm="log", edgecolor="0.3", s=60)
bar = figure.colorbar(dots, ticks=[0.3, 0.5, 1, 2], format="{x:g}", label="aridity, PET / P")
bar.minorticks_off()
axis.set(
    xlabel="first principal component", ylabel="second", title="Basins as the encoder sees them"
)
_ = [
    axis.annotate(str(b), xy, fontsize=6, xytext=(4, 3), textcoords="offset points")
    for b, xy in zip(ds.basin.values, scores, strict=True)
]
