"""Observations of a target in a dataset, in the target's units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from xstefa.binding.layout import Layout
from xstefa.binding.match import Match, best, describe, match_target
from xstefa.binding.planning import conversion_for
from xstefa.binding.ranges import within
from xstefa.binding.units import Conversion, conversion, same_kind
from xstefa.errors import UnitsError
from xstefa.schema import Target

__all__ = ["observed"]

_DISCHARGE = Target(
    name="discharge",
    units="m3 s-1",
    long_name="discharge",
    cell_methods="time: mean",
    valid_range=(0.0, 1e6),
)


def observed(
    ds: xr.Dataset, target: Target, *, layout: Layout, static: Mapping[str, xr.DataArray]
) -> xr.DataArray | None:
    """Return the dataset's own record of `target`, or None; see `Binding.observed`."""
    facts = describe(ds, time=layout.time)
    match = best(
        target.name,
        [
            match
            for match in match_target(facts.values(), target)
            if all(_is_vertical(ds, dim) for dim in set(match.variable.dims) - set(layout.dims))
        ],
    )
    if match is None:
        return None
    name = match.variable.name
    array = match.variable.storage(ds[name])
    for dim in set(match.variable.dims) - set(layout.dims):
        array = array.isel({dim: _shallowest(ds, dim)}, drop=True)
    units = match.variable.units if match.variable.units is not None else match.units
    if target.units == "mm d-1" and units is not None and same_kind(units, "m3 s-1"):
        match.variable.storage.check()
        array = _per_area(array, units, match, static)
        used = Conversion(found=target.units, used=target.units)
    else:
        used = conversion_for(match, target)
        array = used(array)
    array = within(array, target, name=name, used=used, method=match.time_method)
    array = array.transpose(*[dim for dim in layout.dims if dim in array.dims])
    array = array.rename(target.name)
    array.attrs = {"units": target.units, "long_name": target.long_name}
    return array


def _per_area(
    array: xr.DataArray, units: str, match: Match, static: Mapping[str, xr.DataArray]
) -> xr.DataArray:
    name = match.variable.name
    if "catchment_area" not in static:
        raise UnitsError(
            "discharge needs the catchment area to become a depth of water per day",
            variable=name,
            found=f"units {units!r} and no catchment_area",
            expected="streamflow in mm d-1, or the area of each catchment",
            fix="ds['catchment_area'] = (<site dimension>, <areas>, {'units': 'km2'})",
        )
    used = conversion(units, "m3 s-1", variable=name, time_method=match.time_method, interval=86400)
    # Over a large area a mark of missing values would be a small number.
    discharge = within(used(array), _DISCHARGE, name=name, used=used)
    # m3 s-1 over km2: 86400 s d-1 × 1000 mm m-1 / 1e6 m2 km-2
    return discharge * np.float32(86.4) / static["catchment_area"].reset_coords(drop=True)


def _is_vertical(ds: xr.Dataset, dim: str) -> bool:
    attrs = ds[dim].attrs if dim in ds.coords else {}
    known = attrs.get("axis") == "Z" or attrs.get("standard_name") == "depth" or "positive" in attrs
    return known or any(word in dim.lower() for word in ("layer", "depth", "lev"))


def _shallowest(ds: xr.Dataset, dim: str) -> int:
    """Index of the shallowest level: the smallest depth, or the first where there are none."""
    if dim not in ds.coords:
        return 0
    return int(np.argmin(np.abs(np.asarray(ds[dim].values, dtype=float))))
