"""Sequences of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.time_axis import find_time
from xstefa.errors import LayoutError
from xstefa.evaluation.climatology import anomaly, percentile
from xstefa.plotting.labels import day, label, sentence_case, units
from xstefa.plotting.look import (
    INK,
    PERCENTILE_BOUNDS,
    PERCENTILE_COLOURS,
    PREDICTED,
    SOIL_MOISTURE_COLOURS,
    pyplot,
    style,
)
from xstefa.plotting.place import Outline
from xstefa.plotting.projected import sheet_of

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

TALLEST = 6.0  # inches of one map

COMPARED = {
    "value": lambda da, steps: da.isel({find_time(da.coords.to_dataset()): steps}),
    "percentile": percentile,
    "anomaly": anomaly,
}
"""What of some days of a record is drawn."""


def soil_moisture_maps(
    da: xr.DataArray,
    *,
    dates: Sequence[str] | None = None,
    as_: Literal["value", "percentile", "anomaly"] = "value",
    outline: Outline = "auto",
    columns: int = 3,
    limits: tuple[float, float] | None = None,
    cmap: str | Colormap | None = None,
    title: str | None = None,
    projection: Any = None,
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
    as_ : {"value", "percentile", "anomaly"}
        Draw values, or what they are against all years of the record at the same time of year: see
        `xstefa.evaluation.climatology`. Percentiles have the classes of drought monitors.
    outline : path, optional
        GeoJSON with borders in longitude and latitude; by default the countries of the world, on
        maps of the conterminous US its states. None draws none.
    columns : int
        Maps in a row, at most.
    limits : (float, float), optional
        Ends of the colour scale; by default the 2nd and 98th percentile of what is drawn.
    cmap : str or matplotlib Colormap, optional
        By default from dry sand to deep blue, in even steps of lightness.
    title : str, optional
        Heading; by default the array's long name.
    projection : cartopy.crs.Projection, optional
        Draw on axes of cartopy's in this projection.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LayoutError
        If there is no time or place in the array, there are further dimensions, or it lacks a date.
    """
    pyplot()
    from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, ListedColormap

    time = find_time(da.coords.to_dataset())
    if dates is None:
        steps = np.linspace(0, da.sizes[time] - 1, min(6, da.sizes[time])).round().astype(int)
    else:
        steps = np.array([_step(da, time, date) for date in dates], dtype=int)
    if not (len(steps) and da.size):
        raise LayoutError(
            "A map shows at least one day of one place.",
            variable=str(da.name),
            found=f"{len(steps)} days of an array of sizes {dict(da.sizes)}",
            expected="at least one of each",
            fix="check the days, and the selection that made the dataset",
        )
    # One computation: days that come out of one block of a lazy prediction are predicted once.
    shown = COMPARED[as_](da, steps).compute()
    panels = {day(shown[time][panel]): shown.isel({time: panel}) for panel in range(len(steps))}
    heading = sentence_case(str(da.attrs.get("long_name", da.name)))
    known = shown.values[np.isfinite(shown.values)]
    scale: tuple[float, float] | Normalize
    if as_ == "percentile":
        scale = BoundaryNorm(PERCENTILE_BOUNDS, len(PERCENTILE_COLOURS))
        colours: Colormap | str = ListedColormap(PERCENTILE_COLOURS)
        what = "Percentile of the time of year"
    elif as_ == "anomaly":
        most = max(map(abs, _round_limits(known)))
        scale, colours = (-most, most), "BrBG"
        what = f"Above or below the mean of the time of year ({units(da)})"
    else:
        scale, what = _round_limits(known), label(da)
        colours = LinearSegmentedColormap.from_list("soil_moisture", SOIL_MOISTURE_COLOURS)
    if as_ != "value":
        first, last = (int(da[time].dt.year[step]) for step in (0, -1))
        what += f", {first} to {last}"
    return draw_maps(
        panels,
        heading=title or heading,
        label=what,
        limits=limits or scale,
        cmap=cmap or colours,
        outline=outline,
        columns=columns,
        projection=projection,
    )


def draw_maps(
    panels: Mapping[str, xr.DataArray],
    *,
    heading: str,
    label: str,
    limits: tuple[float, float] | Normalize,
    cmap: str | Colormap | None = None,
    outline: Outline = "auto",
    columns: int = 1,
    crossed: xr.DataArray | None = None,
    projection: Any = None,
) -> Figure:
    """Draw maps in one place, by title, with one colour scale; see `soil_moisture_maps`."""
    plt = pyplot()
    from matplotlib.colors import BoundaryNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    norm = Normalize(*limits) if isinstance(limits, tuple) else limits
    place = sheet_of(next(iter(panels.values())), projection)
    stacked = np.stack([panel.transpose(*place.dims) for panel in panels.values()])
    extent = left, right, bottom, top = place.extent(np.isfinite(stacked).any(axis=0))
    n_columns = min(columns, len(panels))
    n_rows = -(-len(panels) // n_columns)
    shape = (top - bottom) / (right - left)
    width = min(12.0 if n_columns > 1 else 8.0, n_columns * TALLEST / shape)
    panel_height = width / n_columns * shape
    with style():
        figure, axes = plt.subplots(
            n_rows,
            n_columns,
            figsize=(width, n_rows * (panel_height + 0.3) + 1.3 + 0.3 * heading.count("\n")),
            layout="constrained",
            squeeze=False,
            subplot_kw=place.kind,
        )
        for axis in axes.flat:
            axis.set_axis_off()
        for (title, panel), axis in zip(panels.items(), axes.flat, strict=False):
            axis.set_axis_on()
            image = place.draw(axis, panel, cmap, norm)
            place.ground(axis, extent, outline)
            if crossed is not None:
                place.cross(axis, crossed)
            axis.set_title(title, color=INK)
        below, above = bool((stacked < norm.vmin).any()), bool((stacked > norm.vmax).any())
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        bar = figure.colorbar(
            image, ax=axes, location="bottom", shrink=0.5, aspect=36, pad=0.03, extend=extend
        )
        bar.outline.set_visible(False)
        if isinstance(norm, BoundaryNorm):
            bar.set_ticks(list(norm.boundaries))
        else:
            bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
        bar.set_label(label)
        figure.suptitle(heading, fontsize=15, fontweight="bold", x=0.01, ha="left")
    return figure


def plot_place(site: xr.DataArray) -> Figure:
    """Draw where a site is: an array without dimensions, with latitude and longitude."""
    plt = pyplot()

    sheet = sheet_of(site)
    with style():
        figure, axis = plt.subplots(figsize=(4.2, 4), layout="constrained")
        axis.plot(sheet.x, sheet.y, marker="o", color=PREDICTED, mec=INK, ms=9, zorder=5)
        sheet.ground(axis, sheet.extent(np.array(True)))
    return figure


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
