"""Random datasets, most of them odd in several ways, and random arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import cftime
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from hypothesis import strategies as st
from xarray.indexes import NDPointIndex

Draw = Callable[[st.SearchStrategy[Any]], Any]
Change = Callable[[Draw, xr.Dataset], xr.Dataset]


class GraphError(Exception):
    """What a task of the dataset's own graph raises."""


# ---- arguments and attributes of all kinds

TEXT = st.sampled_from(
    ["", " ", "a", "%", "{", "mm d-1", "K", "air_temperature", "time", "lat", "site", "pr", "none",
     "latitude", "precipitation_flux", "time: mean", "time: sum", "1 2", "m s**", "days since 1970",
     "crs", "lat lon", "_xstefa", "∞", "a: b", "EPSG:4326", "X", "T", "Z", "timeSeries"]
)  # fmt: skip
ODD = st.one_of(
    TEXT,
    st.builds(
        lambda make: make(),
        st.sampled_from(
            [lambda: None, lambda: 3, lambda: -1, lambda: 2.5, lambda: float("nan"), lambda: True,
             lambda: [], lambda: ["a", "b"], lambda: ["air_temperature"], lambda: (1, 2),
             lambda: {}, lambda: {"a": 1}, lambda: {"a"}, lambda: object(), lambda: b"mm",
             lambda: b"\xff", lambda: 1j, lambda: np.array([1, 2]), lambda: np.array(["a", "b"]),
             lambda: np.array("K"), lambda: np.array([]), lambda: np.float32(2), lambda: np.nan,
             lambda: np.datetime64("2001-01-01"), lambda: pd.NaT, lambda: len, lambda: [["a"], 3],
             lambda: np.array([["K"]]), lambda: xr.DataArray([1.0, 2.0])]
        ),
    ),
)  # fmt: skip
NAMES = st.sampled_from(
    [0, 1, -1, 2.5, None, True, ("a", "b"), b"pr", "", " ", "a b", "a/b", "_xstefa", "coverage",
     "feature", "quantile", "frame", "time", "lat", "site", "streamflow", "soil_moisture", "PR",
     "training", "days", "axis_0", "variable", "step of the day", "job", "Time", "index",
     "precipitation", "sand", "spatial_ref", "x", "name", "dims", "observed"]
)  # fmt: skip
ATTRIBUTES = st.sampled_from(
    ["standard_name", "units", "cell_methods", "long_name", "description", "axis", "bounds",
     "climatology", "grid_mapping", "grid_mapping_name", "crs_wkt", "spatial_ref", "history",
     "calendar", "positive", "cf_role", "flag_meanings", "ancillary_variables", "featureType",
     "sample_dimension", "instance_dimension", "GRIB_stepType", "coordinates", "_FillValue",
     "scale_factor", "add_offset", "model_name", "model_hash", "source", "title", "valid_range",
     "missing_value", "dtype", "semi_major_axis", "comment", "_CoordinateAxisType"]
)  # fmt: skip
ENCODINGS = st.sampled_from(
    ["dtype", "units", "calendar", "_FillValue", "scale_factor", "add_offset", "chunks", "shards",
     "chunksizes", "preferred_chunks", "grid_mapping", "coordinates", "source", "zlib", "bounds",
     "compressors", "filters", "char_dim_name", "original_shape", "standard_name"]
)  # fmt: skip


# ---- good datasets

FORCINGS = {
    "pr": ("precipitation_flux", "mm d-1", 0.0, 20.0),
    "tas": ("air_temperature", "degC", -10.0, 25.0),
    "rsds": ("surface_downwelling_shortwave_flux_in_air", "W m-2", 20.0, 300.0),
}


@st.composite
def good_datasets(draw: Draw) -> xr.Dataset:
    """Draw a map, basins, a curvilinear or projected map, or one site, of 1 to 60 days."""
    kind = draw(st.sampled_from(["map", "basins", "curvilinear", "projected", "site"]))
    sites = {"map": ("lat", "lon"), "basins": ("site",), "site": ()}.get(kind, ("y", "x"))
    sizes = {dim: draw(st.sampled_from([1, 2, 3])) for dim in sites}
    days = draw(st.sampled_from([1, 2, 9, 60]))
    dims = draw(st.permutations(["time", *sites]))
    sizes["time"] = days
    rng = np.random.default_rng(0)
    ds = xr.Dataset(coords={"time": pd.date_range("2001-02-20", periods=days)})
    for name, (standard_name, units, low, high) in FORCINGS.items():
        values = rng.uniform(low, high, [sizes[d] for d in dims]).astype(np.float32)
        attrs = {"standard_name": standard_name, "units": units, "cell_methods": "time: mean"}
        ds[name] = (dims, values, attrs)
    for name, units in (("elevation", "m"), ("sand", "%"), ("catchment_area", "km2")):
        ds[name] = (sites, rng.uniform(1, 90, [sizes[d] for d in sites]), {"units": units})
    flow = rng.uniform(0, 1, [sizes[d] for d in dims])
    ds["soil_moisture"] = (dims, flow, {"units": "m3 m-3"})
    north, east = {"units": "degrees_north"}, {"units": "degrees_east"}
    if kind == "map":
        ds = ds.assign_coords(
            lat=("lat", 50.0 - np.arange(sizes["lat"]), north),
            lon=("lon", 5.0 + np.arange(sizes["lon"]), east),
        )
    elif kind == "curvilinear":
        y, x = np.meshgrid(np.arange(sizes["y"]), np.arange(sizes["x"]), indexing="ij")
        ds = ds.assign_coords(
            lat=(("y", "x"), 50.0 - y + 0.1 * x, north), lon=(("y", "x"), 5.0 + x, east)
        )
    elif kind == "projected":
        ds = ds.assign_coords(y=4e6 - 1e3 * np.arange(sizes["y"]), x=3e6 + 1e3 * np.arange(
            sizes["x"]))  # fmt: skip
        ds = ds.rio.write_crs("EPSG:3035")
    elif kind == "basins":
        ds = ds.assign_coords(
            lat=("site", 50.0 - np.arange(sizes["site"]), north),
            site=("site", [f"s{i}" for i in range(sizes["site"])], {"cf_role": "timeseries_id"}),
        )
    else:
        ds = ds.assign_coords(lat=((), 50.0, north))
    chunks = draw(st.sampled_from([None, {}, {"time": 7}, {dim: 1 for dim in sites}]))
    return ds if chunks is None else ds.chunk(chunks)


# ---- what is done to them


def _name(draw: Draw, ds: xr.Dataset) -> Any:
    return draw(st.sampled_from(list(ds.variables)))


def _dim(draw: Draw, ds: xr.Dataset) -> Any:
    return draw(st.sampled_from(list(ds.dims)))


def attributes(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Give variables, and the dataset, attributes of any kind."""
    for _ in range(draw(st.sampled_from([1, 2, 4]))):
        name = draw(st.sampled_from([None, None, *ds.variables]))
        described = ds if name is None else ds.variables[name]
        described.attrs[draw(ATTRIBUTES)] = draw(ODD)
    return ds


def history(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Give the dataset a history of any kind."""
    return ds.assign_attrs(history=draw(ODD))


def encodings(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Give variables encodings of any kind."""
    for _ in range(draw(st.sampled_from([1, 2, 4]))):
        ds.variables[_name(draw, ds)].encoding[draw(ENCODINGS)] = draw(ODD)
    return ds


def without(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Take away a variable, or its attributes."""
    name = _name(draw, ds)
    if draw(st.booleans()):
        return ds.drop_vars(name)
    ds[name].attrs = {}
    return ds


def renamed(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Give a variable or dimension another name, that need not be text."""
    names = [*ds.variables, *(d for d in ds.dims if d not in ds.variables)]
    return ds.rename({draw(st.sampled_from(names)): draw(NAMES)})


def further(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Add a variable or coordinate of any name, or one that is nearly the same as another."""
    copied = ds[_name(draw, ds)].variable.copy()
    name = draw(st.one_of(NAMES, TEXT, st.sampled_from(["pr_2", "PR", "tasmax", "swe", "prcp"])))
    return ds.assign_coords({name: copied}) if draw(st.booleans()) else ds.assign({name: copied})


def typed(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Make the values of a variable another type."""
    name = _name(draw, ds)
    kind = draw(
        st.sampled_from(
            ["i1", "i8", "u2", "?", "f2", "f8", "g", "c8", "U3", "S3", "O", "M8[ns]", "m8[ns]",
             "M8[s]", "m8[D]", "T", "V4", "category"]
        )
    )  # fmt: skip
    variable = ds[name].variable
    if kind == "category":
        changed = pd.Categorical(["a"] * variable.size)
    elif kind == "T":
        changed = variable.astype(str).astype(np.dtypes.StringDType())
    elif kind == "O" and draw(st.booleans()):
        values = np.empty(variable.shape, dtype=object)
        values[...] = draw(st.sampled_from([None, "a", "2001-01-01", 3, pd.Timestamp(0)]))
        changed = (variable.dims, values, variable.attrs)
    else:
        changed = variable.astype(kind)
    if name in ds.coords:
        return ds.assign_coords({name: changed})
    return ds.assign({name: changed})


def filled(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Make all values, or the first, of a variable odd."""
    name = _name(draw, ds)
    variable = ds[name].variable.astype(float)
    value = draw(st.sampled_from([np.nan, np.inf, -9999.0, 0.0, 1e30, -1e-40, 361.0]))
    if draw(st.booleans()) or variable.ndim == 0:
        variable = xr.full_like(variable, value)
    else:
        index = np.arange(variable.shape[0]) == 0
        variable = variable.where(xr.Variable(variable.dims[0], ~index), value)
    variable.attrs = ds[name].attrs
    return ds.assign_coords({name: variable}) if name in ds.coords else ds.assign({name: variable})


def scalar(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Make a variable, or a dimension, a single value."""
    if draw(st.booleans()):
        dim = _dim(draw, ds)
        return ds.isel({dim: 0}, drop=draw(st.booleans()))
    name = _name(draw, ds)
    value = draw(st.sampled_from([1, 1.5, True, "a", np.int8(2), np.datetime64("2001-01-01")]))
    return ds.drop_vars(name).assign({name: ((), value, ds[name].attrs)})


def selected(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Make a dimension empty, shorter, backwards, or twice as long."""
    dim = _dim(draw, ds)
    size = ds.sizes[dim]
    index = draw(
        st.sampled_from(
            [slice(0, 0), slice(0, 1), slice(None, None, -1), slice(None, None, 2),
             [*range(size), *range(size)], [0] * size, slice(1, None)]
        )
    )  # fmt: skip
    return ds.isel({dim: index})


def expanded(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Give a variable, or all, a further dimension."""
    dim = draw(st.sampled_from(["member", "depth", "lead", "layer", "height", "bnds", "crs"]))
    values = draw(
        st.sampled_from(
            [1, 0, 2, [0.5, 0.05], ["a", "b"], pd.to_timedelta([1, 2], "D"),
             pd.date_range("2001", periods=2), [np.nan, 1.0]]
        )
    )  # fmt: skip
    if draw(st.booleans()):
        return ds.expand_dims({dim: values})
    name = draw(st.sampled_from(list(ds.data_vars)))
    return ds.assign({name: ds[name].expand_dims({dim: values})})


def calendar(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Count the days in another way."""
    days = ds.sizes["time"]
    kind = draw(
        st.sampled_from(
            ["noleap", "360_day", "julian", "all_leap", "standard", "mixed", "tz", "period",
             "timedelta", "numbers", "undecoded", "text", "dates", "datetimes", "hours", "months",
             "s", "us", "nat", "far", "early", "float", "none", "mixed zones", "irregular", "noon",
             "two-dimensional", "auxiliary", "period month", "interval", "decreasing", "numpy"]
        )
    )  # fmt: skip
    dates = pd.date_range("2001-02-20", periods=days)
    odd = np.empty(days, dtype=object)
    attrs: dict[str, Any] = {}
    values: Any
    if kind in ("noleap", "360_day", "julian", "all_leap", "standard"):
        values = xr.date_range("2001-01-01", periods=days, calendar=kind, use_cftime=True)
    elif kind == "mixed":
        kinds = ["noleap", "360_day"]
        odd[:] = [cftime.datetime(2001, 1, 1, calendar=kinds[i % 2]) for i in range(days)]
        values = odd
    elif kind == "mixed zones":
        odd[:] = [pd.Timestamp(d, tz="UTC" if i % 2 else None) for i, d in enumerate(dates)]
        values = odd
    elif kind in ("dates", "datetimes"):
        odd[:] = [d.date() if kind == "dates" else d.to_pydatetime() for d in dates]
        values = odd
    elif kind == "two-dimensional":
        size = {dim: n for dim, n in ds.sizes.items() if dim != "time"}
        dim = next(iter(size), "other")
        block = np.tile(dates.values, (size.get(dim, 2), 1))
        return ds.drop_vars("time").assign_coords(time2=((dim, "time"), block))
    elif kind == "auxiliary":
        return ds.rename(time="day").assign_coords(date=("day", dates)).drop_vars("day")
    else:
        values, attrs = {
            "tz": (dates.tz_localize("Europe/Zurich"), {}),
            "period": (dates.to_period("D"), {}),
            "period month": (pd.period_range("2001-01", periods=days, freq="M"), {}),
            "timedelta": (pd.to_timedelta(np.arange(days), "D"), {}),
            "numbers": (np.arange(days), {}),
            "undecoded": (np.arange(days), {"units": "days since 2001-01-01"}),
            "float": (np.arange(days) / 3, {"units": "days since 2001-01-01", "calendar": "x"}),
            "text": ([str(d) for d in dates], {}),
            "hours": (pd.date_range("2001-01-01", periods=days, freq="3h"), {}),
            "months": (pd.date_range("2001-01-01", periods=days, freq="MS"), {}),
            "s": (dates.astype("M8[s]"), {}),
            "us": (dates.astype("M8[us]"), {}),
            "nat": (dates.where(np.arange(days) != days // 2), {}),
            "far": (np.datetime64("9999-12-01", "s") + np.arange(days) * 86400, {}),
            "early": (np.datetime64("-0300-12-01", "s") + np.arange(days) * 86400, {}),
            "none": ([None] * days, {}),
            "irregular": (dates + pd.to_timedelta(np.arange(days) ** 2, "D"), {}),
            "noon": (dates + pd.Timedelta("12h"), {}),
            "interval": (pd.interval_range(0, periods=days), {}),
            "decreasing": (dates[::-1], {}),
            "numpy": (np.array(dates, dtype="M8[D]"), {}),
        }[kind]
    return ds.drop_vars("time").assign_coords(time=("time", values, attrs))


def placed(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Put the sites elsewhere, or nowhere."""
    names = [n for n in ("lat", "lon", "y", "x", "site") if n in ds.variables]
    name = draw(st.sampled_from(names))
    size = ds[name].size
    values = draw(
        st.sampled_from(
            [np.arange(size), 360.0 - np.arange(size), np.full(size, np.nan), np.zeros(size),
             np.full(size, 1000.0), np.array(["a"] * size), np.array([b"a"] * size),
             np.array([None] * size), np.where(np.arange(size) == 0, np.nan, np.arange(size)),
             np.arange(size) % 2 == 0, np.array([1, "a"] * size, dtype=object)[:size],
             pd.date_range("2001", periods=size).values, np.arange(size) * 1j]
        )
    )  # fmt: skip
    old = ds[name]
    return ds.drop_vars(name).assign_coords(
        {name: (old.dims, values.reshape(old.shape), old.attrs)}
    )


def indexed(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Give the sites an index of another kind, or none."""
    kind = draw(st.sampled_from(["stack", "stack all", "point", "none", "levels", "swap"]))
    sites = [dim for dim in ds.dims if dim != "time"]
    if kind == "none":
        return ds.drop_indexes(list(ds.xindexes))
    if kind == "stack all":
        return ds.stack({"z": list(ds.dims)})
    if kind == "point":
        return ds.set_xindex(("lat", "lon"), NDPointIndex)
    if kind == "levels":
        return ds.set_xindex(["lat", "site"]) if draw(st.booleans()) else ds.set_xindex("lat")
    if kind == "swap":
        return ds.swap_dims({sites[0]: "lat"})
    return ds.stack({draw(st.sampled_from(["z", "site", "cell"])): sites})


def failing(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Make a variable a dask array whose tasks fail."""

    def fail(block: np.ndarray) -> np.ndarray:
        raise GraphError("no such file")

    name = draw(st.sampled_from(list(ds.data_vars)))
    variable = ds[name].variable.chunk()
    data = da.map_blocks(fail, variable.data, dtype=variable.dtype, meta=np.empty((0,) * 3))
    return ds.assign({name: (variable.dims, data, variable.attrs)})


def mapped(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Give the dataset a grid mapping that need not be one."""
    mapping = draw(
        st.sampled_from(
            [{"grid_mapping_name": "latitude_longitude"}, {"grid_mapping_name": "nonsense"},
             {"crs_wkt": "nonsense"}, {"spatial_ref": "EPSG:3035"}, {"grid_mapping_name": 3},
             {"grid_mapping_name": "lambert_conformal_conic", "standard_parallel": "a"},
             {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": [1]},
             {"crs_wkt": ["EPSG:4326"]}, {}]
        )
    )  # fmt: skip
    dims = draw(st.sampled_from([(), ("crs",), ("time",)]))
    values = np.zeros([ds.sizes.get(dim, 1) for dim in dims], "i4")
    ds = ds.assign({"crs": (dims, values, mapping)})
    for name in list(ds.data_vars):
        if name != "crs":
            ds[name].attrs["grid_mapping"] = draw(st.sampled_from(["crs", "crs: x y", "nothing"]))
    return ds


def emptied(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Take away all variables, or all but the coordinates."""
    return draw(st.sampled_from([xr.Dataset(), xr.Dataset(attrs={"a": 1}), ds[[]], ds[["sand"]]]))


def lazily(draw: Draw, ds: xr.Dataset) -> xr.Dataset:
    """Chunk one variable, or everything."""
    if draw(st.booleans()):
        return ds.chunk({_dim(draw, ds): draw(st.sampled_from([1, 2, -1, "auto"]))})
    name = draw(st.sampled_from(list(ds.data_vars)))
    return ds.assign({name: ds[name].chunk()})


CHANGES: tuple[Change, ...] = (
    attributes, history, encodings, without, renamed, further, typed, filled, scalar, selected,
    expanded, calendar, placed, indexed, failing, mapped, emptied, lazily,
)  # fmt: skip


@st.composite
def datasets(draw: Draw) -> xr.Dataset:
    """Draw a dataset to which up to four odd things were done."""
    ds = draw(good_datasets())
    for change in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4)):
        # What xarray itself refuses to make is no dataset.
        with contextlib.suppress(Exception):
            ds = change(draw, ds.copy())
    return ds
