"""What all passes of a model over a dataset share: understanding it, running, labeling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from xstefa.binding import Layout, plan
from xstefa.binding.climate import unlikely
from xstefa.binding.plain import in_memory
from xstefa.binding.sources import TokenSource
from xstefa.binding.value_checks import check_known, doubt, value_problems
from xstefa.errors import CalendarError, ModelError, OptionError, XstefaWarning, raise_problems
from xstefa.inference.answers import Answer
from xstefa.inference.engine import EngineKey
from xstefa.inference.lazy import is_lazy, plan_job
from xstefa.model.checkpoint import Model
from xstefa.options import resolve_options
from xstefa.progress import counting, progress
from xstefa.schema import Needs, Schema
from xstefa.windows import Floats, WindowPolicy

Period = tuple[Any, Any] | list[Any] | str
"""First and last day, each as an index of days takes them; None is the end of the record."""


class SpinUpWarning(XstefaWarning):
    """Some days of a prediction have no answer: too little of what precedes them is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Understood:
    """A dataset in which every token was found that it has to have.

    Attributes
    ----------
    dataset : Dataset
    sources : mapping of str to TokenSource
    layout : Layout
        Of the whole record.
    answered : slice
        The steps of the record to answer for.
    """

    dataset: xr.Dataset
    sources: Mapping[str, TokenSource]
    layout: Layout
    answered: slice

    def token(self, name: str) -> xr.DataArray:
        """Return a token of the dataset in canonical units, in the dataset's own order."""
        array = self.sources[name].realise(self.dataset)
        return array.transpose(*[dim for dim in self.layout.dims if dim in array.dims])

    def frame(self, *, daily: bool = True) -> xr.DataArray:
        """Return an array without memory that has the dimensions and coordinates of a result."""
        layout = self.layout.during(self.answered)
        sizes = {**self.dataset.sizes, layout.time: len(layout.days)}
        shape = tuple(sizes[dim] for dim in layout.dims)
        frame = layout.wrap(np.broadcast_to(np.float32(0), shape), name="frame")
        return frame if daily else frame.isel({self.layout.time: 0}, drop=True)


def understand(
    dataset: xr.Dataset,
    schema: Schema,
    *,
    rename: Mapping[str, str] | None,
    needs: Needs,
    period: Period | None = None,
    strict: bool = False,
) -> Understood:
    """Match a dataset to a schema, for a model with these needs; raise all that is wrong."""
    binding = plan(dataset, schema, rename=rename, needs=needs).require(strict=strict)
    layout = binding.layout
    return Understood(
        dataset=binding.dataset,
        sources=binding.sources,
        layout=layout,
        answered=_steps(binding.dataset[layout.time], period),
    )


def _steps(time: xr.DataArray, period: Period | None) -> slice:
    """Return the steps that ``.sel(time=slice(*period))`` or ``.sel(time="1991")`` chooses."""
    if period is None:
        return slice(0, time.size)
    index = time.to_index()
    ends = _date(index[0]), _date(index[-1])
    try:
        first, last = (period, period) if isinstance(period, str) else period
        chosen = index.slice_indexer(first, last)
        found = chosen.start or 0, time.size if chosen.stop is None else chosen.stop
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(
            variable="period",
            found=f"{period!r} ({error})",
            expected=f"two dates such as {time.name!r} has, or None for either end of the record",
            fix=f"period={ends}   # or a part of it",
        ) from error
    if found[0] >= found[1]:
        raise OptionError(
            "no day of the dataset is in the period",
            variable="period",
            found=repr(period),
            expected=f"dates between {ends[0]} and {ends[1]}, the earlier first",
            fix=f"period={ends}   # or a part of it",
        )
    return slice(*map(int, found))


def _check_spin_up(understood: Understood, policy: WindowPolicy) -> None:
    """Say which days have no answer because the record does not reach far enough before them.

    Raises
    ------
    CalendarError
        If that is so of all of them.
    """
    layout = understood.layout.during(understood.answered)
    without = layout.days[~policy.answerable(understood.layout.days)[understood.answered]]
    if not without.size:
        return
    index = understood.dataset[layout.time].to_index()
    steps = index[understood.answered]
    needed = (
        f"for each day the weather of at least {policy.least} of the "
        f"{policy.spin_up + 1} days up to it (the model's spin-up)"
    )
    fix = (
        "begin the dataset earlier, or, if it was selected in time, predict from what it was "
        f"selected from with period=({_date(steps[0])!r}, {_date(steps[-1])!r})"
    )
    if without.size == layout.days.size:
        raise CalendarError(
            "the record is too short for an answer on any of these days",
            variable=layout.time,
            found=f"{index.size} days, {_date(index[0])} to {_date(index[-1])}",
            expected=needed,
            fix=fix,
        )
    first, last = steps[np.searchsorted(layout.days, without[[0, -1]])]
    warnings.warn(
        f"No answer on {without.size} of {layout.days.size} days ({_date(first)} to "
        f"{_date(last)}), which are NaN: {_why(policy)}. "
        f"Expected {needed}. Fix: {fix}.",
        SpinUpWarning,
        stacklevel=6,
    )


def _why(policy: WindowPolicy) -> str:
    if policy.causal:
        return "the model looks back only, and before them there is no record, or a long gap"
    return "the record is shorter than a year or has a long gap"


def _date(day: object) -> str:
    return str(day)[:10]


def make_key(
    model: Model,
    *,
    device: str | None,
    precision: str | None,
    batch_size: int | None,
    extrapolate: bool,
) -> EngineKey:
    """Return what runs a model, with the options in force.

    Raises
    ------
    ModelError
        If the model does not know how its inputs are scaled.
    """
    if str(model.spec.provenance.get("scaler", "")).startswith("identity"):
        raise ModelError(
            "the mean and standard deviation of the variables are not known",
            variable=model.name,
            found="a model imported without a scaler",
            expected="a scaler, without which datasets cannot be read in their units",
            fix="xstefa.import_published(path, scaler=...)",
        )
    options = resolve_options(device=device, precision=precision, batch_size=batch_size)
    return EngineKey(
        model=model,
        device=options.device,
        precision=options.precision or "fp32",
        batch_size=options.batch_size,
        extrapolate=extrapolate,
    )


def run(understood: Understood, key: EngineKey, answer: Answer) -> da.Array | Floats:
    """Run a pass: lazily if what it reads is chunked, else here and now.

    Returns
    -------
    dask or NumPy array of float32
        As `plan_job` says: the last axis holds the values of the answer, and the coverage.

    Raises
    ------
    CalendarError
        If the record is too short for an answer on any day.
    RangeError, BindingErrors
        If values that are in memory cannot be in the units they are labelled with.
    """
    dataset, sources = understood.dataset, understood.sources
    if answer.needs_required and answer.daily:
        _check_spin_up(understood, key.model.spec.windows)
    block = plan_job(
        dataset,
        sources,
        layout=understood.layout,
        key=key,
        answer=answer,
        answered=understood.answered,
    )
    at_once = not is_lazy(dataset[n] for s in sources.values() for n in s.variables)
    # What is at hand can be checked as a whole; each block checks what it reads.
    sources = {token: sources[token] for token in sources if token in key.model.spec.tokens}
    read = [
        source
        for source in sources.values()
        if at_once or all(in_memory(dataset[n].variable) for n in source.variables)
    ]
    raise_problems(value_problems(dataset, read, layout=understood.layout, every=True))
    if at_once:
        if answer.needs_required:
            check_known(dataset, sources, key.model.spec.needs, layout=understood.layout)
        for each in unlikely(dataset, sources, layout=understood.layout):
            doubt(str(each))
        # In-memory input runs here and now, whatever cluster is connected.
        bar = progress("predicting", total=math.prod(block.numblocks), unit="blocks")
        with bar, counting(bar, block.name):
            return block.compute(scheduler="threads")
    return block


def each_block(
    function: Callable[[Floats], Floats], block: da.Array | Floats, before: tuple[int, ...] = ()
) -> da.Array | Floats:
    """Apply a function that takes away the last axis of a block, and may add one before all."""
    if isinstance(block, np.ndarray):
        return function(block)
    return da.map_blocks(
        function,
        block,
        chunks=(*((n,) for n in before), *block.chunks[:-1]),
        drop_axis=block.ndim - 1,
        new_axis=list(range(len(before))),
        meta=np.empty((0,) * (len(before) + block.ndim - 1), dtype=np.float32),
        token=f"each-{tokenize(function, before)}",
    )


def provenance(key: EngineKey, dataset: xr.Dataset, *, done: str) -> dict[str, str]:
    """Return attributes that say which model made the numbers, and how.

    Parameters
    ----------
    done : str
        What was done, for the history.
    """
    from xstefa import __version__

    # No time of day: the same prediction planned twice is the same to dask.
    line = f"xstefa {__version__}: {done} by {key.model.name}"
    previous = dataset.attrs.get("history")
    schema = key.model.spec.schema
    return {
        "source": f"StefaLand model {key.model.name}",
        "model_name": key.model.name,
        "model_hash": key.model.content_hash,
        "model_schema": f"{schema.name} {schema.version} {schema.fingerprint[:12]}",
        "model_precision": key.precision,
        "xstefa_version": __version__,
        "history": f"{line}\n{previous}" if previous else line,
    }
