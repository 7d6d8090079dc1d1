"""What can be explained: which day, in which bins of days, and with which options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from xstefa.binding.time_axis import find_time
from xstefa.errors import OptionError
from xstefa.inference.run import Run, steps_between

LAGS = (0, 1, 3, 7, 30, 90, 365)

WHY_NOT = {
    "history": (
        "lags are counted back in one record",
        'xr.concat([history, ds], "time").stefa.explain(...), with the days before ds of history',
    ),
    "state": (
        "a state does not say which weather made it",
        "leave state= out, and give a dataset with the days that made it",
    ),
    "observed": (
        "the answer is explained as it is before observations move it",
        "leave observed= out",
    ),
    "period": ("one day is explained", 'day="1999-09-17", of a dataset with all days before it'),
    **dict.fromkeys(
        ("quantiles", "interval"),
        ("the mean answer is explained, and no quantile", "leave it out"),
    ),
}
"""Options of `predict` that have no place in an explanation: why, and what to do."""


def refuse(others: Mapping[str, object]) -> None:
    """Refuse options of `predict` that have no place here, and unknown ones as Python does.

    Raises
    ------
    OptionError, TypeError
    """
    for name in others:
        if name not in WHY_NOT:
            raise TypeError(f"explain() got an unexpected keyword argument {name!r}")
        why, fix = WHY_NOT[name]
        raise OptionError(why, variable=name, found=f"{name}=", expected="none", fix=fix)


def check_spun_up(run: Run) -> None:
    """Refuse a day before which too little of the record lies, if another has enough.

    Raises
    ------
    OptionError
    """
    layout = run.binding.layout
    ready = np.flatnonzero(run.key.model.spec.windows.answerable(layout.days))
    asked = run.answered.start
    if asked in ready or not ready.size:
        return
    index = run.binding.dataset[layout.time].to_index()
    near = ready[min(np.searchsorted(ready, asked), ready.size - 1)]
    raise OptionError(
        "too little of what the model looks back on is known before this day",
        variable="day",
        found=f"{str(index[asked])[:10]} of a record from {str(index[0])[:10]} on",
        expected="a day with an answer, after the model's spin-up",
        fix=f"day={str(index[near])[:10]!r}, or a dataset that begins earlier",
    )


def check_lags(lags: Sequence[int]) -> tuple[int, ...]:
    """Refuse bins of days that are none, or do not follow each other."""
    if not lags or any(b <= a for a, b in pairwise([-1, *lags])):
        raise OptionError(
            variable="lags",
            found=repr(lags),
            expected="the last day of each bin of days, counted back from the day, one after the "
            "other",
            fix=f"lags={LAGS}",
        )
    return tuple(map(int, lags))


def check_day(dataset: xr.Dataset, day: object) -> None:
    """Refuse what names no day of the dataset, or several."""
    time = dataset[find_time(dataset)]
    index, why = time.to_index(), ""
    steps: range = range(0)
    try:
        steps = steps_between(index, day, day)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # the first for NaT
        why = f" ({error})"
    if len(steps) != 1:
        ends = str(index[0])[:10], str(index[-1])[:10]
        raise OptionError(
            "one day is explained",
            variable="day",
            found=f"{day!r}, which {len(steps) or 'no'} days of the dataset are{why}",
            expected=f"a day between {ends[0]} and {ends[1]}",
            fix=f"day={ends[1]!r}",
        )
