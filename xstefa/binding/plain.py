"""The dataset as it is read: plain arrays, text where CF says text, values or a `ReadError`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.errors import LayoutError, ReadError, XstefaError

# Attributes that CF, ACDD and GRIB readers define as text. Files have them as bytes (HDF5) or as
# several texts (NetCDF-4) too, and programs as anything.
_TEXTS = {
    "GRIB_stepType", "_CoordinateAxisType", "ancillary_variables", "axis", "bounds", "calendar",
    "cell_methods", "cf_role", "climatology", "coordinates", "crs_wkt", "description",
    "featureType", "grid_mapping", "grid_mapping_name", "history", "instance_dimension",
    "long_name", "model_hash", "model_name", "positive", "sample_dimension", "source",
    "spatial_ref", "standard_name", "title", "units", "units_metadata",
}  # fmt: skip


def plain(ds: xr.Dataset) -> xr.Dataset:
    """Return `ds` with plain arrays and texts in its attributes; `ds` itself if it is so already.

    Arrays that carry their units with them (pint, as pint-xarray makes them) give them to the
    attributes, written out in full, so that it does not matter which registry they come from.
    """
    arrays = {
        name: _without_quantity(variable, quantity)
        for name, variable in ds.variables.items()
        if (quantity := _quantity(variable)) is not None
    }
    ds = ds.assign(arrays) if arrays else ds
    if not any(_odd(each.attrs) or _odd(each.encoding) for each in _described(ds)):
        return ds
    ds = ds.copy()
    for each in _described(ds):
        each.attrs, each.encoding = _as_text(each.attrs), _as_text(each.encoding)
    return ds


def _described(ds: xr.Dataset) -> Iterator[xr.Dataset | xr.Variable]:
    yield ds
    yield from ds.variables.values()


def _odd(attrs: Mapping[Any, Any]) -> set[str]:
    """Return which attributes should be text and are not."""
    return {key for key in _TEXTS & attrs.keys() if not isinstance(attrs[key], str)}


def _as_text(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    odd = _odd(attrs)
    return {
        key: _text(value) if key in odd else value
        for key, value in attrs.items()
        if key not in odd or value is not None
    }


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    return "\n".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _without_quantity(variable: xr.Variable, quantity: Any) -> xr.Variable:
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


def noted(ds: xr.Dataset, line: str) -> str:
    """Return the history of what is made of a dataset: a line above its own."""
    previous = ds.attrs.get("history")
    return f"{line}\n{previous}" if previous else line


def in_memory(ds: xr.Dataset, names: Iterable[str]) -> bool:
    """Whether the values of variables are there: neither in a file nor in a graph."""
    variables = [ds.variables[name] for name in names]
    return all(each._in_memory and each.chunks is None for each in variables)


def check_names(ds: xr.Dataset) -> None:
    """Raise LayoutError if a variable or dimension has a name that is no text."""
    names = dict.fromkeys((*ds.variables, *ds.dims))
    if odd := [name for name in names if not isinstance(name, str) or not name]:
        raise LayoutError(
            "variables and dimensions need names that are text",
            variable=str(odd[0]),
            found=f"a name of type {type(odd[0]).__name__}" if odd[0] != "" else "an empty name",
            expected="text",
            fix=f"ds = ds.rename({{{odd[0]!r}: 'name_{odd[0]}'}})",
        )


def values_of(array: xr.DataArray | xr.Variable, name: Hashable) -> NDArray[Any]:
    """Read the values of the variable `name`, of which `array` is a part or a function.

    Raises
    ------
    ReadError
        Instead of whatever the file or the graph behind it raises, which is its cause.
    """
    try:
        return np.asarray(array.values)
    except (XstefaError, MemoryError):
        raise
    except Exception as error:  # files and graphs are not ours, so it may be any
        raise ReadError(
            "its values cannot be read",
            variable=str(name),
            found=f"{type(error).__name__}: {error}",
            expected="values that can be computed",
            fix=f"see what ds[{str(name)!r}].compute() says",
        ) from error
