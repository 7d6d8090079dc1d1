"""Whether levels of quantiles hold at sites that neither the model nor its distribution has seen.

    python examples/calibration.py DATA [MODEL]

The sites that choices are made on (`VALIDATION` of `train_release`) are divided into five groups,
each river whole; each group is predicted with what the others say of errors. Compared by CRPS with
a Gaussian of constant variance around the logarithm of the mean, learned on the same sites.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import click
import numpy as np
from train_release import JUDGED_RIVERS, RIVERS, SOURCES, aligned, held_out_sites

import xstefa
from xstefa.training.calibration import Errors, gather, learn

LEVELS = np.arange(0.025, 1, 0.025)
NORMAL = np.array([[NormalDist().inv_cdf(level)] for level in LEVELS])
GROUPS = 5


def by_site(errors: Errors, values: np.ndarray) -> np.ndarray:
    """Return the mean of each site."""
    return np.bincount(errors.site, values) / np.bincount(errors.site)


def crps(observed: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return the score of each day, from quantiles of shape (level, day)."""
    excess = observed - quantiles
    levels = LEVELS[:, None]
    return 2 * np.maximum(levels * excess, (levels - 1) * excess).mean(axis=0)


def gaussian(taught: Errors, left: Errors) -> np.ndarray:
    """Return quantiles around the logarithm of the mean, with one variance for all days."""
    offset, centre = taught.evidence.scale.offset, taught.told[:, 0]
    off = np.log(taught.observed + offset) - centre
    spread = np.sqrt(np.average(off**2, weights=taught.weight))
    found = np.exp(left.told[:, 0] + spread * NORMAL) - offset
    return np.maximum(found, 0)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("model", default="streamflow")
def main(data, model):
    """Print coverage by regime and river, and scores."""
    errors, _, chosen = gather(
        {source: held_out_sites(aligned(data, source), source) for source in JUDGED_RIVERS},
        model=xstefa.load_model(model),
        sites={source: SOURCES[source].ids for source in JUDGED_RIVERS},
    )
    river = {gauge: name for name, gauges in RIVERS.items() for gauge in gauges}
    rivers, place = np.unique([river.get(i, i) for i in errors.ids], return_inverse=True)
    group = (np.random.default_rng(1).permutation(len(rivers)) % GROUPS)[place]
    quantiles, reference = (np.empty((len(LEVELS), len(errors.site))) for _ in range(2))
    regime = np.empty(len(errors.site), dtype=object)
    for i in range(GROUPS):
        taught, left, days = (
            errors.select(group != i),
            errors.select(group == i),
            (group == i)[errors.site],
        )
        found = learn(taught, chosen.spec)
        located = left.located(found)
        quantiles[:, days] = found.quantiles(located, LEVELS)
        reference[:, days] = gaussian(taught, left)
        regime[days] = [found.regimes[int(number)].name for number in located[:, 3]]
    inside = (errors.observed >= quantiles[1]) & (errors.observed <= quantiles[-2])
    covered, mean = by_site(errors, inside), by_site(errors, errors.observed)
    print(f"{len(errors.ids)} sites: 90 % intervals hold {covered.mean():.1%} of the days")
    for name in np.unique(regime.astype(str)):
        chosen_days = regime == name
        sites = np.unique(errors.site[chosen_days])
        shares = [inside[chosen_days & (errors.site == site)].mean() for site in sites]
        print(f"  {name}: {np.mean(shares):.1%} at {len(sites)} sites")
    for name in (name for name in rivers if (rivers[place] == name).sum() > 3):
        print(f"  {name}: {covered[rivers[place] == name].mean():.1%}")
    for name, values in {"distribution": quantiles, "Gaussian": reference}.items():
        score = by_site(errors, crps(errors.observed, values))
        relative = (score / np.maximum(mean, 0.05)).mean()
        print(f"CRPS, {name}: {score.mean():.3f} mm d-1, {relative:.3f} of the mean flow")


if __name__ == "__main__":
    main()
