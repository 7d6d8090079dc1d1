"""Where landslides begin in a valley of Ecuador, from its terrain; a map of it.

    python examples/landslides.py DATA [--picture PATH]

DATA has ``world/landslide_ecuador.nc`` (CC0; Muenchow, Brenning and Richter 2012): 175 points at
which landslides began, 175 at which none did, and the terrain at 10 m. The terrain is what tokens
of one's own are for: `landslides.toml`. Squares of 500 m are held out, dealt to five folds, twice.
"""

from __future__ import annotations

from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import LightSource
from site_classes import (
    blocks,
    boosting,
    by_baseline,
    by_xstefa,
    in_folds,
    logistic,
    reliability,
    scores,
    unpenalised,
)

from xstefa.schema import Alias, Target

METRES = 500.0  # of a block
DEALS, STEPS = 2, 200
TERRAIN = ("slope", "elev", "cplan", "cprof", "log10_carea")
TOKENS = Path(__file__).with_name("landslides.toml")
LANDSLIDE = Target(
    name="landslide",
    static=True,
    kind="class",
    units="1",
    long_name="susceptibility to landslides",
    valid_range=(0, 1),
    aliases=(Alias(name="landslide", source="Muenchow et al. 2012"),),
)


def terrain_of(ds: xr.Dataset) -> xr.Dataset:
    """Return the map of the terrain, named as at the points."""
    names = {f"grid_{name}": name for name in TERRAIN}
    return ds[[*names, "crs"]].rename(names).drop_vars(["lat", "lon"], errors="ignore")


def test(points: xr.Dataset) -> None:
    """Compare with baselines on the same terrain, over blocks of space."""
    x = np.stack([points[name].values for name in TERRAIN], axis=1).astype(float)
    y = points.landslide.values.astype(int)
    block = blocks(points.point_x.values, points.point_y.values, METRES)
    ready = points[[*TERRAIN, "landslide"]]
    found: dict[str, list[np.ndarray]] = {}
    for deal in range(DEALS):
        fold = in_folds(block, seed=deal)
        dealt = ready.assign(fold=("point", fold))
        slope = dealt[["slope", "landslide", "fold"]]
        for name, answer in {
            "slope alone": by_baseline(unpenalised, x[:, :1], y, block, fold),
            "logistic regression": by_baseline(logistic, x, y, block, fold),
            "boosted trees, tuned": by_baseline(boosting, x, y, block, fold),
            "xstefa, slope alone": by_xstefa(slope, LANDSLIDE, "point", steps=STEPS),
            "xstefa, terrain": by_xstefa(dealt, LANDSLIDE, "point", tokens=TOKENS, steps=STEPS),
        }.items():
            found.setdefault(name, []).append(answer)
    answers = {name: np.mean(each, axis=0) for name, each in found.items()}
    print(f"{len(y)} points in {np.unique(block).size} blocks of {METRES:g} m")
    print(scores(y, answers, block, "boosted trees, tuned").to_string())
    print("\nreliability of xstefa, terrain")
    print(reliability(y, answers["xstefa, terrain"]).round(2).to_string(index=False))


def draw(points: xr.Dataset, terrain: xr.Dataset, path: Path) -> None:
    """Draw susceptibility, learned from all points, over the shaded relief."""
    model = points[[*TERRAIN, "landslide"]].stefa.finetune(LANDSLIDE, tokens=TOKENS, steps=STEPS)
    found = terrain.stefa.predict(model)
    light = LightSource(azdeg=315, altdeg=45)
    shade = light.hillshade(terrain.elev.values, dx=10, dy=10)
    edges = [float(v) for axis in ("x", "y") for v in (terrain[axis].min(), terrain[axis].max())]
    figure, axes = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
    axes.imshow(shade, cmap="gray", extent=edges, vmin=0, vmax=1)
    mesh = axes.imshow(found.values, cmap="YlOrRd", extent=edges, vmin=0, vmax=1, alpha=0.55)
    for label, marker, text in ((1, "^", "landslide"), (0, "o", "none")):
        at = points.landslide.values == label
        axes.scatter(
            points.point_x[at], points.point_y[at], s=9, marker=marker, linewidths=0.5,
            facecolors="black" if label else "none", edgecolors="black", label=text,
        )  # fmt: skip
    axes.set(xlabel="x [m], UTM 17 S", ylabel="y [m]")
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.tick_params(labelsize=7)
    axes.legend(loc="lower left", fontsize=8)
    figure.colorbar(mesh, label="susceptibility, relative to as many points without", shrink=0.8)
    figure.savefig(path, dpi=110, bbox_inches="tight")


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--picture", type=click.Path(path_type=Path))
def main(data: Path, picture: Path | None) -> None:
    """Test, and draw."""
    ds = xr.load_dataset(data / "world/landslide_ecuador.nc")
    points = ds.drop_dims(["y", "x"])
    test(points)
    if picture is not None:
        draw(points, terrain_of(ds), picture)


if __name__ == "__main__":
    main()
