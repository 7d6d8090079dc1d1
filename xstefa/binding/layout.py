"""Where and when: the sites and days of a dataset, and how to put results back on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cf_xarray  # noqa: F401  (registers the .cf accessor)
import cftime
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.errors import CalendarError, LayoutError

__all__ = ["Layout", "day_of_year", "find_latitude", "find_time", "make_layout"]

_SPATIAL = {
    "lat", "latitude", "lon", "longitude", "x", "y", "xc", "yc", "rlat", "rlon",
    "projection_x_coordinate", "projection_y_coordinate", "south_north", "west_east",
    "easting", "northing", "nj", "ni", "j", "i",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """The sites and days of a dataset.

    Parameters
    ----------
    time : str
        The time dimension.
    site_dims : tuple of str
        The other dimensions of the forcings, in dataset order; empty for a single site.
    dims : tuple of str
        All of them in the order of the output (that of the precipitation variable).
    days : int64 array (time,)
        Day numbers in the dataset's own calendar: days since 1970-01-01.
    support : {"grid", "point"}
        Cells of a map, or separate basins or stations.
    coords : xarray.Coordinates
        Coordinates of the output.
    grid_mapping : str, optional
        Name of the grid mapping variable; it is among `coords`.
    grid_mapping_in : {"attrs", "encoding"}
        Where the input keeps the reference to it.
    calendar : str
        CF name of the calendar.
    """

    time: str
    site_dims: tuple[str, ...]
    dims: tuple[str, ...]
    days: NDArray[np.int64]
    support: Literal["grid", "point"]
    coords: xr.Coordinates
    grid_mapping: str | None = None
    grid_mapping_in: Literal["attrs", "encoding"] = "attrs"
    calendar: str = "standard"

    def __str__(self) -> str:
        kind = {"grid": "grid", "point": "points"}[self.support]
        calendar = "" if self.calendar == "standard" else f" ({self.calendar})"
        return f"{kind} ({', '.join(self.dims)}), {self.days.size} days{calendar}"

    def wrap(
        self,
        data: NDArray[np.generic] | da.Array,
        *,
        name: str,
        attrs: Mapping[str, object] | None = None,
    ) -> xr.DataArray:
        """Label `data` with the dimensions and coordinates of the input.

        Parameters
        ----------
        data : NumPy or dask array
            With one axis for each of `dims`, in that order.
        name : str
            Name of the result.
        attrs : mapping, optional
            Attributes; the grid mapping is added.

        Returns
        -------
        xarray.DataArray

        Raises
        ------
        LayoutError
            If `data` does not have the shape of the layout.
        """
        sizes = {dim: self.coords.sizes[dim] for dim in self.dims if dim in self.coords.sizes}
        shape = data.shape
        if len(shape) != len(self.dims) or any(
            size != sizes.get(dim, size) for dim, size in zip(self.dims, shape, strict=True)
        ):
            raise LayoutError(
                "the data does not fit the layout",
                variable=name,
                found=f"shape {shape}",
                expected=f"one axis for each of {self.dims} with sizes {sizes}",
            )
        result = xr.DataArray(
            data, coords=self.coords, dims=self.dims, name=name, attrs=dict(attrs or {})
        )
        if self.grid_mapping is not None:
            # xarray refuses to write a reference that is in both places.
            place = result.attrs if self.grid_mapping_in == "attrs" else result.encoding
            place["grid_mapping"] = self.grid_mapping
        return result


def find_time(ds: xr.Dataset) -> str:
    """Name of the time dimension; LayoutError if there is none, or more than one."""
    found = [str(dim) for dim in ds.dims if dim in ds.coords and _is_time(ds[dim])]
    if len(found) > 1:
        axis = [dim for dim in found if ds[dim].attrs.get("axis") == "T"] or [
            dim for dim in found if ds[dim].attrs.get("standard_name") == "time"
        ]
        found = axis or (["time"] if "time" in found else found)
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise LayoutError(
            "more than one time axis",
            found=f"dimensions {', '.join(map(repr, found))}",
            expected="one dimension of days",
            fix=f"ds[{found[0]!r}].attrs['axis'] = 'T' on the one that counts the days",
        )
    undecoded = [
        str(dim)
        for dim in ds.dims
        if dim in ds.coords and " since " in str(ds[dim].attrs.get("units", ""))
    ]
    if undecoded:
        raise LayoutError(
            "the time axis is not decoded",
            variable=undecoded[0],
            found=f"units {ds[undecoded[0]].attrs['units']!r}",
            expected="datetime64 or cftime values",
            fix="ds = xr.decode_cf(ds)",
        )
    elsewhere = [str(name) for name in ds.variables if _is_time(ds[name]) and ds[name].ndim == 1]
    if elsewhere:
        name = elsewhere[0]
        raise LayoutError(
            "the dates are not on a dimension of their own name",
            variable=name,
            found=f"dates along dimension {ds[name].dims[0]!r}",
            expected="a time dimension with a coordinate of dates",
            fix=f"ds = ds.swap_dims({{{str(ds[name].dims[0])!r}: {name!r}}})",
        )
    raise LayoutError(
        "no time axis",
        found=f"dimensions {', '.join(repr(str(dim)) for dim in ds.dims) or 'none'}",
        expected="a dimension with dates (datetime64 or cftime), one step a day",
        fix="ds = ds.assign_coords(time=pd.date_range(start, periods=ds.sizes['time']))",
    )


def _is_time(variable: xr.DataArray) -> bool:
    if variable.dtype.kind == "M":
        return True
    # Only index variables (in memory already) are looked at, never data.
    if variable.dtype.kind == "O" and variable.name in variable.indexes and variable.size:
        return isinstance(variable.indexes[variable.name][0], cftime.datetime)
    return False


def day_numbers(time: xr.DataArray) -> tuple[NDArray[np.int64], str]:
    """Day numbers since 1970-01-01 in the calendar of `time`, and the calendar's name."""
    if time.dtype.kind == "M":
        return time.values.astype("datetime64[D]").astype(np.int64), "standard"
    calendar = str(time.dt.calendar)
    numbers = cftime.date2num(time.values, "days since 1970-01-01", calendar=calendar)
    return np.floor(np.asarray(numbers, dtype=np.float64)).astype(np.int64), calendar


def _check_days(days: NDArray[np.int64], time: xr.DataArray) -> None:
    name = str(time.name)
    if days.size == 0:
        raise LayoutError("the time axis is empty", variable=name)
    if time.dtype.kind == "M" and bool(np.isnat(time.values).any()):
        raise CalendarError(
            "the time axis has missing dates",
            variable=name,
            found=f"{int(np.isnat(time.values).sum())} NaT",
            fix=f"ds = ds.sel({name}=ds[{name!r}].notnull())",
        )
    steps = np.diff(days)
    if (steps < 0).any():
        raise CalendarError(
            "the days are not in order",
            variable=name,
            found=f"{time.values[int(np.argmax(steps < 0)) + 1]} after a later day",
            expected="ascending days",
            fix=f"ds = ds.sortby({name!r})",
        )
    if (steps == 0).any():
        first = time.values[int(np.argmax(steps == 0))]
        stamps = time.values
        if bool((stamps[1:] == stamps[:-1]).any()):
            raise CalendarError(
                "days occur twice",
                variable=name,
                found=f"{int((steps == 0).sum())} repeated steps, first at {first}",
                expected="one step a day",
                fix=f"ds = ds.drop_duplicates({name!r})",
            )
        raise CalendarError(
            "the data is sub-daily",
            variable=name,
            found=f"more than one step on the day of {first}",
            expected="one step a day",
            fix=(
                f"resample first: ds.resample({name}='1D').mean() for temperature, radiation "
                "fluxes, wind and humidity; .sum() for amounts of precipitation; max and min of "
                "temperature for its extremes"
            ),
        )
    if steps.size and np.median(steps) > 1:
        raise CalendarError(
            "the steps are longer than a day",
            variable=name,
            found=f"a typical step of {np.median(steps):g} days",
            expected="one step a day (single missing days are fine)",
            fix="use daily data; a coarser series cannot be turned into days",
        )


def make_layout(ds: xr.Dataset, template: str | None, time: str) -> Layout | None:
    """Read the layout of `ds` off the variable `template` (normally precipitation).

    Returns
    -------
    Layout or None
        None without a template; the time axis is checked all the same.

    Raises
    ------
    LayoutError, CalendarError
        If the time axis is not a sequence of distinct, ordered days.
    """
    days, calendar = day_numbers(ds[time])
    _check_days(days, ds[time])
    if template is None:
        return None
    array = ds[template]
    dims = tuple(str(dim) for dim in array.dims)
    coords, grid_mapping, place = _coordinates(ds, array)
    return Layout(
        time=time,
        site_dims=tuple(str(dim) for dim in ds.dims if dim in dims and dim != time),
        dims=dims,
        days=days,
        support=_support(ds, tuple(dim for dim in dims if dim != time)),
        coords=coords,
        grid_mapping=grid_mapping,
        grid_mapping_in=place,
        calendar=calendar,
    )


def _support(ds: xr.Dataset, site_dims: tuple[str, ...]) -> Literal["grid", "point"]:
    spatial = [dim for dim in site_dims if _is_spatial(ds, dim)]
    return "grid" if len(spatial) >= 2 else "point"


def _is_spatial(ds: xr.Dataset, dim: str) -> bool:
    attrs = ds[dim].attrs if dim in ds.coords else {}
    if attrs.get("axis") in ("X", "Y") or dim.lower() in _SPATIAL:
        return True
    # Curvilinear grids: the dimension is one of the two of a 2-D latitude.
    return any(
        dim in ds[name].dims and ds[name].ndim == 2
        for name in ds.coords
        if ds[name].attrs.get("standard_name") == "latitude" or str(name) in ("lat", "latitude")
    )


def _coordinates(
    ds: xr.Dataset, array: xr.DataArray
) -> tuple[xr.Coordinates, str | None, Literal["attrs", "encoding"]]:
    place: Literal["attrs", "encoding"] = "attrs"
    reference = array.attrs.get("grid_mapping")
    if reference is None:
        reference = array.encoding.get("grid_mapping")
        place = "encoding"
    # The extended form "crs: x y" names its variable before the colon.
    name = str(reference).split(":")[0].strip() if reference else None
    if name is None:
        for candidate in ds.variables:
            if "grid_mapping_name" in ds[candidate].attrs or str(candidate) == "spatial_ref":
                name = str(candidate)
                break
    coords = array.coords
    if name is not None and name in ds.variables and name not in coords:
        coords = array.assign_coords({name: ds[name]}).coords
    if name is not None and name not in coords:
        name = None
    cleaned = coords.copy()
    for key in cleaned:
        if "bounds" in cleaned[key].attrs:
            # The bounds variable has a dimension that a DataArray cannot carry; a reference to
            # nothing is not CF.
            cleaned[key].attrs = {k: v for k, v in cleaned[key].attrs.items() if k != "bounds"}
    return cleaned, name, place


def find_latitude(ds: xr.Dataset, dims: tuple[str, ...]) -> str | None:
    """Name of the latitude [degree] of the sites on `dims`, or None."""
    named = [*ds.cf.standard_names.get("latitude", []), *ds.cf.coordinates.get("latitude", [])]
    for name in [*named, "lat", "latitude"]:
        if name in ds.variables and set(map(str, ds[name].dims)) <= set(dims):
            return str(name)
    return None


def day_of_year(ds: xr.Dataset, time: str) -> xr.DataArray:
    """Day of the year (time,) as float32 on a 365-day scale (360-day calendars are stretched)."""
    days = ds[time].dt.dayofyear.astype(np.float32)
    if ds[time].dtype.kind == "O" and ds[time].dt.calendar == "360_day":
        days = days * np.float32(365.0 / 360.0)
    return days.drop_vars([name for name in days.coords if name != time])
