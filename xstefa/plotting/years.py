"""What a site is like over the years: flow duration and regime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xstefa.errors import LayoutError
from xstefa.evaluation.metrics import check_labels
from xstefa.plotting.labels import label, units
from xstefa.plotting.look import LAND, OBSERVED, PREDICTED, RAIN, plain_numbers, pyplot, style
from xstefa.plotting.sites import flows, hang, in_units_of, log_floor, only_time, site_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MONTHS = "JFMAMJJASOND"


def flow_duration(
    pred: xr.DataArray, obs: xr.DataArray | None = None, *, title: str | None = None
) -> Figure:
    """Draw on which share of the days a flow is exceeded.

    Parameters
    ----------
    pred, obs : DataArray
        Predicted and, optionally, observed streamflow of one site: then the days that both have,
        if there are any.
    title : str, optional
        Name of the site; by default taken from the coordinates.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LayoutError
        If an array has other dimensions than time, or no day is known.
    """
    plt = pyplot()

    series, days = _common(pred, obs)
    with style():
        figure, axis = plt.subplots(figsize=(5.4, 4.2), layout="constrained")
        for name, (values, colour) in series.items():
            ordered = np.sort(values.values)[::-1]
            share = 100 * np.arange(1, len(ordered) + 1) / (len(ordered) + 1)
            dry = float((ordered <= 0).mean())
            text = f"{name}, {dry:.0%} without flow" if dry >= 0.005 else name
            axis.plot(share, np.where(ordered > 0, ordered, np.nan), color=colour, label=text)
        axis.set_yscale("log")
        axis.set_ylim(bottom=log_floor(*(values for values, _ in series.values())))
        plain_numbers(axis.yaxis)
        axis.set_xlim(0, 100)
        axis.set_xlabel("share of days on which it is exceeded (%)")
        axis.set_ylabel(label(pred))
        axis.grid(color=LAND, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.legend(loc="upper right")
        axis.set_title(title or f"{site_name(pred)}\n{days}", fontsize=11)
    return figure


def regime(
    pred: xr.DataArray,
    obs: xr.DataArray | None = None,
    *,
    precipitation: xr.DataArray | None = None,
    title: str | None = None,
) -> Figure:
    """Draw what is usual in each month: means over the years, and the range of four fifths.

    Parameters
    ----------
    pred, obs : DataArray
        Predicted and, optionally, observed values of one site: then the days that both have, if
        there are any.
    precipitation : DataArray, optional
        On the same days: its monthly means as bars from above.
    title : str, optional
        Name of the site; by default taken from the coordinates.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LayoutError
        If an array has other dimensions than time, or no day is known.
    """
    plt = pyplot()
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    series, days = _common(pred, obs)
    time = only_time(pred)
    heights = [1.0] if precipitation is None else [0.25, 1.0]
    with style():
        figure, axes = plt.subplots(
            len(heights),
            1,
            figsize=(5.4, 4.2),
            height_ratios=heights,
            sharex=True,
            squeeze=False,
            layout=ConstrainedLayoutEngine(h_pad=0.04, hspace=0.02),
        )
        axis = axes[-1, 0]
        for name, (values, colour) in series.items():
            years = _by_month(values, time)
            low, high = years.quantile([0.1, 0.9], dim="year").values
            axis.fill_between(years.month, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(years.month, years.mean("year"), color=colour, marker="o", ms=4, label=name)
        if precipitation is not None:
            rain = _by_month(precipitation.compute(), time).mean("year")
            axes[0, 0].bar(rain.month, rain, color=RAIN, width=0.7)
            hang(axes[0, 0], float(rain.max()), units(precipitation))
        if min(float(values.min()) for values, _ in series.values()) >= 0 and flows(pred):
            axis.set_ylim(bottom=0)
        axis.set_xticks(range(1, 13), list(MONTHS))
        axis.tick_params(axis="x", length=0)
        axis.set_ylabel(label(pred))
        axis.grid(axis="y", color=LAND, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.legend(loc="best")
        axes[0, 0].set_title(title or f"{site_name(pred)}\n{days}", fontsize=11)
    return figure


def _common(
    pred: xr.DataArray, obs: xr.DataArray | None
) -> tuple[dict[str, tuple[xr.DataArray, str]], str]:
    """Return the series to draw, with their colours, on the days that all have; how many."""
    time = only_time(pred)
    series, note = {"predicted": (pred.compute(), PREDICTED)}, ""
    known = pred.notnull().values
    if obs is not None:
        observed = in_units_of(pred, obs.compute())
        check_labels(pred, observed)
        if (both := known & observed.notnull().values).any():
            series, known = {"observed": (observed, OBSERVED)} | series, both
        else:
            note = ", none of them observed"
    if not known.any():
        raise LayoutError(
            "There is no day to draw.",
            variable=str(pred.name),
            found=f"{known.size} days without an answer",
            expected="at least one with an answer",
        )
    kept = {name: (v.isel({time: known}), colour) for name, (v, colour) in series.items()}
    return kept, f"{known.sum():,} days{note}"


def _by_month(values: xr.DataArray, time: str) -> xr.DataArray:
    """Return means of months, by year and month; those with less than half of their days out."""
    when = values[time].dt
    labels = {"year": (time, when.year.values), "month": (time, when.month.values)}
    grouped = values.drop_vars(time).assign_coords(labels).groupby(["year", "month"])
    return grouped.mean().where(grouped.count() >= 15)
