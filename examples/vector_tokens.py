"""What a satellite embedding tells of a site, as a token that a head reads.

    python examples/vector_tokens.py DATA

DATA has ``world/alphaearth_points.nc``: 866 points in Amazon forests with the 64 numbers of
AlphaEarth, four spectral indices, and whether forest was cleared in that year. Blocks of space are
held out. The embedding is of the year of the clearing, which it sees (a quick run: AUC 1.000, for a
logistic regression, too): this shows that the engine learns from a vector, not that forest loss can
be foretold, and nothing of water.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import xarray as xr
from site_classes import blocks, boosting, by_baseline, by_xstefa, in_folds, logistic, scores

from xstefa.schema import Alias, Target, Variable, load_tokens

DEGREES = 1.0  # of a block
STEPS = 300
INDICES = tuple(
    Variable(name=name, kind="static", units="1", long_name=name.upper(), valid_range=(-10, 10))
    for name in ("nbr", "evi", "ndwi")
)
LOSS = Target(
    name="forest_loss",
    static=True,
    kind="class",
    units="1",
    long_name="probability that forest was cleared in the year",
    valid_range=(0, 1),
    aliases=(Alias(name="forest_loss", source="Global Forest Watch"),),
)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(data: Path) -> None:
    """Compare tokens and baselines over blocks of space."""
    ds = xr.load_dataset(data / "world/alphaearth_points.nc")
    block = blocks(ds.lon.values, ds.lat.values, DEGREES)
    fold = in_folds(block)
    ds["fold"] = "point", fold
    y = ds.forest_loss.values.astype(int)
    print(f"{len(y)} points, {y.sum()} lost, {np.unique(block).size} blocks of {DEGREES:g} degrees")
    spectra = ["ndvi", *(token.name for token in INDICES)]  # the first is a token already
    sets = {"indices": spectra, "vector": ["embedding"], "both": [*spectra, "embedding"]}
    answers = {}
    for name, variables in sets.items():
        own = [token for token in INDICES if token.name in variables]
        given = {}
        if "embedding" in variables:
            own += load_tokens("alphaearth")
            given = {"rename": {"embedding": "alphaearth"}}
        part = ds[[*variables, "forest_loss", "fold"]]
        answers[f"xstefa, {name}"] = by_xstefa(
            part, LOSS, "point", tokens=tuple(own), steps=STEPS, **given
        )
        columns = np.concatenate([np.atleast_2d(ds[v].values.T).T for v in variables], axis=1)
        for kind, make in {"logistic": logistic, "boosting": boosting}.items():
            answers[f"{kind}, {name}"] = by_baseline(make, columns, y, block, fold)
    print(scores(y, answers, block, "xstefa, vector").to_string())


if __name__ == "__main__":
    main()
