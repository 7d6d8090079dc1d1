"""Sites that are nearly the same: on two sides of a split they make a test easier than it looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xstefa.inference.windows import Floats

COMPARED_DAYS = 2000
LEAST_COMMON_DAYS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """For each site, the site among those it must not resemble that resembles it most.

    Attributes
    ----------
    nearest : ndarray of int64, shape (site,)
        Its place among the others; -1 if there is none.
    similarity : ndarray of float64, shape (site,)
        Correlation of the two series, or the lower one where two kinds of series are compared.
    """

    nearest: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def above(self, threshold: float) -> NDArray[np.bool_]:
        """Mark the sites with a near duplicate."""
        return self.similarity >= threshold


def find_twins(sites: list[Floats], others: list[Floats]) -> Twins:
    """Find near duplicates by their series.

    Two gauges a kilometre apart on one river, a gauge under two names, neighbouring cells of an
    interpolated grid: their series correlate almost perfectly, whatever their coordinates say.

    Parameters
    ----------
    sites, others : list of ndarray, shape (site, day)
        Series of one or several kinds (precipitation, streamflow) on the same days, NaN where
        missing. Two sites are as similar as their least similar kind of series. A kind that one
        of them never observed does not count.

    Returns
    -------
    Twins
    """
    if not len(others[0]):
        count = len(sites[0])
        return Twins(nearest=np.full(count, -1), similarity=np.full(count, np.nan))
    lowest: NDArray[np.float64] | None = None
    for one, two in zip(sites, others, strict=True):
        days = np.unique(np.linspace(0, one.shape[1] - 1, COMPARED_DAYS).astype(int))
        found = _correlations(one[:, days], two[:, days])
        lowest = found if lowest is None else np.fmin(lowest, found)
    assert lowest is not None
    comparable = np.isfinite(lowest).any(axis=1)
    filled = np.where(np.isfinite(lowest), lowest, -np.inf)
    nearest = np.where(comparable, filled.argmax(axis=1), -1)
    similarity = np.where(comparable, filled.max(axis=1), np.nan)
    return Twins(nearest=nearest, similarity=similarity)


def _correlations(one: Floats, two: Floats) -> NDArray[np.float64]:
    """Return Pearson's r of each row of `one` with each of `two` over the days both know."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    known_a, known_b = np.isfinite(a).astype(float), np.isfinite(b).astype(float)
    # Centred first, or sums of squares would cancel.
    a = np.nan_to_num(a - _mean(a)[:, None])
    b = np.nan_to_num(b - _mean(b)[:, None])
    count = known_a @ known_b.T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_a, mean_b = a @ known_b.T / count, known_a @ b.T / count
        covariance = a @ b.T / count - mean_a * mean_b
        variance_a = a**2 @ known_b.T / count - mean_a**2
        variance_b = known_a @ (b**2).T / count - mean_b**2
        found = covariance / np.sqrt(variance_a * variance_b)
    found[(count < LEAST_COMMON_DAYS) | ~np.isfinite(found)] = np.nan
    return found


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(values)
    return np.nan_to_num(values).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
