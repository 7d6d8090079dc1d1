"""What made this flood: what forcings of each day and the land add to one answer, as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from xstefa.errors import LayoutError
from xstefa.plotting.labels import day, label, number
from xstefa.plotting.look import FAINT, INK, LAND, OBSERVED, RAIN, pyplot, style
from xstefa.plotting.sites import site_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "precipitation": (RAIN, "precipitation"),
    "temperature": ("#d95f02", "temperature"),
    "energy": ("#e6ab02", "other weather"),
    "land": ("#66843f", "site attributes"),
    "before": (FAINT, "nothing known, days before"),
}
"""Colour and name of what bars are of."""


def contributions(explained: xr.Dataset, *, title: str | None = None) -> Figure:
    """Draw how one answer comes about, from nothing known to all.

    Parameters
    ----------
    explained : Dataset
        From ``ds.stefa.explain``, of one site.
    title : str, optional
        By default the site and the day.

    Returns
    -------
    matplotlib.figure.Figure
        From above: the answer with nothing known, precipitation by day, temperature and the other
        weather of all days, what was before, the land. Each bar begins where the one above ends;
        whiskers are two standard errors of sampling. The last is the prediction.

    Raises
    ------
    LayoutError
        If it is of several sites.
    """
    plt = pyplot()
    from matplotlib.patches import Patch

    prediction = explained.prediction.compute()
    if prediction.ndim:
        raise LayoutError(
            "This figure shows one site.",
            variable="explained",
            found=f"dimensions {', '.join(map(str, prediction.dims))}",
            expected="an explanation of one site",
            fix=f"choose one: .isel({dict.fromkeys(prediction.dims, 0)})",
        )
    bars = _bars(explained.compute())
    with style():
        figure, axis = plt.subplots(figsize=(9, 1.4 + 0.32 * len(bars)), layout="constrained")
        reached = 0.0
        for place, (_, kind, value, error) in enumerate(bars):
            axis.barh(place, value, left=reached, color=KINDS[kind][0], height=0.72)
            end = reached + value
            axis.errorbar(end, place, xerr=2 * error, fmt="none", ecolor=INK, elinewidth=0.8)
            axis.annotate(
                number(value, "+.2g"),
                (max(reached, end) + 2 * error, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
            reached = end
        axis.barh(len(bars), prediction.item(), color=OBSERVED, height=0.72)
        names = [name for name, *_ in bars]
        axis.set_yticks(range(len(bars) + 1), [*names, "prediction"])
        axis.invert_yaxis()
        axis.margins(x=0.08)
        axis.set_xlabel(label(prediction.rename(prediction.attrs["long_name"])))
        axis.grid(axis="x", color=LAND)
        axis.set_axisbelow(True)
        when = next(iter(c for c in prediction.coords.values() if c.dtype.kind in "MO"), None)
        place_and_day = [site_name(prediction), *([] if when is None else [day(when)])]
        axis.set_title(title or ", ".join(place_and_day), fontweight="bold")
        handles = [Patch(color=colour, label=name) for colour, name in KINDS.values()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _bars(explained: xr.Dataset) -> list[tuple[str, str, float, float]]:
    """Return name, kind, contribution and standard error of each bar."""

    def bar(name: str, kind: str, of: str, **which: object) -> tuple[str, str, float, float]:
        value, error = explained[of].sel(which), explained[f"{of}_error"].sel(which)
        return name, kind, value.sum().item(), float((error**2).sum() ** 0.5)

    tokens, lags = explained.token.values.tolist(), explained.lag.values.tolist()
    warmth = [token for token in tokens if token.startswith("temperature")]
    found = [("nothing known", "before", explained.baseline.item(), 0.0)]
    for lag in lags if "precipitation" in tokens else ():
        when = {"0": "of the day", "1": "of the day before", "after": "of the days after"}
        name = f"precipitation {when.get(lag, f'{lag} days before')}"
        if lag != "after" or explained.contribution.sel(lag=lag).any():
            found.append(bar(name, "precipitation", "contribution", token="precipitation", lag=lag))
    found.append(bar("temperature", "temperature", "contribution", token=warmth))
    found += [
        bar(token.replace("_", " "), "energy", "contribution", token=token)
        for token in tokens
        if token not in ("precipitation", *warmth)
    ]
    found.append(bar("before that", "before", "contribution_earlier"))
    return found + [
        bar(group.replace("_", " "), "land", "contribution_static", attribute=group)
        for group in explained.attribute.values.tolist()
    ]
