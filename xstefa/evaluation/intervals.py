"""How sure a median over sites is: bootstrap intervals, and paired comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Values = NDArray[np.float64]

RESAMPLES = 2000


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
