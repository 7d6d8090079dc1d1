"""One page about a site or a region, to read without a network, and to send to a colleague."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import Binding, plan
from xstefa.errors import OptionError, XstefaWarning
from xstefa.evaluation.probing import probe as probe_model
from xstefa.inference.predict import answering
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike, load_model
from xstefa.plotting.labels import sentence_case
from xstefa.plotting.shown import Shown, made_by
from xstefa.plotting.sites import site_name
from xstefa.progress import progress
from xstefa.report.markup import table
from xstefa.report.region import chosen_for_details, region_body, score_sites, some_sites
from xstefa.report.site import site_body, trust_of
from xstefa.schema import load_schema
from xstefa.splits.leakage import site_roles
from xstefa.splits.sites import SiteLike, Sites
from xstefa.typed import Natural, Share
from xstefa.version import __version__

FROM_CARD = ("Intended use", "Where it fails")
"""Parts of a model's card that are caveats."""

SAID_OF_MODEL = (
    "model_name",
    "model_hash",
    "model_schema",
    "model_precision",
    "xstefa_version",
    "attributes_outside_training",
    "history",
)
SAID_OF_DATA = ("title", "source", "institution", "license", "references", "history")


@checked
def report(
    dataset: xr.Dataset,
    path: str | os.PathLike[str],
    target: str | Model | xr.DataArray = "streamflow",
    *,
    site: SiteLike | None = None,
    details: Natural = 6,
    explain: bool | None = None,
    probe: bool = False,
    model: ModelLike | None = None,
    interval: Share = 0.9,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
) -> Path:
    """Write one HTML page about what a model says of a site, or of all sites, and how good it is.

    Parameters
    ----------
    path : path
        Of the page; it needs no other file and no network.
    target : str, Model or DataArray
        What to predict, or a prediction of this dataset.
    site : str, int or (latitude, longitude), optional
        The only site of the page; by default it is about all of them.
    details : int
        How many sites have pictures on a page about several: from the best to the worst in even
        steps, where there are observations. All are in a table.
    explain : bool, optional
        Whether to say what made the highest day, which takes about as long as all else: see
        `explain`. By default on a page about one site.
    probe : bool
        Whether to ask the model what `probe` asks, which takes some minutes.
    model : str or Model, optional
        As for `predict`.
    interval : float
        Probability of an observation within the band, of models that were calibrated.
    rename, device, precision, batch_size
        As for `predict`.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    OptionError
        If sites lie along several dimensions, and none was chosen.
    XstefaError
        As for `predict`.
    """
    if isinstance(target, Model):
        target.require("target")
        model, target = target, target.spec.outputs[0]
    if isinstance(target, xr.DataArray):
        chosen = None if model is None else load_model(model)
        explain = False
    else:
        chosen = answering(dataset, target, model=model, rename=rename)
    whole = plan(
        dataset,
        chosen.schema if chosen else load_schema(),
        rename=rename,
        needs=chosen.spec.needs if chosen else None,
    )
    dims = whole.require().layout.site_dims
    asked: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
    how: dict[str, Any] = {"model": chosen, "interval": interval, "rename": rename}
    how |= {} if isinstance(target, xr.DataArray) else asked
    one = site is not None or all(dataset.sizes[dim] == 1 for dim in dims)
    if not one and len(dims) > 1:
        raise OptionError(
            "a page is about one site, or sites along one dimension",
            variable="site",
            found=f"dimensions {', '.join(dims)}",
            expected="latitude and longitude of one site",
            fix="site=(40.5, -98.5)",
        )
    count = 1 if one else dataset.sizes[dims[0]]
    steps = count + min(details, count) + (probe and chosen is not None) + 1
    with (
        warnings.catch_warnings(record=True) as raised,
        progress("report", total=steps, unit="steps") as bar,
    ):
        warnings.simplefilter("always")
        if one:
            title, sections, made = _of_one(dataset, target, site, explain is not False, bar, **how)
        else:
            given = details, bool(explain), bar
            title, sections, made = _of_all(dataset, target, whole, *given, **how)
        if probe and chosen:
            bar.set_description_str("report, probes")
            sections.append(("Probes", _probes(dataset, chosen, rename=rename, **asked)))
            bar.update()
        bar.set_description_str("report, tokens")
        table_of_tokens = whole.look(chosen.spec.ranges if chosen else None)
        sections.append(("Tokens", table_of_tokens._repr_html_()))
        bar.update()
    sections.append(("Caveats", _caveats(chosen, raised)))
    sections.append(("Provenance", _provenance(dataset, whole, made)))
    place = Path(path)
    place.write_text(_page(title, made_by(made), sections), encoding="utf-8")
    return place


def _of_one(
    dataset: xr.Dataset,
    target: str | xr.DataArray,
    site: SiteLike | None,
    why: bool,
    bar: Any,
    **how: Any,
) -> tuple[str, list[tuple[str, str]], Mapping[Any, Any]]:
    """Return title and parts of a page about one site, and the attributes of the prediction."""
    bar.set_description_str("report, prediction")
    shown = Shown.of(dataset, target, site=site, **how).compute()
    bar.update()
    bar.set_description_str("report, pictures")
    trusted = trust_of(shown.binding.dataset, how["model"], how["rename"])
    body = site_body(shown, trusted, name="site", level=3, explain=why, **how)
    bar.update()
    title = f"{sentence_case(str(shown.predicted.name))}: {site_name(shown.predicted)}"
    return title, [("The site", body)], shown.predicted.attrs


def _of_all(
    dataset: xr.Dataset,
    target: str | xr.DataArray,
    whole: Binding,
    details: int,
    why: bool,
    bar: Any,
    **how: Any,
) -> tuple[str, list[tuple[str, str]], Mapping[Any, Any]]:
    """Return title and parts of a page about several sites, and attributes of a prediction."""
    (dim,) = whole.layout.site_dims
    sites = Sites.of(dataset, whole.layout)
    bar.set_description_str("report, scores")
    scored = score_sites(dataset, target, dim, bar, **how)
    provenance = how["model"].spec.provenance if how["model"] else {}
    scored["training"] = site_roles(provenance, sites)
    chosen = chosen_for_details(scored, details)
    bar.total -= min(details, len(sites)) - len(chosen)
    links = {str(sites.ids[i]): f"site-{i}" for i in chosen}
    bar.set_description_str("report, trust")
    trusted = trust_of(dataset, how["model"], how["rename"])
    sections = [("All sites", region_body(scored, trusted, sites, links))]
    bar.set_description_str("report, pictures")
    for i, shown in zip(chosen, some_sites(dataset, target, dim, chosen, **how), strict=True):
        shown = replace(shown, role=int(scored["training"][i]))
        here = None if trusted is None else trusted.isel({dim: i})
        body = site_body(shown, here, name=f"site-{i}", level=3, explain=why, **how)
        sections.append((site_name(shown.predicted), body))
        bar.update()
    name = sentence_case(str(scored.attrs["target"]))
    title = f"{name} at {len(sites)} sites"
    return title, sections, scored["mean"].attrs


def _probes(dataset: xr.Dataset, model: Model, **how: Any) -> str:
    """Return whether the model behaves like water."""
    found = probe_model(dataset, model, **how)
    rows = [(each.probe.asks, each.verdict, *each.cells[2:6]) for each in found]
    head = ("question", "verdict", "sites", "worst", "has to be", "number")
    said = f"{len(found.passed)} of {len(found.passed) + len(found.failed)} probes passed at "
    said += f"{', '.join(found.sites)}, where the weather was changed."
    return f"<p>{escape(said)}</p>" + table(head, rows, caption="Probes")


def _caveats(model: Model | None, raised: Sequence[warnings.WarningMessage]) -> str:
    """Return what the model's card says against it, and what was warned of on the way."""
    parts = []
    card = "" if model is None else model.card
    for title, text in re.findall(r"^## (.+)\n+((?:(?!^## ).*\n?)*)", card, re.MULTILINE):
        if title in FROM_CARD:
            paragraphs = "".join(f"<p>{escape(each)}</p>" for each in text.strip().split("\n\n"))
            parts.append(f"<h3>{escape(title)}</h3>{paragraphs}")
    said = dict.fromkeys(
        str(each.message) for each in raised if issubclass(each.category, XstefaWarning)
    )
    if said:
        items = "".join(f"<li>{escape(text)}</li>" for text in said)
        parts.append(f"<h3>Of this dataset</h3><ul>{items}</ul>")
    return "".join(parts) or "<p>The model has no card.</p>"


def _provenance(dataset: xr.Dataset, binding: Binding, made: Mapping[Any, Any]) -> str:
    """Return which model made the numbers of which data."""
    rows = [(key.replace("_", " "), str(made[key])) for key in SAID_OF_MODEL if key in made]
    rows += [
        (f"dataset, {key}", str(dataset.attrs[key])) for key in SAID_OF_DATA if key in dataset.attrs
    ]
    rows.append(("dataset, layout", str(binding.layout)))
    return table(("", "what it is"), rows, caption="Provenance")


def _page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """Put a page together."""
    files = resources.files(__package__)
    contents, body = [], []
    for number, (heading, text) in enumerate(sections):
        name = f"part-{number}"
        contents.append(f'<li><a href="#{name}">{escape(heading)}</a></li>')
        body.append(
            f'<section aria-labelledby="{name}">'
            f'<h2 id="{name}">{escape(heading)}</h2>{text}</section>'
        )
    made = f"{datetime.now(UTC):%d %B %Y}".lstrip("0")
    return Template(files.joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(title),
        lead=escape(lead),
        contents="".join(contents),
        body="\n".join(body),
        footer=f"Made with xstefa {__version__} on {made}.",
        css=files.joinpath("page.css").read_text("utf-8"),
        script=files.joinpath("page.js").read_text("utf-8"),
    )
