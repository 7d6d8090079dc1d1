"""How many values are known, and do they fit their units and the training: a look at the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.binding import Binding
from xstefa.binding.climate import unlikely
from xstefa.binding.derive import without_range
from xstefa.binding.plain import in_memory, values_of
from xstefa.binding.sources import Direct, TokenSource
from xstefa.binding.table import TokenRow, TokenTable
from xstefa.binding.value_checks import value_problems
from xstefa.errors import RangeError
from xstefa.model.ranges import Ranges

__all__ = ["look", "values_at_hand"]


def values_at_hand(binding: Binding) -> bool:
    """Whether the values of all tokens are in memory, so that looking at some costs nothing."""
    names = {name for source in binding.sources.values() for name in source.variables}
    return all(in_memory(binding.dataset[name].variable) for name in names)


def look(binding: Binding, ranges: Ranges | None = None) -> TokenTable:
    """Return the token table with coverage, ranges and range problems. Reads data.

    Parameters
    ----------
    binding : Binding
        Of a large dataset 16 days are looked at, spread over the record, and 64 places along each
        dimension.
    ranges : mapping of str to Range, optional
        What a model was trained on, by token.
    """
    table, layout, ds = binding.table, binding.found, binding.dataset
    if layout is None:
        return table
    picks = layout.spread(ds, days=16)
    part = ds.isel(picks)
    problems = value_problems(part, binding.sources.values(), layout=layout)
    wrong = {problem.variable for problem in problems}
    whole = ds if values_at_hand(binding) else part
    found = [] if problems else unlikely(whole, binding.sources, layout=layout)
    rows = []
    for row in table.rows:
        if (source := binding.sources.get(row.token)) is not None:
            values = _values(part, source)
            known = values[np.isfinite(values)]
            notes = [*_notes(part, source), *_beyond(row, values, ranges or {})]
            notes += [each.text for each in found if each.token == row.token]
            row = replace(
                row,
                known=float(np.isfinite(values).mean()),
                low=float(known.min()) if known.size else None,
                high=float(known.max()) if known.size else None,
                wrong=bool(wrong & set(row.variables)),
                rule="; ".join([row.rule, *notes]),
            )
        rows.append(row)
    shown = {layout.time: "days"} | {dim: dim for dim in layout.site_dims if dim in picks}
    return replace(
        table,
        rows=tuple(rows),
        problems=(*table.problems, *map(str, problems)),
        doubts=table.doubts + _false_extremes(part, binding),
        looked_at=", ".join(f"{picks[d].size} of {ds.sizes[d]} {n}" for d, n in shown.items()),
    )


def _false_extremes(part: xr.Dataset, binding: Binding) -> tuple[str, ...]:
    """Say that the extremes of temperature are none, where most of them are not."""
    both = [binding.sources.get(f"temperature_{end}") for end in ("max", "min")]
    found = [source for source in both if source is not None]
    if len(found) < 2:
        return ()
    share = without_range(*(_values(part, source) for source in found)).mean()
    if share < 0.5:
        return ()
    first, second = (source.variables[0] for source in found)
    return (
        f"{first!r} and {second!r}: the same, on {100 * share:.0f} % of the days. Taken for the "
        f"mean, and for no extremes. Fix: ds.drop_vars({second!r}).stefa.predict(..., "
        f"rename={{{first!r}: 'temperature_mean'}}) says the same",
    )


def _values(part: xr.Dataset, source: TokenSource) -> NDArray[Any]:
    """Return the values of a token; of a variable that cannot be as they are, else NaN."""
    name = ", ".join(source.variables)
    try:
        return values_of(source.realise(part), name)
    except RangeError:
        if isinstance(source, Direct):
            return values_of(source.read(part), name)
        return np.array(np.nan)


def _notes(part: xr.Dataset, source: TokenSource) -> list[str]:
    """Say what becomes of values of a variable that are a little outside its range, or missing."""
    if not isinstance(source, Direct):
        return []
    values = values_of(source.read(part), source.name)
    low, high = source.wanted.valid_range
    notes = []
    if ((values < low) | (values > high)).any():
        notes.append(f"what is a little outside of {low:g} to {high:g} counts as the edge")
    if source.otherwise is not None and np.isnan(values).any():
        notes.append(f"where missing {source.otherwise.rule}")
    return notes


def _beyond(row: TokenRow, values: NDArray[Any], ranges: Ranges) -> list[str]:
    """Say of an attribute how many values lie outside all that a model was trained on."""
    known = ranges.get(row.token)
    if row.kind != "static" or known is None or not (count := int(known.excludes(values).sum())):
        return []
    return [f"{count} of {values.size} outside training ({known.low:.4g} to {known.high:.4g})"]
