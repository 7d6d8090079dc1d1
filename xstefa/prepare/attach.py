"""Static layers of any CRS, resolution and longitude convention onto the sites of a dataset."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from xstefa.arguments import checked
from xstefa.binding.geometry import find_coordinate, horizontal_dims
from xstefa.binding.places import with_places
from xstefa.binding.plain import noted
from xstefa.errors import LayoutError, OptionError, need
from xstefa.prepare.area_mean import area_mean
from xstefa.prepare.cells import WGS84, Cells, Map, axes_of, map_of

Choice: TypeAlias = Literal["average", "nearest"]


@checked
def attach(
    ds: xr.Dataset, static: xr.Dataset | xr.DataArray, *, resampling: Choice = "average"
) -> xr.Dataset:
    """Add static layers, of any grid, on the sites of this dataset.

    Parameters
    ----------
    static : Dataset or DataArray
        Maps of any CRS, resolution, direction, longitude convention and nodata value, such as
        ``rioxarray.open_rasterio(path).rename("elevation")``. The bands of a picture are one vector
        at each site, along their own dimension; where a band is not known, it alone is not.
    resampling : {"average", "nearest"}
        The mean over each cell, weighted by area (exact between grids of latitude and
        longitude or of one projection, by GDAL between projections); or the value at its
        centre, for classes. Stations always take the value of the cell they stand in.

    Returns
    -------
    Dataset
        This dataset with the layers under their own names, float32, NaN where unknown.

    Raises
    ------
    LayoutError
        If either has no place on Earth, they do not overlap, or layers have more dimensions than
        that of their bands.
    OptionError
        If a name is taken, or classes would be averaged.
    """
    layers = _layers(static, resampling)
    taken = [name for name in layers.data_vars if name in ds.variables]
    if taken:
        raise OptionError(
            "the dataset already has a variable of this name",
            variable=str(taken[0]),
            found=f"{', '.join(map(repr, taken))} in both",
            expected="new names",
            fix=f"static.rename({{{taken[0]!r}: '...'}}), or ds.drop_vars({taken!r}) first",
        )
    source = map_of(layers, what="static")
    bands = {str(n): tuple(map(str, layers[n].dims[:-2])) for n in layers.data_vars}
    for name, (band,) in ((name, dims) for name, dims in bands.items() if dims):
        if ds.sizes.get(band, layers.sizes[band]) != layers.sizes[band]:
            raise OptionError(
                "the dataset already has a dimension of this name, of another size",
                variable=name,
                found=f"{layers.sizes[band]} bands along {band!r}, and {ds.sizes[band]} in ds",
                expected="a name of their own",
                fix=f"static.rename({{{band!r}: '{name}_{band}'}})",
            )
    axes = horizontal_dims(ds, tuple(map(str, ds.dims)))
    over = map_of(ds, what="ds") if axes is not None else None
    if over is not None and resampling == "average":
        dims: tuple[str, ...] = (over.y, over.x)
        attached = {str(name): _average(layers[name], source, over) for name in layers}
    else:
        dims, x, y = _places(ds, over, source.crs, resampling)
        attached = {str(name): _nearest(layers[name], source, x, y) for name in layers}
    if all(bool(np.isnan(data).all()) for data in attached.values()):
        raise LayoutError(
            "the static layers do not cover the dataset",
            variable=str(next(iter(attached))),
            found=f"layers over {source.extent}",
            expected="layers that overlap the sites of the dataset",
            fix="check the coordinate reference system of both: static.rio.crs, ds.rio.crs",
        )
    new = {}
    mapping = _grid_mapping_reference(ds, axes)
    for name, data in attached.items():
        attrs = {k: v for k, v in layers[name].attrs.items() if k not in _OF_THE_SOURCE}
        if resampling == "average" and axes is not None:
            attrs["cell_methods"] = "area: mean"
        new[name] = xr.Variable((*dims, *bands[name]), data, attrs | mapping)
    labels = {b: layers[b] for (b,) in filter(None, bands.values()) if b in layers.coords}
    result = ds.assign(new).assign_coords({b: x for b, x in labels.items() if b not in ds.coords})
    line = f"xstefa: attached {', '.join(new)} ({resampling})"
    result.attrs["history"] = noted(ds, line)
    return result


# Dimensions, and kinds of coordinates, along which a layer is no vector but changes with time.
_TIMES = {"time", "month", "season", "year", "day", "date", "doy", "dayofyear", "week", "M"}

_PACKING = ("scale_factor", "add_offset")
# Attributes that describe the source's storage or place, not the quantity.
_OF_THE_SOURCE = {
    "grid_mapping", "_FillValue", "missing_value", "coordinates", "cell_methods", "cell_measures",
    "AREA_OR_POINT", *_PACKING,
}  # fmt: skip


def _grid_mapping_reference(ds: xr.Dataset, axes: tuple[str, str] | None) -> dict[str, str]:
    """Return the reference to the grid mapping as the maps of `ds` have it in their attributes."""
    if axes is not None:
        for array in ds.data_vars.values():
            if set(axes) <= set(map(str, array.dims)) and "grid_mapping" in array.attrs:
                return {"grid_mapping": str(array.attrs["grid_mapping"])}
    return {}


# ---- what is given


def _layers(static: xr.Dataset | xr.DataArray, resampling: Choice) -> xr.Dataset:
    """Return the maps of `static`, (y, x) or (band, y, x), as floats; NaN without data."""
    # rioxarray registers the accessor .rio.
    need("raster", "rioxarray", job="reading maps in their coordinate reference systems")
    if isinstance(static, xr.DataArray):
        if static.name is None:
            raise OptionError(
                "the static layer has no name",
                variable="static",
                found="a DataArray without name",
                expected="the name under which it is to be known",
                fix="static.rename('elevation')",
            )
        static = static.to_dataset(promote_attrs=False)
    fix = "static = rioxarray.open_rasterio(path, masked=True), or name the axes: X and Y"
    axes = axes_of(static, what="static", fix=fix)
    maps = {n: a for n, a in static.data_vars.items() if set(axes) <= set(map(str, a.dims))}
    cleaned = {}
    for name, array in maps.items():
        single = {dim: 0 for dim in array.dims if dim not in axes and array.sizes[dim] == 1}
        array = array.isel(single, drop=True)
        more = [dim for dim in array.dims if dim not in axes]
        if len(more) > 1 or any(_TIMES & {str(d).lower(), array[d].dtype.kind} for d in more):
            raise LayoutError(
                "a static layer has one value for each cell, or a vector of bands",
                variable=str(name),
                found=" and ".join(f"{array.sizes[dim]} values along {str(dim)!r}" for dim in more),
                expected=f"dimensions {axes}, and at most one of bands",
                fix=f"choose one, static.isel({more[0]}=0), or average: "
                f"static.mean({str(more[0])!r})",
            )
        classes = "flag_meanings" in array.attrs or array.dtype.kind not in "fiub"
        if classes and resampling == "average":
            raise OptionError(
                "classes have no average",
                variable=str(name),
                found="flags or text",
                expected="a quantity",
                fix=f"resampling='nearest', or leave it out: static.drop_vars({str(name)!r})",
            )
        nodata = array.rio.set_spatial_dims(axes[1], axes[0]).rio.nodata
        if nodata is not None and not np.isnan(nodata):
            array = array.where(array != nodata)
        scale, offset = (array.attrs.get(key, 1 - i) for i, key in enumerate(_PACKING))
        if (scale, offset) != (1, 0):
            # Opened without mask_and_scale: the numbers are those of the file, not yet the values.
            array = (array * scale + offset).assign_attrs(array.attrs)
        cleaned[name] = array.transpose(..., *axes)
    return (
        static.drop_vars([n for n in static.data_vars if n in maps])
        .assign(cleaned)[list(cleaned)]
        .assign_coords({n: static[n] for n in static.variables if static[n].ndim == 0})
    )


# ---- averages over the cells of a map


def _average(layer: xr.DataArray, source: Map, target: Map) -> NDArray[np.float32]:
    """Return the area-weighted mean over cells: exact in one system, else by GDAL.

    Bands come last.
    """
    if not _same(source.crs, target.crs):
        # Bands one by one: GDAL would lose a pixel of all where one is not known.
        bands = [_warped(each, source, target) for each in (layer if layer.ndim == 3 else [layer])]
        found = np.stack(bands) if layer.ndim == 3 else bands[0]
    else:
        found = area_mean(
            layer,
            y=source.rows,
            x=source.columns,
            over_y=target.rows,
            over_x=target.columns,
            sphere=source.columns.period is not None,
        )
    return found if found.ndim == 2 else np.moveaxis(found, 0, -1)


def _same(one: CRS, other: CRS) -> bool:
    # Between geographic systems on different ellipsoids cells differ by metres.
    plain = [crs.is_geographic and not crs.is_derived for crs in (one, other)]
    return all(plain) or one == other


def _warped(layer: xr.DataArray, source: Map, target: Map) -> NDArray[np.float32]:
    """Return the area-weighted mean over cells of another projection, by GDAL."""
    from rasterio.enums import Resampling
    from rasterio.transform import from_bounds

    for grid, what in ((source, "static"), (target, "ds")):
        fix = "bring both to one system first: static.rio.reproject('EPSG:4326')"
        grid.check_regular(what=what, fix=fix)
    if source.columns.period is not None:
        # GDAL expects -180..180.
        centre = (layer[source.x] + 180) % 360 - 180
        layer = layer.assign_coords({source.x: centre}).sortby(source.x)
    layer = layer.rename({source.y: "y", source.x: "x"}).astype(np.float32)
    layer = layer.drop_vars([n for n in layer.coords if n not in ("x", "y")])
    layer = layer.rio.write_crs(source.crs.to_wkt()).rio.write_nodata(np.nan)
    rows, columns = target.rows, target.columns
    shape = len(rows.low), len(columns.low)
    transform = from_bounds(
        columns.low.min(), rows.low.min(), columns.high.max(), rows.high.max(), *shape[::-1]
    )
    warped = layer.rio.reproject(
        target.crs.to_wkt(),
        shape=shape,
        transform=transform,
        resampling=Resampling.average,
        nodata=np.nan,
    ).values.astype(np.float32)
    # Rows of the raster run from the top, columns from the left.
    warped = warped[::-1] if rows.ascending else warped
    return warped if columns.ascending else warped[:, ::-1]


# ---- values at places


def _places(
    ds: xr.Dataset, over: Map | None, crs: CRS, resampling: Choice
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Return the dimensions of the sites, cells or stations, and their x and y in another CRS."""
    ds = with_places(ds)
    dims = tuple(map(str, ds.dims))
    names = [find_coordinate(ds, "latitude", dims), find_coordinate(ds, "longitude", dims)]
    if over is not None:
        names = [over.y, over.x]
    if None in names:
        raise LayoutError(
            "the sites of the dataset have no place",
            variable=", ".join(dims) or "ds",
            found="no latitude and longitude",
            expected="latitude and longitude of each site, or the coordinates of a map",
            fix="ds = ds.assign_coords(lat=(site, [...]), lon=(site, [...]))",
        )
    y, x = xr.broadcast(*(ds[name] for name in names))
    if over is None and y.ndim > 1 and resampling == "average":
        raise LayoutError(
            "cells of a curvilinear grid have no edges to average between",
            variable=str(y.name),
            found=f"latitudes over ({', '.join(map(str, y.dims))})",
            expected="a grid with one coordinate for each dimension",
            fix="resampling='nearest', or give the projection's own y and x, and its CRS",
        )
    at = x.values.astype(float), y.values.astype(float)
    own = WGS84 if over is None else over.crs
    if not _same(own, crs):
        at = Transformer.from_crs(own, crs, always_xy=True).transform(*at)
    return tuple(map(str, y.dims)), *at


def _nearest(
    layer: xr.DataArray, source: Map, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Value of the cell that contains each point, its bands last; NaN outside."""
    row, inside_y = _cell(source.rows, y)
    column, inside_x = _cell(source.columns, x)
    dims = [f"_{n}" for n in range(np.ndim(x))]
    picked = layer.isel(
        {source.y: xr.DataArray(row, dims=dims), source.x: xr.DataArray(column, dims=dims)}
    )
    values = picked.transpose(*dims, ...).values.astype(np.float32)
    inside = (inside_y & inside_x).reshape(*np.shape(x), *[1] * (values.ndim - np.ndim(x)))
    return np.where(inside, values, np.float32(np.nan))


def _cell(cells: Cells, point: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Index of the cell that contains each point, and whether one does."""
    low, high = cells.low, cells.high
    if not cells.ascending:
        low, high = low[::-1], high[::-1]
    if cells.period is not None:
        point = low[0] + (point - low[0]) % cells.period
    index = np.clip(np.searchsorted(low, point, side="right") - 1, 0, len(low) - 1)
    inside = (point >= low[index]) & (point <= high[index])
    return (index if cells.ascending else len(low) - 1 - index), inside
