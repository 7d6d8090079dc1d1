"""How many values are known, and do they fit their units: a look at the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.climate import unlikely
from xstefa.binding.derive import without_range
from xstefa.binding.layout import Layout
from xstefa.binding.plain import in_memory, plain, values_of
from xstefa.binding.planning import Plan
from xstefa.binding.ranges import TOLERATED, misfit
from xstefa.binding.sources import Direct, TokenSource, leaves
from xstefa.binding.table import TokenRow, TokenTable
from xstefa.errors import RangeError
from xstefa.model.ranges import Ranges

__all__ = ["look", "value_problems", "values_at_hand"]

_DAYS = 16


def values_at_hand(ds: xr.Dataset, plan: Plan) -> bool:
    """Whether the values of all tokens are in memory, so that looking at some costs nothing."""
    ds = plain(ds)
    return all(
        in_memory(ds[name].variable)
        for source in plan.sources.values()
        for name in source.variables
    )


def look(ds: xr.Dataset, plan: Plan, ranges: Ranges | None = None) -> TokenTable:
    """Return the token table of `plan` with coverage, ranges and range problems. Reads data.

    Parameters
    ----------
    ds : xarray.Dataset
    plan : Plan
        Of `ds`. Of a large dataset 16 days are looked at, spread over the record, and 64 places
        along each dimension.
    ranges : mapping of str to Range, optional
        What a model was trained on, by token.
    """
    layout = plan.layout
    if layout is None:
        return plan.table
    ds = plain(ds)
    picks = layout.spread(ds, days=_DAYS)
    part = ds.isel(picks)
    problems = value_problems(part, plan.sources.values(), layout=layout)
    wrong = {problem.variable for problem in problems}
    whole = ds if values_at_hand(ds, plan) else part
    found = [] if problems else unlikely(whole, plan.sources, layout=layout)
    doubts = {each.token: f"; {each.text}" for each in found}
    rows = []
    for row in plan.table.rows:
        if row.token in plan.sources:
            source = plan.sources[row.token]
            values = _values(part, source, layout)
            known = np.isfinite(values)
            low, high = (
                (float(values[known].min()), float(values[known].max()))
                if known.any()
                else (None, None)
            )
            row = replace(
                row,
                known=float(known.mean()),
                low=low,
                high=high,
                wrong=bool(wrong & set(row.variables)),
                rule=row.rule
                + _note(part, source)
                + _beyond(row, values, ranges or {})
                + doubts.get(row.token, ""),
            )
        rows.append(row)
    days = picks[layout.time].size
    places = [
        f"{picks[dim].size} of {ds.sizes[dim]} {dim}" for dim in layout.site_dims if dim in picks
    ]
    return replace(
        plan.table,
        rows=tuple(rows),
        problems=(*plan.table.problems, *map(str, problems)),
        doubts=plan.table.doubts + _false_extremes(part, plan, layout),
        looked_at=", ".join([f"{days} of {layout.days.size} days", *places]),
    )


def _false_extremes(part: xr.Dataset, plan: Plan, layout: Layout) -> tuple[str, ...]:
    """Say that the extremes of temperature are none, where most of them are not."""
    both = ("temperature_max", "temperature_min")
    found = [plan.sources[token] for token in both if token in plan.sources]
    if len(found) < 2:
        return ()
    share = without_range(*(_values(part, source, layout) for source in found)).mean()
    if share < 0.5:
        return ()
    first, second = (source.variables[0] for source in found)
    return (
        f"{first!r} and {second!r}: the same, on {100 * share:.0f} % of the days. Taken for the "
        f"mean, and for no extremes. Fix: ds.drop_vars({second!r}).stefa.predict(..., "
        f"rename={{{first!r}: 'temperature_mean'}}) says the same",
    )


def value_problems(
    ds: xr.Dataset,
    sources: Iterable[TokenSource],
    *,
    layout: Layout,
    tolerated: float = TOLERATED,
    days: int = _DAYS,
    every: bool = False,
) -> list[RangeError]:
    """Return a problem for each variable whose values cannot be in its units. Reads a few days.

    Parameters
    ----------
    tolerated : float
        Share of a variable's values that may lie outside what is physically possible, as long as
        no single one is far off.
    days : int
        How many days are looked at, evenly spread.
    every : bool
        Whether to look at all values for those that are far off.
    """
    part = ds.isel(layout.spread(ds, days=days))
    ends = {leaf.variables: leaf for source in sources for leaf in leaves(source)}
    problems = (
        _problem(ds if every else part, part, leaf, layout, tolerated) for leaf in ends.values()
    )
    return [problem for problem in problems if problem is not None]


def _values(part: xr.Dataset, source: TokenSource, layout: Layout) -> NDArray[Any]:
    """Return the values of a token; of a variable that cannot be as they are, else NaN."""
    name = ", ".join(source.variables)
    try:
        return values_of(source.realise(part, layout), name)
    except RangeError:
        return (
            values_of(source.read(part), name) if isinstance(source, Direct) else np.array(np.nan)
        )


def _note(part: xr.Dataset, source: TokenSource) -> str:
    """Say what becomes of values of a variable that are a little outside its range, or missing."""
    if not isinstance(source, Direct):
        return ""
    values = values_of(source.read(part), source.match.variable.name)
    low, high = source.wanted.valid_range
    note = ""
    if ((values < low) | (values > high)).any():
        note = f"; what is a little outside of {low:g} to {high:g} counts as the edge"
    if source.otherwise is not None and np.isnan(values).any():
        note += f"; where missing {source.otherwise.rule}"
    return note


def _beyond(row: TokenRow, values: NDArray[Any], ranges: Ranges) -> str:
    """Say of an attribute how many values lie outside all that a model was trained on."""
    if row.kind != "static" or row.token not in ranges:
        return ""
    known = ranges[row.token]
    count = int(known.excludes(values).sum())
    limits = f"{known.low:.4g} to {known.high:.4g}"
    return f"; {count} of {values.size} outside training ({limits})" if count else ""


def _problem(
    ds: xr.Dataset, part: xr.Dataset, leaf: Direct, layout: Layout, tolerated: float
) -> RangeError | None:
    name = leaf.match.variable.name
    try:
        values_of(leaf.realise(ds, layout), name)
        return misfit(
            values_of(leaf.read(part), name),
            leaf.wanted,
            name=name,
            used=leaf.conversion,
            method=leaf.match.time_method,
            tolerated=tolerated,
        )
    except RangeError as problem:
        return problem
