"""What a page says of one site: scores, trust, hydrographs, flow duration, regime."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from xstefa.evaluation.evaluate import score
from xstefa.evaluation.probabilistic import INTERVAL, coverage
from xstefa.inference.explain import explain as why
from xstefa.inference.trust import trust
from xstefa.model.checkpoint import Model
from xstefa.plotting import years
from xstefa.plotting.contributions import contributions
from xstefa.plotting.labels import day, number, sentence_case, units
from xstefa.plotting.maps import plot_place
from xstefa.plotting.namespace import hydrograph_of
from xstefa.plotting.shown import SAID, Shown
from xstefa.plotting.sites import flows, only_time, place_of, site_name
from xstefa.report.markup import picture, table

FLOW_SCORES = ("nse", "kge", "correlation", "rmse", "pbias", "fhv", "flv")
STATE_SCORES = ("correlation", "ubrmse", "rmse", "mae")
BEFORE, AFTER = 120, 60
"""Days around the largest flood that are drawn."""


def scores_of(shown: Shown) -> xr.Dataset:
    """Return the scores of what is shown, and how often the interval holds; empty without any."""
    if shown.observed is None:
        return xr.Dataset()
    time = shown.binding.layout.time
    names = FLOW_SCORES if flows(shown.predicted) else STATE_SCORES
    found = score(shown.predicted, shown.observed, scores=names, dim=time)
    if shown.quantiles is not None:
        ends = shown.quantiles["quantile"].values
        if np.isclose(ends[1] - ends[0], INTERVAL):
            found["coverage"] = coverage(shown.quantiles, shown.observed, dim=time)
    return found


def trust_of(
    dataset: xr.Dataset, model: Model | None, rename: Mapping[str, str] | None
) -> xr.Dataset | None:
    """Return how far to trust a model, of those that know their training sites."""
    if model is None or model.spec.neighbourhood is None:
        return None
    return trust(dataset, model, rename=rename).compute()


def site_body(
    shown: Shown,
    trusted: xr.Dataset | None,
    *,
    name: str,
    level: int,
    model: Model | None,
    explain: bool,
    rename: Mapping[str, str] | None,
    interval: float,
    **how: Any,
) -> str:
    """Return what is said of a site, which was computed, as parts of a page.

    Parameters
    ----------
    shown : Shown
    trusted : Dataset, optional
        What `trust` says of it.
    name : str
        Of its own on the page.
    level : int
        Of its headings.
    explain : bool
        Whether to say what made the highest day.
    model, rename, interval, **how
        As for `Shown.of`.
    """
    pred, obs = shown.predicted, shown.observed
    site, what = site_name(pred), sentence_case(str(pred.name)).lower()
    time, parts = only_time(pred), [f'<div id="{name}">']

    def head(text: str) -> None:
        parts.append(f"<h{level}>{escape(text)}</h{level}>")

    if shown.role in SAID:
        parts.append(f'<p class="tags"><span class="tag">{escape(SAID[shown.role])}</span></p>')
    tables = _scores_table(scores_of(shown)) + _trust_table(trusted)
    parts.append(
        f'<div class="pair"><div>{_where(pred, time, name)}</div><div>{tables}</div></div>'
    )

    known = pred if obs is None or not bool(obs.notnull().any()) else obs
    known = known.where(pred.notnull())
    if not bool(known.notnull().any()):
        return "".join([*parts, "<p>There is no day with an answer.</p></div>"])
    peak = int(known.fillna(-np.inf).values.argmax())
    who = "predicted" if known is pred or obs is None else "observed"
    when, highest = day(known[time][peak]), number(float(known[peak]), ".3g")
    answer = number(float(pred[peak]), ".3g")
    head(f"The highest day, {when}")
    steps = max(peak - BEFORE, 0), min(peak + AFTER, known.size - 1), peak
    first, last, itself = (str(known[time].values[step])[:10] for step in steps)
    said = f"{what} of {site} around {when}, when {highest} {units(pred)} were {who}"
    said += f" and {answer} predicted" if who == "observed" else ""
    parts.append(
        picture(
            hydrograph_of(shown, period=(first, last)),
            name=f"{name}-peak",
            alt=f"Graph of {said}.",
            caption=f"Half a year around the highest {who} day. Scores are those of all days.",
            wide=True,
        )
    )
    if explain:
        head("What made it")
        found = why(
            shown.binding.dataset, str(pred.name), day=itself, model=model, rename=rename, **how
        ).compute()
        parts.append(
            picture(
                contributions(found),
                name=f"{name}-why",
                alt=f"Bars: what weather and land add to the prediction for {when}.",
                caption="What each input adds when it becomes known (Shapley values); whiskers are "
                "two standard errors.",
                wide=True,
            )
        )
    head("All days")
    begin, end = day(pred[time][0]), day(pred[time][-1])
    parts.append(
        picture(
            hydrograph_of(shown, log=True),
            name=f"{name}-all",
            alt=f"Graph of predicted{' and observed' if obs is not None else ''} {what} of {site}, "
            f"{begin} to {end}{', on a logarithmic axis' if flows(pred) else ''}.",
            caption=f"{begin} to {end}"
            + (", on a logarithmic axis, which shows low flows." if flows(pred) else "."),
            wide=True,
        )
    )
    head("What is usual")
    pair = []
    if flows(pred):
        figure = years.flow_duration(pred, obs)
        alt = f"Flow duration curve of {site}."
        caption = "On which share of the days a flow is exceeded."
        pair.append(picture(figure, name=f"{name}-duration", alt=alt, caption=caption))
    figure = years.regime(pred, obs, precipitation=shown.precipitation)
    alt = f"Monthly means of {what} of {site}, with precipitation."
    caption = "Means of the months; shaded, eight years of ten."
    pair.append(picture(figure, name=f"{name}-regime", alt=alt, caption=caption))
    parts.append(f'<div class="pair">{"".join(pair)}</div>')
    return "".join([*parts, "</div>"])


def _where(pred: xr.DataArray, time: str, name: str) -> str:
    """Return a map of where the site is; nothing where that is not known."""
    site = pred.isel({time: 0}, drop=True)
    if not (place := place_of(site)):
        return ""
    where = ", ".join(dict.fromkeys((site_name(pred), place)))
    return picture(plot_place(site), name=f"{name}-map", alt=f"Map: {where}.", caption=where)


def _scores_table(found: xr.Dataset) -> str:
    if not found.data_vars:
        return "<p>There are no observations to compare with.</p>"
    rows = []
    for name, value in found.data_vars.items():
        text = str(value.attrs.get("long_name", name))
        unit = "" if value.attrs.get("units", "1") == "1" else f" ({units(value)})"
        rows.append((f"{sentence_case(text)}{unit}", float(value)))
    return "<h3>Scores</h3>" + table(("score", "value"), rows, caption="Scores")


def _trust_table(trusted: xr.Dataset | None) -> str:
    """Return what to expect here without observations."""
    if trusted is None:
        return ""
    rows: list[tuple[str, str]] = []
    if "expected_score" in trusted:
        low, middle, high = (
            number(float(trusted[f"expected_{key}"])) for key in ("low", "score", "high")
        )
        text = str(trusted.expected_score.attrs["long_name"])
        rows.append((text, f"{middle} ({low} to {high})"))
    rows.append(("distance to the nearest training site", number(float(trusted.distance))))
    near = [str(each) for each in np.atleast_1d(trusted.nearest.values) if str(each)]
    rows.append(("nearest training sites", ", ".join(near) or "–"))
    rows.append(("share of the inputs that is known", f"{float(trusted.known):.0%}"))
    rows.append(("outside of what the model has seen", "yes" if bool(trusted.outside) else "no"))
    return "<h3>Trust</h3>" + table(("", "here"), rows, caption="How far to trust the model here")
