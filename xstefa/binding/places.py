"""Sites without latitude and longitude that say all the same where they are.

Cells of a discrete global grid do by their numbers, with what xdggs has in an index or in
attributes; geometries by their coordinates, as xvec has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from xstefa.binding.geometry import find_coordinate, grid_of_cells
from xstefa.errors import LayoutError, need

Centres: TypeAlias = Callable[[NDArray[Any]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Makes latitudes and longitudes [degree] of values of a coordinate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The coordinate `name`, and what makes latitudes and longitudes of it."""

    name: str
    centres: Centres

    def latitude(self, ds: xr.Dataset) -> xr.DataArray:
        """Return the latitude [degrees north] of sites, float32; lazy where the coordinate is."""
        found = xr.apply_ufunc(
            lambda values: self.centres(values)[0].astype(np.float32),
            ds.variables[self.name],
            dask="parallelized",
            output_dtypes=[np.float32],
        )
        return xr.DataArray(found)


def find_places(ds: xr.Dataset, dims: tuple[str, ...]) -> Places | None:
    """Return where the sites along one of `dims`, or the only one, are; or None.

    Raises
    ------
    MissingExtraError
        If xdggs is needed and not installed.
    LayoutError
        If the grid, or the coordinate reference system, is unknown.
    """
    for key, variable in ds.variables.items():
        name = str(key)
        if variable.ndim > 1 or not {*variable.dims} <= {*dims}:
            continue
        if (grid := grid_of_cells(ds, name)) is not None:
            return Places(name=name, centres=_of_cells(grid, name))
        if name in ds.coords and is_geometry(variable):
            return Places(name=name, centres=_of_shapes(ds, name))
    return None


def with_places(ds: xr.Dataset) -> xr.Dataset:
    """Return `ds` with latitude and longitude of the sites; `ds` itself if nothing is to be added.

    Raises
    ------
    MissingExtraError, LayoutError
        As `find_places` does.
    """
    dims = tuple(map(str, ds.dims))
    if find_coordinate(ds, "latitude", dims) or find_coordinate(ds, "longitude", dims):
        return ds
    if (places := find_places(ds, dims)) is None:
        return ds
    where = ds.variables[places.name]
    latitude, longitude = places.centres(where.values)
    return ds.assign_coords(
        latitude=(where.dims, latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        longitude=(where.dims, longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    )


def is_geometry(variable: xr.Variable) -> bool:
    """Whether a variable holds shapes: it says their system, or is in memory and has one."""
    if variable.dtype != object or not variable.size:
        return str(variable.dtype) == "geometry"  # of geopandas
    held = variable._in_memory and hasattr(variable.values.flat[0], "geom_type")
    return held or "crs" in variable.attrs


def _of_cells(grid: Mapping[str, Any], name: str) -> Centres:
    job = f"finding the places of {grid['grid_name']} cells, which have no latitude and longitude,"
    need("cells", "xdggs", job=job, variable=name)
    import xdggs

    kinds = {"healpix": xdggs.HealpixInfo, "h3": xdggs.H3Info}
    try:
        info = kinds[grid["grid_name"]].from_dict(dict(grid))
    except (KeyError, TypeError, ValueError) as error:
        raise LayoutError(
            "cells of a grid that is not understood",
            variable=name,
            found=f"{dict(grid)}: {error}",
            expected=f"attributes as of xdggs: grid_name ({' or '.join(kinds)}), level",
            fix=f"ds[{name!r}].attrs |= {{'grid_name': 'healpix', 'level': 8, "
            "'indexing_scheme': 'nested'}   # or what it is",
        ) from error
    return partial(_centres, info=info)


def _centres(ids: NDArray[Any], *, info: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    longitude, latitude = info.cell_ids2geographic(np.atleast_1d(ids))
    return latitude.reshape(ids.shape), longitude.reshape(ids.shape)


def _of_shapes(ds: xr.Dataset, name: str) -> Centres:
    crs = getattr(ds.xindexes.get(name), "crs", None) or ds[name].attrs.get("crs")
    if crs is None:
        raise LayoutError(
            "the geometries have no coordinate reference system",
            variable=name,
            found="no crs of its index, nor of its attributes",
            expected="the system of their coordinates, or latitude and longitude beside them",
            fix=f"ds[{name!r}].attrs['crs'] = 'EPSG:4326'   # or what it really is",
        )
    return partial(_inside, crs=CRS.from_user_input(crs).to_wkt())


def _inside(shapes: NDArray[Any], *, crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a point of each shape, as `aggregate` does."""
    import shapely

    points = shapely.point_on_surface(shapes)
    transformer = Transformer.from_crs(CRS.from_wkt(crs), "EPSG:4326", always_xy=True)
    longitude, latitude = transformer.transform(shapely.get_x(points), shapely.get_y(points))
    return np.asarray(latitude), np.asarray(longitude)
