"""Windows anchored to the calendar, so that no chunking or selection can move them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xstefa.typed import Count, Natural

Days = NDArray[np.int64]
Floats = NDArray[np.float32]
Known = NDArray[np.bool_]

YEAR = 365

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

    @property
    def stride(self) -> int:
        """Days each window answers for."""
        return self.length - self.spin_up - self.blend

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

        Those days for which each variable is known on at least half of the day and the `spin_up`
        days before it, as the window reads them. On less the answer is a stranger's: a streamflow
        model that begins from nothing is off by the mean flow for two months, and within an eighth
        of it after half its spin-up.

        Parameters
        ----------
        known : ndarray of bool, shape (site, length, variable)
        """
        counts = np.zeros((len(known), self.length + 1, known.shape[-1]), dtype=np.int32)
        np.cumsum(known, axis=1, out=counts[:, 1:])
        since = np.maximum(np.arange(self.length) - self.spin_up, 0)
        return np.asarray((2 * (counts[:, 1:] - counts[:, since]) > self.spin_up).all(axis=-1))

    def answerable(self, record: Days) -> Known:
        """Return for which days of a record without missing values there is an answer.

        Parameters
        ----------
        record : ndarray of int64, increasing
        """
        ends = {"first": int(record[0]), "last": int(record[-1])}
        found = np.zeros(len(record), dtype=bool)
        for k in self.over(record):
            used = np.flatnonzero(self.weight(k, record))
            known = np.isin(self.reads(k, **ends), record)
            ready = self.spun_up(known[None, :, None])[0]
            found[used] |= ready[record[used] - self.start(k, **ends)]
        return found

    def needed(self, out: Days, record: Days) -> tuple[list[int], int, int]:
        """Return which windows answer for the days `out`, and the days of `record` they read.

        Returns
        -------
        windows : list of int
        first, last : int
            First and last day read, with those that `bridge` looks at.
        """
        first, last = int(record[0]), int(record[-1])
        windows = [k for k in self.over(record) if self.weight(k, out).any()]
        # Reading starts and ends move with the window, so the outer windows tell.
        ends = [self.reads(k, first=first, last=last) for k in (windows[0], windows[-1])]
        days = np.concatenate(ends)
        # What bridges a gap at either end of them lies beyond it.
        return windows, max(int(days.min()) - BRIDGED, first), min(int(days.max()) + BRIDGED, last)


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
