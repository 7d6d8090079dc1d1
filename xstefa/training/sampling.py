"""Which windows a step learns from, and their values as a batch on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xstefa.errors import TrainingError
from xstefa.splits.sites import Mask
from xstefa.training.devices import Runner
from xstefa.training.samples import Record, Split
from xstefa.windows import Floats

Picks = Sequence[NDArray[np.int64]]


class Batch(NamedTuple):
    """Windows of one step, as far as this process computes them.

    Attributes
    ----------
    number : Tensor of int64, shape (B,)
        Which of the `Windows` each row is.
    forcing : Tensor, shape (B, T, C)
    static : Tensor, shape (B, S)
        Standardised; NaN where missing.
    target : Tensor, shape (B, T), or None
    weight : Tensor, shape (B,), or None
        Loss weight of each row's site.
    days : Tensor, shape (B, T, d), or None
        What a frozen encoder says, if it was asked before training.
    size : int
        Rows of the step over all processes.
    """

    number: Tensor
    forcing: Tensor
    static: Tensor
    target: Tensor | None
    weight: Tensor | None
    days: Tensor | None
    size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The windows of some records in which enough is known to learn from.

    Attributes
    ----------
    records : sequence of Record
    starts : sequence of ndarray of int32, shape (window, 2)
        Site and first column of every window of every record.
    numbers : sequence of ndarray of int64, shape (window,)
        A number for each window, which it keeps when others are left out.
    length : int
        Days a window has.
    spin_up : int
        Days at its start that do not count.
    least_known : float
        Share of the days after the spin-up on which the target (without one: precipitation) is
        known.
    site_weights : sequence of ndarray, shape (site,), or None
    shares : sequence of float, or None
        How often each record is drawn from; by default as often as it has windows.
    """

    records: Sequence[Record]
    starts: Sequence[NDArray[np.int32]]
    numbers: Sequence[NDArray[np.int64]]
    length: int
    spin_up: int
    least_known: float
    site_weights: Sequence[Floats] | None = None
    shares: Sequence[float] | None = None

    @classmethod
    def find(
        cls,
        records: Sequence[Record],
        *,
        length: int,
        spin_up: int,
        least_known: float = 0.1,
        stride: int = 1,
        seed: int = 0,
        site_weights: Sequence[Floats] | None = None,
        shares: Sequence[float] | None = None,
        each: bool = True,
    ) -> Self:
        """List the admissible windows.

        Parameters
        ----------
        stride : int
            Days between the starts of a site's windows, from a random first day.
        each : bool
            Whether every record has to have a window, or one of them.

        Raises
        ------
        TrainingError
            If a record has none.
        """
        random = np.random.default_rng(seed)
        starts = []
        for record in records:
            known = _known(record, length=length, spin_up=spin_up, least=least_known)
            rows = np.argwhere(known).astype(np.int32)
            if each and not len(rows):
                raise _no_window(record, length, least_known)
            # Within the record, however short it is.
            first = random.integers(max(1, min(stride, known.shape[1])), size=len(record.ids))
            starts.append(rows[(rows[:, 1] - first[rows[:, 0]]) % stride == 0])
        offsets = np.cumsum([0, *(len(rows) for rows in starts)])
        if not offsets[-1]:
            raise _no_window(records[0], length, least_known)
        return cls(
            records=records,
            starts=tuple(starts),
            numbers=tuple(
                np.arange(begin, begin + len(rows))
                for begin, rows in zip(offsets[:-1], starts, strict=True)
            ),
            length=length,
            spin_up=spin_up,
            least_known=least_known,
            site_weights=site_weights,
            shares=shares,
        )

    def restricted(self, sites: Sequence[Mask], records: Sequence[Record] | None = None) -> Self:
        """Keep the windows of some sites.

        Parameters
        ----------
        sites : sequence of ndarray of bool, shape (site,)
            For each record, which sites are kept.
        records : sequence of Record, optional
            The same records with part of the target forgotten; windows in which too little is left
            are left out.

        Raises
        ------
        TrainingError
            If no window of a record is left.
        """
        starts, numbers = [], []
        for i, (rows, number, kept) in enumerate(
            zip(self.starts, self.numbers, sites, strict=True)
        ):
            left = kept[rows[:, 0]]
            if records is not None:
                known = _known(
                    records[i], length=self.length, spin_up=self.spin_up, least=self.least_known
                )
                left &= known[rows[:, 0], rows[:, 1]]
            if not left.any() and kept.any():
                raise _no_window(self.records[i], self.length, self.least_known)
            starts.append(rows[left])
            numbers.append(number[left])
        return replace(
            self,
            records=self.records if records is None else records,
            starts=tuple(starts),
            numbers=tuple(numbers),
        )

    def __len__(self) -> int:
        return sum(len(starts) for starts in self.starts)

    def at(self, step: int) -> Windows:
        """Return the windows in memory at a step: all of them, at every step."""
        return self

    def in_order(self, *, batch_size: int) -> Iterator[Picks]:
        """Go through all windows once."""
        empty = np.empty(0, dtype=np.int64)
        for record, starts in enumerate(self.starts):
            for begin in range(0, len(starts), batch_size):
                picks = [empty] * len(self.starts)
                picks[record] = np.arange(begin, min(begin + batch_size, len(starts)))
                yield picks


def validation_windows(
    windows: Windows, splits: Sequence[Split], records: Sequence[Record]
) -> Windows | None:
    """Return the windows of the sites whose loss is watched, if there are any.

    Held-out days must be forgotten in `records`: what is watched decides when training stops.
    """
    watched = [
        np.zeros_like(split.train) if split.validate is None else split.validate for split in splits
    ]
    return windows.restricted(watched, records) if any(kept.any() for kept in watched) else None


class Sampler:
    """Draws windows without end: a record as often as its share says, then any of its windows.

    Parameters
    ----------
    batch_size : int
    seed : int
    """

    def __init__(self, *, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self._random = np.random.default_rng(seed)

    def draw(self, windows: Windows) -> Picks:
        """Draw the windows of a step: for each record, their places among its windows."""
        counts_of_windows = np.array([len(starts) for starts in windows.starts], dtype=float)
        shares = counts_of_windows if windows.shares is None else np.asarray(windows.shares, float)
        shares = shares * (counts_of_windows > 0)
        counts = self._random.multinomial(self.batch_size, shares / shares.sum())
        return [
            self._random.integers(max(len(starts), 1), size=count)
            for starts, count in zip(windows.starts, counts, strict=True)
        ]

    def state(self) -> Mapping[str, Any]:
        """Return what makes the next draws, as JSON-able numbers."""
        return self._random.bit_generator.state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._random.bit_generator.state = dict(state)


class Feed:
    """Makes batches of windows on a device.

    Records that fit are held there as one tensor each and indexed there; what does not fit stays in
    the computer's memory, and its windows are sent step by step.

    Parameters
    ----------
    windows : Windows
    runner : Runner
        Says on which device which rows of a step are made.
    encoded : Tensor, shape (number of window, T, d), optional
        What the frozen encoder says of each window, by `Batch.number`.
    """

    def __init__(self, windows: Windows, runner: Runner, *, encoded: Tensor | None = None) -> None:
        self.windows = windows
        self._runner = runner
        self._encoded = encoded
        weights: Sequence[Floats | None] = windows.site_weights or [None] * len(windows.records)
        self._records = [
            _Held.of(record, weight, runner.device)
            for record, weight in zip(windows.records, weights, strict=True)
        ]

    def __call__(self, picks: Picks) -> Batch:
        """Return the batch of some windows."""
        parts: list[tuple[Tensor | None, ...]] = []
        numbers, before = [], 0
        for i, (held, chosen) in enumerate(zip(self._records, picks, strict=True)):
            # Rows are counted over all records; this process takes every world-th of them.
            first = (self._runner.rank - before) % self._runner.world
            before += len(chosen)
            chosen = chosen[first :: self._runner.world]
            numbers.append(torch.from_numpy(self.windows.numbers[i][chosen]))
            parts.append(held.gather(self.windows.starts[i][chosen], self.windows.length))
        number = torch.cat(numbers)
        forcing, static, target, weight = (
            None if any(t is None for t in column) else torch.cat(column).to(self._runner.device)
            for column in zip(*parts, strict=True)
        )
        assert forcing is not None and static is not None
        days = None if self._encoded is None else self._encoded[number].to(self._runner.device)
        return Batch(
            number=number.to(self._runner.device),
            forcing=forcing,
            static=static,
            target=target,
            weight=weight,
            days=days,
            size=before,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Held:
    """A record's values as tensors, on the device if they fit there."""

    forcing: Tensor
    static: Tensor
    target: Tensor | None
    weight: Tensor | None

    @classmethod
    def of(cls, record: Record, weight: Floats | None, device: torch.device) -> _Held:
        if not _fits(record, device):
            device = torch.device("cpu")

        def held(values: Floats | None) -> Tensor | None:
            return None if values is None else torch.from_numpy(values).to(device)

        forcing, static = held(record.forcing), held(record.static)
        assert forcing is not None and static is not None
        return cls(forcing=forcing, static=static, target=held(record.target), weight=held(weight))

    def gather(self, rows: NDArray[np.int32], length: int) -> tuple[Tensor | None, ...]:
        """Return forcing, static, target and weight of windows given by site and first column."""
        where = torch.from_numpy(rows.astype(np.int64)).to(self.forcing.device)
        site, first = where[:, 0], where[:, 1]
        day = first[:, None] + torch.arange(length, device=where.device)
        return (
            self.forcing[site[:, None], day],
            self.static[site],
            None if self.target is None else self.target[site[:, None], day],
            None if self.weight is None else self.weight[site],
        )


def _fits(record: Record, device: torch.device) -> bool:
    """Whether a record may take its place on a GPU: half of what is free is for the network."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    needed = record.forcing.nbytes + (0 if record.target is None else record.target.nbytes)
    return needed < free / 2


def _known(record: Record, *, length: int, spin_up: int, least: float) -> Mask:
    """Return for each site and first column whether enough is known in the window."""
    values = record.forcing[..., 0] if record.target is None else record.target
    known = np.cumsum(np.isfinite(values), axis=1, dtype=np.int32)
    known = np.pad(known, ((0, 0), (1, 0)))
    after = known[:, length:] - known[:, spin_up : known.shape[1] - length + spin_up]
    return np.asarray(after >= least * (length - spin_up))


def _no_window(record: Record, length: int, least: float) -> TrainingError:
    return TrainingError(
        variable="target" if record.target is not None else "precipitation",
        found=f"no window of {length} days with {least:.0%} of the values known",
        expected="at least one",
        fix="use a longer record, or a model with shorter windows",
    )
