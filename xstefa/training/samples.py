"""Training data, read from datasets through the same binding as prediction."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.binding.derive import hide_false_extremes
from xstefa.errors import TrainingError
from xstefa.model.scaler import Scaler
from xstefa.schema import Schema
from xstefa.splits.sites import Mask
from xstefa.windows import Days, Floats, bridge


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
        cls,
        binding: Binding,
        *,
        ids: Sequence[str],
        target: str | None = None,
        block: Mapping[str, slice] | None = None,
    ) -> Self:
        """Read a bound dataset into memory.

        Parameters
        ----------
        binding : Binding
        ids : sequence of str, in the order of the stacked site dimensions
        target : str, optional
            Name of a schema target that the dataset observes.
        block : mapping of str to slice, optional
            Part of the site dimensions that is read; by default all of it.
        """
        layout, schema = binding.layout, binding.schema
        columns = layout.days - layout.days[0]
        length = int(columns[-1]) + 1
        count = len(ids)
        forcing = np.full((count, length, len(schema.forcings)), np.nan, dtype=np.float32)
        for i, name in enumerate(schema.forcing_names):
            if name in binding.forcing:
                forcing[:, columns, i] = _dense(binding, binding.forcing[name], block)
        hide_false_extremes(forcing, schema.forcing_names)
        observed = None
        if target is not None:
            observed = np.full((count, length), np.nan, dtype=np.float32)
            observed[:, columns] = _dense(binding, observations(binding, target), block)
        return cls(
            ids=np.asarray(ids, dtype=str),
            first_day=int(layout.days[0]),
            forcing=forcing,
            static=attributes(binding, count, block),
            target=observed,
        )

    def known_at(self, needs: Sequence[Sequence[int]]) -> Mask:
        """Return at which sites one forcing (column) of each group is known on some day."""
        groups = [np.isfinite(self.forcing[..., group]).any(axis=(1, 2)) for group in needs]
        return np.logical_and.reduce([np.ones(len(self.ids), dtype=bool), *groups])

    def select(self, sites: Mask) -> Self:
        """Keep some sites, `sites` True where kept."""
        return self if sites.all() else self.select_rows(np.flatnonzero(sites))

    def select_rows(self, rows: NDArray[np.int64]) -> Self:
        """Take some sites, in the order given."""
        return replace(
            self,
            ids=self.ids[rows],
            forcing=self.forcing[rows],
            static=self.static[rows],
            target=None if self.target is None else self.target[rows],
        )

    def observed_on(self, days: Days) -> Self:
        """Forget what is learned on all but the given days, counted from 1970-01-01.

        That is the target, or, without one, the forcings.
        """
        kept = np.zeros(self.forcing.shape[1], dtype=bool)
        kept[days - self.first_day] = True
        if self.target is None:
            return replace(self, forcing=np.where(kept[:, None], self.forcing, np.float32(np.nan)))
        return replace(self, target=np.where(kept, self.target, np.float32(np.nan)))

    def at_least(self, length: int) -> Self:
        """Put missing days before a record shorter than `length`, as prediction does."""
        short = length - self.forcing.shape[1]
        if short <= 0:
            return self

        def filled(values: Floats) -> Floats:
            before = [(0, 0), (short, 0), (0, 0)][: values.ndim]
            return np.pad(values, before, constant_values=np.nan)

        return replace(
            self,
            first_day=self.first_day - short,
            forcing=filled(self.forcing),
            target=None if self.target is None else filled(self.target),
        )

    def without(self, tokens: Collection[str], schema: Schema) -> Self:
        """Forget some tokens, as if the dataset did not have them."""
        if not tokens:
            return self
        forcing, static = self.forcing.copy(), self.static.copy()
        forcing[..., [name in tokens for name in schema.forcing_names]] = np.nan
        static[..., [name in tokens for name in schema.static_names]] = np.nan
        return replace(self, forcing=forcing, static=static)

    def bridged(self) -> Self:
        """Fill short gaps of the forcings, as prediction does."""
        return replace(self, forcing=bridge(self.forcing))

    def standardised(self, scaler: Scaler) -> Self:
        """Return the record as a network reads it; the target stays in its unit."""
        forcing, static = np.empty_like(self.forcing), np.empty_like(self.static)
        for i, moments in enumerate(scaler.forcings.values()):
            forcing[..., i] = moments.standardise(self.forcing[..., i])
        for i, moments in enumerate(scaler.statics.values()):
            static[..., i] = moments.standardise(self.static[..., i])
        return replace(self, forcing=forcing, static=static)

    def digest(self) -> str:
        """Return the SHA-256 of names, days and values."""
        content = hashlib.sha256(repr((self.first_day, self.ids.tolist())).encode())
        for values in (self.forcing, self.static, self.target):
            if values is not None:
                content.update(repr(values.shape).encode())
                content.update(np.ascontiguousarray(values).data)
        return content.hexdigest()


def attributes(binding: Binding, count: int, block: Mapping[str, slice] | None = None) -> Floats:
    """Read the static attributes of `count` sites, those of a block; shape (site, S)."""
    names = binding.schema.static_names
    static = np.full((count, len(names)), np.nan, dtype=np.float32)
    for i, name in enumerate(names):
        if name in binding.static:
            static[:, i] = _dense(binding, binding.static[name], block, daily=False)
    return static


def _dense(
    binding: Binding, array: xr.DataArray, block: Mapping[str, slice] | None, *, daily: bool = True
) -> Floats:
    """Return the values of a block of sites, shape (site, day), or (site,) if not daily."""
    layout = binding.layout
    dims = (*layout.site_dims, layout.time) if daily else layout.site_dims
    array, template = (
        part.isel(block or {}, missing_dims="ignore") for part in (array, binding.template)
    )
    alike = template if daily else template.isel({layout.time: 0}, drop=True)
    full = array.broadcast_like(alike)
    values = full.transpose(*dims).to_numpy().astype(np.float32, copy=False)
    return values.reshape(-1, len(layout.days)) if daily else values.ravel()


def joined(records: Sequence[Record]) -> Record:
    """Join records on the same days into one."""
    first = records[0]
    targets = [record.target for record in records if record.target is not None]
    return replace(
        first,
        ids=np.concatenate([record.ids for record in records]),
        forcing=np.concatenate([record.forcing for record in records]),
        static=np.concatenate([record.static for record in records]),
        target=np.concatenate(targets) if targets else None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """What becomes of the sites and days of a record.

    Attributes
    ----------
    train : ndarray of bool, shape (site,)
        Sites that are learned from.
    validate : ndarray of bool, shape (site,), optional
        Sites whose loss is watched.
    days : ndarray of int64, optional
        Days whose observations count, from 1970-01-01; by default all.
    """

    train: Mask
    validate: Mask | None = None
    days: Days | None = None

    @classmethod
    def all_of(cls, record: Record) -> Self:
        """Learn from everything."""
        return cls(train=np.ones(len(record.ids), dtype=bool))

    @property
    def in_use(self) -> Mask:
        """Sites that train or validate, shape (site,)."""
        return self.train if self.validate is None else self.train | self.validate

    def used(self) -> Self:
        """Return the split of the record reduced to the sites in use."""
        kept = self.in_use
        return replace(
            self,
            train=self.train[kept],
            validate=None if self.validate is None else self.validate[kept],
        )


def observations(binding: Binding, target: str) -> xr.DataArray:
    """Return the observations of a target.

    Raises
    ------
    TrainingError
        If the dataset has none.
    """
    array = binding.observed(target)
    if array is None:
        raise TrainingError(
            variable=target,
            found="no variable of the dataset that observes it",
            expected=f"one of {', '.join(binding.schema.target(target).aliases_text)}",
            fix="add the observations, under one of these names or with their standard_name",
        )
    return array


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
