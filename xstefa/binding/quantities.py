"""Arrays that carry their units with them (pint, as pint-xarray makes them)."""

from __future__ import annotations

from typing import Any

import xarray as xr

__all__ = ["in_memory", "without_quantities"]


def without_quantities(ds: xr.Dataset) -> xr.Dataset:
    """Return `ds` with plain arrays, their units in the attributes; `ds` itself if all are plain.

    The units are written out in full, so that it does not matter which registry they come from.
    """
    plain = {
        name: _plain(variable, quantity)
        for name, variable in ds.variables.items()
        if (quantity := _quantity(variable)) is not None
    }
    return ds.assign(plain) if plain else ds


def _plain(variable: xr.Variable, quantity: Any) -> xr.Variable:
    attrs = variable.attrs | {"units": str(quantity.units)}
    return xr.Variable(variable.dims, quantity.magnitude, attrs, variable.encoding)


def _quantity(variable: xr.Variable) -> Any | None:
    # Looking at `.data` would read a variable of a file; quantities are never in files.
    data = variable._data
    return data if hasattr(data, "magnitude") and hasattr(data, "units") else None


def in_memory(variable: xr.Variable) -> bool:
    """Whether the values are there: neither in a file nor in a graph."""
    return bool(variable._in_memory) and variable.chunks is None
