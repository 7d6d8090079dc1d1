"""Predictions that go on from a history: forecasts from many initial dates, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from xstefa.binding import Binding, Layout, plan
from xstefa.binding.forecasts import Forecast
from xstefa.binding.time_axis import day_numbers
from xstefa.errors import CalendarError, LayoutError
from xstefa.inference.engine import Answer
from xstefa.inference.graph import is_lazy
from xstefa.inference.run import Run, prepare
from xstefa.inference.state import (
    FinalState,
    Past,
    check_sites,
    require_state,
    tell_lost,
    tokens_of,
)
from xstefa.model.checkpoint import Model
from xstefa.schema import Schema
from xstefa.windows import Floats


def continued(
    dataset: xr.Dataset,
    history: xr.Dataset,
    model: Model,
    answer: Answer,
    *,
    rename: Mapping[str, str] | None,
    **how: Any,
) -> tuple[Run, xr.DataArray, da.Array | Floats]:
    """Answer for a forecast, or for days of one time axis, that go on from a history.

    The history is read once, from its beginning to the last initial date; what each date begins
    with is handed on and never stored.

    Parameters
    ----------
    dataset : Dataset
        What is to be answered for.
    history : Dataset
        The days before it, of the same sites. Later days are not read.
    model : Model
    answer : Answer
    rename, **how
        As for `prepare`.

    Returns
    -------
    run : Run
        That of the first initial date; if it is the only one, with its past.
    frame : DataArray
        Without memory: the dimensions and coordinates of the result.
    block : array
        As from `Run.compute`, of all.

    Raises
    ------
    ModelError
        If the model reads windows, and carries nothing from day to day.
    CalendarError
        If there is no history up to the day before an initial date.
    LayoutError
        If the sites of the history are others, or in another order.
    """
    require_state(model)
    dataset, history = _with_attributes(dataset, history, model.schema, rename)
    past = prepare(history, model, rename=names_of(rename, history), **how)
    known = past.binding
    forecast = Forecast.of(dataset)
    count = dataset.sizes[forecast.init] if forecast is not None and forecast.several else 1
    ones = [dataset if forecast is None else forecast.at(i) for i in range(count)]
    first = prepare(ones[0], model, rename=names_of(rename, dataset, beside=history), **how)
    layout = first.binding.layout
    tell_lost(tokens_of(known, model), first.binding, what="history")
    at_once = not is_lazy(dataset.variables.values())
    days = [day_numbers(one[layout.time])[0] for one in ones]
    found: dict[int, da.Array | Floats] = {}
    carried: Past | None = None
    begins: Past | None = None
    reached = 0
    every = known.layout.days
    for i in sorted(range(count), key=lambda i: int(days[i][0])):
        steps = _steps_before(known.layout, ones[i][layout.time])
        if steps > reached:
            part = slice(reached, steps)
            run = replace(past, binding=known.during(part), answered=slice(0, steps - reached))
            run = replace(run, past=carried)
            state = run.compute(FinalState.of(model.spec), first=not reached)[..., :-1]
            dims = [dim for dim in known.layout.dims if dim != known.layout.time]
            begins = Past(
                values=xr.Variable((*dims, "state"), state),
                days=int(every[steps - 1] - every[0]) + 1,
            )
            if at_once:  # else each date would run the history from its beginning
                begins.values.load()
            # A state is of the day before what goes on from it: not before a gap.
            if steps == len(every) or every[steps] == every[steps - 1] + 1:
                carried, reached = begins, steps
        run = replace(first, binding=first.binding.on(ones[i]), past=begins)
        found[i] = run.compute(answer, first=not found)
    if forecast is None:
        return run, run.frame(), found[0]
    frame = framed(forecast, first)
    if not forecast.several:
        return run, frame, found[0]
    stack = np.stack if isinstance(found[0], np.ndarray) else da.stack
    block = stack([found[i] for i in range(count)], axis=frame.dims.index(forecast.init))
    return first, frame, block


def framed(forecast: Forecast, run: Run) -> xr.DataArray:
    """Return the frame of a forecast, given the run of one initial date.

    Raises
    ------
    LayoutError
        If no forcing has its dimensions.
    """
    binding = run.binding
    dims = {*binding.layout.dims, *([forecast.init] if forecast.several else [])}
    for token in binding.schema.forcing_names:
        for name in binding.sources[token].inputs if token in binding.sources else ():
            if dims == {*forecast.dataset[name].dims}:
                return forecast.wrap(name, run.frame())
    raise LayoutError(
        "no forcing differs from one initial date to the other",
        variable=forecast.init,
        found=f"initial dates along {forecast.init!r}, which no forcing has",
        expected="forcings of each initial date",
        fix=f"ds = ds.isel({forecast.init}=0)",
    )


def alone(dataset: xr.Dataset) -> Forecast | None:
    """Return a forecast of one initial date; None if the dataset has one time axis.

    Raises
    ------
    LayoutError
        If there are several.
    """
    forecast = Forecast.of(dataset)
    if forecast is not None and forecast.several:
        raise LayoutError(
            "a state is of one day",
            variable="state",
            found=f"{dataset.sizes[forecast.init]} initial dates along {forecast.init!r}",
            expected="one initial date",
            fix=f"ds = ds.isel({forecast.init}=-1), or history=<the days before> in place of state",
        )
    return forecast


def names_of(
    rename: Mapping[str, str] | None, dataset: xr.Dataset, *, beside: xr.Dataset | None = None
) -> dict[str, str]:
    """Return what is said of the names of a dataset; or of none that one beside it has."""
    return {
        name: token
        for name, token in (rename or {}).items()
        if name in dataset.variables or (beside is not None and name not in beside.variables)
    }


def _with_attributes(
    dataset: xr.Dataset, history: xr.Dataset, schema: Schema, rename: Mapping[str, str] | None
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return a forecast and its history, each with what only the other knows of the sites.

    Raises
    ------
    LayoutError
        If their sites are not the same.
    """
    forecast = Forecast.of(dataset)
    one = dataset if forecast is None else forecast.at(0)
    after = plan(one, schema, rename=names_of(rename, one, beside=history))
    before = plan(history, schema, rename=names_of(rename, history))
    check_sites(history, before.layout.site_dims, after, what="history")

    def lent(of: Binding, to: Binding, into: xr.Dataset) -> dict[str, xr.Variable]:
        names = {
            name: of.dataset[name].variable
            for token, source in of.sources.items()
            if token not in to.sources
            for name in source.inputs
            if name not in into.variables and {*of.dataset[name].dims} <= {*before.layout.site_dims}
        }
        lazy = is_lazy(into.variables.values())  # what is in memory is answered at once
        return names if lazy else {name: variable.compute() for name, variable in names.items()}

    return dataset.assign(lent(before, after, dataset)), history.assign(
        lent(after, before, history)
    )


def _steps_before(history: Layout, valid: xr.DataArray) -> int:
    """Return how many steps of a history lie before a forecast.

    Raises
    ------
    CalendarError
        If the last of them is not on the day before it.
    """
    days, calendar = day_numbers(valid)
    steps = int(np.searchsorted(history.days, days[0]))
    if steps and history.days[steps - 1] == days[0] - 1 and calendar == history.calendar:
        return steps
    time = history.coords[history.time].to_index()
    begin = str(valid.values[0])[:10]
    raise CalendarError(
        "a forecast goes on from the day before it",
        variable="history",
        found=f"{str(time[0])[:10]} to {str(time[-1])[:10]} ({history.calendar}), and a forecast "
        f"from {begin} on ({calendar})",
        expected="a history that has the day before each initial date, in the same calendar",
        fix=f"history = xr.concat([history, <the days up to {begin}>], dim={history.time!r})",
    )
