"""Training data as dense arrays, read from datasets through the same binding as prediction."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.errors import TrainingError
from xstefa.model.scaler import Scaler
from xstefa.options import get_options
from xstefa.schema import Schema
from xstefa.splits.sites import Mask
from xstefa.windows import Days, Floats, bridge, unbroken

DAILY = ("forcing", "target")
BY_SITE = ("ids", "static", "weight", *DAILY)


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """Sites of one dataset on an unbroken day axis.

    Attributes
    ----------
    ids : ndarray of str, shape (site,)
    first_day : int
        Day number of the first column, counted from 1970-01-01.
    forcing : ndarray of float32, shape (site, day, C)
    static : ndarray of float32, shape (site, S)
    target : ndarray of float32, shape (site, day), or None
        Canonical units; NaN where missing.
    weight : ndarray of float32, shape (site,), or None
        Weight of each site in the loss.
    """

    ids: NDArray[np.str_]
    first_day: int
    forcing: Floats
    static: Floats
    target: Floats | None = None
    weight: Floats | None = None

    @classmethod
    def from_binding(
        cls,
        binding: Binding,
        *,
        ids: Sequence[str] | NDArray[np.str_],
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
        days, tokens, observed = binding.layout.days, binding.read(block), None
        if target is not None:
            part = observations(binding, target).isel(block or {}, missing_dims="ignore")
            # Torch has no tensors that are read only.
            observed = np.require(unbroken(tokens.dense(part), days)[0], requirements="W")
        forcing, _ = unbroken(tokens.forcings(), days)
        return cls(
            ids=np.asarray(ids, dtype=str),
            first_day=int(days[0]),
            forcing=forcing,
            static=tokens.statics(),
            target=observed,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Files are opened by name in another process.
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        for name, values in content.items():
            if isinstance(values, np.memmap):
                content[name] = partial(_mapped, Path(str(values.filename)), values.shape)
        return _unpickled, (content,)

    @property
    def learned(self) -> Floats:
        """What is learned from: the target, or, without one, precipitation; shape (site, day)."""
        return self.forcing[..., 0] if self.target is None else self.target

    @property
    def on_disk(self) -> bool:
        """Whether it is larger than memory."""
        return isinstance(self.forcing, np.memmap)

    def known_at(self, needs: Sequence[Sequence[int]]) -> Mask:
        """Return at which sites one forcing (column) of each group is known on some day."""
        groups = [np.isfinite(self.forcing[..., group]).any(axis=(1, 2)) for group in needs]
        return np.logical_and.reduce([np.ones(len(self.ids), dtype=bool), *groups])

    def select(self, sites: Mask) -> Self:
        """Keep some sites, `sites` True where kept."""
        return self if sites.all() else self.select_rows(np.flatnonzero(sites))

    def select_rows(self, rows: NDArray[np.int64]) -> Self:
        """Take some sites, in the order given, into memory."""
        arrays = {name: getattr(self, name) for name in BY_SITE}
        taken: dict[str, Any] = {k: None if v is None else v[rows] for k, v in arrays.items()}
        return replace(self, **taken)

    def observed_on(self, days: Days | None) -> Self:
        """Forget what is learned on all but the given days, counted from 1970-01-01, if any are.

        That is the target, or, without one, the forcings.
        """
        if days is None:
            return self
        kept = self.columns(days)
        if self.target is None:
            return replace(self, forcing=np.where(kept[:, None], self.forcing, np.float32(np.nan)))
        return replace(self, target=np.where(kept, self.target, np.float32(np.nan)))

    def columns(self, days: Days) -> Mask:
        """Mark the columns of some days, shape (day,)."""
        kept = np.zeros(self.forcing.shape[1], dtype=bool)
        kept[days - self.first_day] = True
        return kept

    def at_least(self, length: int) -> Self:
        """Put missing days before a record shorter than `length`, as prediction does."""
        short = length - self.forcing.shape[1]
        if short <= 0:
            return self
        daily = {name: getattr(self, name) for name in DAILY}
        padded = {
            name: np.pad(
                values, [(0, 0), (short, 0), (0, 0)][: values.ndim], constant_values=np.nan
            )
            for name, values in daily.items()
            if values is not None
        }
        return replace(self, first_day=self.first_day - short, **padded)

    def without(self, tokens: Collection[str], schema: Schema) -> Self:
        """Forget some tokens, as if the dataset did not have them."""
        if not tokens:
            return self
        forcing, static = self.forcing.copy(), self.static.copy()
        forcing[..., [name in tokens for name in schema.forcing_names]] = np.nan
        static[..., [v.name in tokens for v in schema.site_columns.values()]] = np.nan
        return replace(self, forcing=forcing, static=static)

    def bridged(self) -> Self:
        """Fill short gaps of the forcings, as prediction does."""
        return replace(self, forcing=bridge(self.forcing))

    def standardised(self, scaler: Scaler) -> Self:
        """Return the record as a network reads it; the target stays in its unit."""
        forcing, static = scaler.standardise(self.forcing, self.static)
        return replace(self, forcing=forcing, static=static)

    def add_to(self, add: Callable[[Any], object]) -> None:
        """Add names, days and values to a hash."""
        add(repr((self.first_day, self.ids.tolist())).encode())
        for values in (self.forcing, self.static, self.target):
            if values is not None:
                add(repr(values.shape).encode())
                add(np.ascontiguousarray(values).data)


def written(parts: Iterable[tuple[slice | NDArray[np.int64], Record]], count: int) -> Record:
    """Gather parts of a record on disk.

    Its files are in the folder ``records`` of the cache for as long as the record is in use.

    Parameters
    ----------
    parts : iterable of (rows, Record)
        With the sites that each has of the whole.
    count : int
        Sites of the whole.

    Raises
    ------
    TrainingError
        If there is not enough room.
    """
    whole: Record | None = None
    for rows, part in parts:
        whole = _room(part, count) if whole is None else whole
        for name in BY_SITE:
            if (values := getattr(part, name)) is not None:
                getattr(whole, name)[rows] = values
    assert whole is not None
    return whole


def _room(part: Record, count: int) -> Record:
    """Make the arrays of a record like a part of it."""
    shapes = {
        name: (count, *values.shape[1:])
        for name in BY_SITE
        if (values := getattr(part, name)) is not None
    }
    size = 4 * sum(int(np.prod(shape)) for name, shape in shapes.items() if name in DAILY)
    parent = get_options().cache_path() / "records"
    check_room(
        parent,
        size,
        what=f"the days of {count} sites, larger than memory",
        fix="xstefa.set_options(cache_dir=...), or a larger memory=",
    )
    folder = Path(tempfile.mkdtemp(dir=parent))
    arrays: dict[str, Any] = {
        name: _mapped(folder / name, shape, mode="w+")
        if name in DAILY
        else np.empty(shape, dtype=getattr(part, name).dtype)
        for name, shape in shapes.items()
    }
    whole = replace(part, **arrays)
    weakref.finalize(whole.forcing, shutil.rmtree, folder, ignore_errors=True)
    return whole


def _mapped(path: Path, shape: tuple[int, ...], mode: Any = "c") -> Floats:
    return np.memmap(path, dtype=np.float32, mode=mode, shape=shape)


def _unpickled(content: Mapping[str, Any]) -> Record:
    return Record(**{k: v() if isinstance(v, partial) else v for k, v in content.items()})


def check_room(folder: Path, size: int, *, what: str, fix: str) -> None:
    """Make a folder of the cache, and refuse to fill the disk.

    Raises
    ------
    TrainingError
        If `size` bytes are more than nine tenths of what is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > 0.9 * free:
        raise TrainingError(
            f"no room on disk for {what}",
            variable="cache_dir",
            found=f"{size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free in {folder}",
            expected="room for all of it in the cache folder",
            fix=fix,
        )


def observations(binding: Binding, target: str) -> xr.DataArray:
    """Return the observations of a target.

    Raises
    ------
    TrainingError
        If the dataset has none.
    """
    array = binding.observed(target)
    if array is not None:
        return array
    wanted, found = binding.schema.target(target), "no variable of the dataset that observes it"
    fix = "add the observations, under one of these names or with their standard_name"
    for name in (alias.name for alias in wanted.aliases if alias.name in binding.dataset):
        variable = binding.dataset[name]
        found = f"{found}: {name!r} has {variable.dtype} along {variable.dims}"
        if wanted.kind == "class" and variable.dtype.kind in "OUST":
            fix = f"ds[{name!r}] = (ds[{name!r}] == <class>).astype('f4')"
    raise TrainingError(
        variable=target,
        found=found,
        expected=f"one of {', '.join(wanted.aliases_text) or target}",
        fix=fix,
    )


def fit_scaler(schema: Schema, records: Sequence[Record]) -> Scaler:
    """Fit the moments over all days and sites of the training records."""
    forcing = np.concatenate([r.forcing.reshape(-1, r.forcing.shape[-1]) for r in records])
    static = np.concatenate([r.static for r in records])
    return Scaler.fit(schema, forcing, static)
