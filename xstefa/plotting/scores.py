"""Figures of scores: how they are distributed, and where. Matplotlib is imported when drawing."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.errors import LayoutError, OptionError
from xstefa.plotting.labels import number
from xstefa.plotting.look import INK, LAND, PREDICTED, pyplot, style
from xstefa.plotting.maps import draw_maps
from xstefa.plotting.place import Outline
from xstefa.plotting.projected import sheet_of
from xstefa.splits.leakage import HELD_OUT, SEEN, UNKNOWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLES_OF_SITES = {
    HELD_OUT: ("held out", "o"),
    SEEN: ("learned from", "s"),
    UNKNOWN: ("not known whether seen", "D"),
}
"""What is said of sites by their role in training, and their marker."""


def plot_cdf(
    compared: xr.Dataset, score: str = "nse", *, limits: tuple[float, float] | None = None
) -> Figure:
    """Draw the share of sites below each value of a score, a line for each model.

    Parameters
    ----------
    compared : Dataset
        What `xstefa.evaluation.report.compare` returns.
    score : str
    limits : (float, float), optional
        Ends of the axis; by default the 5th percentile of the worst model to the best value.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    values = _scored(compared, score).transpose("model", ...)
    models = values["model"].values
    sites = pd.DataFrame(values.values.reshape(len(models), -1).T, columns=models)
    low, high = limits or (sites.quantile(0.05).min(), sites.max().max())
    with style():
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axis = figure.add_subplot()
        for model, known in sites.items():
            if known.notna().any():
                label = f"{model}, median {known.median():.3f}"
                axis.ecdf(known.dropna(), label=label, linewidth=1.6)
        axis.axhline(0.5, color=LAND, linewidth=1, zorder=0)
        axis.set_xlim(*((low, high) if np.isfinite(low) else (0, 1)))
        axis.set_ylim(0, 1)
        axis.set_xlabel(_label(values))
        axis.set_ylabel("share of sites")
        axis.legend(loc="best")
    return figure


def _scored(
    compared: xr.Dataset, score: str, *, along: tuple[str, ...] = ("model",)
) -> xr.DataArray:
    if score in compared.data_vars:
        return compared[score]
    names = [str(name) for name, v in compared.data_vars.items() if {*along} <= {*v.dims}]
    raise OptionError(
        "the comparison does not have this score",
        variable="score",
        found=repr(score),
        expected=" or ".join(names),
        fix=f"score={names[0]!r}" if names else "",
    )


def plot_leads(compared: xr.Dataset, score: str = "nse") -> Figure:
    """Draw a score against lead time: medians over sites, a line for each model.

    Parameters
    ----------
    compared : Dataset
        What `xstefa.evaluation.leads.compare_by_lead` returns.
    score : str

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    values = _scored(compared, score)
    lead = next(
        dim for dim in values.dims if dim in values.coords and values[dim].dtype.kind == "m"
    )
    ahead = values[lead].values / np.timedelta64(1, "D")
    with style():
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axis = figure.add_subplot()
        for name in values["model"].values:
            sites = values.sel(model=name).transpose(lead, ...).values.reshape(len(ahead), -1)
            dashes = "--" if name in ("persistence", "climatology") else "-"
            axis.plot(ahead, np.nanmedian(sites, axis=1), dashes, label=name, linewidth=1.6)
        axis.set_xlabel("lead time [d]")
        axis.set_ylabel(f"{_label(values)}, median of {sites.shape[1]} sites")
        figure.legend(loc="outside upper center", ncols=3)
    return figure


def plot_few_sites(medians: pd.DataFrame, score: str = "nse") -> Figure:
    """Draw a score against the number of training sites, a line for each model and seed.

    Parameters
    ----------
    medians : DataFrame
        Rows of `xstefa.evaluation.report.table` for each number, which is in a column
        ``training_sites``, and for each seed, which is in a column ``seed``.
    score : str

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    chosen = medians[medians["score"] == score].sort_values("training_sites", kind="stable")
    with style():
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axis = figure.add_subplot()
        colours = {model: f"C{i}" for i, model in enumerate(chosen["model"].unique())}
        lines = dict(zip(sorted(chosen["seed"].unique()), cycle(("-", "--", ":")), strict=False))
        for number, ((seed, model), rows) in enumerate(chosen.groupby(["seed", "model"])):
            axis.errorbar(
                rows["training_sites"] * 1.03**number,  # intervals side by side
                rows["median"],
                (rows["median"] - rows["low"], rows["high"] - rows["median"]),
                label=model if len(lines) == 1 else f"{model}, seed {seed}",
                color=colours[model],
                linestyle=lines[seed],
                marker="o",
                capsize=3,
            )
        counts = sorted(chosen["training_sites"].unique())
        axis.set_xscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("training sites")
        axis.set_ylabel(f"median {score} at sites never seen")
        axis.legend(loc="best")
    return figure


def plot_reliability(scored: xr.Dataset) -> Figure:
    """Draw whether levels of quantiles hold: over sites, and from site to site.

    Parameters
    ----------
    scored : Dataset
        What ``evaluate(scores=["pit"])`` returns.

    Returns
    -------
    Figure
        At the left how often observations lie between neighbouring quantiles, in parts of how often
        they ought to: even if levels hold, high at both ends if intervals are too narrow. At the
        right the share of days within each interval: the mean over sites, and the range of four
        fifths of them.

    Raises
    ------
    LayoutError
        If there is no ``pit``, of no site.
    """
    from matplotlib.figure import Figure

    if "pit" not in scored or not scored["pit"].notnull().any():
        raise LayoutError(
            variable="pit",
            found="no site with a value" if "pit" in scored else ", ".join(map(str, scored)),
            expected="what says how often observations lie below quantiles",
            fix='scored = ds.stefa.evaluate(target, scores=["pit"])',
        )
    below = scored["pit"].sortby("quantile").transpose("quantile", ...)
    levels = below["quantile"].values
    sites = below.values.reshape(len(levels), -1)
    sites = sites[:, np.isfinite(sites).all(axis=0)]
    edges = np.array([0.0, *levels, 1.0])
    shares = np.diff([0.0, *sites.mean(axis=1), 1.0]) / np.diff(edges)
    pairs = [(i, -1 - i) for i in range(len(levels) // 2)]
    within = np.array([sites[upper] - sites[lower] for lower, upper in pairs])
    nominal = [levels[upper] - levels[lower] for lower, upper in pairs]
    with style():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.stairs(shares, edges, fill=True, color=PREDICTED, alpha=0.6)
        left.axhline(1, color=LAND, linewidth=1)
        left.set_xlabel("level of the observation")
        left.set_ylabel("days, in parts of what is expected")
        low, high = np.percentile(within, [10, 90], axis=1)
        right.fill_between(nominal, low, high, color=PREDICTED, alpha=0.2, label="80 % of sites")
        right.plot(nominal, within.mean(axis=1), color=PREDICTED, marker="o", label="mean of sites")
        right.plot([0, 1], [0, 1], color=LAND, linewidth=1, zorder=0)
        right.set(xlim=(0, 1), ylim=(0, 1))
        right.set_xlabel("probability of the interval")
        right.set_ylabel("share of days within")
        right.legend(loc="upper left")
        left.set_title(f"{sites.shape[1]} sites", loc="left")
    return figure


def plot_skill(scored: xr.Dataset, score: str = "nse", *, projection: Any = None) -> Figure:
    """Draw a score at all sites: where, and how many sites are below each value.

    Parameters
    ----------
    scored : Dataset
        What ``evaluate`` returns.
    score : str
    projection
        As for `soil_moisture_maps`.

    Returns
    -------
    Figure
        With a marker, and a line, for each role that sites had in training.

    Raises
    ------
    OptionError
        If there is no such score.
    LayoutError
        If there is no latitude or longitude, or no site with a value.
    """
    plt = pyplot()
    from matplotlib.colors import Normalize

    values = _scored(scored, score, along=()).compute()
    known = values.values[np.isfinite(values.values)]
    if not known.size:
        raise LayoutError(variable=score, found="no site with a value", expected="at least one")
    norm, place = Normalize(*np.percentile(known, [5, 95])), sheet_of(values, projection)
    groups = {"all sites": values}
    if "training" in scored and len(place.dims) < 2:
        role = scored["training"]
        groups = {text: values.where(role == kind) for kind, (text, _) in ROLES_OF_SITES.items()}
        groups = {text: each for text, each in groups.items() if each.notnull().any()}
    markers = dict(ROLES_OF_SITES.values())
    with style():
        figure = plt.figure(figsize=(12, 4.6), layout="constrained")
        cells = figure.add_gridspec(1, 2, width_ratios=[1.7, 1])
        left, right = figure.add_subplot(cells[0], **place.kind), figure.add_subplot(cells[1])
        for text, each in groups.items():
            image = place.draw(left, each, None, norm, marker=markers.get(text, "o"))
            found = np.sort(each.values[np.isfinite(each.values)])
            line = f"{found.size} {text}, median {number(float(np.median(found)))}"
            right.ecdf(found, label=line, linewidth=1.6)
            left.plot([], [], markers.get(text, "o"), mfc="none", mec=INK, ms=6, label=text)
        place.ground(left, place.extent(np.isfinite(values.values)))
        if len(groups) > 1:
            left.legend(loc="lower left", fontsize=9)
        figure.colorbar(image, ax=left, shrink=0.75, extend="both", label=_label(values))
        right.axhline(0.5, color=LAND, linewidth=1, zorder=0)
        right.set(xlim=_limits(known), ylim=(0, 1), xlabel=_label(values), ylabel="share of sites")
        right.legend(loc="best")
    return figure


def plot_map(
    values: xr.DataArray,
    *,
    limits: tuple[float, float] | None = None,
    outline: Outline = "auto",
    title: str | None = None,
    crossed: xr.DataArray | None = None,
    projection: Any = None,
) -> Figure:
    """Draw a score at its sites.

    Parameters
    ----------
    values : DataArray
        With latitude and longitude among its coordinates.
    limits : (float, float), optional
        Ends of the colours, which diverge from zero, or from what ought to be (the attribute
        ``nominal`` of ``coverage``), if it is in the middle; by default the 5th and 95th
        percentile, of coverage from 0.8 to 1.
    outline : Path, optional
        As for `soil_moisture_maps`.
    title : str, optional
        By default of coverage, which says its mean over the sites.
    crossed : DataArray, optional
        Sites to cross out.
    projection
        As for `soil_moisture_maps`.

    Returns
    -------
    Figure

    Raises
    ------
    LayoutError
        If there is no latitude or longitude.
    """
    values = values.compute()
    known = values.values[np.isfinite(values.values)]
    middle = values.attrs.get("nominal", 0)
    if "nominal" in values.attrs and known.size:
        limits = limits or (2 * middle - 1, 1)
        title = title or f"{known.mean():.1%} of the days at {known.size} sites"
    low, high = limits or (np.percentile(known, [5, 95]) if known.size else (0, 1))
    return draw_maps(
        {"": values},
        heading=title or "",
        label=_label(values),
        limits=(low, high),
        cmap="RdBu" if np.isclose(high - middle, middle - low) else None,
        outline=outline,
        crossed=crossed,
        projection=projection,
    )


def _limits(known: NDArray[np.floating]) -> tuple[float, float]:
    """Return the ends of an axis that one bad site does not stretch."""
    low, high = np.quantile(known, 0.05), known.max()
    margin = 0.05 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _label(values: xr.DataArray) -> str:
    units = values.attrs.get("units", "1")
    name = values.attrs.get("long_name", values.name)
    return f"{name}" if units in ("1", "") else f"{name} ({units})"
