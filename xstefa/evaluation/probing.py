"""Ask a model about weather that was changed, and see whether it answers as water does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.binding import plan
from xstefa.errors import LayoutError, OptionError, XstefaWarning
from xstefa.evaluation.probe_table import ProbeRow, ProbeTable
from xstefa.evaluation.probe_weather import (
    CHANGES,
    RAIN,
    SETTLED,
    SITE,
    TIME,
    WARMTH,
    Weather,
)
from xstefa.evaluation.probes import PROBES, Answers, Probe, Series
from xstefa.inference.predict import predict
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike, load_model
from xstefa.schema import load_schema
from xstefa.splits.sites import Sites
from xstefa.typed import Count

Asked: TypeAlias = Callable[[xr.Dataset], xr.DataArray]
"""Any other model: from weather by site and day, variables called like tokens, to its target."""

WITHOUT = {
    "stores": "the model does not say where the water is",
    "model": "asked of models of xstefa, which read units",
}


@checked
def probe(
    dataset: xr.Dataset,
    model: ModelLike | Asked,
    *,
    sites: Count = 3,
    target: str | None = None,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
) -> ProbeTable:
    """See whether a model behaves like water, when the weather of the dataset is changed.

    Nothing is compared with observations.

    Parameters
    ----------
    model : str, Model or callable
        Or any function from a Dataset over ``site`` and ``time``, whose variables are called like
        tokens and have their units, to a DataArray over the same.
    sites : int
        How many: the snowiest, and others from the wettest to the driest.
    target : str, optional
        What a function predicts; by default streamflow.
    rename : mapping of str to str, optional
        Dataset variable to token.
    device, precision, batch_size
        As for `predict`.

    Returns
    -------
    ProbeTable
        For each probe a number, what it has to be, at how many sites it is, and the probe of the
        benchmark HydroTuring that asks the same. It has ``passed``, ``failed``, ``to_pandas()`` and
        ``to_dataset()``.

    Raises
    ------
    CalendarError
        If the dataset has less than a year.
    XstefaError
        As for `predict`.

    Notes
    -----
    Seven years are asked for; a shorter record is repeated, and missing days are filled linearly.
    The probes are data: `xstefa.evaluation.probes.PROBES`, and what is made of the weather is in
    `xstefa.evaluation.probe_weather.CHANGES`.
    """
    given: Model | Asked = model if _other(model) else load_model(model)  # type: ignore[arg-type, assignment]
    options = {"device": device, "precision": precision, "batch_size": batch_size}
    attrs: tuple[tuple[str, str], ...] = ()
    if isinstance(given, Model):
        given.require("target")
        given.require("days")
        schema, needs = given.schema, given.spec.needs
        name, outputs = given.name, given.spec.outputs
        attrs = (("model_name", name), ("model_hash", given.content_hash))
    else:
        schema, needs = load_schema(), None
        name, outputs = getattr(given, "__name__", type(given).__name__), (target or "streamflow",)
    wanted = schema.target(outputs[0])
    if wanted.static:
        raise OptionError(
            "weather is changed, and a static target does not depend on it",
            variable="target",
            found=repr(wanted.name),
            expected="a daily target",
            fix="target='streamflow'",
        )
    if target not in (None, wanted.name):
        raise OptionError(
            "a model is probed on what it predicts first",
            variable="target",
            found=repr(target),
            expected=repr(wanted.name),
            fix="leave target= out",
        )
    binding = plan(dataset, schema, rename=rename, needs=needs).require()
    weather, places = Weather.of(binding, sites=sites)
    names = Sites.of(binding.dataset, binding.layout).ids[places]
    changed = {name: change(weather) for name, change in CHANGES.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XstefaWarning)  # the weather is odd on purpose
        said, water = _asked(given, changed, outputs, options)
    answers = Answers(weather=changed, said=said, water=water, limits=wanted.valid_range)
    kind = "flux" if wanted.units == "mm d-1" else "state"
    has = {"stores": bool(water), "model": isinstance(given, Model)}
    rows = [
        _row(probe, answers, [n for n in probe.needs if not has.get(n, n in weather)])
        for probe in PROBES
        if probe.of in ("any", kind)
    ]
    return ProbeTable(
        model=name, target=wanted.name, rows=tuple(rows), sites=tuple(names.tolist()), attrs=attrs
    )


def _other(model: object) -> bool:
    return callable(model) and not isinstance(model, Model)


def _asked(
    model: Model | Asked,
    changed: Mapping[str, Weather],
    outputs: tuple[str, ...],
    options: Mapping[str, Any],
) -> tuple[dict[str, Series], dict[str, Series]]:
    """Return what a model says of all weather, and all its outputs of the weather as it is."""

    def ask(data: xr.Dataset) -> dict[str, Series]:
        if isinstance(model, Model):
            tokens = {str(name): str(name) for name in data.data_vars}
            found = predict(data, list(outputs), model=model, rename=tokens, **options)
        else:
            found = _told(model, data).to_dataset(name=outputs[0])
        return {
            name: found[name].transpose(SITE, TIME).values.astype(np.float64) for name in outputs
        }

    usual = changed["usual"].data
    count = usual.sizes[SITE]
    # All that has the same days is asked for at once, as if it were of other sites.
    whole = xr.concat([each.data for each in changed.values()], SITE)
    whole = whole.assign_coords({SITE: np.arange(whole.sizes[SITE])})
    together = ask(whole)
    parts = [slice(i * count, (i + 1) * count) for i in range(len(changed))]
    first = outputs[0]
    said = {name: together[first][part] for name, part in zip(changed, parts, strict=True)}
    stores = {name: each[parts[0]] for name, each in together.items()} if outputs[1:] else {}
    for name, data in _others(changed["usual"], isinstance(model, Model)):
        said[name] = ask(data)[first]
    said["turned"] = said["turned"][::-1]
    return said, stores


def _told(model: Asked, data: xr.Dataset) -> xr.DataArray:
    """Return what a function says of weather, each value at its site and day."""
    said = model(data.copy(deep=True))  # which it may change
    sizes, labels = dict(data.sizes), getattr(said, "indexes", {})
    if (
        isinstance(said, xr.DataArray)
        and dict(said.sizes) == sizes
        and all(data.indexes[dim].isin(labels[dim]).all() for dim in sizes if dim in labels)
    ):
        return said.sel({dim: data.indexes[dim] for dim in sizes if dim in labels})
    raise LayoutError(
        "a function that is probed answers for each site and day",
        variable=getattr(model, "__name__", type(model).__name__),
        found=f"{type(said).__name__} {dict(getattr(said, 'sizes', {})) or ''}".strip(),
        expected=f"DataArray {sizes}, with the labels of what it is given, NaN where nothing is "
        "known",
        fix="return xr.DataArray(<values by site and day>, dims=('site', 'time'), "
        "coords=ds.coords)",
    )


def _others(weather: Weather, units: bool) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield what has other days, sites or units."""
    usual = weather.data
    yield "cut", usual.isel({TIME: slice(weather.event + 1)})
    yield "later", usual.isel({TIME: slice(SETTLED, None)})
    index = usual.indexes[TIME]
    yield "28 years later", usual.assign_coords({TIME: index + pd.DateOffset(years=28)})
    yield "40 days later", usual.assign_coords({TIME: index + pd.Timedelta(days=40)})
    yield "turned", usual.isel({SITE: slice(None, None, -1)})
    if units:
        rain = (usual[RAIN] / 86400).assign_attrs(usual[RAIN].attrs | {"units": "kg m-2 s-1"})
        kelvin = {
            name: (usual[name] + 273.15).assign_attrs(usual[name].attrs | {"units": "K"})
            for name in WARMTH
            if name in usual
        }
        yield "other units", usual.assign({RAIN: rain, **kelvin})


def _row(probe: Probe, answers: Answers, lacking: list[str]) -> ProbeRow:
    """Return what came of a probe."""
    count = len(answers.level)
    nowhere = ProbeRow(probe=probe, numbers=(np.nan,) * count, asked=(False,) * count)
    if lacking:
        why = WITHOUT.get(lacking[0], f"the dataset has no {lacking[0]}")
        return ProbeRow(probe=probe, numbers=nowhere.numbers, asked=nowhere.asked, note=why)
    asked: NDArray[np.bool_] = np.ones(count, dtype=bool)
    if probe.where is not None:
        asked = probe.where(answers)
    with np.errstate(all="ignore"):
        numbers = np.where(asked, probe.measure(answers), np.nan)
    note = "" if asked.any() else "no site where it can be asked"
    return ProbeRow(
        probe=probe, numbers=tuple(numbers.tolist()), asked=tuple(asked.tolist()), note=note
    )
