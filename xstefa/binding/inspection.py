"""How many values are known, and do they fit their units: a look at the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from xstefa.binding.planning import Plan
from xstefa.binding.quantities import in_memory, without_quantities
from xstefa.binding.ranges import range_problems
from xstefa.binding.sources import leaves
from xstefa.binding.table import TokenTable

__all__ = ["look", "values_at_hand"]

_DAYS = 16
_POINTS = 64  # along each dimension of the sites


def values_at_hand(ds: xr.Dataset, plan: Plan) -> bool:
    """Whether the values of all tokens are in memory, so that looking at some costs nothing."""
    ds = without_quantities(ds)
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
    ds = without_quantities(ds)
    picks = {
        dim: np.unique(
            np.linspace(0, size - 1, _DAYS if dim == layout.time else _POINTS).astype(int)
        )
        for dim, size in ds.sizes.items()
        if dim in layout.dims and size
    }
    part = ds.isel(picks)
    sources = [leaf for source in plan.sources.values() for leaf in leaves(source)]
    problems = range_problems(part, sources, layout=layout, days=_DAYS)
    wrong = {problem.variable for problem in problems}
    rows = []
    for row in plan.table.rows:
        if row.token in plan.sources:
            values = plan.sources[row.token].realise(part, layout).to_numpy()
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
    places = [f"{picks[dim].size} of {ds.sizes[dim]} {dim}" for dim in layout.site_dims]
    return replace(
        plan.table,
        rows=tuple(rows),
        problems=(*plan.table.problems, *map(str, problems)),
        looked_at=", ".join([f"{days} of {layout.days.size} days", *places]),
    )
