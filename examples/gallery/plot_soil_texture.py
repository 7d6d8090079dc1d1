"""
What the soil is made of
========================

Some targets have no days. Sand, silt and clay are told from the attributes of a site alone: its
climate, terrain, rocks and plants. Here for each cell of a map.
"""

import xstefa

grid = xstefa.open_sample("conus_grid").drop_dims("time")

# %%
# The three are shares of one whole: positive, and 1 in sum. This grid states sand, silt and clay
# itself; the model does not read them, nor what is computed from them.

texture = grid.stefa.predict(["sand", "silt", "clay"])
texture

# %%
# Sand in Florida and Michigan, silt along the Ohio and the Mississippi, clay in Texas.

parts = texture.to_dataarray("part", name="share")
parts.attrs = {"long_name": "share of the fine earth", "units": "1"}
_ = parts.plot(col="part", cmap="YlOrBr", vmin=0, vmax=0.8, figsize=(11, 3))

# %%
# How far is it from what the grid states? The cells are means of catchments, and the model has
# learned from these very catchments: this shows what such a map looks like, and no skill. (Even so
# it has no idea of the Sand Hills of Nebraska, the blue cells at 42° N and 100° W.) For skill,
# sites are held out in blocks of space, with neighbours left out of training
# (:doc:`/static_targets`).

stated = grid[["sand_frac", "silt_frac", "clay_frac"]].to_dataarray("part")
off = parts - (stated / stated.sum("part", skipna=False)).assign_coords(part=parts["part"])
off.attrs = {"long_name": "predicted less stated", "units": "1"}
_ = off.plot(col="part", cmap="RdBu_r", vmin=-0.3, vmax=0.3, figsize=(11, 3))
abs(off).mean(["lat", "lon"]).to_series().round(3)
