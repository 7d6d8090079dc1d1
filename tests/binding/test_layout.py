import cftime
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import bind
from xstefa.errors import BindingErrors, CalendarError, LayoutError


def grid(dims=("time", "lat", "lon"), *, days=4, coords=None, sizes=None):
    sizes = {"time": days, "lat": 3, "lon": 5, "y": 3, "x": 5} | (sizes or {})
    shape = tuple(sizes[dim] for dim in dims)

    def variable(**attrs):
        return xr.Variable(dims, np.ones(shape, np.float32), attrs)

    return xr.Dataset(
        {
            "pr": variable(units="mm d-1", standard_name="lwe_precipitation_rate"),
            "tas": variable(units="degC", standard_name="air_temperature"),
        },
        coords={"time": pd.date_range("2000-02-27", periods=days)} | (coords or {}),
    )


def lat_lon(**attrs):
    return {
        "lat": ("lat", [50.0, 40.0, 30.0], {"units": "degrees_north", "axis": "Y"} | attrs),
        "lon": ("lon", [0.0, 90.0, 180.0, 270.0, 359.0], {"units": "degrees_east", "axis": "X"}),
    }


def wrapped(ds, schema, **attrs):
    layout = bind(ds, schema).layout
    shape = tuple(ds["pr"].sizes[dim] for dim in layout.dims)
    return layout.wrap(np.zeros(shape, np.float32), name="soil_moisture", attrs=attrs)


def test_days_count_from_1970_and_leap_days_are_days(schema):
    layout = bind(grid(coords=lat_lon()), schema).layout
    assert layout.days.dtype == np.int64
    assert layout.days.tolist() == [11014, 11015, 11016, 11017]
    assert pd.Timestamp("1970-01-01") + pd.Timedelta(days=11016) == pd.Timestamp("2000-02-29")


def test_a_time_of_day_does_not_move_the_day(schema):
    ds = grid(coords=lat_lon())
    noon = ds.assign_coords(time=ds["time"] + np.timedelta64(12, "h"))
    assert bind(noon, schema).layout.days.tolist() == [11014, 11015, 11016, 11017]


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [("noleap", [0, 1, 2]), ("360_day", [0, 1, 2]), ("standard", [0, 1, 2])],
)
def test_cftime_calendars_count_their_own_days(schema, calendar, expected):
    ds = grid(coords=lat_lon(), days=3)
    times = xr.date_range("2000-02-28", periods=3, calendar=calendar, use_cftime=True)
    layout = bind(ds.assign_coords(time=times), schema).layout
    first = cftime.date2num(times[0], "days since 1970-01-01", calendar=calendar)
    assert (layout.days - first).tolist() == expected
    assert layout.calendar == calendar


def test_noon_of_a_cftime_calendar_is_its_day(schema):
    times = [cftime.DatetimeNoLeap(2000, 3, day, 12) for day in (1, 2, 3, 4)]
    layout = bind(grid(coords=lat_lon()).assign_coords(time=times), schema).layout
    first = cftime.date2num(
        cftime.DatetimeNoLeap(2000, 3, 1), "days since 1970-01-01", calendar="noleap"
    )
    assert layout.days.tolist() == [first, first + 1, first + 2, first + 3]


def test_gaps_are_allowed(schema):
    ds = grid(coords=lat_lon(), days=6).isel(time=[0, 1, 4, 5])
    assert np.diff(bind(ds, schema).layout.days).tolist() == [1, 3, 1]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda ds: ds.isel(time=[1, 0, 2, 3]), CalendarError, r"order[\s\S]*sortby\('time'\)"),
        (lambda ds: ds.isel(time=[0, 1, 1, 2]), CalendarError, r"twice[\s\S]*drop_duplicates"),
        (
            lambda ds: ds.assign_coords(time=pd.date_range("2000", periods=4, freq="6h")),
            CalendarError,
            r"sub-daily[\s\S]*resample",
        ),
        (
            lambda ds: ds.assign_coords(time=pd.date_range("2000", periods=4, freq="MS")),
            CalendarError,
            "longer than a day",
        ),
        (
            lambda ds: ds.assign_coords(time=[*ds["time"].values[:3], np.datetime64("NaT")]),
            CalendarError,
            "NaT",
        ),
        (lambda ds: ds.drop_vars("time"), LayoutError, "no time axis"),
        (
            lambda ds: ds.assign_coords(
                time=("time", range(4), {"units": "days since 2000-01-01"})
            ),
            LayoutError,
            "decode_cf",
        ),
        (
            lambda ds: ds.rename(time="t").drop_vars("t").assign_coords(when=("t", ds.time.data)),
            LayoutError,
            "swap_dims",
        ),
        (lambda ds: ds.isel(time=slice(0)), LayoutError, "empty"),
    ],
)
def test_time_axes_that_are_not_days_are_refused_with_the_fix(schema, change, error, match):
    with pytest.raises((error, BindingErrors), match=match) as caught:
        bind(change(grid(coords=lat_lon())), schema)
    problems = getattr(caught.value, "problems", (caught.value,))
    assert isinstance(problems[0], error)


def test_the_t_axis_is_chosen_of_two(schema):
    ds = grid(coords=lat_lon()).expand_dims(reference=pd.date_range("2000", periods=1), axis=0)
    ds["time"].attrs["axis"] = "T"
    layout = bind(ds, schema).layout
    assert layout.time == "time"
    assert layout.site_dims == ("reference", "lat", "lon")
    ds["time"].attrs.clear()
    assert bind(ds, schema).layout.time == "time"
    with pytest.raises((LayoutError, BindingErrors), match="more than one time axis"):
        bind(ds.rename(time="day"), schema)


def test_dimension_order_is_that_of_precipitation(schema):
    ds = grid(("lon", "time", "lat"), coords=lat_lon())
    ds["tas"] = ds["tas"].transpose("time", "lat", "lon")
    binding = bind(ds, schema)
    assert binding.layout.dims == ("lon", "time", "lat")
    assert set(binding.layout.site_dims) == {"lat", "lon"}
    assert binding.forcing["temperature_mean"].dims == ("lon", "time", "lat")


@pytest.mark.parametrize(
    ("dims", "coords", "support"),
    [
        (("time", "lat", "lon"), lat_lon(), "grid"),
        (("time", "y", "x"), {}, "grid"),
        (
            ("time", "y", "x"),
            {
                "lat": (("y", "x"), np.ones((3, 5)), {"standard_name": "latitude"}),
                "lon": (("y", "x"), np.ones((3, 5)), {"standard_name": "longitude"}),
            },
            "grid",
        ),
        (("time", "lat"), {"lat": lat_lon()["lat"]}, "point"),
        (("time",), {}, "point"),
    ],
)
def test_support(schema, dims, coords, support):
    assert bind(grid(dims, coords=coords), schema).layout.support == support


def test_curvilinear_dimensions_of_any_name_are_a_grid(schema):
    ds = grid(
        ("time", "y", "x"),
        coords={"nav_lat": (("y", "x"), np.full((3, 5), 40.0), {"standard_name": "latitude"})},
    ).rename(y="eta", x="xi")
    binding = bind(ds, schema)
    assert binding.layout.support == "grid"
    # Oudin needs latitude: the 2-D one was found.
    assert binding.forcing["potential_evapotranspiration"].dims == ("time", "eta", "xi")


def test_stations_are_points(basins, schema):
    layout = bind(basins, schema).layout
    assert (layout.support, layout.dims, layout.site_dims) == ("point", ("site", "time"), ("site",))


def test_results_come_back_on_the_coordinates_of_the_input(schema):
    ds = grid(coords=lat_lon()).assign_coords(height=2.0, month=("time", [2, 2, 2, 3]))
    result = wrapped(ds, schema, units="m3 m-3")
    assert result.dims == ds["pr"].dims
    assert result.name == "soil_moisture"
    assert result.attrs == {"units": "m3 m-3"}
    xr.testing.assert_identical(result.coords.to_dataset(), ds["pr"].coords.to_dataset())


@pytest.mark.parametrize("place", ["attrs", "encoding"])
def test_the_grid_mapping_comes_back_where_it_was(schema, tmp_path, place):
    ds = grid(coords=lat_lon()).assign(
        crs=((), 0, {"grid_mapping_name": "latitude_longitude", "crs_wkt": "GEOGCS[...]"})
    )
    getattr(ds["pr"], place)["grid_mapping"] = "crs"
    result = wrapped(ds, schema)
    assert getattr(result, place)["grid_mapping"] == "crs"
    xr.testing.assert_identical(result["crs"].variable, ds["crs"].variable)
    result.to_netcdf(tmp_path / "out.nc")
    again = xr.open_dataset(tmp_path / "out.nc")
    assert again["soil_moisture"].attrs["grid_mapping"] == "crs"


def test_spatial_ref_of_rioxarray_comes_back(schema):
    rioxarray = pytest.importorskip("rioxarray")
    ds = grid(("time", "y", "x"), coords={"y": [3.0, 2.0, 1.0], "x": np.arange(5.0)})
    ds = ds.rio.write_crs("EPSG:3035")
    assert wrapped(ds, schema).rio.crs == ds.rio.crs
    assert rioxarray


def test_references_to_bounds_go_without_touching_the_input(schema):
    ds = grid(coords=lat_lon(bounds="lat_bnds")).assign(lat_bnds=(("lat", "nv"), np.ones((3, 2))))
    result = wrapped(ds, schema)
    assert "bounds" not in result["lat"].attrs
    assert result["lat"].attrs["units"] == "degrees_north"
    assert ds["lat"].attrs["bounds"] == "lat_bnds"


def test_stacked_dimensions_keep_their_index(schema):
    ds = grid(coords=lat_lon()).stack(cell=("lat", "lon")).transpose("cell", "time")
    result = wrapped(ds, schema)
    xr.testing.assert_identical(result.unstack("cell")["lat"], ds["pr"].unstack("cell")["lat"])


def test_lazy_data_stays_lazy(schema):
    ds = grid(coords=lat_lon())
    layout = bind(ds, schema).layout
    data = da.zeros((4, 3, 5), chunks=2, dtype=np.float32)
    assert layout.wrap(data, name="x").chunks == data.chunks


def test_data_of_another_shape_is_refused(schema):
    layout = bind(grid(coords=lat_lon()), schema).layout
    with pytest.raises(ValueError, match="number of dimensions"):
        layout.wrap(np.zeros((3, 5), np.float32), name="x")
    with pytest.raises(ValueError, match="conflicting sizes"):
        layout.wrap(np.zeros((4, 5, 3), np.float32), name="x")
