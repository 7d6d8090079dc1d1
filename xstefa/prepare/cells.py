"""Maps as cells: their edges along both axes, and the system of their coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from xstefa.binding.geometry import grid_crs, horizontal_dims, is_geographic
from xstefa.errors import LayoutError

WGS84 = CRS.from_epsg(4326)
REGULAR = 1e-3  # of a cell that cells of a regular grid may be off

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """Lower and upper edges of the cells along one axis, in the order of the coordinate.

    Parameters
    ----------
    low, high : float64 array (n,)
        ``low < high``.
    period : float, optional
        360 for longitudes.
    """

    low: Floats
    high: Floats
    period: float | None = None

    @property
    def ascending(self) -> bool:
        """Whether the cells run from low to high."""
        return bool(self.low.size < 2 or self.low[-1] > self.low[0])

    @property
    def regular(self) -> bool:
        """Whether all cells touch and have the same size."""
        size = self.high - self.low
        gap = np.abs(np.diff(np.sort(self.low)) - size[0]).max(initial=0.0)
        return bool(max(gap, np.ptp(size)) <= REGULAR * size[0])


def cell_edges(ds: xr.Dataset | xr.DataArray, dim: str, *, kind: str, what: str = "ds") -> Cells:
    """Edges of the cells along `dim`: its bounds, or the midpoints between coordinates.

    Parameters
    ----------
    ds : Dataset or DataArray
    dim : str
        A dimension with a coordinate.
    kind : {"latitude", "longitude", "projected"}
        Latitudes end at the poles, longitudes are periodic.
    what : str
        What messages call `ds`.

    Raises
    ------
    LayoutError
        If the coordinate is not monotonic or beyond the poles, or a single cell comes without
        bounds.
    """
    centre = np.asarray(ds[dim].values, dtype=np.float64)
    bounds = ds[dim].attrs.get("bounds")
    steps = np.diff(centre)
    if kind == "longitude" and (steps > 0).any() and (steps < 0).any():
        # 359, 0, 1: a map that begins elsewhere than its longitudes do.
        centre = np.unwrap(centre, period=360.0)
        steps = np.diff(centre)
    if kind == "latitude" and (np.abs(centre) > 90.0).any():
        raise LayoutError(
            "latitudes beyond the poles",
            variable=dim,
            found=f"{centre.min():g} to {centre.max():g}",
            expected="-90 to 90 degrees north",
            fix=f"check the coordinate {dim!r} of {what}, and which of its dimensions is which",
        )
    if not ((steps > 0).all() or (steps < 0).all()):
        raise LayoutError(
            "the coordinate of the grid is not monotonic",
            variable=dim,
            found=f"{centre[:4].tolist()} ...",
            expected="coordinates that only rise or only fall",
            fix=f"{what} = {what}.sortby({dim!r})",
        )
    if isinstance(ds, xr.Dataset) and bounds in ds.variables:
        both = np.asarray(ds[bounds].values, dtype=np.float64)
        if kind == "longitude":
            both = centre[:, None] + (both - centre[:, None] + 180.0) % 360.0 - 180.0
        low, high = both.min(axis=1), both.max(axis=1)
    elif centre.size < 2:
        raise LayoutError(
            "the size of a single cell is unknown",
            variable=dim,
            found=f"one coordinate, {centre.tolist()}, without bounds",
            expected="two cells or more, or bounds (CF 7.1)",
            fix=f"{what} = {what}.cf.add_bounds({dim!r}) on the whole grid, before a cell is "
            "selected",
        )
    else:
        borders = edges(centre)
        low, high = np.sort([borders[:-1], borders[1:]], axis=0)
    if kind == "latitude":
        low, high = np.clip(low, -90.0, 90.0), np.clip(high, -90.0, 90.0)
    return Cells(low=low, high=high, period=360.0 if kind == "longitude" else None)


def edges(centres: NDArray[np.generic], axis: int = 0) -> Floats:
    """Cell borders halfway between centres, extrapolated at both ends; a single cell is 1 wide."""
    values = np.moveaxis(np.asarray(centres, dtype=np.float64), axis, 0)
    inner = (values[:-1] + values[1:]) / 2
    ends = [values - 0.5, values + 0.5]
    if len(values) > 1:
        ends = [2 * values[:1] - inner[:1], inner, 2 * values[-1:] - inner[-1:]]
    return np.moveaxis(np.concatenate(ends), 0, axis)


def axes_of(ds: xr.Dataset, *, what: str, fix: str) -> tuple[str, str]:
    """Dimensions (y, x) of a map, called `what` in messages; LayoutError if it is none."""
    dims = tuple(map(str, ds.dims))
    if (axes := horizontal_dims(ds, dims)) is None:
        raise LayoutError(
            "this is no map",
            variable=what,
            found=f"dimensions {', '.join(map(repr, dims)) or 'none'}",
            expected="two horizontal dimensions with coordinates (y and x, or lat and lon)",
            fix=fix,
        )
    return axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """The grid of a dataset.

    Parameters
    ----------
    y, x : str
        Dimensions.
    crs : CRS
    rows, columns : Cells
    """

    y: str
    x: str
    crs: CRS
    rows: Cells
    columns: Cells

    @property
    def extent(self) -> str:
        """Extent in words, for messages."""
        return (
            f"x {self.columns.low.min():g}..{self.columns.high.max():g}, "
            f"y {self.rows.low.min():g}..{self.rows.high.max():g} ({self.crs.name})"
        )

    def check_regular(self, *, what: str, fix: str) -> None:
        """Raise LayoutError if cells differ in size or do not touch."""
        for cells, dim in ((self.rows, self.y), (self.columns, self.x)):
            if not cells.regular:
                size = cells.high - cells.low
                raise LayoutError(
                    "cells of different sizes, or with gaps between them",
                    variable=dim,
                    found=f"cells of {size.min():g} to {size.max():g} in {what}",
                    expected=f"a regular grid (within {REGULAR:g} of a cell)",
                    fix=fix,
                )


def map_of(ds: xr.Dataset, *, what: str, fix: str = "") -> Map:
    """Read the grid of `ds`, called `what` in messages; `fix` says what to do if it has none.

    Raises
    ------
    LayoutError
        If it is no map, or has no coordinate reference system, or cells without edges.
    """
    axes = y, x = axes_of(ds, what=what, fix=fix)
    maps = (array for array in ds.data_vars.values() if set(axes) <= set(map(str, array.dims)))
    crs = next((crs for array in maps if (crs := grid_crs(ds, array)) is not None), None)
    if crs is None and is_geographic(ds, y=y, x=x):
        crs = WGS84
    if crs is None:
        raise LayoutError(
            "the map has no coordinate reference system",
            variable=y,
            found=f"dimensions {y!r} and {x!r} without grid mapping",
            expected="latitude and longitude, or a grid mapping",
            fix=f"{what} = {what}.rio.write_crs('EPSG:...')",
        )
    geographic = crs.is_geographic and is_geographic(ds, y=y, x=x, by_crs=True)
    return Map(
        y=y,
        x=x,
        crs=crs,
        rows=cell_edges(ds, y, kind="latitude" if geographic else "projected", what=what),
        columns=cell_edges(ds, x, kind="longitude" if geographic else "projected", what=what),
    )
