"""Training windows, drawn from datasets through the same binding as prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.errors import TrainingError
from xstefa.inference.windows import Floats
from xstefa.model.scaler import Scaler
from xstefa.schema import Schema


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """The sites of one dataset as dense arrays on an unbroken day axis.

    Attributes
    ----------
    ids : ndarray of str, shape (site,)
    first_day : int
        Day number of the first column, counted from 1970-01-01.
    forcing : ndarray of float32, shape (site, day, C)
    static : ndarray of float32, shape (site, S)
    target : ndarray of float32, shape (site, day), or None
        Canonical units; NaN where missing.
    """

    ids: NDArray[np.str_]
    first_day: int
    forcing: Floats
    static: Floats
    target: Floats | None = None

    @classmethod
    def from_binding(
        cls, binding: Binding, *, ids: Sequence[str], target: str | None = None
    ) -> Self:
        """Read a bound dataset into memory.

        Parameters
        ----------
        binding : Binding
        ids : sequence of str, in the order of the stacked site dimensions
        target : str, optional
            Name of a schema target that the dataset observes.
        """
        layout, schema = binding.layout, binding.schema
        columns = layout.days - layout.days[0]
        length = int(columns[-1]) + 1

        def dense(array: xr.DataArray, *dims: str) -> Floats:
            shape = template if layout.time in dims else template.isel({layout.time: 0}, drop=True)
            full = array.broadcast_like(shape)
            values = full.transpose(*dims).to_numpy().astype(np.float32, copy=False)
            return values.reshape(-1, len(layout.days)) if layout.time in dims else values.ravel()

        template = binding.forcing["precipitation"]
        sites = layout.site_dims
        count = len(ids)
        forcing = np.full((count, length, len(schema.forcings)), np.nan, dtype=np.float32)
        static = np.full((count, len(schema.statics)), np.nan, dtype=np.float32)
        for i, name in enumerate(schema.forcing_names):
            if name in binding.forcing:
                forcing[:, columns, i] = dense(binding.forcing[name], *sites, layout.time)
        for i, name in enumerate(schema.static_names):
            if name in binding.static:
                static[:, i] = dense(binding.static[name], *sites)
        observed = None
        if target is not None:
            array = binding.observed(target)
            if array is None:
                raise TrainingError(
                    variable=target,
                    found="no variable of the dataset that observes it",
                    expected=f"one of {', '.join(schema.target(target).aliases_text)}",
                    fix="add the observations, or name them with rename=",
                )
            observed = np.full((count, length), np.nan, dtype=np.float32)
            observed[:, columns] = dense(array, *sites, layout.time)
        return cls(
            ids=np.asarray(ids, dtype=str),
            first_day=int(layout.days[0]),
            forcing=forcing,
            static=static,
            target=observed,
        )

    def select(self, sites: NDArray[np.bool_]) -> Self:
        """Keep some sites, `sites` True where kept."""
        return replace(
            self,
            ids=self.ids[sites],
            forcing=self.forcing[sites],
            static=self.static[sites],
            target=None if self.target is None else self.target[sites],
        )

    def standardised(self, scaler: Scaler) -> Self:
        """Return the record as a network reads it; the target stays in its unit."""
        forcing, static = np.empty_like(self.forcing), np.empty_like(self.static)
        for i, moments in enumerate(scaler.forcings.values()):
            forcing[..., i] = moments.standardise(self.forcing[..., i])
        for i, moments in enumerate(scaler.statics.values()):
            static[..., i] = moments.standardise(self.static[..., i])
        return replace(self, forcing=forcing, static=static)


def known_tokens(schema: Schema, records: Sequence[Record]) -> tuple[str, ...]:
    """Return the tokens that any site of any record provides."""
    forcing = [np.isfinite(r.forcing).any(axis=(0, 1)) for r in records]
    static = [np.isfinite(r.static).any(axis=0) for r in records]
    known = np.concatenate([np.any(forcing, axis=0), np.any(static, axis=0)])
    names = (*schema.forcing_names, *schema.static_names)
    return tuple(name for name, have in zip(names, known, strict=True) if have)


def fit_scaler(schema: Schema, records: Sequence[Record]) -> Scaler:
    """Fit the moments over all days and sites of the training records."""
    forcing = np.concatenate([r.forcing.reshape(-1, r.forcing.shape[-1]) for r in records])
    static = np.concatenate([r.static for r in records])
    return Scaler.fit(schema, forcing, static)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Windows of one step.

    Attributes
    ----------
    number : ndarray of int64, shape (B,)
        Which of the `Windows` each row is.
    forcing : ndarray of float32, shape (B, T, C)
    static : ndarray of float32, shape (B, S)
    target : ndarray of float32, shape (B, T), or None
    weight : ndarray of float32, shape (B,), or None
        Loss weight of each row's site.
    """

    number: NDArray[np.int64]
    forcing: Floats
    static: Floats
    target: Floats | None
    weight: Floats | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The windows of some records in which enough is known to learn from.

    Attributes
    ----------
    records : sequence of Record
    starts : sequence of ndarray of int32, shape (window, 2)
        Site and first column of every window of every record.
    length : int
        Days a window has.
    site_weights : sequence of ndarray, shape (site,), or None
    """

    records: Sequence[Record]
    starts: Sequence[NDArray[np.int32]]
    length: int
    site_weights: Sequence[Floats] | None = None

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
    ) -> Self:
        """List the admissible windows.

        Parameters
        ----------
        least_known : float
            Share of the days after the spin-up on which the target (without one: precipitation)
            must be known.
        stride : int
            Days between the starts of a site's windows, from a random first day.
        """
        random = np.random.default_rng(seed)
        starts = []
        for record in records:
            rows = _admissible(record, length=length, spin_up=spin_up, least=least_known)
            phase = random.integers(stride, size=len(record.ids))
            starts.append(rows[(rows[:, 1] + phase[rows[:, 0]]) % stride == 0])
        return cls(records=records, starts=tuple(starts), length=length, site_weights=site_weights)

    def __len__(self) -> int:
        return sum(len(starts) for starts in self.starts)

    def draw(self, *, batch_size: int, shares: Sequence[float], seed: int) -> Iterator[Batch]:
        """Draw batches without end: a record with probability `shares`, then any of its windows."""
        random = np.random.default_rng(seed)
        probability = np.asarray(shares, dtype=float) / np.sum(shares)
        while True:
            counts = random.multinomial(batch_size, probability)
            yield self._join(
                [
                    random.integers(len(starts), size=count)
                    for starts, count in zip(self.starts, counts, strict=True)
                ]
            )

    def in_order(self, *, batch_size: int) -> Iterator[Batch]:
        """Go through all windows once."""
        empty = np.empty(0, dtype=np.int64)
        for number, starts in enumerate(self.starts):
            for begin in range(0, len(starts), batch_size):
                picks = [empty] * len(self.starts)
                picks[number] = np.arange(begin, min(begin + batch_size, len(starts)))
                yield self._join(picks)

    def _join(self, picks: Sequence[NDArray[np.int64]]) -> Batch:
        offsets = np.cumsum([0, *(len(starts) for starts in self.starts)])
        number, forcing, static, target, weight = [], [], [], [], []
        for i, (record, chosen) in enumerate(zip(self.records, picks, strict=True)):
            site, first = self.starts[i][chosen].T
            day = first[:, None] + np.arange(self.length)
            number.append(chosen + offsets[i])
            forcing.append(record.forcing[site[:, None], day])
            static.append(record.static[site])
            if record.target is not None:
                target.append(record.target[site[:, None], day])
            if self.site_weights is not None:
                weight.append(self.site_weights[i][site])
        return Batch(
            number=np.concatenate(number),
            forcing=np.concatenate(forcing),
            static=np.concatenate(static),
            target=np.concatenate(target) if target else None,
            weight=np.concatenate(weight) if weight else None,
        )


def _admissible(record: Record, *, length: int, spin_up: int, least: float) -> NDArray[np.int32]:
    """Return (site, first column) of every window in which enough is known, shape (window, 2)."""
    values = record.forcing[..., 0] if record.target is None else record.target
    known = np.cumsum(np.isfinite(values), axis=1, dtype=np.int32)
    known = np.pad(known, ((0, 0), (1, 0)))
    after = known[:, length:] - known[:, spin_up : known.shape[1] - length + spin_up]
    rows = np.argwhere(after >= least * (length - spin_up)).astype(np.int32)
    if not len(rows):
        raise TrainingError(
            variable="target" if record.target is not None else "precipitation",
            found=f"no window of {length} days with {least:.0%} of the values known",
            expected="at least one",
            fix="use a longer record, or lower least_known",
        )
    return rows
