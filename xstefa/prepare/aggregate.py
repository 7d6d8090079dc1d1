"""From a map to basins: area-weighted means over polygons, with the exact share of every cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.binding.packing import decoded
from xstefa.binding.plain import noted
from xstefa.errors import LayoutError, OptionError, XstefaWarning, need, warn
from xstefa.prepare.cells import REGULAR, Map, map_of

if TYPE_CHECKING:
    import geopandas

    Polygons: TypeAlias = geopandas.GeoDataFrame | geopandas.GeoSeries | str | PathLike[str]

BASIN = "basin"

# As many polygons outside of the map are named.
_NAMED = 20


class OutsideWarning(XstefaWarning):
    """Polygons lie outside of the map, and were dropped."""


@checked
def aggregate(
    ds: xr.Dataset,
    polygons: Polygons,
    *,
    by: str | None = None,
    outside: Literal["raise", "drop"] = "raise",
    geometry: bool = False,
) -> xr.Dataset:
    """Average a map over basins, each cell weighted by its area inside the polygon.

    Needs the packages of the extra ``vector``: exactextract and geopandas.

    Parameters
    ----------
    polygons : GeoDataFrame, GeoSeries or path
        Basin outlines in any coordinate reference system.
    by : str, optional
        Column of identifiers; by default the index.
    outside : {"raise", "drop"}
        What to do about polygons that no cell of the map touches: refuse them, or drop them
        with a warning that names them.
    geometry : bool
        Keep the outlines, in their own reference system, as the coordinate ``geometry`` of the
        basins; with the index of xvec if that is installed. Files cannot hold them as they are.

    Returns
    -------
    Dataset
        Dimensions ``basin`` and those of the dataset but for its map; lazy where the dataset
        is. With `catchment_area` of the polygons, `grid_coverage` (the share of each polygon
        that lies on the map), and latitude and longitude of a point inside. Missing cells do
        not count; classes are left out, and named in the history.

    Raises
    ------
    MissingExtraError
        If the packages of the extra are not installed.
    LayoutError, OptionError
        If the dataset is no regular map, or a polygon lies outside of it.
    """
    need("vector", "exactextract", "geopandas", job="averaging over polygons", variable="aggregate")
    ds = decoded(ds)
    basins = _basins(polygons, by)
    fix = "for sites that are basins already, predict without aggregating"
    grid = map_of(ds, what="ds", fix=fix)
    grid.check_regular(what="ds", fix="ds.interp(lat=..., lon=...) to a regular grid first")
    shares = _shares(grid, basins, drop=outside == "drop")
    basins, dropped = basins[shares.inside], basins.index[~shares.inside]
    fields, other, left_out = {}, {}, []
    for name, array in ds.data_vars.items():
        dims = {grid.y, grid.x} & set(map(str, array.dims))
        if not dims:
            other[name] = array
        elif len(dims) == 2 and array.dtype.kind in "fiu" and "flag_meanings" not in array.attrs:
            fields[name] = _average(array, grid, shares)
        else:
            left_out.append(str(name))
    result = xr.Dataset(fields | other, attrs=ds.attrs)
    result = result.drop_vars(
        [n for n, c in result.coords.items() if c.attrs.get("grid_mapping_name")] + ["spatial_ref"],
        errors="ignore",
    )
    result = result.assign_coords(_places(basins)).assign(_sizes(basins, shares))
    if geometry:
        result = _with_outlines(result, basins)
    result.attrs["featureType"] = "timeSeries"
    line = f"xstefa: area-weighted means over {len(basins)} polygons"
    line += f"; left out: {', '.join(left_out)}" if left_out else ""
    line += f"; outside of the map: {_names(dropped)}" if len(dropped) else ""
    result.attrs["history"] = noted(ds, line)
    return result


# ---- polygons


def _basins(polygons: Polygons, by: str | None) -> geopandas.GeoDataFrame:
    """Return the polygons, indexed by distinct identifiers."""
    import geopandas

    if isinstance(polygons, str | PathLike):
        try:
            polygons = geopandas.read_file(polygons)
        except (OSError, RuntimeError, ValueError) as error:
            raise OptionError(
                "the polygons cannot be read",
                variable="polygons",
                found=str(error),
                expected="a file that geopandas.read_file opens",
                fix="correct the path, or give a GeoDataFrame",
            ) from error
    if isinstance(polygons, geopandas.GeoSeries):
        polygons = polygons.to_frame("geometry")
    if not isinstance(polygons, geopandas.GeoDataFrame) or polygons.active_geometry_name is None:
        raise OptionError(
            "polygons come as a GeoDataFrame, a GeoSeries or the path of a file",
            variable="polygons",
            found=type(polygons).__name__,
            expected="basin outlines with a coordinate reference system",
            fix="polygons = geopandas.read_file(path)",
        )
    if by is not None:
        if by not in polygons.columns:
            raise OptionError(
                "by names a column that the polygons do not have",
                variable="by",
                found=repr(by),
                expected=f"one of {', '.join(map(str, polygons.columns))}",
                fix="by='<column of identifiers>', or leave it out to take the index",
            )
        polygons = polygons.set_index(by)
    if polygons.empty:
        raise OptionError(
            "there are no polygons",
            variable="polygons",
            found="an empty table",
            expected="at least one basin",
            fix="check the file and the selection made from it",
        )
    if polygons.crs is None:
        raise LayoutError(
            "the polygons have no coordinate reference system",
            variable="polygons",
            found="crs None",
            expected="the system of their coordinates",
            fix="polygons = polygons.set_crs('EPSG:4326')   # or what it really is",
        )
    if not polygons.index.is_unique:
        twice = polygons.index[polygons.index.duplicated()][0]
        raise OptionError(
            "two polygons have the same identifier",
            variable="by" if by else "polygons",
            found=f"{twice!r} twice",
            expected="one polygon for each basin",
            fix=f"polygons = polygons.dissolve({by!r})"
            if by
            else "name a column of identifiers: by='...'",
        )
    wrong = ~polygons.geom_type.isin(["Polygon", "MultiPolygon"]) | polygons.geometry.is_empty
    if wrong.any():
        raise OptionError(
            "not an area",
            variable=str(polygons.index[wrong][0]),
            found=str(polygons.geom_type[wrong].iloc[0] or "an empty geometry"),
            expected="polygons",
            fix="polygons = polygons[polygons.geom_type.isin(['Polygon', 'MultiPolygon'])]",
        )
    if not (sound := polygons.is_valid).all():
        raise OptionError(
            "outlines that cross or touch themselves have no area to speak of",
            variable=", ".join(map(str, polygons.index[~sound][:4])),
            found=f"{int((~sound).sum())} of {len(polygons)} outlines are not valid",
            expected="outlines whose inside is where it is meant to be",
            fix="polygons = polygons.set_geometry(polygons.make_valid())   # and look at them",
        )
    return polygons


def _places(basins: geopandas.GeoDataFrame) -> dict[str, xr.Variable]:
    inside = basins.geometry.representative_point().to_crs("EPSG:4326")
    names = np.asarray(basins.index.astype(str), dtype=str)
    places = {BASIN: xr.Variable(BASIN, names, {"long_name": "basin", "cf_role": "timeseries_id"})}
    for name, values, kind, units in (
        ("lat", inside.y, "latitude", "degrees_north"),
        ("lon", inside.x, "longitude", "degrees_east"),
    ):
        attrs = {
            "standard_name": kind,
            "units": units,
            "long_name": f"{kind} of a point in the basin",
        }
        places[name] = xr.Variable(BASIN, values.to_numpy(), attrs)
    return places


def _with_outlines(ds: xr.Dataset, basins: geopandas.GeoDataFrame) -> xr.Dataset:
    shapes = basins.geometry.to_numpy()
    ds = ds.assign_coords(geometry=(BASIN, shapes, {"crs": basins.crs}))
    try:
        from xvec import GeometryIndex
    except ImportError:
        return ds
    return ds.set_xindex("geometry", GeometryIndex, crs=basins.crs)


def _sizes(basins: geopandas.GeoDataFrame, shares: _Shares) -> dict[str, xr.Variable]:
    from shapely.geometry.polygon import orient

    geod = basins.crs.get_geod()
    outlines = basins.to_crs(basins.crs.geodetic_crs).geometry
    # Turned the same way, or the parts of an outline would be subtracted from each other.
    parts = [map(orient, getattr(shape, "geoms", [shape])) for shape in outlines]
    area = [sum(abs(geod.geometry_area_perimeter(p)[0]) for p in each) / 1e6 for each in parts]
    return {
        "catchment_area": xr.Variable(
            BASIN, np.array(area), {"long_name": "area of the polygon", "units": "km2"}
        ),
        "grid_coverage": xr.Variable(
            BASIN, shares.covered, {"long_name": "share of the polygon on the map", "units": "1"}
        ),
    }


# ---- cells


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shares:
    """The cells of all polygons on the map, one polygon after the other.

    Parameters
    ----------
    cells : int64 array (n,)
        Positions in the flattened map (y, x).
    weights : float64 array (n,)
        Area of the part of the cell inside the polygon.
    starts : int64 array (polygon,)
        Where each polygon begins in `cells`.
    covered : float64 array (polygon,)
        Share of the polygon's area that lies on the map.
    inside : bool array
        Which of the polygons given have any cell.
    """

    cells: NDArray[np.int64]
    weights: NDArray[np.float64]
    starts: NDArray[np.int64]
    covered: NDArray[np.float64]
    inside: NDArray[np.bool_]


def _names(index: pd.Index) -> str:
    more = f" and {len(index) - _NAMED} more" if len(index) > _NAMED else ""
    return ", ".join(map(str, index[:_NAMED])) + more


def _shares(grid: Map, basins: geopandas.GeoDataFrame, *, drop: bool) -> _Shares:
    import shapely
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    shapes = basins.to_crs(grid.crs.to_wkt()).geometry
    rows, columns = grid.rows, grid.columns
    west, shapes = _one_convention(grid, shapes)
    from_top, from_left = np.argsort(-rows.low), np.argsort(west)
    height, width = len(from_top), len(from_left)
    size_x, size_y = columns.high[0] - columns.low[0], rows.high[0] - rows.low[0]
    raster = NumPyRasterSource(
        np.zeros((height, width), np.int8),
        xmin=west.min(),
        ymin=rows.low.min(),
        xmax=west.min() + width * size_x,
        ymax=rows.low.min() + height * size_y,
        srs_wkt=grid.crs.to_wkt(),
    )
    table = exact_extract(
        raster, shapes.to_frame("geometry"), ["cell_id", "coverage"], output="pandas"
    )
    found = table["coverage"].map(np.sum).to_numpy(dtype=float) * size_x * size_y
    inside = found > 0
    if not inside.all():
        names = _names(basins.index[~inside])
        if not (drop and inside.any()):
            raise LayoutError(
                "polygons lie outside of the map",
                variable=names,
                found=f"{int((~inside).sum())} of {len(basins)} polygons without any cell",
                expected=f"polygons within {grid.extent}",
                fix="check the coordinate reference systems, polygons.crs"
                + (", or leave these out: outside='drop'" if inside.any() else ""),
            )
        warn(OutsideWarning(f"these polygons lie outside of the map and were dropped: {names}"))
    table, shapes, found = table[inside], shapes[inside], found[inside]
    counts = table["cell_id"].map(len).to_numpy()
    ids = np.concatenate(table["cell_id"].to_list()).astype(np.int64)
    row, column = from_top[ids // width], from_left[ids % width]
    area = rows.high[row] - rows.low[row]
    if columns.period is not None:
        area = np.sin(np.deg2rad(rows.high[row])) - np.sin(np.deg2rad(rows.low[row]))
    return _Shares(
        cells=row * width + column,
        weights=np.concatenate(table["coverage"].to_list()) * area,
        starts=np.concatenate([[0], np.cumsum(counts)[:-1]]),
        # Both areas are in the coordinates of the map; geopandas would warn of degrees.
        covered=np.minimum(found / shapely.area(shapes.to_numpy()), 1.0),
        inside=inside,
    )


def _one_convention(
    grid: Map, shapes: geopandas.GeoSeries
) -> tuple[NDArray[np.float64], geopandas.GeoSeries]:
    """Return western edges of the columns and polygons, both with the same longitudes."""
    columns = grid.columns
    if columns.period is None:
        return columns.low, shapes
    # Polygons are in -180..180, and so is a map that stays in one piece when it is moved there.
    west = (columns.low + 180.0) % 360.0 - 180.0
    steps = np.diff(np.sort(west))
    if np.allclose(steps, (columns.high - columns.low)[0], rtol=REGULAR):
        return west, shapes
    behind = shapes.bounds["maxx"] <= columns.low.min()
    return columns.low, shapes.where(~behind, shapes.translate(xoff=360.0))


# ---- means


def _average(array: xr.DataArray, grid: Map, shares: _Shares) -> xr.DataArray:
    core: Sequence[str] = (grid.y, grid.x)
    if array.chunks is not None:
        array = array.chunk(dict.fromkeys(core, -1))
    result = xr.apply_ufunc(
        _means,
        array,
        kwargs={"shares": shares},
        input_core_dims=[core],
        output_core_dims=[[BASIN]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {BASIN: len(shares.starts)}},
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    spatial = {"grid_mapping", "cell_measures"}
    attrs = {name: value for name, value in array.attrs.items() if name not in spatial}
    methods = str(attrs.get("cell_methods", ""))
    if "area: mean" not in methods:
        attrs["cell_methods"] = f"area: mean {methods}".strip()
    result.attrs = attrs
    return result.transpose(BASIN, ...)


def _means(block: NDArray[np.generic], *, shares: _Shares) -> NDArray[np.float32]:
    """Average (..., y, x) over each polygon: (..., polygon); NaN does not count."""
    flat = block.reshape(*block.shape[:-2], -1)[..., shares.cells].astype(np.float64)
    known = np.isfinite(flat)
    total = np.add.reduceat(np.where(known, flat, 0.0) * shares.weights, shares.starts, axis=-1)
    weight = np.add.reduceat(known * shares.weights, shares.starts, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan).astype(np.float32)
