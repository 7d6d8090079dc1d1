"""What may be observed where a model answers: quantiles around the mean of its heads.

Heads fit their training sites better than any other, and agree more than they are right, so how far
they are off is learned at sites that training did not see: see `xstefa.training.calibration`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from xstefa.model.scaler import Moments
from xstefa.typed import Count, Finite, Name, Natural, Positive, Rule
from xstefa.windows import YEAR, Floats

if TYPE_CHECKING:
    from torch import Tensor

FARTHEST = 0.998
"""Highest level that is known; the lowest is as far from 0. Of fewer than 100 sites not even this
is known for a new one: it is what holds for all their days."""

Level = Annotated[
    float,
    Rule(
        f"a number from {1 - FARTHEST:.3f} to {FARTHEST}",
        lambda level: round(1 - FARTHEST, 6) <= level <= FARTHEST,
    ),
]

LEVELS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995,
)  # fmt: skip
"""Levels at which distributions are stored; between and beyond, quantiles are linear in logits."""

WIDTH = 4
"""Numbers that say of a day what may be observed: see `Distribution.locate`."""

# What a day tells of its error, beside tokens.
_LAGS = {"change": 1, "change_of_week": 7, "change_of_month": 30}
MISSING = ("precipitation_missing", "weather_missing")
"""Measures of gaps, 0 where there are none: shares of the values of the last week that are missing,
of tokens that were known in the year before."""

MEASURES = ("level", *_LAGS, "disagreement", "known", "known_today", *MISSING)
REMEMBERED = max(_LAGS.values())
"""Days before a day whose answers tell of its error."""

WEEK, KNOWN_DAYS = 7, YEAR
"""Days of a gap that count, and days before a day of which what was known tells of its error."""

_AGREED = 0.02  # heads that differ by less agree: one head has nothing to differ from
_BOUND = 4.0  # standard deviations beyond which a measure counts as this far
SUREST = 1.0
"""Most that all measures together add to, or take from, the logarithm of a scale; gaps add more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where errors are alike.

    Attributes
    ----------
    kind : {"identity", "log", "logit"}
    offset : float
        Added before a logarithm, in the unit of the target; or how near a logit comes to 0 and 1.
    """

    kind: Literal["identity", "log", "logit"] = "identity"
    offset: Positive = 1.0

    def forward(self, values: Tensor) -> Tensor:
        """Transform values of the target."""
        if self.kind == "log":
            return (values.clamp(min=0) + self.offset).log()
        return values.logit(self.offset) if self.kind == "logit" else values

    def back(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return values of the target."""
        if self.kind == "log":
            # What would lie below an empty river is an empty river.
            return np.maximum(np.exp(values) - np.float32(self.offset), np.float32(0))
        return np.reciprocal(1 + np.exp(-values)) if self.kind == "logit" else values


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What tells of errors, and how they change with it.

    Attributes
    ----------
    name : str
        One of `MEASURES`, or a token.
    column : int, optional
        Place of the token in the schema.
    moments : Moments
        At the sites of calibration. What lies more than four standard deviations off counts as so
        far off, what is missing as the mean.
    below, above : float
        What each standard deviation adds to the logarithms of the scales below and above the
        centre.
    """

    name: Name
    moments: Moments
    column: Natural | None = None
    below: Finite = 0.0
    above: Finite = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """Sites where errors are alike.

    Attributes
    ----------
    name : str
    within : mapping of str to (float, float)
        Measures, as the network reads them, of at least the first and less than the second.
    sites : int
        Sites of calibration that are of this kind.
    quantiles : tuple of float
        Of observations less centre, in scales, at `LEVELS`.
    """

    name: Name
    within: Mapping[str, tuple[Finite, Finite]]
    sites: Natural
    quantiles: tuple[Finite, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What may be observed where a model answers, learned at sites that training did not see.

    A transform makes errors alike. Around the mean of the heads, shifted, each regime has quantiles
    of a fixed shape; their scales below and above change from day to day with what `measures` say.
    They never cross.

    Attributes
    ----------
    scale : Scale
    shift : float
        From the mean of the heads to the centre, both transformed.
    below, above : float
        Logarithms of the scales where all measures are at their mean.
    measures : tuple of Measure
    regimes : tuple of Regime
        The first that a day is within counts; every day is within the last.
    sites : int
        Sites of calibration; those that hang together count as one.
    """

    scale: Scale
    shift: Finite
    below: Finite
    above: Finite
    measures: tuple[Measure, ...]
    regimes: tuple[Regime, ...]
    sites: Count

    def __post_init__(self) -> None:
        names = [measure.name for measure in self.measures]
        for regime in self.regimes:
            if len(regime.quantiles) != len(LEVELS) or (np.diff(regime.quantiles) < 0).any():
                raise ValueError(f"{len(LEVELS)} quantiles in order, found {regime.quantiles}")
            if not set(regime.within) <= set(names):
                raise ValueError(f"a regime of {', '.join(regime.within)}, of {', '.join(names)}")
        if not self.regimes or self.regimes[-1].within:
            raise ValueError("the last regime has every day")
        if "precipitation_missing" in names and "precipitation" not in names:
            raise ValueError("precipitation_missing needs precipitation among the measures")
        for measure in self.measures:
            if (measure.name in MEASURES) != (measure.column is None):
                raise ValueError(f"a token has a column, found {measure}")

    def locate(self, members: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
        """Say what may be observed on each day.

        Parameters
        ----------
        members : Tensor, shape (B, T, heads)
            Answers of the heads in the unit of the target.
        forcing : Tensor, shape (B, T, C)
            As the network reads them; they may begin on an earlier day.
        static : Tensor, shape (B, S)

        Returns
        -------
        Tensor, shape (B, T, WIDTH)
            Centre, scale below it, scale above it (transformed), and number of the regime. None
            depends on a later day.
        """
        columns = {measure.name: measure.column for measure in self.measures}
        return self.place(*measured(columns, self.scale, members, forcing, static))

    def place(self, centre: Tensor, measures: Mapping[str, Tensor]) -> Tensor:
        """Say what may be observed, as `locate` does, given what `measured` returns."""
        import torch

        regime = torch.full_like(centre, len(self.regimes) - 1)
        for i in reversed(range(len(self.regimes) - 1)):
            inside = torch.ones_like(centre, dtype=torch.bool)
            for name, (low, high) in self.regimes[i].within.items():
                inside &= (measures[name] >= low) & (measures[name] < high)
            regime = torch.where(inside, float(i), regime)
        scales = []
        for side in ("below", "above"):
            changed, gaps = torch.zeros_like(centre), torch.zeros_like(centre)
            for measure in self.measures:
                scaled = standardised(measures[measure.name], measure.moments)
                (gaps if measure.name in MISSING else changed).add_(getattr(measure, side) * scaled)
            scales.append((getattr(self, side) + changed.clamp(-SUREST, SUREST) + gaps).exp())
        return torch.stack([centre + self.shift, *scales, regime], dim=-1)

    def quantiles(self, located: Floats, levels: Iterable[float]) -> Floats:
        """Return quantiles of what may be observed, in the unit of the target.

        Parameters
        ----------
        located : ndarray of float32, shape (..., WIDTH)
            As from `locate`.
        levels : sequence of float
            Between 0 and 1.

        Returns
        -------
        ndarray of float32, shape (level, ...)
            NaN where there is no answer.
        """
        centre, below, above, regime = np.moveaxis(located, -1, 0)
        shapes = self.shapes(np.array([*levels]))
        which = np.nan_to_num(regime).round().astype(np.intp)
        found = np.empty((shapes.shape[1], *centre.shape), dtype=np.float32)
        for level, shape in enumerate(shapes.T):
            scaled = shape[which]
            found[level] = self.scale.back(centre + np.where(scaled < 0, below, above) * scaled)
        return found

    def shapes(self, levels: NDArray[np.float64]) -> Floats:
        """Return the quantiles of each regime at other levels, in scales, shape (regime, level)."""
        knots, wanted = _logits(np.array(LEVELS)), _logits(levels)
        table = np.array([regime.quantiles for regime in self.regimes])
        left = np.clip(np.searchsorted(knots, wanted) - 1, 0, len(knots) - 2)
        share = (wanted - knots[left]) / (knots[left + 1] - knots[left])
        found = table[:, left] + share * (table[:, left + 1] - table[:, left])
        return found.astype(np.float32)


def measured(
    columns: Mapping[str, int | None],
    scale: Scale,
    members: Tensor,
    forcing: Tensor,
    static: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what tells of the error of each day, from what the network has read and answered.

    Parameters
    ----------
    columns : mapping of str to int or None
        Names of `MEASURES`, and of tokens with their place in the schema.
    scale : Scale
    members, forcing, static : Tensor
        As for `Distribution.locate`. Forcings may begin on an earlier day.

    Returns
    -------
    centre : Tensor, shape (B, T)
        The mean of the heads, transformed.
    measures : dict of str to Tensor, shape (B, T)
    """
    import torch

    # Value by value, so that no chunk rounds otherwise than another.
    answers = members.unbind(-1)
    known = [answer.isfinite() for answer in answers]
    count = torch.stack(known).sum(0).to(members.dtype)
    count = torch.where(count > 0, count, torch.nan)

    def mean(values: Iterable[Tensor]) -> Tensor:
        parts = (torch.where(k, v, 0.0) for k, v in zip(known, values, strict=True))
        return sum(parts, torch.zeros_like(count)) / count

    centre = scale.forward(mean(answers))
    transformed = [scale.forward(answer) for answer in answers]
    middle = mean(transformed)
    spread = mean([(each - middle) ** 2 for each in transformed]).sqrt()

    def change(days: int) -> Tensor:
        before = centre[:, :-days] if days < centre.shape[1] else centre[:, :0]
        return centre - torch.cat([centre[:, : centre.shape[1] - before.shape[1]], before], dim=1)

    days, found = centre.shape[1], {}
    for name, column in columns.items():
        if column is not None and column < forcing.shape[-1]:
            found[name] = forcing[:, -days:, column]
        elif column is not None:
            found[name] = static[:, column - forcing.shape[-1], None].expand_as(centre)
        elif name == "level":
            found[name] = centre
        elif name == "disagreement":
            found[name] = (spread + _AGREED).log()
        elif name == "known":
            found[name] = _share(static)[:, None].expand_as(centre)
        elif name == "known_today":
            found[name] = _share(forcing[:, -days:])
        elif name == "precipitation_missing":
            found[name] = _missing(forcing[..., columns["precipitation"], None])[:, -days:]
        elif name == "weather_missing":
            found[name] = _missing(forcing)[:, -days:]
        else:
            found[name] = change(_LAGS[name])
    return centre, found


def standardised(values: Tensor, moments: Moments) -> Tensor:
    """Return a measure in standard deviations from its mean, as the mean where it is missing."""
    return ((values - moments.mean) / moments.std).clamp(-_BOUND, _BOUND).nan_to_num(0.0)


def _share(values: Tensor) -> Tensor:
    """Return the share of known values on the last axis."""
    return values.isfinite().sum(-1) / max(values.shape[-1], 1)


def _missing(values: Tensor) -> Tensor:
    """Return the share of the last week's values that are missing, see `MISSING`, (B, T)."""
    known = values.isfinite()
    had = _recent(known, KNOWN_DAYS - WEEK) > 0
    # Counts are exact, whatever the order in which they are added.
    gone, all_ = (_recent(part.sum(-1), WEEK) for part in (had & ~known, had))
    return (gone / all_.clamp(min=1)).to(values.dtype)


def _recent(counts: Tensor, days: int) -> Tensor:
    """Return sums over so many days, along the second axis."""
    import torch

    total = counts.cumsum(dim=1)
    if days < total.shape[1]:
        total = torch.cat([total[:, :days], total[:, days:] - total[:, :-days]], dim=1)
    return total


def _logits(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(levels / (1 - levels))
