"""A map to click on: rain, prediction, interval and observations of the site that is chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import Layout
from xstefa.binding.geometry import find_coordinate
from xstefa.binding.places import with_places
from xstefa.datasets import WORLD_OUTLINE
from xstefa.errors import LayoutError, need
from xstefa.evaluation.evaluate import score
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike
from xstefa.plotting.labels import label, sentence_case, units
from xstefa.plotting.look import OBSERVED, PREDICTED, RAIN
from xstefa.plotting.place import degrees, outline_lines
from xstefa.plotting.shown import Shown, thinned
from xstefa.plotting.sites import days_of, flows
from xstefa.splits.sites import Sites
from xstefa.typed import Share

if TYPE_CHECKING:
    from bokeh.document import Document

LIMIT = 24e6
"""Bytes of series in a page, at most: of more only the last days are in it."""

CELLS = 60
"""Cells of a map along one axis that can be clicked, at most."""

CHOSEN = "#e3120b"

SERIES = ("rain", "observed", "predicted", "lower", "upper")


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """A page with a map to click on; in a notebook it is shown, `save` writes it.

    Attributes
    ----------
    html : str
        The whole page; it needs no other file and no network.
    """

    html: str

    def __repr__(self) -> str:
        return f"<xstefa.Explorer> {len(self.html) / 1e6:.1f} MB; .save(path) writes it"

    def _repr_html_(self) -> str:
        page, size = escape(self.html), "width:100%;height:860px;border:0"
        return f'<iframe title="Map to click on" srcdoc="{page}" style="{size}"></iframe>'

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page."""
        place = Path(path)
        place.write_text(self.html, encoding="utf-8")
        return place


@checked
def explore(
    dataset: xr.Dataset,
    target: str | Model | xr.DataArray = "streamflow",
    *,
    model: ModelLike | None = None,
    interval: Share | None = 0.9,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
) -> Explorer:
    """Make a map to click on: a click shows rain, prediction, interval and observations.

    Takes the extra ``explore`` (Bokeh).

    Parameters
    ----------
    target : str, Model or DataArray
        What to predict, or a prediction of this dataset.
    model, rename, device, precision, batch_size
        As for `predict`.
    interval : float, optional
        Probability of an observation within the band, of models that were calibrated.

    Returns
    -------
    Explorer
        Shown in a notebook; ``.save("map.html")`` writes a page that needs no network.

    Raises
    ------
    XstefaError
        As for `predict`; `MissingExtraError` if Bokeh is not installed.

    Notes
    -----
    A page has up to 24 MB of series: of more days the last ones, and of a map with more than 60
    cells along an axis every second, third or so. The page says what was left out.
    """
    need("explore", "bokeh", job="a map to click on")
    dataset, fewer = thinned(dataset, most=CELLS, rename=rename)
    if isinstance(target, xr.DataArray):
        target = target.isel(fewer.steps, missing_dims="ignore")
    how = {"device": device, "precision": precision, "batch_size": batch_size}
    given = how if not isinstance(target, xr.DataArray) else {}
    shown = Shown.of(
        dataset, target, one=False, model=model, interval=interval, rename=rename, **given
    ).compute()
    view = _View.of(dataset, shown, note=fewer.text)
    return Explorer(html=_page(view))


@dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """What is on the page, as arrays.

    Attributes
    ----------
    names : list of str
        Of the sites.
    lat, lon : ndarray, shape (site,)
    cell : (float, float), optional
        Width and height of a cell of a map, degrees; None for points.
    days : ndarray of datetime64, shape (day,)
    series : mapping of str to ndarray of float32, shape (site, day)
        Of `SERIES` what there is.
    colour : ndarray, shape (site,)
        What the map shows, which is `meaning`.
    """

    names: list[str]
    lat: np.ndarray
    lon: np.ndarray
    cell: tuple[float, float] | None
    days: np.ndarray
    series: Mapping[str, np.ndarray]
    colour: np.ndarray
    meaning: str
    title: str
    what: str
    unit: str
    zero: bool
    note: str

    @classmethod
    def of(cls, dataset: xr.Dataset, shown: Shown, *, note: str) -> _View:
        layout = shown.binding.layout
        time, dims = layout.time, layout.site_dims
        dataset = with_places(dataset)
        where = [find_coordinate(dataset, kind, dims) for kind in ("latitude", "longitude")]
        if None in where:
            raise LayoutError(
                "A map needs to know where the sites are.",
                found=f"coordinates {tuple(dataset.coords)}",
                expected="latitude and longitude",
                fix="ds['lat'].attrs['standard_name'] = 'latitude'   # and the same for longitude",
            )
        frame = shown.predicted.isel({time: 0}, drop=True)
        lat, lon = (
            dataset[name].broadcast_like(frame).transpose(*dims).values.ravel() for name in where
        )
        arrays = {
            "rain": shown.precipitation,
            "observed": shown.observed,
            "predicted": shown.predicted,
        }
        if shown.quantiles is not None:
            arrays |= {
                name: shown.quantiles.isel(quantile=i) for i, name in ((0, "lower"), (-1, "upper"))
            }
        known = {name: array for name, array in arrays.items() if array is not None}
        answered = shown.predicted.notnull().any(time).transpose(*dims).values.ravel()
        placed = np.isfinite(lat) & np.isfinite(lon)
        keep = np.flatnonzero(answered & placed)
        if lost := int((~placed).sum()):
            note = " · ".join(filter(None, [note, f"{lost} of {len(lat)} sites have no place"]))
        if not keep.size:
            raise LayoutError(
                "there is no site to click on",
                variable=str(shown.predicted.name),
                found=f"{len(lat)} sites, none with a place and an answer",
                expected="a site with a place, and a prediction on at least one day",
                fix="ds.stefa   # says which tokens are known, and what is missing",
            )
        most = int(LIMIT // (4 * len(known) * max(keep.size, 1)))
        if most < (size := shown.predicted.sizes[time]):
            note = " · ".join(filter(None, [note, f"the last {most} of {size} days"]))
        series = {
            name: np.ascontiguousarray(
                array.transpose(*dims, time).values.reshape(len(lat), -1)[keep, -most:], np.float32
            )
            for name, array in known.items()
        }
        meaning, values = _colours(shown)
        names = _names(dataset, layout) or [
            f"{degrees(y, 'NS')}, {degrees(x, 'EW')}" for y, x in zip(lat, lon, strict=True)
        ]
        return cls(
            names=[names[i] for i in keep],
            lat=lat[keep],
            lon=((lon + 180) % 360 - 180)[keep],
            cell=_cell(lat, lon) if layout.support == "grid" else None,
            days=days_of(shown.predicted[{dim: 0 for dim in dims}])[-most:],
            series=series,
            colour=values.transpose(*dims).values.ravel()[keep],
            meaning=meaning,
            title=sentence_case(str(shown.predicted.name)),
            what=label(shown.predicted),
            unit=units(shown.predicted),
            zero=flows(shown.predicted),
            note=" · ".join(filter(None, [shown.signature, note])),
        )


def _names(dataset: xr.Dataset, layout: Layout) -> list[str] | None:
    """Return what sites are called; None for cells of a map."""
    if layout.support == "grid":
        return None
    ids, dims = Sites.of(dataset, layout).ids.tolist(), layout.site_dims
    for name, variable in dataset.variables.items():
        if "name" in str(name) and variable.dims == dims and variable.dtype.kind in "UOT":
            return [f"{text} ({site})" for text, site in zip(np.ravel(variable), ids, strict=True)]
    return ids


def _cell(lat: np.ndarray, lon: np.ndarray) -> tuple[float, float]:
    """Return width and height of cells: the most common distance of neighbours."""
    steps = [np.diff(np.unique(np.round(values, 4))) for values in (lon, lat)]
    width, height = (float(np.median(step)) if step.size else 1.0 for step in steps)
    return width, height


def _colours(shown: Shown) -> tuple[str, xr.DataArray]:
    """Return what the map shows: a score where there are observations, else what is predicted."""
    time = shown.binding.layout.time
    if shown.observed is not None and bool(shown.observed.notnull().any()):
        name = "nse" if flows(shown.predicted) else "correlation"
        values = score(shown.predicted, shown.observed, scores=name, dim=time)[name]
        return str(values.attrs["long_name"]), values
    return f"Mean predicted ({units(shown.predicted)})", shown.predicted.mean(time)


def _page(view: _View) -> str:
    """Return the page as one text, all scripts in it."""
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    page = file_html(_document(view), INLINE, title=view.title)
    style = resources.files(__package__).joinpath("explore.css").read_text("utf-8")
    # Scripts before it have the same text in them.
    scripts, body = page.rsplit("</head>", 1)
    return f'{scripts}<link rel="icon" href="data:,"><style>{style}</style></head>{body}'


def _document(view: _View) -> Document:
    from bokeh.document import Document
    from bokeh.layouts import column
    from bokeh.models import ColumnDataSource, CustomJS, Div, Range1d, Select
    from bokeh.plotting import figure

    first = {name: values[0] for name, values in view.series.items()}
    places = ColumnDataSource(
        {"lon": view.lon, "lat": view.lat, "colour": view.colour, "name": view.names}
    )
    places.selected.indices = [0]
    everything = ColumnDataSource({name: v.ravel() for name, v in view.series.items()})
    one = ColumnDataSource({"time": view.days, **first})
    dates = "datetime" if view.days.dtype.kind == "M" else "linear"
    look = {"sizing_mode": "stretch_width", "tools": "xpan,xwheel_zoom,xbox_zoom,reset"}
    flow = figure(
        height=400, x_axis_type=dates, y_axis_label=view.what, toolbar_location="below", **look
    )
    flow.x_range = Range1d(view.days[0], view.days[-1], bounds="auto")
    if "lower" in first:
        flow.varea("time", "lower", "upper", source=one, color=PREDICTED, alpha=0.25)
    lines = [("observed", OBSERVED), ("predicted", PREDICTED)]
    drawn = [
        flow.line("time", name, source=one, color=colour, line_width=1.5, legend_label=name)
        for name, colour in lines
        if name in first
    ]
    flow.y_range.only_visible = True
    flow.legend.orientation, flow.legend.location = "horizontal", "top_right"
    if view.zero:
        flow.y_range.start = 0
    graphs = [flow]
    if "rain" in first:
        rain = figure(
            height=130,
            x_axis_type=dates,
            x_range=flow.x_range,
            y_axis_label="Precip. (mm d⁻¹)",
            toolbar_location=None,
            **look,
        )
        rain.varea("time", y1=0, y2="rain", source=one, color=RAIN)
        rain.y_range = Range1d(max(float(np.nanmax(first["rain"])), 1.0), 0)
        rain.xaxis.visible = False
        graphs.insert(0, rain)
    _hover(flow, drawn[-1], [name for name, _ in lines if name in first], view)
    heading = Div(text=f"<h2>{escape(view.names[0])}</h2>")
    select = Select(
        title="Site", options=view.names, value=view.names[0], sizing_mode="stretch_width"
    )
    chosen = CustomJS(
        args={
            "everything": everything,
            "one": one,
            "places": places,
            "heading": heading,
            "select": select,
            "hanging": graphs[0].y_range,
        },
        code=resources.files(__package__).joinpath("explore.js").read_text("utf-8"),
    )
    places.selected.js_on_change("indices", chosen)
    # The same by keyboard, and for those who do not see the map.
    select.js_on_change(
        "value",
        CustomJS(
            args={"places": places},
            code="places.selected.indices = [places.data.name.indexOf(cb_obj.value)]",
        ),
    )
    ground = _map(view, places)
    about = f"<h1>{escape(view.title)}</h1><p>{escape(view.note)}</p>"
    document = Document()
    for parts in ([Div(text=about), ground, select], [heading, *graphs]):
        document.add_root(column(*parts, sizing_mode="stretch_width"))
    document.js_on_event(
        "document_ready",
        CustomJS(
            args={"figures": [ground, *graphs]},
            code=resources.files(__package__).joinpath("dark.js").read_text("utf-8"),
        ),
    )
    return document


def _hover(plot: Any, line: Any, names: list[str], view: _View) -> None:
    """Say day and values where the pointer is."""
    from bokeh.models import HoverTool

    day = [("", "@time{%F}")] if view.days.dtype.kind == "M" else [("", "@time{0.00}")]
    formats = {"@time": "datetime"} if view.days.dtype.kind == "M" else {}
    values = [(name, f"@{name}{{0.00[0]}} {view.unit}") for name in names]
    plot.add_tools(
        HoverTool(renderers=[line], mode="vline", tooltips=day + values, formatters=formats)
    )


def _map(view: _View, places: Any) -> Any:
    """Return the map, on which a click chooses a site."""
    from bokeh.models import ColorBar, HoverTool, LinearColorMapper, TapTool
    from bokeh.palettes import Viridis256
    from bokeh.plotting import figure

    known = view.colour[np.isfinite(view.colour)]
    low, high = np.percentile(known, [5, 95]) if known.size else (0, 1)
    scale = LinearColorMapper(Viridis256, low=float(low), high=float(high), nan_color="#888888")
    margin = max(0.08 * max(np.ptp(view.lon), np.ptp(view.lat)), 3.0)
    box = [view.lon.min(), view.lon.max(), view.lat.min(), view.lat.max()]
    west, east, south, north = np.array(box) + np.array([-1, 1, -1, 1]) * margin
    narrow = float(np.cos(np.radians((south + north) / 2)))
    plot = figure(
        x_range=(west, east),
        y_range=(south, north),
        sizing_mode="stretch_width",
        aspect_ratio=float(np.clip((east - west) * narrow / (north - south), 0.8, 2.2)),
        tools="pan,wheel_zoom,reset",
        active_scroll="wheel_zoom",
        toolbar_location="below",
        x_axis_label="Longitude (°)",
        y_axis_label="Latitude (°)",
    )
    near = [
        line
        for line in outline_lines(WORLD_OUTLINE)
        if line[:, 0].max() > west - 20
        and line[:, 0].min() < east + 20
        and line[:, 1].max() > south - 20
        and line[:, 1].min() < north + 20
    ]
    rings = [line for line in near if np.array_equal(line[0], line[-1])]
    plot.patches(*_columns(rings), color="#888888", alpha=0.18, line_alpha=0)
    plot.multi_line(*_columns(near), color="#888888", line_width=0.8)
    look: dict[str, Any] = {
        "source": places,
        "fill_color": {"field": "colour", "transform": scale},
        "line_color": "#888888" if view.cell is None else None,
        "nonselection_fill_alpha": 1.0,
        "nonselection_line_alpha": 1.0,
        "selection_line_color": CHOSEN,
        "selection_line_width": 3,
    }
    if view.cell is None:
        shown = plot.scatter("lon", "lat", size=12, **look)
    else:
        shown = plot.rect("lon", "lat", *view.cell, **look)
    plot.add_tools(TapTool(renderers=[shown]))
    plot.add_tools(HoverTool(renderers=[shown], tooltips=[("", "@name"), ("", "@colour{0.00}")]))
    plot.add_layout(ColorBar(color_mapper=scale, title=view.meaning, height=12), "below")
    return plot


def _columns(lines: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [line[:, 0] for line in lines], [line[:, 1] for line in lines]
