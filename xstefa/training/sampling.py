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
from xstefa.training.devices import CPU, Runner
from xstefa.training.records import Record

Picks = Sequence[NDArray[np.int64]]

# Site-days that are looked at at a time for what is known of them.
AT_ONCE = 10**7


class Batch(NamedTuple):
    """Windows of one step, as far as this process computes them.

    Attributes
    ----------
    number : Tensor of int64, shape (B,)
        Which of the `Windows` each row is.
    forcing : Tensor, shape (B, T, C)
    static : Tensor, shape (B, S)
        Standardised; NaN where missing.
    size : int
        Rows of the step over all processes.
    target : Tensor, shape (B, T), or None
    weight : Tensor, shape (B,), or None
        Loss weight of each row's site.
    days : Tensor, shape (B, T, d), or None
        Embeddings of a frozen encoder, if they are in the cache.
    """

    number: Tensor
    forcing: Tensor
    static: Tensor
    size: int
    target: Tensor | None = None
    weight: Tensor | None = None
    days: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The windows of some records in which enough is known to learn from.

    Attributes
    ----------
    records : sequence of Record
    places : sequence of ndarray of int64, shape (window,)
        Of each record: number of a window's site times the record's days, plus its first column.
    drawn : sequence of ndarray of int64
        Which of the `places` are drawn from.
    length : int
        Days a window has.
    spin_up : int
        Days at its start that do not count.
    least_known : float
        Share of the days after the spin-up on which `Record.learned` is known.
    counted : sequence of ndarray of bool, shape (day,), or None
        Days of each record whose target counts; by default all.
    """

    records: Sequence[Record]
    places: Sequence[NDArray[np.int64]]
    drawn: Sequence[NDArray[np.int64]]
    length: int
    spin_up: int
    least_known: float
    counted: Sequence[Mask | None]

    @classmethod
    def find(
        cls,
        records: Sequence[Record],
        *,
        length: int,
        spin_up: int,
        least_known: float = 0.1,
        strides: Sequence[int],
        seed: int = 0,
    ) -> Self:
        """List the admissible windows.

        Parameters
        ----------
        strides : sequence of int
            Days between the starts of a site's windows, from a random first day; of each record.

        Raises
        ------
        TrainingError
            If a record has none.
        """
        random = np.random.default_rng(seed)
        places = []
        for record, stride in zip(records, strides, strict=True):
            sites, days = record.learned.shape
            columns = days - length + 1
            # Within the record, however short it is.
            first = random.integers(max(1, min(stride, columns)), size=sites)
            every = [np.arange(f, columns, stride) + i * days for i, f in enumerate(first)]
            place = np.concatenate([np.empty(0, dtype=np.int64), *every])
            places.append(place[_enough(record, place, None, length, spin_up, least_known)])
            if not len(places[-1]):
                raise _no_window(record, length, least_known)
        return cls(
            records=records,
            places=places,
            drawn=[np.arange(len(place)) for place in places],
            length=length,
            spin_up=spin_up,
            least_known=least_known,
            counted=[None] * len(records),
        )

    def restricted(
        self, sites: Sequence[Mask], counted: Sequence[Mask | None] | None = None
    ) -> Self:
        """Draw from the windows of some sites only.

        Parameters
        ----------
        sites : sequence of ndarray of bool, shape (site,)
            For each record, which sites are kept.
        counted : sequence of ndarray of bool, shape (day,), or None
            Days whose target counts; windows in which too few are known are left out.

        Raises
        ------
        TrainingError
            If no window of a record is left.
        """
        counted = counted or self.counted
        drawn = []
        for record, place, chosen, kept, days in zip(
            self.records, self.places, self.drawn, sites, counted, strict=True
        ):
            left = kept[place[chosen] // record.learned.shape[1]]
            if days is not None:
                how = self.length, self.spin_up, self.least_known
                left &= _enough(record, place[chosen], days, *how)
            if not left.any() and kept.any():
                raise _no_window(record, self.length, self.least_known)
            drawn.append(chosen[left])
        return replace(self, drawn=drawn, counted=counted)

    def __len__(self) -> int:
        return sum(map(len, self.drawn))

    def in_order(self, *, batch_size: int) -> Iterator[Picks]:
        """Go through all windows once."""
        empty = np.empty(0, dtype=np.int64)
        for record, chosen in enumerate(self.drawn):
            for begin in range(0, len(chosen), batch_size):
                picks = [empty] * len(self.drawn)
                picks[record] = np.arange(begin, min(begin + batch_size, len(chosen)))
                yield picks


class Sampler:
    """Draws windows without end: a record as often as its share says, then any of its windows.

    Parameters
    ----------
    windows : Windows
    shares : sequence of float
        How often each record is drawn from.
    batch_size : int
    seed : int
    """

    def __init__(
        self, windows: Windows, *, shares: Sequence[float], batch_size: int, seed: int
    ) -> None:
        self._counts = [len(chosen) for chosen in windows.drawn]
        weights = np.asarray(shares, dtype=float) * (np.array(self._counts) > 0)
        self._shares = weights / weights.sum()
        self._batch_size = batch_size
        self._random = np.random.default_rng(seed)

    def draw(self) -> Picks:
        """Draw the windows of a step: for each record, their places among those drawn from."""
        parts = self._random.multinomial(self._batch_size, self._shares)
        return [
            self._random.integers(max(count, 1), size=part)
            for count, part in zip(self._counts, parts, strict=True)
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
    the computer's memory or on its disk, and its windows are sent step by step.

    Parameters
    ----------
    windows : Windows
    runner : Runner
        Says on which device which rows of a step are made.
    encoded : Tensor, shape (number of window, T, d), optional
        Embeddings of each window, by `Batch.number`.
    """

    def __init__(self, windows: Windows, runner: Runner, *, encoded: Tensor | None = None) -> None:
        self.windows = windows
        self._runner = runner
        self._encoded = encoded
        self._records = [
            _held(record, counted, runner.device)
            for record, counted in zip(windows.records, windows.counted, strict=True)
        ]

    def __call__(self, picks: Picks) -> Batch:
        """Return the batch of some windows."""
        windows, device = self.windows, self._runner.device
        parts = []
        numbers, before, offset = [], 0, 0
        for held, places, drawn, chosen in zip(
            self._records, windows.places, windows.drawn, picks, strict=True
        ):
            # Rows are counted over all records; this process takes every world-th of them.
            rank, world = self._runner.rank, self._runner.world
            own = drawn[chosen[(rank - before) % world :: world]]
            numbers.append(torch.from_numpy(own + offset))
            parts.append(_gathered(held, places[own], windows.length))
            before += len(chosen)
            offset += len(places)
        number = torch.cat(numbers)
        names = set.intersection(*map(set, parts))
        return Batch(
            number=number.to(device),
            days=None if self._encoded is None else self._encoded[number].to(device),
            size=before,
            **{name: torch.cat([part[name] for part in parts]).to(device) for name in names},
        )


def _held(record: Record, counted: Mask | None, device: torch.device) -> dict[str, Tensor]:
    """Return a record's values as tensors, on the device if they fit there."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        needed = record.forcing.nbytes + (0 if record.target is None else record.target.nbytes)
        if needed >= free / 2:  # half of what is free is for the network
            device = CPU
    arrays = {name: getattr(record, name) for name in ("forcing", "static", "target", "weight")}
    arrays["counted"] = counted
    return {k: torch.from_numpy(v).to(device) for k, v in arrays.items() if v is not None}


def _gathered(
    held: Mapping[str, Tensor], places: NDArray[np.int64], length: int
) -> dict[str, Tensor]:
    """Return forcing, static and, where there are some, target and weight of windows."""
    forcing = held["forcing"]
    where = torch.from_numpy(places).to(forcing.device)
    days = forcing.shape[1]
    site = where.div(days, rounding_mode="floor")
    day = (where % days)[:, None] + torch.arange(length, device=where.device)
    daily = {name: held[name][site[:, None], day] for name in ("forcing", "target") if name in held}
    if "target" in daily and "counted" in held:
        daily["target"] = daily["target"].masked_fill(~held["counted"][day], torch.nan)
    return daily | {name: held[name][site] for name in ("static", "weight") if name in held}


def _enough(
    record: Record,
    places: NDArray[np.int64],
    counted: Mask | None,
    length: int,
    spin_up: int,
    least: float,
) -> Mask:
    """Return of which windows, in the order of sites, enough is known on the days that count."""
    sites, days = record.learned.shape
    enough = np.zeros(len(places), dtype=bool)
    rows = max(1, AT_ONCE // days)
    for begin in range(0, sites, rows):
        known = np.isfinite(record.learned[begin : begin + rows])
        if counted is not None:
            known &= counted
        sums = np.pad(np.cumsum(known, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        part = slice(*np.searchsorted(places, (begin * days, (begin + rows) * days)))
        site, column = np.divmod(places[part] - begin * days, days)
        after = sums[site, column + length] - sums[site, column + spin_up]
        enough[part] = after >= least * (length - spin_up)
    return enough


def _no_window(record: Record, length: int, least: float) -> TrainingError:
    return TrainingError(
        variable="target" if record.target is not None else "precipitation",
        found=f"no window of {length} days with {least:.0%} of the values known",
        expected="at least one",
        fix="use a longer record, or a model with shorter windows",
    )
