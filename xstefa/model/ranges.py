"""What training data held of each token: what lies outside, a model has never seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xstefa.schema import Schema, Variable
from xstefa.typed import Finite
from xstefa.windows import YEAR

# Means of a few years vary more than those of decades: by this share of the range of means.
VARIABILITY = 0.1

# Of a vector as many of its numbers, as a share, may lie outside before it does.
STRAY_NUMBERS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Range of one token over the training sites, in its canonical unit.

    Attributes
    ----------
    low, high : float
        Smallest and largest value.
    mean_low, mean_high : float
        Smallest and largest mean of a site over its days; of a static attribute, the same again.
    """

    low: Finite
    high: Finite
    mean_low: Finite
    mean_high: Finite

    def __post_init__(self) -> None:
        if not self.low <= self.mean_low <= self.mean_high <= self.high:
            raise ValueError("a range has low <= mean_low <= mean_high <= high")

    def excludes(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where values lie outside by more than the rounding of their units; not NaN."""
        below, above = (1e-4 * abs(limit) for limit in (self.low, self.high))
        return np.asarray((values < self.low - below) | (values > self.high + above))

    def excludes_means(self, means: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where means over the days of a site lie outside those of training; not NaN."""
        margin = VARIABILITY * (self.mean_high - self.mean_low)
        return np.asarray((means < self.mean_low - margin) | (means > self.mean_high + margin))

    def join(self, other: Range) -> Range:
        """Return the range of both."""
        return Range(
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            mean_low=min(self.mean_low, other.mean_low),
            mean_high=max(self.mean_high, other.mean_high),
        )


Ranges = Mapping[str, Range]


def outside(
    variable: Variable, values: NDArray[np.float32], ranges: Ranges
) -> NDArray[np.bool_] | None:
    """Return where an attribute lies outside of training; None where its range is not known.

    Parameters
    ----------
    values : ndarray of float32, shape (...), or (..., length) of a vector
        A vector is outside if more than a tenth of its numbers are: of many, some always are.
    """
    if variable.columns[0] not in ranges:
        return None
    if variable.length == 1:
        return ranges[variable.name].excludes(values)
    beyond = [ranges[name].excludes(values[..., i]) for i, name in enumerate(variable.columns)]
    return np.mean(beyond, axis=0) > STRAY_NUMBERS


def join_ranges(first: Ranges, second: Ranges) -> dict[str, Range]:
    """Return the ranges of two sets of training data together."""
    joint = dict(first)
    for name, own in second.items():
        joint[name] = own.join(joint[name]) if name in joint else own
    return joint


def bounded(static: NDArray[np.float32], schema: Schema, ranges: Ranges) -> NDArray[np.float32]:
    """Return attributes as a model reads those outside its training, by the schema's rule.

    Parameters
    ----------
    static : ndarray of float32, shape (site, S)
        Canonical units; NaN where missing.
    """
    static = static.copy()
    for i, (name, variable) in enumerate(schema.site_columns.items()):
        if name in ranges and variable.beyond != "keep":
            known = ranges[name]
            outside = known.excludes(static[:, i])
            nearest = np.clip(static[outside, i], known.low, known.high)
            static[outside, i] = nearest if variable.beyond == "clip" else np.nan
    return static


def ranges_of(
    schema: Schema, forcing: NDArray[np.float32], static: NDArray[np.float32]
) -> dict[str, Range]:
    """Return the range of each token that some site has, of a vector those of its numbers.

    Parameters
    ----------
    schema : Schema
    forcing : ndarray of float32, shape (site, day, C)
    static : ndarray of float32, shape (site, S)
        Canonical units; NaN where missing.
    """
    found = {}
    for i, name in enumerate(schema.site_columns):
        known = static[np.isfinite(static[:, i]), i]
        if known.size:
            low, high = float(known.min()), float(known.max())
            found[name] = Range(low=low, high=high, mean_low=low, mean_high=high)
    for i, name in enumerate(schema.forcing_names):
        values = forcing[..., i]
        known = np.isfinite(values)
        days = known.sum(axis=1)
        if not days.any():
            continue
        low, high = float(values[known].min()), float(values[known].max())
        sums = np.where(known, values, 0).sum(axis=1, dtype=np.float64)
        # Records of less than a year show a season; without any other they have to do.
        enough = days >= YEAR if (days >= YEAR).any() else days > 0
        means = np.clip(sums[enough] / days[enough], low, high)
        found[name] = Range(
            low=low, high=high, mean_low=float(means.min()), mean_high=float(means.max())
        )
    return found
