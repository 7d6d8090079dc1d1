"""How many values are known, and do they fit their units: a look at the data."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.layout import Layout
from xstefa.binding.plain import in_memory, plain, values_of
from xstefa.binding.planning import Plan
from xstefa.binding.ranges import TOLERATED, range_problems
from xstefa.binding.sources import TokenSource, leaves
from xstefa.binding.table import TokenTable
from xstefa.errors import RangeError

__all__ = ["look", "value_problems", "values_at_hand"]

_DAYS = 16
_POINTS = 64  # along each dimension of the sites


def values_at_hand(ds: xr.Dataset, plan: Plan) -> bool:
    """Whether the values of all tokens are in memory, so that looking at some costs nothing."""
    ds = plain(ds)
    return all(
        in_memory(ds[name].variable)
        for source in plan.sources.values()
        for name in source.variables
    )


def look(ds: xr.Dataset, plan: Plan) -> TokenTable:
    """Return the token table of `plan` with coverage, ranges and range problems. Reads data.

    Parameters
    ----------
    ds : xarray.Dataset
    plan : Plan
        Of `ds`. Of a large dataset 16 days are looked at, spread over the record, and 64 places
        along each dimension.
    """
    layout = plan.layout
    if layout is None:
        return plan.table
    ds = plain(ds)
    picks = _picks(ds, layout)
    part = ds.isel(picks)
    problems = _problems(part, plan.sources.values(), layout)
    wrong = {problem.variable for problem in problems}
    rows = []
    for row in plan.table.rows:
        if row.token in plan.sources:
            array = plan.sources[row.token].realise(part, layout)
            values = values_of(array, ", ".join(row.variables))
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
        looked_at=", ".join([f"{days} of {layout.days.size} days", *places]),
    )


def value_problems(
    ds: xr.Dataset,
    sources: Iterable[TokenSource],
    *,
    layout: Layout,
    tolerated: float = TOLERATED,
) -> list[RangeError]:
    """Return a problem for each variable whose values cannot be in its units. Reads a few days.

    Parameters
    ----------
    tolerated : float
        Share of a variable's values that may lie outside what is physically possible.
    """
    return _problems(ds.isel(_picks(ds, layout)), sources, layout, tolerated)


def _picks(ds: xr.Dataset, layout: Layout) -> dict[Hashable, NDArray[np.int64]]:
    """Return positions along the dimensions of the layout, evenly spread."""
    return {
        dim: np.unique(
            np.linspace(0, size - 1, _DAYS if dim == layout.time else _POINTS).astype(int)
        )
        for dim, size in ds.sizes.items()
        if dim in layout.dims and size
    }


def _problems(
    part: xr.Dataset,
    sources: Iterable[TokenSource],
    layout: Layout,
    tolerated: float = TOLERATED,
) -> list[RangeError]:
    ends = [leaf for source in sources for leaf in leaves(source)]
    return range_problems(part, ends, layout=layout, days=_DAYS, tolerated=tolerated)
