"""Where the sites are: horizontal axes, latitude, coordinate reference system, coordinates."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from cf_xarray.criteria import coordinate_criteria
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from xarray.indexes import PandasMultiIndex

Axis: TypeAlias = Literal["X", "Y"]

# What xdggs writes about the grid of cells, beside `grid_name`.
_GRID = {
    "grid_name", "level", "indexing_scheme", "ellipsoid",
    "nside", "order", "resolution", "depth", "nest",
}  # fmt: skip

# Which of cf_xarray's criteria make a horizontal axis, and which names where no attribute tells.
_KINDS: dict[Axis, tuple[str, str]] = {"X": ("X", "longitude"), "Y": ("Y", "latitude")}
_NAMES: dict[Axis, set[str]] = {
    "X": {
        "lon", "longitude", "x", "xc", "rlon", "projection_x_coordinate", "west_east", "easting",
        "ni", "i",
    },
    "Y": {
        "lat", "latitude", "y", "yc", "rlat", "projection_y_coordinate", "south_north", "northing",
        "nj", "j",
    },
}  # fmt: skip

# Names of the coordinates of sites where no attribute tells, as in the tables of CAMELS.
_PLACES = {
    "latitude": ("lat", "latitude", "gauge_lat", "lat_centroid", "nav_lat", "xlat"),
    "longitude": ("lon", "longitude", "long", "gauge_lon", "long_centroid", "nav_lon", "xlong"),
}


def axis_of(name: str, attrs: dict[str, object]) -> Axis | None:
    """Horizontal axis that a one-dimensional coordinate or dimension is, or None."""
    for key in ("axis", "standard_name", "units"):
        for axis, kinds in _KINDS.items():
            if any(attrs.get(key) in coordinate_criteria[kind].get(key, ()) for kind in kinds):
                return axis
    return next((axis for axis, names in _NAMES.items() if name.lower() in names), None)


def _attrs(ds: xr.Dataset, name: str) -> dict[str, object]:
    return dict(ds.variables[name].attrs) if name in ds.coords else {}


def horizontal_dims(ds: xr.Dataset, dims: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the dimensions (y, x) of a map, each with numbers; None if `dims` are not one."""
    numeric = [dim for dim in dims if dim in ds.coords and ds.variables[dim].dtype.kind in "fiu"]
    axes = {axis_of(dim, _attrs(ds, dim)): dim for dim in numeric}
    return (axes["Y"], axes["X"]) if "Y" in axes and "X" in axes else None


def support(ds: xr.Dataset, site_dims: tuple[str, ...]) -> Literal["grid", "point"]:
    """Whether sites are cells of a map, or separate basins or stations.

    A map has two horizontal axes. They count as well when they are stacked into one dimension, and
    when one cell was selected and a coordinate with ``axis: X`` or ``Y`` remains. A dataset that
    says what feature it samples (CF 9.4, ``featureType``) is no map.
    """
    if "featureType" in ds.attrs:
        return "point"
    count = sum(horizontal_axes(ds, dim) for dim in site_dims)
    for name, variable in ds.variables.items():
        if variable.ndim == 0 and name in ds.coords:
            count += variable.attrs.get("axis") in ("X", "Y")
            count += 2 * (grid_of_cells(ds, str(name)) is not None)
    return "grid" if count >= 2 else "point"


def horizontal_axes(ds: xr.Dataset, dim: str) -> int:
    """Return how many horizontal axes the dimension `dim` stands for."""
    if levels := stacked_levels(ds, dim):
        return sum(axis_of(level, _attrs(ds, level)) is not None for level in levels)
    if axis_of(dim, _attrs(ds, dim)) is not None:
        return 1
    if any(v.dims == (dim,) and grid_of_cells(ds, str(n)) for n, v in ds.variables.items()):
        return 2
    # Curvilinear grids: the dimension is one of the two of a 2-D latitude.
    return int(
        any(
            dim in variable.dims and variable.ndim == 2
            for name, variable in ds.variables.items()
            if variable.attrs.get("standard_name") == "latitude" or name in ("lat", "latitude")
        )
    )


def grid_of_cells(ds: xr.Dataset, name: str) -> dict[str, Any] | None:
    """Return the discrete global grid that a variable has the cells of, in words of xdggs."""
    # Decoded by xdggs, attributes are in the index.
    info = getattr(ds.xindexes.get(name), "grid_info", None)
    attrs = ds.variables[name].attrs if info is None else info.to_dict()
    known = str(attrs.get("grid_name")) in ("healpix", "h3")
    return {key: value for key, value in attrs.items() if key in _GRID} if known else None


def stacked_levels(obj: xr.Dataset | xr.DataArray, dim: Hashable) -> tuple[str, ...]:
    """Names of the levels of a stacked dimension; empty for any other."""
    # Not `obj.indexes`, which raises if any index is of a kind that pandas does not have.
    index = obj.xindexes.get(dim)
    return tuple(map(str, index.index.names)) if isinstance(index, PandasMultiIndex) else ()


def find_coordinate(
    ds: xr.Dataset, kind: Literal["latitude", "longitude"], dims: tuple[str, ...]
) -> str | None:
    """Name of the latitude or longitude [degree] of the sites on `dims`, or None."""
    tests = coordinate_criteria[kind].items()
    named = [
        name
        for name, variable in ds.variables.items()
        if any(variable.attrs.get(key) in words for key, words in tests)
    ]
    named.sort(key=lambda name: ds.variables[name].attrs.get("standard_name") != kind)
    spelled = {str(name).lower(): name for name in ds.variables}
    named += [spelled[word] for word in _PLACES[kind] if word in spelled]
    for name in named:
        variable = ds.variables[name]
        if variable.dtype.kind in "fiu" and set(map(str, variable.dims)) <= set(dims):
            return str(name)
    return None


def with_fixed_places(ds: xr.Dataset, time: str) -> xr.Dataset:
    """Return `ds` with latitude and longitude that files repeat at each time, as WRF's, but once.

    Those that change, of a nest that moves, stay: three times are looked at.
    """
    for kind in ("latitude", "longitude"):
        name = find_coordinate(ds, kind, tuple(map(str, ds.dims)))
        if name is not None and time in ds[name].dims and ds[name].ndim > 1:
            place = ds[name].isel({time: [0, ds.sizes[time] // 2, -1]})
            if bool((place == place.isel({time: 0})).all()):
                ds = ds.assign_coords({name: ds[name].isel({time: 0}, drop=True).variable})
    return ds


def is_geographic(ds: xr.Dataset, *, y: str, x: str, by_crs: bool = False) -> bool:
    """Whether `y` and `x` are true latitude and longitude.

    Parameters
    ----------
    ds : xarray.Dataset
    y, x : str
        Dimensions of a map.
    by_crs : bool
        The coordinate reference system is known to be geographic: then axes of any name are,
        unless they say that they are those of a rotated grid.
    """
    for dim, name in ((y, "latitude"), (x, "longitude")):
        attrs, words = _attrs(ds, dim), (name, name[:3])
        stated, units = attrs.get("standard_name"), coordinate_criteria[name]["units"]
        if stated is not None and stated != name:
            return False
        if not (by_crs or stated or attrs.get("units") in units or dim.lower() in words):
            return False
    return True


def grid_crs(ds: xr.Dataset, array: xr.DataArray) -> CRS | None:
    """Coordinate reference system of a map as its grid mapping states it, or None."""
    name, _ = _grid_mapping(ds, array)
    if name is None:
        return None
    attrs = ds.variables[name].attrs
    try:
        text = attrs.get("crs_wkt", attrs.get("spatial_ref"))
        return CRS.from_cf(attrs) if text is None else CRS.from_wkt(str(text))
    except (CRSError, KeyError, TypeError, ValueError):
        return None


def latitude_of(ds: xr.Dataset, *, crs: str, y: str, x: str) -> xr.DataArray:
    """Latitude [degrees north] of the cells of a map, float32 (y, x), from its CRS as WKT."""
    system = CRS.from_wkt(crs)
    transformer = Transformer.from_crs(system, "EPSG:4326", always_xy=True)
    axes = []
    for dim in (x, y):
        km = system.is_projected and ds[dim].attrs.get("units") == "km"
        axes.append(ds[dim].values.astype(float) * (1000.0 if km else 1.0))
    across, up = np.meshgrid(*axes)
    _, latitude = transformer.transform(across, up)
    # Outside of the projection's domain pyproj answers with infinity.
    latitude = np.where(np.isfinite(latitude), latitude, np.nan)
    return xr.DataArray(latitude.astype(np.float32), dims=(y, x))


def _grid_mapping(
    ds: xr.Dataset, array: xr.DataArray
) -> tuple[str | None, Literal["attrs", "encoding"]]:
    """Name of the grid mapping variable, and where the array keeps the reference to it."""
    place: Literal["attrs", "encoding"] = "attrs"
    reference = array.attrs.get("grid_mapping")
    if reference is None:
        reference = array.encoding.get("grid_mapping")
        place = "encoding"
    # The extended form "crs: x y" names its variable before the colon.
    name = str(reference).split(":")[0].strip() if reference else None
    if name is None:
        for candidate, variable in ds.variables.items():
            if "grid_mapping_name" in variable.attrs or candidate == "spatial_ref":
                name = str(candidate)
                break
    return (name if name in ds.variables else None), place


def output_coordinates(
    ds: xr.Dataset, array: xr.DataArray
) -> tuple[xr.Coordinates, str | None, Literal["attrs", "encoding"]]:
    """Coordinates of a result over the dimensions of `array`, and its grid mapping.

    They are those of `array`. The grid mapping joins them if the file does not call it a
    coordinate: without it the result would have lost its place.
    """
    name, place = _grid_mapping(ds, array)
    if name is not None and name not in array.coords:
        # gridMET gives its grid mapping a dimension of its own.
        mapping = ds.variables[name]
        if mapping.size:
            array = array.assign_coords({name: mapping.isel(dict.fromkeys(mapping.dims, 0))})
        else:
            name = None
    coords = array.coords.copy()
    for key in coords:
        if "bounds" in coords[key].attrs:
            # The bounds variable has a dimension that a DataArray cannot carry; a reference to
            # nothing is not CF.
            coords[key].attrs = {k: v for k, v in coords[key].attrs.items() if k != "bounds"}
    return coords, name, place
