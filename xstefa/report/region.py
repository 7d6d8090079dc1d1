"""What a page says of all sites of a dataset: a table, a map, and some of them in detail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from xstefa.errors import LayoutError
from xstefa.plotting.labels import number, units
from xstefa.plotting.scores import ROLES_OF_SITES, plot_map, plot_skill
from xstefa.plotting.shown import Shown
from xstefa.report.markup import picture, table
from xstefa.report.site import scores_of
from xstefa.splits.sites import Sites

TOGETHER = 32
"""Sites that are predicted together: what is in memory at once."""

IN_TABLE = {
    "nse": "NSE",
    "kge": "KGE",
    "correlation": "r",
    "ubrmse": "ubRMSE",
    "pbias": "Bias (%)",
    "coverage": "In interval",
    "days": "Days",
    "mean": "Mean",
    "expected_score": "Expected",
}
"""Columns of the table of sites, by what they are in scores and trust."""


def score_sites(
    dataset: xr.Dataset, target: str | xr.DataArray, dim: str, bar: Any, **how: Any
) -> xr.Dataset:
    """Predict and score all sites, some at a time, which are counted on a bar.

    Returns
    -------
    Dataset
        The scores of each site, where there are observations, and ``mean``, what is predicted.
    """
    found = []
    for shown in _predicted(dataset, target, dim, range(dataset.sizes[dim]), **how):
        mean = shown.predicted.mean(shown.binding.layout.time, keep_attrs=True)
        mean.attrs["long_name"] = f"mean of what is predicted ({units(mean)})"
        found.append(scores_of(shown).assign(mean=mean))
        bar.update(mean.size)
    scored = xr.concat(found, dim, combine_attrs="override")
    return scored.assign_attrs(shown.predicted.attrs, target=str(shown.predicted.name))


def some_sites(
    dataset: xr.Dataset, target: str | xr.DataArray, dim: str, places: Sequence[int], **how: Any
) -> Iterator[Shown]:
    """Predict some sites together, and yield one after the other."""
    for shown in _predicted(dataset, target, dim, places, **how):
        for i in range(shown.predicted.sizes[dim]):
            yield shown.at({dim: i}, rename=how["rename"])


def _predicted(
    dataset: xr.Dataset, target: str | xr.DataArray, dim: str, places: Sequence[int], **how: Any
) -> Iterator[Shown]:
    """Predict sites, so many at a time that memory does not grow with them."""
    for first in range(0, len(places), TOGETHER):
        some = places[first : first + TOGETHER]
        at = {dim: slice(some.start, some.stop) if isinstance(some, range) else some}
        asked = target.isel(at) if isinstance(target, xr.DataArray) else target
        yield Shown.of(dataset.isel(at), asked, one=False, **how).compute()


def ranking(scored: xr.Dataset) -> str | None:
    """Name the score by which sites are in order, from low to high; None without observations."""
    names = [name for name in ("nse", "correlation") if name in scored]
    known = [name for name in names if bool(scored[name].notnull().any())]
    return known[0] if known else None


def chosen_for_details(scored: xr.Dataset, count: int) -> list[int]:
    """Return which sites have pictures: in even steps from the best to the worst."""
    by = ranking(scored)
    values = scored["mean" if by is None else by].values
    order = np.argsort(-values, kind="stable")[: int(np.isfinite(values).sum())]
    steps = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(order[step]) for step in np.unique(steps)]


def region_body(
    scored: xr.Dataset, trusted: xr.Dataset | None, sites: Sites, links: dict[str, str]
) -> str:
    """Return the map and the table of all sites.

    Parameters
    ----------
    scored : Dataset
        From `score_sites`, with ``training``, the role of each site.
    trusted : Dataset, optional
        What `trust` says of them.
    sites : Sites
    links : mapping of str to str
        Where details of a site are on the page, by its name.
    """
    by, parts = ranking(scored), []
    if by is not None:
        known = scored[by].values[np.isfinite(scored[by].values)]
        said = f"{scored[by].attrs['long_name']} of {known.size} sites, median "
        said += number(float(np.median(known)))
    else:
        said = f"Mean of what is predicted at {len(sites)} sites"
    try:
        figure = plot_map(scored["mean"]) if by is None else plot_skill(scored, by)
    except LayoutError:  # the table has it all
        parts.append(f'<p class="note">{escape(said)}; no map, since it is not known where they ')
        parts.append("are: there are no coordinates of latitude and longitude.</p>")
    else:
        alt = f"Map{'' if by is None else ' and distribution'}: {said}."
        parts.append(picture(figure, name="sites-map", alt=alt, caption=said, wide=True))
    beside = scored if trusted is None else scored.assign(trusted.data_vars)
    columns = {text: beside[key] for key, text in IN_TABLE.items() if key in beside}
    roles = [ROLES_OF_SITES[int(role)][0] for role in scored["training"].values]
    outside = [""] * len(sites) if trusted is None else np.where(trusted.outside, "yes", "no")
    rows = [
        (site, *(float(values[i]) for values in columns.values()), roles[i], str(outside[i]))
        for i, site in enumerate(sites.ids.tolist())
    ]
    meanings = [f"{text}: {values.attrs.get('long_name')}" for text, values in columns.items()]
    head = ("Site", *columns, "In training", "Outside")
    parts.append("<h2 id='sites'>Sites</h2>")
    left_out = "; the others were left out" if len(links) < len(sites) else ""
    parts.append(
        f'<p class="note">All {len(sites)} sites; a click on a heading sorts them. Pictures of '
        f"{len(links)} of them are below, those with links here{left_out}.</p>"
    )
    parts.append(table(head, rows, caption="All sites", links=links, sortable=True))
    parts.append(f'<p class="note">{escape("; ".join(meanings))}.</p>')
    return "".join(parts)
