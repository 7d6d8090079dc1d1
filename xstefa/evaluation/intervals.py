"""How sure a median over sites is: bootstrap intervals, and paired comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.errors import OptionError
from xstefa.evaluation.metrics import paired
from xstefa.evaluation.signatures import LEAST_YEARS, water_years

Values = NDArray[np.float64]

RESAMPLES = 2000
BLOCK = 2**22  # numbers in memory at once

OF_SUMS = ("nse", "kge", "correlation", "rmse", "ubrmse", "mae", "pbias")
"""Scores that `block_interval` knows: those of sums over days, which years have each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A median with its bootstrap interval.

    Attributes
    ----------
    median, low, high : float
        NaN without values.
    sites : int
        Values that count.
    """

    median: float
    low: float
    high: float
    sites: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One model against another on the same sites.

    Attributes
    ----------
    median : Interval
        Of the differences site by site.
    better : float
        Share of sites on which the first is higher; ties count half.
    p_value : float
        Chance of a mean rank at least as far from nothing if signs were random (Wilcoxon's signed
        ranks, two-sided, by sampling).
    """

    median: Interval
    better: float
    p_value: float


def median_interval(
    values: Values, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the median over sites and its percentile-bootstrap interval (Efron 1979).

    Parameters
    ----------
    values : ndarray
        One for each site; NaN does not count.
    level : float
        Probability that the interval is meant to have.
    resamples : int
    seed : int
        The same seed gives the same interval.
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known)]
    if not known.size:
        return Interval(median=np.nan, low=np.nan, high=np.nan, sites=0)
    drawn = np.random.default_rng(seed).integers(known.size, size=(resamples, known.size))
    tail = 50 * (1 - level)
    low, high = np.percentile(np.median(known[drawn], axis=1), [tail, 100 - tail]).tolist()
    return Interval(median=float(np.median(known)), low=low, high=high, sites=known.size)


def block_interval(
    pred: xr.DataArray,
    obs: xr.DataArray,
    score: str = "nse",
    *,
    dim: str | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the median over sites and its interval, if both sites and years were others.

    Sites are drawn, and at each the water years of its record, as blocks: days of one year are not
    independent, and few years decide over a score (Clark et al. 2021, doi:10.1029/2020WR029001).
    Sites with less than 5 such years do not count.

    Parameters
    ----------
    pred, obs : DataArray
        As for the scores of `xstefa.evaluation.metrics`.
    score : str
        One of `OF_SUMS`.
    dim : str, optional
        As for these scores.
    level, resamples, seed
        As for `median_interval`.

    Raises
    ------
    OptionError
        If a score is no sum over days.
    LayoutError, UnitsError
        As these scores.
    """
    if score not in OF_SUMS:
        raise OptionError(variable="score", found=repr(score), expected=", ".join(OF_SUMS))
    pred, obs, dim = paired(pred, obs, dim)
    places, (years, _) = water_years(obs, dim)
    _, year = np.unique(years[places], return_inverse=True)
    pred, obs = xr.broadcast(pred, obs)
    count = math.prod(size for name, size in obs.sizes.items() if name != dim)
    found, true = (
        each.transpose(..., dim).values.reshape(count, year.size) for each in (pred, obs)
    )
    known = np.isfinite(true)
    # Sums of squares would lose digits far from zero.
    centre = np.where(known, true, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    one, two = (np.where(known, each - centre[:, None], 0) for each in (found, true))
    daily = (known, one, two, one**2, two**2, one * two, abs(one - two))
    blocks = np.eye(year.max(initial=-1) + 1)[year]
    sums = np.stack([each @ blocks for each in daily], axis=-1)
    lengths = (sums[..., 0] > 0).sum(axis=1)
    whole = _of_sums(score, sums.sum(axis=1), centre)
    used = (lengths >= LEAST_YEARS) & np.isfinite(whole)
    if not used.any():
        return Interval(median=np.nan, low=np.nan, high=np.nan, sites=0)
    order = np.argsort(sums[used, :, 0] == 0, axis=1, kind="stable")
    sums = np.take_along_axis(sums[used], order[..., None], axis=1)
    lengths, centre, sites = lengths[used], centre[used], int(used.sum())
    random, medians = np.random.default_rng(seed), []
    most = max(1, BLOCK // sums.size)
    for begin in range(0, resamples, most):
        drawn = random.integers(sites, size=(min(most, resamples - begin), sites))
        inside = np.arange(sums.shape[1]) < lengths[drawn][..., None]
        picked = (random.random(inside.shape) * lengths[drawn][..., None]).astype(np.int64)
        taken = np.where(inside[..., None], sums[drawn[..., None], picked], 0).sum(axis=2)
        medians.append(np.nanmedian(_of_sums(score, taken, centre[drawn]), axis=1))
    tail = 50 * (1 - level)
    low, high = np.percentile(np.concatenate(medians), [tail, 100 - tail]).tolist()
    return Interval(median=float(np.median(whole[used])), low=low, high=high, sites=sites)


def _of_sums(score: str, sums: Values, centre: Values) -> Values:
    """Return a score of sums over days, shape (..., 7), of values less a centre, shape (...)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p, o, pp, oo, po, error = np.moveaxis(sums[..., 1:] / sums[..., :1], -1, 0)
        spread, true, both = pp - p**2, oo - o**2, po - p * o
        true = np.where(true > 1e-12 * (oo + centre**2), true, np.nan)
        unbiased = np.maximum(spread + true - 2 * both, 0)
        r, bias = both / np.sqrt(spread * true), (p - o) / (o + centre)
        found = {
            "nse": 1 - (unbiased + (p - o) ** 2) / true,
            "kge": 1 - np.sqrt((r - 1) ** 2 + (np.sqrt(spread / true) - 1) ** 2 + bias**2),
            "correlation": r,
            "rmse": np.sqrt(unbiased + (p - o) ** 2),
            "ubrmse": np.sqrt(unbiased),
            "mae": error,
            "pbias": 100 * bias,
        }[score]
    return np.where(np.isfinite(found), found, np.nan)


def paired_difference(
    first: Values,
    second: Values,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Compare two models site by site.

    Parameters
    ----------
    first, second : ndarray
        Scores on the same sites in the same order; sites that lack one do not count.
    level, resamples, seed
        As for `median_interval`.
    """
    one, two = (np.asarray(v, dtype=np.float64).ravel() for v in (first, second))
    difference = (one - two)[np.isfinite(one) & np.isfinite(two)]
    return Difference(
        median=median_interval(difference, level=level, resamples=resamples, seed=seed),
        better=float((1 + np.sign(difference)).mean() / 2) if difference.size else np.nan,
        p_value=_signed_ranks(difference, resamples=5 * resamples, seed=seed),
    )


def _signed_ranks(difference: Values, *, resamples: int, seed: int) -> float:
    """Return the two-sided p-value of Wilcoxon's signed ranks, signs drawn at random."""
    if not difference.size:
        return np.nan
    moved = difference[difference != 0]
    if not moved.size:
        return 1.0
    ranks = pd.Series(np.abs(moved)).rank().to_numpy()  # ties share the mean of their ranks
    statistic = abs((np.sign(moved) * ranks).sum())
    random = np.random.default_rng(seed)
    extreme = 0
    for _ in range(resamples // 100):
        signs = random.choice((-1.0, 1.0), size=(100, moved.size))
        extreme += int((np.abs(signs @ ranks) >= statistic - 1e-9).sum())
    return (extreme + 1) / (100 * (resamples // 100) + 1)
