"""Whether the skill that `trust` expects is found at sites that did not teach what to expect.

    python examples/trust.py DATA [MODEL]

Learned at held-out sites in the United States, and tested at others there, each tenth left out in
turn, and abroad (`VALIDATION` of `train_release`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
from train_release import JUDGED_RIVERS, SOURCES, aligned, held_out_sites

import xstefa
from xstefa.model.neighbourhood import HeldOut

HOME = ("camels", "mopex")
FOLDS = 10


def found_at(data: Path, source: str, model: xstefa.Model) -> pd.DataFrame:
    """Return NSE, distance and aridity of the held-out sites of a source."""
    sites = held_out_sites(aligned(data, source), source)
    scores = sites.stefa.evaluate(model, scores="nse", sites=SOURCES[source].ids)
    placed = sites.stefa.trust(model)[["distance", "aridity"]].assign(nse=scores.nse)
    frame = placed.to_dataframe().reset_index()[[SOURCES[source].ids, *placed]]
    return frame.set_axis(["gauge", *placed], axis=1).assign(source=source)


def expected(taught: pd.DataFrame, at: pd.DataFrame, model: xstefa.Model) -> np.ndarray:
    """Return expected score, bounds and number of held-out sites, shape (site, 4)."""
    rows = taught[["distance", "aridity", "nse"]].itertuples(index=False)
    held_out = tuple(
        HeldOut(distance=row.distance, aridity=row.aridity, score=row.nse) for row in rows
    )
    neighbourhood = replace(model.spec.neighbourhood, held_out=held_out)
    return neighbourhood.expected(at.distance.values, at.aridity.values)


def report(name: str, sites: pd.DataFrame, told: np.ndarray) -> None:
    """Print what was expected and found, by thirds of what was expected."""
    nse, (score, low, high, _) = sites.nse.values, told.T
    inside = ((nse >= low) & (nse <= high)).mean()
    rank = pd.Series(score).corr(sites.nse.reset_index(drop=True), method="spearman")
    print(
        f"{name}: {len(nse)} sites, {inside:.0%} within the interval, rank correlation {rank:.2f}"
    )
    for third in np.array_split(np.argsort(score), 3):
        print(f"  expected {np.median(score[third]):.2f}, found {np.median(nse[third]):.2f}")


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("model", default="streamflow")
def main(data, model):
    """Print what was expected and found, at home and abroad."""
    model = xstefa.load_model(model)
    parts = [found_at(data, source, model) for source in JUDGED_RIVERS]
    sites = pd.concat(parts).dropna(subset=["nse", "distance"])
    home, abroad = (sites[sites.source.isin(HOME) == at_home] for at_home in (True, False))
    numbers, gauges = pd.factorize(home.gauge)
    fold = (np.random.default_rng(0).permutation(len(gauges)) % FOLDS)[numbers]
    told = np.empty((len(home), 4))
    for i in range(FOLDS):
        told[fold == i] = expected(home[fold != i], home[fold == i], model)
    report("United States, left out", home, told)
    report("abroad, learned in the United States", abroad, expected(home, abroad, model))


if __name__ == "__main__":
    main()
