"""Windows anchored to the calendar, so that no chunking or selection can move them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Days = NDArray[np.int64]
Floats = NDArray[np.float32]
Known = NDArray[np.bool_]

YEAR = 365


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

    length: int = 365
    spin_up: int = 120
    blend: int = 30

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

    def begun(self, known: Known, *, days: Days, out: Days) -> Known:
        """Return on which days a site has a record to answer from, shape (site, len(out)).

        Those days for which each variable is known that day or within the `spin_up` days before,
        which every window that answers for the day has read. Before a site's record begins, and
        when a gap outlasts the spin-up, the model would answer from the weather of other days.

        Parameters
        ----------
        known : ndarray of bool, shape (site, day, variable)
        days : ndarray of int64, increasing
            Days of `known`.
        out : ndarray of int64
            Days to answer for.
        """
        until = np.searchsorted(days, out, side="right")
        since = np.searchsorted(days, out - self.spin_up, side="left")
        counts = np.zeros((len(known), len(days) + 1, known.shape[-1]), dtype=np.int32)
        np.cumsum(known, axis=1, out=counts[:, 1:])
        return np.asarray((counts[:, until] > counts[:, since]).all(axis=-1))

    def needed(self, out: Days, record: Days) -> tuple[list[int], int, int]:
        """Return which windows answer for the days `out`, and the days of `record` they read.

        Returns
        -------
        windows : list of int
        first, last : int
            First and last day read.
        """
        first, last = int(record[0]), int(record[-1])
        windows = [k for k in self.over(record) if self.weight(k, out).any()]
        # Reading starts and ends move with the window, so the outer windows tell.
        ends = [self.reads(k, first=first, last=last) for k in (windows[0], windows[-1])]
        days = np.concatenate(ends)
        return windows, max(int(days.min()), first), min(int(days.max()), last)
