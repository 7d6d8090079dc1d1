"""Hydrographs and other series of one site."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.geometry import find_coordinate
from xstefa.binding.time_axis import find_time
from xstefa.binding.units import conversion
from xstefa.errors import LayoutError
from xstefa.evaluation import metrics
from xstefa.plotting.labels import label, number, sentence_case, units
from xstefa.plotting.look import LAND, OBSERVED, PREDICTED, RAIN, plain_numbers, pyplot, style
from xstefa.plotting.place import degrees

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def hydrograph(
    pred: xr.DataArray,
    obs: xr.DataArray | None = None,
    *,
    quantiles: xr.DataArray | None = None,
    precipitation: xr.DataArray | None = None,
    period: slice | None = None,
    title: str | None = None,
    log: bool = False,
) -> Figure:
    """Draw predicted and observed streamflow of one site, precipitation hanging from above.

    Parameters
    ----------
    pred : xarray.DataArray
        Predicted streamflow; time is its only dimension.
    obs : xarray.DataArray, optional
        Observed streamflow on the same days. NSE and KGE over all of them stand in the title.
    quantiles : xarray.DataArray, optional
        What ``predict(quantiles=...)`` says of the same days: a band from each level to the one as
        far from 1 as it is from 0.
    precipitation : xarray.DataArray, optional
        Precipitation on the same days.
    period : slice, optional
        Days to draw, for instance ``slice("1995-10", "1997-09")``; the scores stay those of all.
    title : str, optional
        Name of the site; by default taken from the coordinates.
    log : bool
        Draw flow on a logarithmic axis.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LayoutError
        If an array has other dimensions than time, or prediction and observation differ in days.
    UnitsError
        If prediction and observation have units of different kinds.
    """
    figure = _site_figure(
        pred, obs, precipitation, period, title, scores=_of_flow, line=True, fan=quantiles
    )
    if log:
        axis = figure.axes[-1]
        axis.set_yscale("log")
        shown = [pred] if obs is None else [pred, in_units_of(pred, obs)]
        least = log_floor(*(_shown(each, period) for each in shown))
        axis.set_ylim(least, 3 * axis.get_ylim()[1])  # with room for the legend
        plain_numbers(axis.yaxis)
    return figure


def series(
    pred: xr.DataArray,
    obs: xr.DataArray | None = None,
    *,
    quantiles: xr.DataArray | None = None,
    precipitation: xr.DataArray | None = None,
    period: slice | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a predicted series of one site and its observations, which may have gaps, as points.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        For instance soil moisture. Correlation, unbiased RMSE and bias over all days stand in the
        title.
    quantiles, precipitation, period, title
        As for `hydrograph`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LayoutError, UnitsError
        As for `hydrograph`.
    """
    return _site_figure(
        pred, obs, precipitation, period, title, scores=_of_states, line=False, fan=quantiles
    )


def _of_flow(pred: xr.DataArray, obs: xr.DataArray, time: str) -> str:
    nse, kge = (score(pred, obs, dim=time).item() for score in (metrics.nse, metrics.kge))
    return f"NSE {number(nse)}   KGE {number(kge)}"


def _of_states(pred: xr.DataArray, obs: xr.DataArray, time: str) -> str:
    r, ubrmse = (f(pred, obs, dim=time).item() for f in (metrics.correlation, metrics.ubrmse))
    bias = number((pred - obs).mean().item(), "+.2g")
    return f"r {number(r)}   ubRMSE {ubrmse:.2g}   bias {bias} {units(pred)}"


def _site_figure(
    pred: xr.DataArray,
    obs: xr.DataArray | None,
    precipitation: xr.DataArray | None,
    period: slice | None,
    title: str | None,
    *,
    scores: Callable[[xr.DataArray, xr.DataArray, str], str],
    line: bool,
    fan: xr.DataArray | None,
) -> Figure:
    """Draw one site: precipitation (if given) above, prediction and observation below."""
    plt = pyplot()
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    time, pred, found = only_time(pred), pred.compute(), None
    if obs is not None:
        obs = in_units_of(pred, obs.compute())
        days = int((pred.notnull() & obs.notnull()).sum())
        found = f"{scores(pred, obs, time)}   ({days:,} days)"
    if fan is not None:
        _check_fan(fan, pred)
    pred = _shown(pred, period)
    if pred.size == 0:
        raise LayoutError(
            "There are no days in this period.",
            variable=str(pred.name),
            found=f"period {period}",
            expected="days of the prediction in it",
        )
    with style():
        heights = [1.0] if precipitation is None else [0.28, 1.0]
        figure, axes = plt.subplots(
            len(heights),
            1,
            figsize=(11, 3.6 * sum(heights) + 0.9),
            height_ratios=heights,
            sharex=True,
            squeeze=False,
            layout=ConstrainedLayoutEngine(h_pad=0.04, hspace=0.02),
        )
        main = axes[-1, 0]
        if precipitation is not None:
            _hang_rain(axes[0, 0], _shown(precipitation, period))
        if fan is not None:
            _fan(main, in_units_of(pred, fan), period)
        if obs is not None:
            obs, points = (
                _shown(obs, period),
                {"linestyle": "none", "marker": "o", "markersize": 2.6},
            )
            look = {"linewidth": 1.1} if line else points
            main.plot(days_of(obs), obs.values, color=OBSERVED, label="observed", **look)
        main.plot(days_of(pred), pred.values, color=PREDICTED, linewidth=1.3, label="predicted")
        main.margins(x=0.005)
        if days_of(pred).dtype.kind == "M":
            locator = AutoDateLocator(minticks=5, maxticks=12)
            main.xaxis.set_major_locator(locator)
            main.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
        else:
            main.ticklabel_format(axis="x", useOffset=False)
        if line:
            main.set_ylim(bottom=min(0.0, float(pred.min())))
        main.set_ylabel(label(pred))
        main.grid(axis="y", color=LAND, linewidth=0.8)
        main.set_axisbelow(True)
        if obs is not None or fan is not None:
            main.legend(loc="upper right", ncols=2, borderaxespad=0.1)
        top = axes[0, 0]
        top.set_title(title or site_name(pred), fontweight="bold", fontsize=14)
        if found is not None:
            top.set_title(found, loc="right", fontsize=13)
    return figure


def _check_fan(fan: xr.DataArray, pred: xr.DataArray) -> None:
    """Refuse what are no quantiles of the prediction.

    Raises
    ------
    LayoutError
    """
    fix = "quantiles=ds.stefa.predict(target, quantiles=[0.05, 0.5, 0.95]), of the same site"
    if fan.ndim != 2 or "quantile" not in fan.dims:
        raise LayoutError(
            "These are no quantiles.",
            variable="quantiles",
            found=f"dimensions {', '.join(map(str, fan.dims)) or 'none'}",
            expected=f"{pred.dims[0]} and quantile",
            fix=fix,
        )
    metrics.check_labels(pred, fan)
    other = [
        name
        for name, coord in pred.coords.items()
        if not coord.ndim
        and name in fan.coords
        and not coord.variable.equals(fan.coords[name].variable)
    ]
    if other:
        raise LayoutError(
            "These quantiles are of another place.",
            variable="quantiles",
            found=f"{other[0]} {fan.coords[other[0]].item()!r}",
            expected=f"{other[0]} {pred.coords[other[0]].item()!r}",
            fix=fix,
        )


def _fan(axis: Axes, quantiles: xr.DataArray, period: slice | None) -> None:
    """Draw bands between quantiles, those of the middle darker."""
    bands = quantiles.sortby("quantile").compute()
    levels = bands["quantile"].values
    for i in range(len(levels) // 2):
        lower, upper = (_shown(bands.isel(quantile=j, drop=True), period) for j in (i, -1 - i))
        axis.fill_between(
            days_of(lower),
            lower.values,
            upper.values,
            color=PREDICTED,
            alpha=0.18,
            linewidth=0,
            label=f"{100 * levels[i]:g} to {100 * levels[-1 - i]:g} %",
        )


def _hang_rain(axis: Axes, precipitation: xr.DataArray) -> None:
    """Draw precipitation as bars from the top."""
    rain = precipitation.values  # where it is not known there is no line, not one at zero
    axis.fill_between(days_of(precipitation), rain, step="mid", color=RAIN, linewidth=0.4)
    hang(axis, float(np.nan_to_num(rain).max()), units(precipitation))


def hang(axis: Axes, most: float, unit: str) -> None:
    """Let precipitation grow downwards."""
    axis.set_ylim(max(most * 1.05, 1.0), 0.0)
    axis.set_ylabel(f"Precip.\n({unit})")
    axis.spines["bottom"].set_visible(False)
    axis.spines["top"].set_visible(True)
    axis.tick_params(axis="x", length=0, labelbottom=False)
    axis.locator_params(axis="y", nbins=3)


def log_floor(*series: xr.DataArray) -> float:
    """Return where a logarithmic axis begins: trickles of a millionth would take most of it."""
    positive = np.concatenate([v.values[v.values > 0] for v in series])
    if not positive.size:
        return 1e-3
    return float(max(np.quantile(positive, 0.002), positive.max() / 1e5) / 1.3)


def flows(da: xr.DataArray) -> bool:
    """Whether values are a rate of water, of which zero is a part."""
    return str(da.attrs.get("units", "")).endswith("d-1")


def _shown(da: xr.DataArray, period: slice | None) -> xr.DataArray:
    time = only_time(da)
    return (da if period is None else da.sel({time: period})).compute()


def only_time(da: xr.DataArray) -> str:
    """Name the time dimension of a series that has no other."""
    time = find_time(da.coords.to_dataset())
    if da.ndim != 1:
        others = {dim: 0 for dim in da.dims if dim != time}
        raise LayoutError(
            "This figure shows one site.",
            variable=str(da.name),
            found=f"dimensions {da.dims}",
            expected=f"only {time!r}",
            fix=f"choose one: .isel({others})",
        )
    return time


def days_of(da: xr.DataArray) -> NDArray[np.generic]:
    """Time for the horizontal axis; calendars matplotlib does not know become fractional years."""
    times = da[only_time(da)]
    if times.dtype.kind == "M":
        return times.values
    length = xr.DataArray(times.dt.days_in_year, dims=times.dims)
    return (times.dt.year + (times.dt.dayofyear - 1) / length).values


def site_name(da: xr.DataArray) -> str:
    """Name the site after its scalar coordinates: its name, and its identifier behind it."""
    texts = {
        str(name): str(coord.item())
        for name, coord in da.coords.items()
        if coord.ndim == 0 and coord.dtype.kind in "UOT" and isinstance(coord.item(), str)
    }
    names = [text for key, text in texts.items() if "name" in key]
    codes = sorted(
        (da[key].attrs.get("cf_role") is None, key) for key in texts if "name" not in key
    )
    if not codes:
        return names[0] if names else place_of(da) or sentence_case(str(da.name))
    key = codes[0][1]
    if names:
        return f"{names[0]} ({texts[key]})"
    return f"{sentence_case(key.removesuffix('_id'))} {texts[key]}"


def place_of(da: xr.DataArray) -> str:
    """Return latitude and longitude of a site in words; nothing where they are not known."""
    ds = da.coords.to_dataset()
    kinds: tuple[Literal["latitude", "longitude"], ...] = ("latitude", "longitude")
    lat, lon = (
        np.nan if (name := find_coordinate(ds, kind, ())) is None else float(ds[name])
        for kind in kinds
    )
    known = np.isfinite([lat, lon]).all()
    return f"{degrees(round(lat, 2), 'NS')}, {degrees(round(lon, 2), 'EW')}" if known else ""


def in_units_of(pred: xr.DataArray, obs: xr.DataArray) -> xr.DataArray:
    """Convert the observations to the units of the prediction, where both state theirs."""
    found, used = obs.attrs.get("units"), pred.attrs.get("units")
    if found is None or used is None or found == used:
        return obs
    return conversion(found, used, variable=str(obs.name))(obs).assign_attrs(units=used)
