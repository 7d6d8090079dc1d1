"""Sequences of maps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.geometry import find_coordinate, grid_crs, horizontal_dims
from xstefa.binding.time_axis import find_time
from xstefa.datasets import US_OUTLINE
from xstefa.errors import LayoutError
from xstefa.plotting.labels import day, label, sentence_case
from xstefa.plotting.look import INK, LAND, SOIL_MOISTURE_COLOURS, style
from xstefa.prepare.cells import edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from pyproj import CRS

Floats = NDArray[np.float64]


def soil_moisture_maps(
    da: xr.DataArray,
    *,
    dates: Sequence[str] | None = None,
    outline: str | Path | None = US_OUTLINE,
    columns: int = 3,
    limits: tuple[float, float] | None = None,
    cmap: str | Colormap | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a sequence of maps with one colour scale.

    Grids in longitude and latitude away from the equator and the poles are drawn in an equal-area
    projection; grids with another coordinate reference system in their own.

    Parameters
    ----------
    da : xarray.DataArray
        A time dimension and either two horizontal ones or one of sites with latitude and longitude.
    dates : sequence of str, optional
        Days to draw, for instance ``["2012-03-01", "2012-09-01"]``; by default six, evenly spread.
    outline : path, optional
        GeoJSON with borders in longitude and latitude; by default the states of the conterminous
        US. None draws none.
    columns : int
        Maps in a row, at most.
    limits : (float, float), optional
        Ends of the colour scale; by default the 2nd and 98th percentile of what is drawn.
    cmap : str or matplotlib Colormap, optional
        By default from dry sand to deep blue, in even steps of lightness.
    title : str, optional
        Heading; by default the array's long name.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LayoutError
        If there is no time or place in the array, there are further dimensions, or it lacks a date.
    """
    from matplotlib.colors import LinearSegmentedColormap

    time = find_time(da.coords.to_dataset())
    if dates is None:
        steps = np.linspace(0, da.sizes[time] - 1, min(6, da.sizes[time])).round().astype(int)
    else:
        steps = np.array([_step(da, time, date) for date in dates])
    # One computation: days that come out of one block of a lazy prediction are predicted once.
    shown = da.isel({time: steps}).compute()
    panels = {day(shown[time][panel]): shown.isel({time: panel}) for panel in range(len(steps))}
    return draw_maps(
        panels,
        heading=title or sentence_case(str(da.attrs.get("long_name", da.name))),
        label=label(da),
        limits=limits or _round_limits(shown.values[np.isfinite(shown.values)]),
        cmap=cmap or LinearSegmentedColormap.from_list("soil_moisture", SOIL_MOISTURE_COLOURS),
        outline=outline,
        columns=columns,
    )


def draw_maps(
    panels: Mapping[str, xr.DataArray],
    *,
    heading: str,
    label: str,
    limits: tuple[float, float],
    cmap: str | Colormap | None = None,
    outline: str | Path | None = None,
    columns: int = 1,
) -> Figure:
    """Draw maps in one place, by title, with one colour scale; see `soil_moisture_maps`."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    place = _Place.of(next(iter(panels.values())))
    stacked = np.stack([panel.transpose(*place.dims) for panel in panels.values()])
    left, right, bottom, top = place.extent(np.isfinite(stacked).any(axis=0))
    n_columns = min(columns, len(panels))
    n_rows = -(-len(panels) // n_columns)
    width = 12.0 if n_columns > 1 else 8.0
    panel_height = width / n_columns * (top - bottom) / (right - left)
    with style():
        figure, axes = plt.subplots(
            n_rows,
            n_columns,
            figsize=(width, n_rows * (panel_height + 0.3) + 1.3 + 0.3 * heading.count("\n")),
            layout="constrained",
            squeeze=False,
        )
        for axis in axes.flat:
            axis.set_axis_off()
        for (title, panel), axis in zip(panels.items(), axes.flat, strict=False):
            if outline is not None:
                _draw_outline(axis, place, Path(outline))
            image = place.draw(axis, panel, cmap, Normalize(*limits))
            axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
            axis.set_title(title, color=INK)
        below, above = bool((stacked < limits[0]).any()), bool((stacked > limits[1]).any())
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        bar = figure.colorbar(
            image, ax=axes, location="bottom", shrink=0.5, aspect=36, pad=0.03, extend=extend
        )
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
        bar.set_label(label)
        figure.suptitle(heading, fontsize=15, fontweight="bold", x=0.01, ha="left")
    return figure


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
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
    """

    dims: tuple[str, ...]
    x: Floats
    y: Floats
    crs: CRS | None
    middle: float = 0.0

    @classmethod
    def of(cls, panel: xr.DataArray) -> _Place:
        """Find the places of a map without time."""
        ds, dims = panel.coords.to_dataset(), tuple(map(str, panel.dims))
        lon, lat = (find_coordinate(ds, kind, dims) for kind in ("longitude", "latitude"))
        if lon is not None and lat is not None:
            place = cls._geographic(ds[lon], ds[lat])
        elif (axes := horizontal_dims(ds, dims)) is not None:
            y, x = (edges(ds[dim].values) for dim in axes)
            x, y = np.meshgrid(x, y)
            place = cls(dims=axes, x=x, y=y, crs=grid_crs(ds, panel))
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
    def _geographic(cls, lon: xr.DataArray, lat: xr.DataArray) -> _Place:
        if lon.ndim == 1 and lon.dims == lat.dims:
            x, y = lon.values.astype(float), lat.values.astype(float)
            dims = tuple(str(dim) for dim in lon.dims)
        elif lon.ndim == 1 and lat.ndim == 1:
            x, y = np.meshgrid(edges(lon.values), edges(lat.values))
            dims = (str(lat.dims[0]), str(lon.dims[0]))
        else:
            dims = tuple(str(dim) for dim in lat.dims)
            lon = lon.transpose(*dims)
            x, y = (edges(edges(c.values, axis=0), axis=1) for c in (lon, lat))
        crs, middle = _map_crs(x, y), float((x.min() + x.max()) / 2)
        x, y = _to(crs, x, y)
        return cls(dims=dims, x=x, y=y, crs=crs, middle=middle)

    def draw(
        self, axis: Axes, panel: xr.DataArray, cmap: str | Colormap | None, norm: Normalize
    ) -> ScalarMappable:
        """Draw cells or points, return what a colour bar needs."""
        values = np.ma.masked_invalid(panel.transpose(*self.dims).values)
        if len(self.dims) == 1:
            return axis.scatter(
                self.x, self.y, s=46, c=values, cmap=cmap, norm=norm, edgecolor=INK, linewidth=0.5,
                zorder=3,
            )  # fmt: skip
        # As one picture in vector files: there, thousands of cells show hairlines between them.
        return axis.pcolormesh(
            self.x, self.y, values, cmap=cmap, norm=norm, rasterized=True, zorder=2
        )

    def extent(self, drawn: NDArray[np.bool_]) -> tuple[float, float, float, float]:
        """Left, right, bottom, top around what has values, with a margin."""
        if len(self.dims) == 1:
            inside, share = drawn, 0.08
        else:
            inside, share = np.zeros(self.x.shape, dtype=bool), 0.02
            for rows in (slice(None, -1), slice(1, None)):
                for cols in (slice(None, -1), slice(1, None)):
                    inside[rows, cols] |= drawn
        if not inside.any():
            inside = np.ones_like(inside)
        x, y = self.x[inside], self.y[inside]
        margin = share * max(np.ptp(x), np.ptp(y))
        return x.min() - margin, x.max() + margin, y.min() - margin, y.max() + margin


def _map_crs(lon: Floats, lat: Floats) -> CRS:
    """Albers equal-area around a region of the middle latitudes, else a plain map."""
    from pyproj import CRS

    west, east, south, north = lon.min(), lon.max(), lat.min(), lat.max()
    middle = (west + east) / 2
    if east - west < 120 and north - south < 60 and 12 < abs(south + north) / 2 < 72:
        sixth = (north - south) / 6
        parallels = f"+lat_1={south + sixth} +lat_2={north - sixth} +lat_0={(south + north) / 2}"
        return CRS.from_proj4(f"+proj=aea {parallels} +lon_0={middle} +datum=WGS84 +over")
    true_scale = np.clip((south + north) / 2, -60, 60)
    return CRS.from_proj4(f"+proj=eqc +lat_ts={true_scale} +lon_0={middle} +datum=WGS84 +over")


def _to(crs: CRS, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude in the coordinates of the paper."""
    from pyproj import Transformer

    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(
        lon, np.clip(lat, -90, 90)
    )
    return np.asarray(x), np.asarray(y)


def _draw_outline(axis: Axes, place: _Place, path: Path) -> None:
    """Draw borders: grey land below the values, thin lines above them."""
    if place.crs is None:
        return
    for line in outline_lines(path):
        # The map may count longitudes from 0 to 360, the borders from -180 to 180.
        turns = np.round((place.middle - line[:, 0].mean()) / 360)
        x, y = _to(place.crs, line[:, 0] + 360 * turns, line[:, 1])
        if np.array_equal(line[0], line[-1]):
            axis.fill(x, y, color=LAND, linewidth=0, zorder=1)
        axis.plot(x, y, color=INK, linewidth=0.45, alpha=0.55, zorder=4)


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


def _round_limits(values: Floats) -> tuple[float, float]:
    """2nd and 98th percentile, rounded outwards to a step of the colour bar."""
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [2, 98])
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-6))) / 2
    return float(np.floor(low / step) * step), float(np.ceil(high / step) * step)


def _step(da: xr.DataArray, time: str, date: str) -> int:
    """Find the position of a day in the array."""
    try:
        steps = np.atleast_1d(np.arange(da.sizes[time])[da[time].to_index().get_loc(date)])
    except KeyError:
        steps = np.arange(0)
    if len(steps) != 1:
        first, last = day(da[time][0]), day(da[time][-1])
        raise LayoutError(
            "A map shows one day.",
            variable=str(da.name),
            found=f"{len(steps)} days for {date!r}",
            expected=f"a day from {first} to {last}, written like '2012-03-01'",
        )
    return int(steps[0])
