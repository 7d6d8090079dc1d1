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
    data = quantity.magnitude
    if variable.chunks is not None and quantity is not variable._data:
        data = variable.data.map_blocks(_magnitude, dtype=variable.dtype, meta=data)
    return xr.Variable(variable.dims, data, attrs, variable.encoding)


def _magnitude(block: Any) -> Any:
    return block.magnitude


def _quantity(variable: xr.Variable) -> Any | None:
    """Return the quantity that holds the variable, or of which its chunks are, or None."""
    # Looking at `.data` would read a variable of a file; quantities are never in files.
    for data in (variable._data, getattr(variable._data, "_meta", None)):
        if hasattr(data, "magnitude") and hasattr(data, "units"):
            return data
    return None


def in_memory(variable: xr.Variable) -> bool:
    """Whether the values are there: neither in a file nor in a graph."""
    return bool(variable._in_memory) and variable.chunks is None
