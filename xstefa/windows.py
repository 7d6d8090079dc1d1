"""Windows anchored to the calendar, or whole records, so that no chunking can move them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xstefa.errors import ModelError
from xstefa.typed import Count, Natural, Share, build

Days = NDArray[np.int64]
Floats = NDArray[np.float32]
Known = NDArray[np.bool_]

YEAR = 365

MOST_DAYS = 10**6

BRIDGED = 3
"""Days of the longest gap that is filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPolicy:
    """How a long record is cut into the windows a model reads.

    Window ``k`` answers for the days ``[k * stride, (k + 1) * stride)`` counted from 1970-01-01 and
    reads `spin_up` days before them. Neighbours overlap by `blend` days over which the answer fades
    linearly from one to the next, so that no seam shows. What precedes a record is taken from its
    first year, as land-surface models do to spin up; at its end windows are shifted inside it. A
    record shorter than a year, or than a window, is preceded by missing days.

    Parameters
    ----------
    length : int
        Days a window reads, as in training.
    spin_up : int
        Days read before the first day answered for.
    blend : int
        Days over which neighbouring windows fade into each other; even.
    """

    length: Count = 365
    spin_up: Natural = 120
    blend: Natural = 30

    def __post_init__(self) -> None:
        if self.blend < 0 or self.blend % 2:
            raise ValueError(f"blend must be even and not negative, found {self.blend}")
        if self.stride < max(self.blend, 1):
            raise ValueError(
                f"a window of {self.length} days leaves {self.stride} days to answer for after "
                f"spin_up={self.spin_up} and blend={self.blend}; shorten them"
            )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> WindowPolicy:
        """Read parsed JSON; what has a span is a `SegmentPolicy`."""
        kind = SegmentPolicy if "span" in content else WindowPolicy
        return build(kind, content, error=ModelError, fix="")

    @property
    def causal(self) -> bool:
        """Whether no answer depends on later days."""
        return False

    @property
    def stride(self) -> int:
        """Days each window answers for."""
        return self.length - self.spin_up - self.blend

    @property
    def least(self) -> int:
        """Days that have to be known of a day and its spin-up: half.

        On less the answer is a stranger's: a streamflow model that begins from nothing is off by
        the mean flow for two months, and within an eighth of it after half its spin-up.
        """
        return self.spin_up // 2 + 1

    @property
    def longest(self) -> int:
        """Most days that a window reads in prediction."""
        return self.length

    def over(self, days: Days) -> range:
        """Return the numbers of the windows that answer for a record.

        Parameters
        ----------
        days : ndarray of int64, increasing
            Days of the record, counted from 1970-01-01.
        """
        return range(int(days[0]) // self.stride, int(days[-1]) // self.stride + 1)

    def start(self, window: int, *, first: int, last: int) -> int:
        """Return the first day window number `window` reads in a record from `first` to `last`."""
        latest = last - self.length + 1
        if latest < first:
            return latest
        nominal = window * self.stride - self.spin_up - self.blend // 2
        earliest = first - self.spin_up if self._has_year(first, last) else first
        return min(max(nominal, earliest), latest)

    def reads(self, window: int, *, first: int, last: int) -> Days:
        """Return the days that window number `window` reads, in its order, shape (length,).

        Days before a record of at least a year are those of its first year, over and over.
        """
        days = self.start(window, first=first, last=last) + np.arange(self.length, dtype=np.int64)
        if self._has_year(first, last):
            before = days < first
            days[before] = first + (days[before] - first) % YEAR
        return days

    @staticmethod
    def _has_year(first: int, last: int) -> bool:
        return last - first + 1 >= YEAR

    def weight(self, window: int, days: Days) -> Floats:
        """Return the weight of window number `window` in the answer for each day, shape (day,)."""
        begin, end = window * self.stride, (window + 1) * self.stride
        if not self.blend:
            return ((days >= begin) & (days < end)).astype(np.float32)
        rise = (days + 0.5 - (begin - self.blend / 2)) / self.blend
        fall = (end + self.blend / 2 - days - 0.5) / self.blend
        return np.clip(np.minimum(rise, fall), 0, 1).astype(np.float32)

    def spun_up(self, known: Known) -> Known:
        """Return on which days of a window a model has seen enough to answer, shape (site, length).

        Those days for which each variable is known on at least `least` of the day and the `spin_up`
        days before it, as the window reads them.

        Parameters
        ----------
        known : ndarray of bool, shape (site, length, variable)
        """
        return np.asarray((_recent(known, self.spin_up + 1) >= self.least).all(axis=-1))

    def coverage(self, known: Known) -> Floats:
        """Return the share of the forcings known behind each day's answer, shape (site, length).

        In a window that is read as a whole it is that of the window.

        Parameters
        ----------
        known : ndarray of bool, shape (site, length, variable)
        """
        share = known.sum(axis=(1, 2), dtype=np.int64) / np.float32(np.prod(known.shape[1:]))
        return np.broadcast_to(share.astype(np.float32)[:, None], known.shape[:2])

    def answerable(self, record: Days) -> Known:
        """Return for which days of a record without missing values there is an answer.

        Parameters
        ----------
        record : ndarray of int64, increasing
        """
        ends = self.ends(record, record)
        found = np.zeros(len(record), dtype=bool)
        for k in self.over(record):
            used = np.flatnonzero(self.weight(k, record))
            known = np.isin(self.reads(k, **ends), record)
            ready = self.spun_up(known[None, :, None])[0]
            found[used] |= ready[record[used] - self.start(k, **ends)]
        return found

    def ends(self, out: Days, record: Days) -> dict[str, int]:
        """Return first and last day that may be read of a record to answer for the days `out`."""
        return {"first": int(record[0]), "last": int(out[-1] if self.causal else record[-1])}

    def needed(self, out: Days, record: Days) -> tuple[list[int], int, int]:
        """Return which windows answer for the days `out`, and the days of `record` they read.

        Returns
        -------
        windows : list of int
        first, last : int
            First and last day read, with those that `bridge` looks at.
        """
        ends = self.ends(out, record)
        windows = [k for k in self.over(record) if self.weight(k, out).any()]
        # Reading starts and ends move with the window, so the outer windows tell.
        days = np.concatenate([self.reads(k, **ends) for k in (windows[0], windows[-1])])
        # What bridges a gap at either end of them lies beyond it.
        beyond = 0 if self.causal else BRIDGED
        first, last = int(days.min()) - beyond, int(days.max()) + beyond
        return windows, max(first, ends["first"]), min(last, ends["last"])


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPolicy(WindowPolicy):
    """How a model that looks back only reads a record: in segments, each day once.

    Segment ``k`` answers for the days ``[k * span, (k + 1) * span)`` counted from 1970-01-01 and
    reads `spin_up` days before them, but nothing before the record begins; without a span there is
    one segment, the record. Nothing is read after the last day answered for.

    Parameters
    ----------
    length : int
        Days of a window in training.
    spin_up : int
        Days in training whose answers do not count; days read before a segment.
    span : int, optional
        Days a segment answers for.
    known : float
        Share of a day and its spin-up that has to be known for an answer.
    """

    length: Count = 1095
    spin_up: Natural = 365
    blend: Natural = 0
    span: Count | None = None
    known: Share = 0.5

    def __post_init__(self) -> None:
        if self.blend:
            raise ValueError(f"segments do not overlap, found blend={self.blend}")
        if self.length <= self.spin_up:
            raise ValueError(
                f"a window of {self.length} days has none to learn from after "
                f"spin_up={self.spin_up}; shorten it"
            )

    @property
    def causal(self) -> bool:
        """Whether no answer depends on later days."""
        return True

    @property
    def stride(self) -> int:
        """Days each segment answers for; of whole records, more than any has."""
        return self.span or MOST_DAYS

    @property
    def least(self) -> int:
        """Days that have to be known of a day and its spin-up."""
        return int(self.known * self.spin_up) + 1

    @property
    def longest(self) -> int:
        """Most days that a segment reads."""
        return self.stride + self.spin_up

    def over(self, days: Days) -> range:
        """Return the numbers of the segments that answer for a record."""
        return super(SegmentPolicy, self).over(days) if self.span else range(1)

    def start(self, window: int, *, first: int, last: int) -> int:
        """Return the first day segment number `window` reads in a record that begins at `first`."""
        return max(window * self.span - self.spin_up, first) if self.span else first

    def reads(self, window: int, *, first: int, last: int) -> Days:
        """Return the days that segment number `window` reads of those up to `last`."""
        end = min((window + 1) * self.span - 1, last) if self.span else last
        return np.arange(self.start(window, first=first, last=last), end + 1, dtype=np.int64)

    def weight(self, window: int, days: Days) -> Floats:
        """Return 1 for the days that segment number `window` answers for, else 0."""
        if not self.span:
            return np.ones(len(days), dtype=np.float32)
        return super(SegmentPolicy, self).weight(window, days)

    def coverage(self, known: Known) -> Floats:
        """Return the share of the forcings known on each day and in the spin-up before it."""
        behind = np.minimum(np.arange(known.shape[1]), self.spin_up) + 1
        counts = _recent(known, self.spin_up + 1).sum(axis=-1)
        return (counts / np.float32(known.shape[-1] * behind)).astype(np.float32)


def _recent(known: Known, days: int) -> NDArray[np.int32]:
    """Count what is known on each day and those before it, `days` in all."""
    counts = np.zeros((len(known), known.shape[1] + 1, known.shape[2]), dtype=np.int32)
    np.cumsum(known, axis=1, out=counts[:, 1:])
    since = np.maximum(np.arange(known.shape[1]) + 1 - days, 0)
    return counts[:, 1:] - counts[:, since]


def unbroken(values: Floats, days: Days) -> tuple[Floats, Days]:
    """Give every day from the first to the last a place.

    Parameters
    ----------
    values : ndarray of float32, shape (site, day, ...)
    days : ndarray of int64, shape (day,)
        In order.

    Returns
    -------
    values : ndarray of float32
        NaN on the days that were not there.
    days : ndarray of int64
    """
    every = np.arange(days[0], days[-1] + 1)
    if len(every) == len(days):
        return values, days
    whole = np.full((len(values), len(every), *values.shape[2:]), np.nan, dtype=np.float32)
    whole[:, days - days[0]] = values
    return whole, every


def bridge(values: Floats) -> Floats:
    """Fill gaps of up to three days linearly, from the days around them.

    A day without rain in the data is not a day without rain: hidden from a model, it leaves a mark
    in the answer twice as large (and, taken as zero, three times) as what is interpolated does.

    Parameters
    ----------
    values : ndarray of float32, shape (site, day, variable)
        On an unbroken day axis; NaN where missing.

    Returns
    -------
    ndarray of float32
        `values` itself if there is no such gap.
    """
    known = np.isfinite(values)
    filled = values
    for variable in np.flatnonzero(known.any(axis=(0, 1)) & ~known.all(axis=(0, 1))):
        there = known[..., variable]
        for length in range(1, BRIDGED + 1):
            ends = there[:, : -length - 1] & there[:, length + 1 :]
            for day in range(1, length + 1):
                ends &= ~there[:, day : day - length - 1]
            site, before = np.nonzero(ends)
            if not len(site):
                continue
            if filled is values:
                filled = values.copy()
            first, last = (
                values[site, before, variable],
                values[site, before + length + 1, variable],
            )
            for day in range(1, length + 1):
                share = np.float32(day / (length + 1))
                filled[site, before + day, variable] = first + share * (last - first)
    return filled
