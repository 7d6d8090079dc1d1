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
from xstefa.inference.windows import Days, Floats
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
            full = array.broadcast_like(template.isel({d: 0 for d in (layout.time,) if d not in dims}, drop=True))
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
    """Windows of one step: forcing (B, T, C), static (B, S), target (B, T), weight (B,)."""

    forcing: Floats
    static: Floats
    target: Floats | None
    weight: Floats | None


def draw(
    records: Sequence[Record],
    *,
    length: int,
    batch_size: int,
    shares: Sequence[float],
    spin_up: int,
    least_known: float = 0.1,
    site_weights: Sequence[Floats] | None = None,
    seed: int,
) -> Iterator[Batch]:
    """Draw batches without end.

    Each row takes a record with probability `shares`, then one of its windows with equal chances
    for all days. Windows start on any day of the record where enough is known.

    Parameters
    ----------
    least_known : float
        Share of the days after the spin-up on which the target (without one: precipitation) must
        be known.
    site_weights : sequence of ndarray, shape (site,), optional
        Loss weight of every site of every record.
    """
    random = np.random.default_rng(seed)
    choices = [_admissible(r, length=length, spin_up=spin_up, least=least_known) for r in records]
    probability = np.asarray(shares, dtype=float) / np.sum(shares)
    while True:
        counts = random.multinomial(batch_size, probability)
        parts: list[tuple[Floats, Floats, Floats | None, Floats | None]] = []
        for number, (record, choice) in enumerate(zip(records, choices, strict=True)):
            if not counts[number]:
                continue
            rows = choice[random.integers(len(choice), size=counts[number])]
            site, day = rows[:, :1], rows[:, 1:] + np.arange(length)
            parts.append(
                (
                    record.forcing[site, day],
                    record.static[rows[:, 0]],
                    None if record.target is None else record.target[site, day],
                    None if site_weights is None else site_weights[number][rows[:, 0]],
                )
            )
        forcing, static, target, weight = zip(*parts, strict=True)
        yield Batch(
            forcing=np.concatenate(forcing),
            static=np.concatenate(static),
            target=None if target[0] is None else np.concatenate(target),
            weight=None if weight[0] is None else np.concatenate(weight),
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
