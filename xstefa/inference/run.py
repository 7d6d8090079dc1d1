"""A model and the dataset that it reads: matched, checked, computed, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize

from xstefa.binding import Binding, plan
from xstefa.binding.climate import unlikely
from xstefa.binding.plain import in_memory, noted
from xstefa.binding.value_checks import check_known, doubt, value_problems
from xstefa.errors import (
    CalendarError,
    ModelError,
    OptionError,
    XstefaWarning,
    raise_problems,
    warn,
)
from xstefa.inference.engine import Answer, EngineKey
from xstefa.inference.extrapolation import outside_training
from xstefa.inference.graph import is_lazy, plan_job
from xstefa.inference.state import Past, going_on, refuse_within, steps_until
from xstefa.model.checkpoint import Model
from xstefa.options import resolve_options
from xstefa.progress import counting, progress
from xstefa.version import __version__
from xstefa.windows import Floats

Period = tuple[Any, Any] | list[Any] | str
"""First and last day, each as an index of days takes them; None is the end of the record."""


class SpinUpWarning(XstefaWarning):
    """Some days of a prediction have no answer: too little of what precedes them is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A model, and a dataset in which every token was found that it needs.

    Attributes
    ----------
    key : EngineKey
    binding : Binding
        Of the whole record.
    answered : slice
        The steps of the record to answer for.
    outside : dict of str to str
        What is said of attributes outside of training.
    past : Past, optional
        What the days before the record have left.
    """

    key: EngineKey
    binding: Binding
    answered: slice
    outside: dict[str, str] = field(default_factory=dict)
    past: Past | None = None

    def frame(self, *, daily: bool = True) -> xr.DataArray:
        """Return an array without memory that has the dimensions and coordinates of a result."""
        layout = self.binding.layout.during(self.answered)
        sizes = {**self.binding.dataset.sizes, layout.time: len(layout.days)}
        shape = tuple(sizes[dim] for dim in layout.dims)
        frame = layout.wrap(np.broadcast_to(np.float32(0), shape), name="frame")
        return frame if daily else frame.isel({layout.time: 0}, drop=True)

    def attrs(self, done: str) -> dict[str, str]:
        """Return attributes that say which model made the numbers, and how.

        Parameters
        ----------
        done : str
            What was done, for the history.
        """
        key = self.key
        return model_attributes(key.model, key.precision, self.binding.dataset, done) | self.outside

    def compute(self, answer: Answer, *, first: bool = True) -> da.Array | Floats:
        """Ask the model: lazily if what it reads is chunked, else here and now.

        Parameters
        ----------
        answer : Answer
        first : bool
            Whether it is the first of several that differ in their days only: on which days there
            is no answer is said of it, and attributes that are at hand are checked.

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
        dataset, layout = self.binding.dataset, self.binding.layout
        sources, spec = self.binding.sources, self.key.model.spec
        if answer.needs_required and answer.daily and first:
            self._check_spin_up()
        block = plan_job(
            self.binding,
            key=self.key,
            answer=answer,
            answered=self.answered,
            past=self.past,
        )
        at_once = not is_lazy(dataset[n] for s in sources.values() for n in s.variables)
        # What is at hand can be checked as a whole; each block checks what it reads.
        sources = {name: s for name, s in sources.items() if name in spec.tokens}
        read = [
            source
            for source in sources.values()
            if (at_once or in_memory(dataset, source.variables))
            and (first or any(layout.time in dataset[name].dims for name in source.inputs))
        ]
        raise_problems(value_problems(dataset, read, layout=layout, every=True))
        if not at_once:
            return block
        if answer.needs_required and self.past is None:  # after days that were known
            check_known(dataset, sources, spec.needs, layout=layout)
        for each in unlikely(dataset, sources, layout=layout):
            doubt(str(each))
        # In-memory input runs here and now, whatever cluster is connected.
        bar = progress("predicting", total=math.prod(block.numblocks), unit="blocks")
        with bar, counting(bar, block.name):
            return block.compute(scheduler="threads")

    def _check_spin_up(self) -> None:
        """Say which days have no answer because the record does not reach far enough before them.

        Raises
        ------
        CalendarError
            If that is so of all of them.
        """
        policy = self.key.model.spec.windows
        record = self.binding.layout
        layout = record.during(self.answered)
        before = min(self.past.days, policy.spin_up) if self.past else 0
        days = np.concatenate([record.days[0] - np.arange(before, 0, -1), record.days])
        without = layout.days[~policy.answerable(days)[before:][self.answered]]
        if not without.size:
            return
        index = self.binding.dataset[layout.time].to_index()
        steps = index[self.answered]
        needed = (
            f"for each day the weather of at least {policy.least} of the "
            f"{policy.spin_up + 1} days up to it (the model's spin-up)"
        )
        fix = (
            "begin the dataset earlier, or, if it was selected in time, predict from what it was "
            f"selected from with period=({_date(steps[0])!r}, {_date(steps[-1])!r})"
        )
        found = f"{index.size} days, {_date(index[0])} to {_date(index[-1])}"
        if self.past is not None:
            fix = "begin the history, or the record of the state, earlier"
            found += f", after {self.past.days} days"
        if without.size == layout.days.size:
            raise CalendarError(
                "the record is too short for an answer on any of these days",
                variable=layout.time,
                found=found,
                expected=needed,
                fix=fix,
            )
        first, last = steps[np.searchsorted(layout.days, without[[0, -1]])]
        why = (
            "the model looks back only, and before them there is no record, or a long gap"
            if policy.causal
            else "the record is shorter than a year or has a long gap"
        )
        warn(
            SpinUpWarning(
                f"No answer on {without.size} of {layout.days.size} days ({_date(first)} to "
                f"{_date(last)}), which are NaN: {why}. Expected {needed}. Fix: {fix}."
            )
        )


def model_attributes(
    model: Model, precision: str, dataset: xr.Dataset, done: str
) -> dict[str, str]:
    """Return attributes that say which model made numbers of a dataset, and how."""
    # No time of day: the same prediction planned twice is the same to dask.
    line = f"xstefa {__version__}: {done} by {model.name}"
    schema = model.spec.schema
    return {
        "source": f"StefaLand model {model.name}",
        "model_name": model.name,
        "model_hash": model.content_hash,
        "model_schema": f"{schema.name} {schema.version} {schema.fingerprint[:12]}",
        "model_precision": precision,
        "xstefa_version": __version__,
        "history": noted(dataset, line),
    }


def prepare(
    dataset: xr.Dataset,
    model: Model,
    *,
    period: Period | None = None,
    state: xr.Dataset | None = None,
    strict: bool = False,
    rename: Mapping[str, str] | None = None,
    extrapolate: bool = False,
    **options: Any,
) -> Run:
    """Match a dataset to what a model needs; raise all that is wrong.

    Parameters
    ----------
    dataset : Dataset
    model : Model
    period, state, strict, rename, extrapolate, **options
        As for `StefaAccessor.predict`; the last are `device`, `precision` and `batch_size`.

    Raises
    ------
    ModelError
        If the model does not know how its inputs are scaled.
    XstefaError
        If the dataset does not fit.
    """
    model.require("days")
    refuse_within(dataset)
    binding = plan(dataset, model.schema, rename=rename, needs=model.spec.needs)
    time = binding.require(strict=strict).layout.time
    answered = _steps(binding.dataset[time], period)
    if str(model.spec.provenance.get("scaler", "")).startswith("identity"):
        raise ModelError(
            "the mean and standard deviation of the variables are not known",
            variable=model.name,
            found="a model imported without a scaler",
            expected="a scaler, without which datasets cannot be read in their units",
            fix="xstefa.import_published(path, scaler=...)",
        )
    chosen = resolve_options(**options)
    key = EngineKey(
        model=model,
        device=chosen.device,
        precision=chosen.precision or "fp32",
        batch_size=chosen.batch_size,
        extrapolate=extrapolate,
    )
    run = Run(key=key, binding=binding, answered=answered)
    if state is not None:
        # What it knows already is not read again, if it is not asked for.
        known = min(steps_until(state, binding.layout), answered.start)
        part = slice(answered.start - known, answered.stop - known)
        run = replace(run, binding=binding.during(slice(known, None)), answered=part)
        binding = run.binding
        run = replace(run, past=going_on(state, model, binding))
    return replace(run, outside=outside_training(run.binding, run.key))


def _steps(time: xr.DataArray, period: Period | None) -> slice:
    """Return the steps that ``.sel(time=slice(*period))`` or ``.sel(time="1991")`` chooses."""
    if period is None:
        return slice(0, time.size)
    index, why = time.to_index(), ""
    try:
        first, last = (period, period) if isinstance(period, str) else period
        chosen = steps_between(index, first, last)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # the first for NaT
        chosen, why = range(0), f" ({error})"
    if not chosen:
        ends = _date(index[0]), _date(index[-1])
        raise OptionError(
            "no day of the dataset is in the period",
            variable="period",
            found=f"{period!r}{why}",
            expected=f"two dates between {ends[0]} and {ends[1]}, the earlier first, or None for "
            "either end of the record",
            fix=f"period={ends}   # or a part of it",
        )
    return slice(chosen.start, chosen.stop)


def steps_between(index: pd.Index, first: Any, last: Any) -> range:
    """Return the steps from one day to another, each as text or as a date of any calendar.

    Raises
    ------
    KeyError, TypeError, ValueError
        If one of them names no day of the calendar of the index.
    """
    try:
        return range(index.size)[index.slice_indexer(first, last)]
    except TypeError:  # dates of another kind than those of the index; text suits all kinds
        ends = (None if day is None else _date(day) for day in (first, last))
        return range(index.size)[index.slice_indexer(*ends)]


def _date(day: object) -> str:
    return str(day)[:10]


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
