"""Results as CF datasets: what a file needs beyond its variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import xarray as xr
from xarray.indexes import PandasIndex

from xstefa.arguments import checked
from xstefa.binding.geometry import (
    find_coordinate,
    grid_crs,
    grid_of_cells,
    horizontal_dims,
    stacked_levels,
)
from xstefa.binding.places import is_geometry
from xstefa.binding.plain import check_names, plain
from xstefa.errors import OptionError, StoreError, XstefaError

CONVENTIONS = "CF-1.11"

# Attributes of a result that also describe the file as a whole.
_OF_THE_FILE = ("history", "source", "references", "institution")


def as_cf(obj: xr.DataArray | xr.Dataset) -> xr.Dataset:
    """Return a result as a dataset that follows the CF conventions when it is written.

    Parameters
    ----------
    obj : DataArray or Dataset
        Results of xstefa. A Dataset keeps the global attributes that it has.

    Returns
    -------
    Dataset
        With the global attributes that CF asks for, ancillary variables as variables, what
        coordinates are where their attributes do not say, and an encoding of coordinates that CF
        allows: no fill value, and identifiers of sites as characters, because a coordinate of
        strings has no order. Reading it back gives the same coordinates.

    Raises
    ------
    OptionError
        If an array has no name, or a dimension is stacked.
    LayoutError
        If a variable or dimension has a name that is no text.
    """
    if isinstance(obj, xr.DataArray):
        if not isinstance(obj.name, str) or not obj.name or obj.name in obj.coords:
            raise OptionError(
                "the array has no name of its own",
                variable="obj",
                found=f"a DataArray called {obj.name!r}",
                expected="the name of the variable in the file, which no coordinate has",
                fix="array.rename('streamflow')",
            )
        obj = obj.to_dataset(promote_attrs=False)
    obj = plain(obj)
    check_names(obj)
    # Files have no indexes, and what has one of another kind could not be changed below; what the
    # index of cells knows is in attributes of a file.
    grids = {name: grid for name in obj.xindexes if (grid := grid_of_cells(obj, str(name)))}
    obj = obj.drop_indexes([n for n, i in obj.xindexes.items() if not isinstance(i, PandasIndex)])
    obj = obj.assign_coords({name: obj[name].assign_attrs(grid) for name, grid in grids.items()})
    for name in obj.coords:
        if levels := stacked_levels(obj, name):
            raise OptionError(
                "files have no stacked dimensions",
                variable=str(name),
                found=f"levels {', '.join(levels)}",
                expected="one coordinate for each dimension",
                fix=f"unstack it, .unstack({str(name)!r}), or keep its sites in a row: "
                f".reset_index({str(name)!r})",
            )
        if is_geometry(obj.variables[name]):
            raise OptionError(
                "files have no geometries",
                variable=str(name),
                found="shapes",
                expected="numbers, text or dates",
                fix=f"obj = obj.drop_vars({str(name)!r}), or for CF's form of them xvec's "
                "obj.xvec.encode_cf()",
            )
    # What CF calls an ancillary variable is no coordinate in a file, though xarray carries it so.
    ancillary = {
        name
        for variable in obj.data_vars.values()
        for name in str(variable.attrs.get("ancillary_variables", "")).split()
    }
    result = obj.reset_coords(ancillary & set(map(str, obj.coords))).copy()
    result.attrs = _global_attributes(result) | result.attrs
    for name in result.coords:
        coordinate = result[name].variable
        if coordinate.dtype.kind == "f":
            coordinate.encoding["_FillValue"] = None
        elif coordinate.dtype.kind in "UOT" and coordinate.dims == (name,):
            coordinate.encoding |= {"dtype": "S1", "_FillValue": None}
        if _is_time(coordinate) and result[name].dt.calendar in _OF_THE_WORLD:
            # CF 1.11 wants to know; no data set that is read here counts them.
            coordinate.attrs.setdefault("units_metadata", "leap_seconds: none")
        if _is_time(coordinate) and name != "time" and coordinate.dims == (name,):
            for variable in result.data_vars.values():
                if "cell_methods" in variable.attrs and name in variable.dims:
                    methods = str(variable.attrs["cell_methods"])
                    variable.attrs["cell_methods"] = re.sub(r"\btime:", f"{name}:", methods)
    for key, attrs in _meaning(result).items():
        result[key].variable.attrs = attrs | result[key].attrs
    return result


# Calendars in which leap seconds could be counted.
_OF_THE_WORLD = ("standard", "gregorian", "proleptic_gregorian", "julian")


def _is_time(variable: xr.Variable) -> bool:
    if variable.dtype.kind == "O" and isinstance(variable, xr.IndexVariable):
        return isinstance(variable.to_index(), xr.CFTimeIndex)
    # Time zones are in a dtype of pandas, which neither CF nor the calendars of xarray know.
    return isinstance(variable.dtype, np.dtype) and variable.dtype.kind == "M"


def _meaning(ds: xr.Dataset) -> dict[str, dict[str, str]]:
    """Return what CF says of the coordinates of a result: time, place and grid mapping."""
    dims = tuple(map(str, ds.dims))
    meaning: dict[str, dict[str, str]] = {}
    if (latitude := find_coordinate(ds, "latitude", dims)) is not None:
        meaning[latitude] = {"standard_name": "latitude", "units": "degrees_north"}
    if (longitude := find_coordinate(ds, "longitude", dims)) is not None:
        meaning[longitude] = {"standard_name": "longitude", "units": "degrees_east"}
    axes = horizontal_dims(ds, dims)
    for array in ds.data_vars.values():
        crs = grid_crs(ds, array)
        if axes is not None and crs is not None and crs.is_projected:
            for letter, dim in zip("yx", axes, strict=True):
                meaning[dim] = {
                    "standard_name": f"projection_{letter}_coordinate",
                    "axis": letter.upper(),
                    "units": "m",
                }
    for name, coordinate in ds.coords.items():
        if name in ds.dims and _is_time(coordinate.variable):
            meaning[str(name)] = {"standard_name": "time", "axis": "T"}
        elif "grid_mapping_name" in coordinate.attrs:
            meaning[str(name)] = {"long_name": "coordinate reference system"}
    return meaning


def _global_attributes(ds: xr.Dataset) -> dict[str, str]:
    attrs = {"Conventions": CONVENTIONS}
    described = [v.attrs for v in (*ds.data_vars.values(), ds) if "model_name" in v.attrs]
    if described:
        first = described[0]
        attrs["title"] = f"{first.get('long_name', 'result')} from {first['model_name']}"
        attrs |= {key: str(first[key]) for key in _OF_THE_FILE if key in first}
    ids = [c for c in ds.coords.values() if c.attrs.get("cf_role") == "timeseries_id"]
    if ids and all(set(ids[0].dims) <= set(v.dims) for v in ds.data_vars.values() if v.dims):
        attrs["featureType"] = "timeSeries"
    return attrs


@checked
def to_netcdf(
    obj: xr.DataArray | xr.Dataset, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a result to a NetCDF file that follows the CF conventions.

    Parameters
    ----------
    obj : DataArray or Dataset
        Results of xstefa; lazy ones are computed block by block.
    path : path-like
        Where the file is once it is whole: a call that fails leaves none, and keeps the one before.
    overwrite : bool
        Replace a file that exists.

    Raises
    ------
    OptionError
        If the file exists and is not to be replaced, or an array has no name.
    StoreError
        If the format cannot hold a name, attribute or type, or lazy values cannot be computed.
    """
    if os.path.exists(path) and not overwrite:
        raise OptionError(
            "the file exists",
            variable=str(path),
            found="a file of that name",
            expected="a new name",
            fix="overwrite=True",
        )
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.exists(folder):  # which the netCDF library takes for a lack of permission
        raise OptionError(
            "there is no such folder",
            variable=str(path),
            found=f"nothing at {folder}",
            expected="a path in a folder that exists",
            fix=f"os.makedirs({folder!r})",
        )
    unfinished = f"{os.fspath(path)}.partial"
    try:
        with describing(path):
            as_cf(obj).to_netcdf(unfinished)
        os.replace(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            os.remove(unfinished)


@contextmanager
def describing(place: str | os.PathLike[str]) -> Iterator[None]:
    """Raise StoreError where a dataset cannot be written; errors of disks pass."""
    try:
        yield
    except (XstefaError, OSError):
        raise
    except Exception as error:  # writers raise errors of many types, of their libraries too
        raise StoreError(
            "the dataset cannot be written",
            variable=os.fspath(place),
            found=f"{type(error).__name__}: {error}",
            expected="names, attributes, encodings and types that the format has",
            fix="leave out, or correct, what is named: .drop_vars(name), .attrs, .encoding",
        ) from error
