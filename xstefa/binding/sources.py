"""Recipes: how a token is made from the variables of a dataset.

`variables` are those that the token table names; `inputs` are all that `realise` reads, coordinates
included, so that a part of the dataset with these variables is enough for that part of the token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import xarray as xr
from pyproj import CRS

from xstefa.binding.days import day_of_year
from xstefa.binding.derive import Derivation
from xstefa.binding.geometry import crs_latitude
from xstefa.binding.layout import Layout
from xstefa.binding.match import Match
from xstefa.binding.ranges import within
from xstefa.binding.units import Conversion
from xstefa.schema import Variable

__all__ = [
    "DayOfYear",
    "Derived",
    "Direct",
    "Latitude",
    "MapLatitude",
    "Source",
    "TokenSource",
    "leaves",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """A token or ingredient that is a variable of the dataset, up to units.

    What `otherwise` derives from other tokens stands in, value by value, where it has none.
    """

    wanted: Variable
    match: Match
    conversion: Conversion
    otherwise: Derived | None = None

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        """Return the array in canonical units; RangeError if a value is impossible."""
        found = within(
            self.read(ds),
            self.wanted,
            name=self.match.variable.name,
            used=self.conversion,
            method=self.match.time_method,
        )
        if self.otherwise is None or (found.chunks is None and bool(found.notnull().all())):
            return found
        return found.fillna(self.otherwise.realise(ds, layout))

    def read(self, ds: xr.Dataset) -> xr.DataArray:
        """Return the array in canonical units, whatever its values are."""
        fact = self.match.variable
        array = ds[fact.name]
        if fact.repeated is not None:
            array = array.isel({fact.repeated: 0}, drop=True)
        return self.conversion(fact.storage(array))

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the dataset it needs."""
        return (self.match.variable.name,)

    @property
    def inputs(self) -> tuple[str, ...]:
        """That, and what stands in where it has no values."""
        others = () if self.otherwise is None else self.otherwise.inputs
        return tuple(dict.fromkeys(self.variables + others))

    @property
    def rule(self) -> str:
        """How it was recognised, for the token table."""
        note = self.conversion.note
        return self.match.rule if note is None else f"{self.match.rule}; {note}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Latitude:
    """The latitude of the sites [degrees north], a part of formulas."""

    name: str

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        """Return latitude over the site dimensions (or a subset)."""
        return ds[self.name].astype(np.float32)

    @property
    def variables(self) -> tuple[str, ...]:
        """None: coordinates are not listed among the variables a token comes from."""
        return ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The latitude."""
        return (self.name,)


@dataclass(frozen=True, kw_only=True, slots=True)
class MapLatitude:
    """The latitude of the cells of a map that does not state it: from its projection.

    The coordinate reference system is text (WKT), which hashes and travels without surprises.
    """

    crs: str
    y: str
    x: str

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        """Return latitude [degrees north] over (y, x)."""
        return crs_latitude(ds, crs=CRS.from_wkt(self.crs), y=self.y, x=self.x)

    @property
    def variables(self) -> tuple[str, ...]:
        """None: see `Latitude`."""
        return ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The coordinates of the map."""
        return (self.y, self.x)


@dataclass(frozen=True, slots=True)
class DayOfYear:
    """The day of the year, a part of formulas."""

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        """Return the day of the year over time."""
        return day_of_year(ds, layout.time)

    @property
    def variables(self) -> tuple[str, ...]:
        """None: see `Latitude`."""
        return ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """None: the time axis is always there."""
        return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """A token computed from others."""

    derivation: Derivation
    parts: tuple[Source, ...]

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        """Return the result of the formula, lazy if any part is."""
        return xr.apply_ufunc(
            self.derivation.kernel,
            # Coordinates of the parts may differ in what does not matter (a height of 2 m).
            *(part.realise(ds, layout).reset_coords(drop=True) for part in self.parts),
            dask="parallelized",
            output_dtypes=[np.float32],
        )

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the dataset it needs: each once, in order of first use."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.variables))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Variables and coordinates that its parts read: each once, in order of first use."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.inputs))

    @property
    def rule(self) -> str:
        """How it is computed, for the token table."""
        return f"derived: {self.derivation.rule}"


TokenSource: TypeAlias = Direct | Derived
Source: TypeAlias = Direct | Latitude | MapLatitude | DayOfYear | Derived


def leaves(source: Source) -> Iterator[Direct]:
    """Yield the variables at the ends of a recipe."""
    if isinstance(source, Direct):
        yield source
    elif isinstance(source, Derived):
        for part in source.parts:
            yield from leaves(part)
