"""Where things are on the paper: projection, graticule, coasts and borders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.geometry import find_coordinate, grid_crs, horizontal_dims
from xstefa.binding.places import with_places
from xstefa.datasets import US_OUTLINE, WORLD_OUTLINE
from xstefa.errors import LayoutError, XstefaWarning, warn
from xstefa.plotting.look import FAINT, INK, LAND
from xstefa.prepare.cells import edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, Normalize
    from pyproj import CRS

Floats = NDArray[np.float64]
Extent = tuple[float, float, float, float]
"""Left, right, bottom, top in coordinates of the paper."""

Outline: TypeAlias = str | Path | Literal["auto"] | None
"""GeoJSON with coasts and borders; ``"auto"`` is the states of the US or the countries."""

US = (-126.0, -66.0, 23.0, 50.5)  # west, east, south, north: where states are drawn
AROUND = 6e5  # metres on each side of a site, at least
BEYOND = 15.0  # degrees around a map in which land is looked for
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60)  # degrees between lines of a graticule


@dataclass(frozen=True, kw_only=True, eq=False)
class Sheet:
    """Where the values of a map are on the paper.

    Parameters
    ----------
    dims : tuple of str
        Dimensions of the values: two of a grid, or one of sites.
    x, y : ndarray
        In the map's coordinates: corners of the cells, shape (rows + 1, columns + 1), or points.
    crs : pyproj.CRS, optional
        Of the map; None if the data do not say.
    middle : float
        Longitude the map is centred on.
    placed : ndarray of bool, optional
        Cells that have a place; by default all.
    """

    dims: tuple[str, ...]
    x: Floats
    y: Floats
    crs: CRS | None
    middle: float = 0.0
    placed: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, panel: xr.DataArray) -> Sheet:
        """Find the places of a map without time."""
        ds, dims = with_places(panel.coords.to_dataset()), tuple(map(str, panel.dims))
        lon, lat = (find_coordinate(ds, kind, dims) for kind in ("longitude", "latitude"))
        if lon is not None and lat is not None:
            place = cls._geographic(ds[lon], ds[lat])
        elif (axes := horizontal_dims(ds, dims)) is not None:
            crs = grid_crs(ds, panel)
            km = crs is not None and crs.is_projected and ds[axes[0]].attrs.get("units") == "km"
            y, x = (edges(ds[dim].values) * (1000 if km else 1) for dim in axes)
            x, y = np.meshgrid(x, y)
            place = cls(dims=axes, x=x, y=y, crs=crs)
        else:
            raise LayoutError(
                "A map needs to know where the sites are.",
                variable=str(panel.name),
                found=f"coordinates {tuple(panel.coords)}",
                expected="latitude and longitude, or CF axes X and Y",
                fix="ds['lat'].attrs['standard_name'] = 'latitude'   # and the same for longitude",
            )
        if set(place.dims) != set(panel.dims):
            extra = {dim: 0 for dim in panel.dims if dim not in place.dims}
            raise LayoutError(
                "A map has two horizontal dimensions, or one of sites.",
                variable=str(panel.name),
                found=f"further dimensions {tuple(extra)}",
                expected=f"only {place.dims}",
                fix=f"choose one: .isel({extra})",
            )
        return place

    @classmethod
    def _geographic(cls, lon: xr.DataArray, lat: xr.DataArray) -> Sheet:
        placed = None
        if lon.ndim < 2 and lon.dims == lat.dims:
            dims = tuple(str(dim) for dim in lon.dims)
            x, y = _placed(lon.values.astype(float), lat.values.astype(float))
            x = _near(x)
        elif lon.ndim == 1 and lat.ndim == 1:
            x, y = np.meshgrid(edges(_counted_on(lon.values, 0)), edges(lat.values))
            dims = (str(lat.dims[0]), str(lon.dims[0]))
        else:
            dims = tuple(str(dim) for dim in lat.dims)
            x, y = _placed(lon.transpose(*dims).values.astype(float), lat.values.astype(float))
            placed = np.isfinite(x)
            if not placed.all():  # those without are not drawn, but their neighbours need edges
                from scipy.ndimage import distance_transform_edt

                _, nearest = distance_transform_edt(~placed, return_indices=True)
                x, y = x[tuple(nearest)], y[tuple(nearest)]
            across = _counted_on(_counted_on(x, 0), 1)
            x, y = (edges(edges(c, axis=0), axis=1) for c in (across, y))
        crs, middle = _map_crs(x, y), float((np.nanmin(x) + np.nanmax(x)) / 2)
        x, y = _to(crs, x, y)
        return cls(dims=dims, x=x, y=y, crs=crs, middle=middle, placed=placed)

    @property
    def kind(self) -> dict[str, Any]:
        """What makes the axes."""
        return {}

    @property
    def how(self) -> dict[str, Any]:
        """In which coordinates things are drawn, if not in those of the axes."""
        return {}

    def draw(
        self,
        axis: Axes,
        panel: xr.DataArray,
        cmap: str | Colormap | None,
        norm: Normalize,
        *,
        marker: str = "o",
    ) -> ScalarMappable:
        """Draw cells or points, return what a colour bar needs."""
        values = np.ma.masked_invalid(panel.transpose(*self.dims).values)
        if self.placed is not None:
            values = np.ma.masked_where(~self.placed, values)
        if len(self.dims) < 2:
            size = np.clip(5000 / max(values.size, 1), 12, 46)  # so that many can be told apart
            return axis.scatter(
                self.x, self.y, s=size, c=values, cmap=cmap, norm=norm, edgecolor=INK, lw=0.5,
                zorder=3, marker=marker, **self.how,
            )  # fmt: skip
        # As one picture in vector files: there, thousands of cells show hairlines between them.
        return axis.pcolormesh(
            self.x, self.y, values, cmap=cmap, norm=norm, rasterized=True, zorder=2, **self.how
        )

    def cross(self, axis: Axes, marked: xr.DataArray) -> None:
        """Cross out sites, hatch cells."""
        out = marked.transpose(*self.dims).values
        if len(self.dims) < 2:
            look: dict[str, Any] = {"marker": "x", "s": 46, "color": INK, "lw": 1, "zorder": 5}
            axis.scatter(self.x[out], self.y[out], **look, **self.how)
            return
        if self.placed is not None:
            out = out & self.placed
        if out.any():
            cells = np.ma.masked_where(~out, np.ones(out.shape))
            look = {"hatch": "////", "alpha": 0, "edgecolor": INK, "lw": 0, "zorder": 3}
            axis.pcolor(self.x, self.y, cells, **look, **self.how)

    def extent(self, drawn: NDArray[np.bool_]) -> Extent:
        """Left, right, bottom, top around what has values, with a margin."""
        if len(self.dims) < 2:
            inside, share = drawn, 0.08
        else:
            inside, share = np.zeros(self.x.shape, dtype=bool), 0.02
            drawn = drawn if self.placed is None else drawn & self.placed
            for rows in (slice(None, -1), slice(1, None)):
                for cols in (slice(None, -1), slice(1, None)):
                    inside[rows, cols] |= drawn
        if not inside.any():
            inside = np.ones_like(inside)
        inside &= np.isfinite(self.x) & np.isfinite(self.y)
        x, y = self.x[inside], self.y[inside]
        margin = share * max(np.ptp(x), np.ptp(y))
        if len(self.dims) < 2:  # what is around a site, or a few, tells where it is
            margin = max(margin, AROUND - max(np.ptp(x), np.ptp(y)) / 2)
        return x.min() - margin, x.max() + margin, y.min() - margin, y.max() + margin

    def ground(self, axis: Axes, extent: Extent, outline: Outline = "auto") -> None:
        """Draw grey land below the values; coasts, borders and a graticule above them.

        Where the map has no coordinate reference system, its own coordinates are on its axes.
        """
        axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
        for spine in axis.spines.values():
            spine.set(visible=True, linewidth=0.6)
        axis.tick_params(length=0, labelsize=8)
        if self.crs is None:
            return
        lon, lat = self.degrees(extent)
        west, east, south, north = US
        in_us = (np.abs(self.middle % 360 - 264) < 30) and south < np.median(lat) < north
        if outline == "auto":
            small = np.ptp(lon) < 75 and west - 8 < np.median((lon + 180) % 360 - 180) < east
            outline = US_OUTLINE if in_us and small else WORLD_OUTLINE
            if outline == US_OUTLINE:
                _draw_lines(axis, self, extent, WORLD_OUTLINE, lines=False)
        if outline is not None:
            _draw_lines(axis, self, extent, Path(outline))
        _draw_graticule(axis, self, extent, lon, lat)

    def degrees(self, extent: Extent) -> tuple[Floats, Floats]:
        """Longitudes and latitudes of points all over a part of the paper."""
        assert self.crs is not None
        x, y = np.meshgrid(np.linspace(*extent[:2], 25), np.linspace(*extent[2:], 25))
        lon, lat = to_degrees(self.crs, x.ravel(), y.ravel())
        known = np.isfinite(lon) & np.isfinite(lat)
        return lon[known], lat[known]


def _counted_on(lon: Floats, axis: int) -> Floats:
    """Return longitudes of neighbouring cells that go on across the date line."""
    return np.unwrap(lon, period=360, axis=axis) if np.isfinite(lon).all() else lon


def _near(lon: Floats) -> Floats:
    """Return longitudes of a region on both sides of the date line as those of one region."""
    found, known = lon % 360, np.isfinite(lon)
    return found if np.ptp(found[known]) < 180 < np.ptp(lon[known]) else lon


def _placed(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return places of sites or cells, both coordinates NaN where one is missing.

    Raises
    ------
    LayoutError
        If none has a place.
    """
    known, what = np.isfinite(lon) & np.isfinite(lat), "sites" if lon.ndim < 2 else "cells"
    if not known.any():
        raise LayoutError(
            f"A map needs to know where the {what} are.",
            variable="latitude, longitude",
            found=f"{known.size} {what}, none with both latitude and longitude",
            expected="numbers that are known for at least one",
            fix="ds = ds.assign_coords(lat=..., lon=...), of where they are",
        )
    if lost := int((~known).sum()):
        warn(XstefaWarning(f"{lost} of {known.size} {what} have no place, and are not on the map."))
    return np.where(known, lon, np.nan), np.where(known, lat, np.nan)


def _map_crs(lon: Floats, lat: Floats) -> CRS:
    """Albers equal-area around a region of the middle latitudes, else a plain map."""
    from pyproj import CRS

    (west, south), (east, north) = ((f(lon), f(lat)) for f in (np.nanmin, np.nanmax))
    middle = (west + east) / 2
    if east - west < 120 and north - south < 60 and 12 < abs(south + north) / 2 < 72:
        sixth = (north - south) / 6
        parallels = f"+lat_1={south + sixth} +lat_2={north - sixth} +lat_0={(south + north) / 2}"
        return CRS.from_proj4(f"+proj=aea {parallels} +lon_0={middle} +datum=WGS84 +over")
    true_scale = np.clip((south + north) / 2, -60, 60)
    return CRS.from_proj4(f"+proj=eqc +lat_ts={true_scale} +lon_0={middle} +datum=WGS84 +over")


def _to(crs: CRS, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude in the coordinates of the paper."""
    return _transform("EPSG:4326", crs, lon, np.clip(lat, -90, 90))


def to_degrees(crs: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates of the paper as longitude and latitude."""
    return _transform(crs, "EPSG:4326", x, y)


def _transform(one: CRS | str, other: CRS | str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    from pyproj import Transformer

    x, y = Transformer.from_crs(one, other, always_xy=True).transform(x, y)
    return np.asarray(x), np.asarray(y)


def _draw_lines(
    axis: Axes, place: Sheet, extent: Extent, path: Path, *, lines: bool = True
) -> None:
    """Fill the rings of a file as land, with their holes, and draw all its lines."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Shape
    from matplotlib.transforms import Bbox

    assert place.crs is not None
    lon, lat = place.degrees(extent)
    # What is far away would be folded into the map by its projection.
    low = np.array([lon.min(), lat.min()]) - BEYOND
    high = np.array([lon.max(), lat.max()]) + BEYOND
    rings = []
    for line in outline_lines(path):
        # The map may count longitudes from 0 to 360, and go beyond: land is drawn where it fits.
        turns = np.arange(
            np.ceil((low[0] - line[:, 0].max()) / 360), (high[0] - line[:, 0].min()) / 360
        )
        for turn in turns:
            points = line + np.array([360 * turn, 0])
            if np.array_equal(line[0], line[-1]):
                clipped = Shape(points, closed=True).clip_to_bbox(Bbox([low, high]))
                ring = np.asarray(clipped.vertices)
                if len(ring):
                    ring = np.column_stack(_to(place.crs, *ring.T))
                    rings.append(Shape(ring, closed=True))
            if lines:
                near = ((points > low) & (points < high)).all(axis=1, keepdims=True)
                x, y = _to(place.crs, *np.where(near, points, np.nan).T)
                axis.plot(x, y, color=INK, linewidth=0.45, alpha=0.55, zorder=4, gid="outline")
    if rings:
        land = Shape.make_compound_path(*rings)
        axis.add_patch(PathPatch(land, facecolor=LAND, linewidth=0, zorder=1))


@cache
def outline_lines(path: Path) -> list[Floats]:
    """Read the lines (longitude, latitude) of a GeoJSON file, rings of polygons included."""
    found = []

    def collect(nested: list[object]) -> None:
        first = cast("list[list[object]]", nested)[0][0]
        if isinstance(first, int | float):
            found.append(np.array(nested, dtype=np.float64)[:, :2])
        else:
            for inner in nested:
                collect(cast("list[object]", inner))

    for feature in json.loads(path.read_text())["features"]:
        if feature["geometry"]["type"] not in {"Point", "MultiPoint"}:
            collect(feature["geometry"]["coordinates"])
    return found


def _draw_graticule(axis: Axes, place: Sheet, extent: Extent, lon: Floats, lat: Floats) -> None:
    """Draw meridians and parallels, and say at the bottom and the left which they are."""
    assert place.crs is not None
    left, right, bottom, top = extent
    for values, other, letters in ((lon, lat, "EW"), (lat, lon, "NS")):
        low, high = extent[:2] if values is lon else extent[2:]
        step = next((s for s in STEPS if np.ptp(values) / s <= 6), STEPS[-1])
        marks = np.arange(np.ceil(values.min() / step), values.max() / step + 1e-9) * step
        along = np.linspace(other.min() - 1, other.max() + 1, 200)
        ticks, texts = [], []
        for mark in marks:
            same = np.full_like(along, mark)
            pair = (same, along) if values is lon else (along, same)
            x, y = _to(place.crs, *pair)
            axis.plot(x, y, color=FAINT, linewidth=0.4, alpha=0.6, zorder=1.5, gid="graticule")
            across, up, edge = (y, x, bottom) if values is lon else (x, y, left)
            order = np.argsort(across)
            crossing = float(np.interp(edge, across[order], up[order], np.nan, np.nan))
            if low <= crossing <= high:
                ticks.append(crossing)
                texts.append(degrees(round(float(mark), 6), letters))
        if values is lon:
            axis.set_xticks(ticks, texts)
        else:
            axis.set_yticks(ticks, texts)
    axis.set(xlim=(left, right), ylim=(bottom, top))


def degrees(value: float, letters: str) -> str:
    """Write a longitude (letters EW) or latitude (NS): 100° W, or 0°."""
    if letters == "EW":
        value = (value + 180) % 360 - 180
    if value in (0, -180):
        return f"{abs(value):g}°"
    return f"{abs(value):.6g}° {letters[int(value < 0)]}"
