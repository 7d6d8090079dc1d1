"""Whether levels of quantiles hold at sites that neither the model nor its distribution has seen.

    python examples/calibration.py DATA [MODEL]

The sites that choices are made on (`VALIDATION` of `train_release`) are divided into five groups,
each river whole; each group is predicted with what the others say of errors. Compared by CRPS with
a Gaussian of constant variance around the logarithm of the mean, learned on the same sites.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import click
import numpy as np
import xarray as xr
from train_release import JUDGED_RIVERS, SOURCES, aligned, held_out_sites, with_rivers

import xstefa
from xstefa.evaluation.probabilistic import LEVELS, coverage, crps, sharpness
from xstefa.training.calibration import Errors, gather, learn

NORMAL = np.array([[NormalDist().inv_cdf(level)] for level in LEVELS])
GROUPS = 5


def by_site(
    score: Callable[..., xr.DataArray], errors: Errors, quantiles: np.ndarray, days: np.ndarray
) -> np.ndarray:
    """Return a score of each site, of some of its days; quantiles have the shape (level, day)."""
    pred = xr.DataArray(quantiles, {"quantile": list(LEVELS)}, ("quantile", "time"))
    obs, sites = xr.DataArray(errors.observed, dims="time"), np.unique(errors.site[days])
    chosen = [np.flatnonzero(days & (errors.site == site)) for site in sites]
    return np.array([float(score(pred[:, at], obs[at], dim="time")) for at in chosen])


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
    """Print coverage by regime, river and what is missing, and scores."""
    asked = partial(
        gather,
        {
            source: with_rivers(held_out_sites(aligned(data, source), source), source)
            for source in JUDGED_RIVERS
        },
        model=xstefa.load_model(model),
        sites={source: SOURCES[source].ids for source in JUDGED_RIVERS},
        groups="river",
    )
    (errors, _, chosen), (gaps, *_) = asked(), asked(gaps=True)
    rivers = errors.groups
    drawn = np.random.default_rng(1).permutation(len(np.unique(rivers))) % GROUPS
    group = dict(zip(np.unique(rivers), drawn, strict=True))
    quantiles, damaged = (np.empty((len(LEVELS), len(each.site))) for each in (errors, gaps))
    unaware, reference = np.empty_like(damaged), np.empty_like(quantiles)
    regime = np.empty(len(errors.site), dtype=object)
    for i in range(GROUPS):
        left, gone = (
            np.array([group[name] == i for name in each.groups]) for each in (errors, gaps)
        )
        found = learn(errors.select(~left), chosen.spec, gaps=gaps.select(~gone))
        days, lost = left[errors.site], gone[gaps.site]
        located = errors.select(left).located(found)
        quantiles[:, days] = found.quantiles(located, LEVELS)
        reference[:, days] = gaussian(errors.select(~left), errors.select(left))
        regime[days] = [found.regimes[int(number)].name for number in located[:, 3]]
        damaged[:, lost] = found.quantiles(gaps.select(gone).located(found), LEVELS)
        found = learn(errors.select(~left), chosen.spec)
        unaware[:, lost] = found.quantiles(gaps.select(gone).located(found), LEVELS)
    every = np.ones(len(errors.site), dtype=bool)
    covered = by_site(coverage, errors, quantiles, every)
    print(f"{len(errors.ids)} sites: 90 % intervals hold {covered.mean():.1%} of the days")
    for name in np.unique(regime.astype(str)):
        shares = by_site(coverage, errors, quantiles, regime == name)
        print(f"  {name}: {shares.mean():.1%} at {len(shares)} sites")
    for name in (name for name in np.unique(rivers) if (rivers == name).sum() > 3):
        print(f"  {name}: {covered[rivers == name].mean():.1%}")
    missing = gaps.told[:, 1 + gaps.evidence.names.index("weather_missing")]
    for low, high in pairwise((-1, 0, 0.2, 0.5, 0.9, 1)):
        days = (missing > low) & (missing <= high)
        shares = [by_site(coverage, gaps, each, days).mean() for each in (damaged, unaware)]
        width = [by_site(sharpness, gaps, each, days).mean() for each in (damaged, unaware)]
        print(
            f"  up to {high:.0%} of the weather of a week missing: {shares[0]:.1%} of width "
            f"{width[0]:.2f} (had nothing been learned from gaps {shares[1]:.1%}, {width[1]:.2f})"
        )
    mean = np.bincount(errors.site, errors.observed) / np.bincount(errors.site)
    for name, values in {"distribution": quantiles, "Gaussian": reference}.items():
        score = by_site(crps, errors, values, every)
        relative = (score / np.maximum(mean, 0.05)).mean()
        print(f"CRPS, {name}: {score.mean():.3f} mm d-1, {relative:.3f} of the mean flow")


if __name__ == "__main__":
    main()
