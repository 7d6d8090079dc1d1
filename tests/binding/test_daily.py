"""Hourly files of the sources people have, made daily by the rule of each variable."""

import cftime
import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import bind
from xstefa.errors import CalendarError, MissingTokenError, UnitsError
from xstefa.prepare.daily import daily

DAYS = 5
RAIN = np.random.default_rng(3).gamma(0.3, 1.0, (DAYS * 24, 2, 3)) / 1e3  # m in each hour
HOUR = np.arange(DAYS * 24) % 24
SUN = np.maximum(np.sin((HOUR - 6) / 12 * np.pi), 0)[:, None, None] * 3600 * 800.0  # J m-2
COORDS = {
    "latitude": ("latitude", [51.0, 50.0], {"units": "degrees_north", "standard_name": "latitude"}),
    "longitude": ("longitude", [3.0, 4.0, 5.0], {"units": "degrees_east",
                                                 "standard_name": "longitude"}),
}  # fmt: skip
DIMS = ("valid_time", "latitude", "longitude")


def since_midnight(hourly):
    return hourly.reshape(DAYS, 24, 2, 3).cumsum(axis=1).reshape(hourly.shape)


def era5(*, land=False, start="2001-01-01T01", **extra):
    """Make hours as the Climate Data Store delivers them; the first hour ends at 01:00."""
    change = since_midnight if land else np.asarray
    sun = np.broadcast_to(SUN, RAIN.shape)
    temperature = 280 + HOUR[:, None, None] + np.zeros_like(RAIN)
    variables = {
        "tp": (change(RAIN), {"units": "m", "long_name": "Total precipitation",
                              "standard_name": "unknown", "GRIB_stepType": "accum"}),
        "ssrd": (change(sun), {"units": "J m**-2", "standard_name":
                               "surface_downwelling_shortwave_flux_in_air"}),
        "t2m": (temperature, {"units": "K", "long_name": "2 metre temperature",
                              "standard_name": "unknown", "GRIB_stepType": "instant"}),
        "d2m": (temperature - 5, {"units": "K", "standard_name": "unknown"}),
    } | extra  # fmt: skip
    return xr.Dataset(
        {name: (DIMS, data.astype(np.float32), attrs) for name, (data, attrs) in variables.items()},
        coords={"valid_time": pd.date_range(start, periods=DAYS * 24, freq="h"), **COORDS},
        attrs={"history": "from the store"},
    ).assign(lsm=(DIMS[1:], np.ones((2, 3), np.float32)))


RAIN_OF_DAY = RAIN.reshape(DAYS, 24, 2, 3).sum(axis=1)
SUN_OF_DAY = np.broadcast_to(SUN, RAIN.shape).reshape(DAYS, 24, 2, 3).sum(axis=1)


@pytest.mark.parametrize("land", [False, True], ids=["ERA5", "ERA5-Land"])
@pytest.mark.parametrize("stated", [False, True], ids=["recognised", "stated"])
@pytest.mark.parametrize("chunks", [None, 7], ids=["eager", "chunked"])
def test_amounts_collect_over_the_step_or_since_midnight(schema, land, stated, chunks):
    ds = era5(land=land)
    if chunks is not None:
        ds = ds.chunk(valid_time=chunks)
    rule = ("day" if land else "step") if stated else None
    result = daily(ds, schema, accumulation=rule)
    assert result["tp"].dims == DIMS
    assert result.sizes["valid_time"] == DAYS
    assert result["valid_time"].values[0] == np.datetime64("2001-01-01")
    np.testing.assert_allclose(result["tp"], RAIN_OF_DAY, rtol=1e-5)
    np.testing.assert_allclose(result["ssrd"], SUN_OF_DAY, rtol=1e-5)
    assert result["tp"].attrs == {
        "units": "m",
        "long_name": "Total precipitation",
        "standard_name": "unknown",
        "cell_methods": "time: sum",
    }
    assert result["lsm"].dims == DIMS[1:]
    assert result.attrs["history"].endswith("from the store")


def test_a_day_of_which_hours_are_missing_has_no_value(schema):
    ds = era5(start="2001-01-01T00")
    result = daily(ds, schema, accumulation="step")
    # States: 00..23 of each day. Amounts: the value stamped 00:00 ends the day before.
    assert result["t2m"].notnull().all()
    assert result["tp"].isel(valid_time=slice(None, -1)).notnull().all()
    assert result["tp"].isel(valid_time=-1).isnull().all()
    expected = RAIN[1:25].sum(axis=0)
    np.testing.assert_allclose(result["tp"].isel(valid_time=0), expected, rtol=1e-5)

    gap = ds.isel(valid_time=[i for i in range(DAYS * 24) if i != 30])
    result = daily(gap, schema, accumulation="step")
    assert result["t2m"].isnull().any(("latitude", "longitude")).values.tolist() == [
        False, True, False, False, False
    ]  # fmt: skip


def test_states_are_averaged_and_temperature_gives_its_extremes(schema):
    result = daily(era5(start="2001-01-01T00"), schema, accumulation="step")
    np.testing.assert_allclose(result["t2m"], 291.5)
    np.testing.assert_allclose(result["t2m_max"], 303.0)
    np.testing.assert_allclose(result["t2m_min"], 280.0)
    assert result["t2m_max"].attrs["cell_methods"] == "time: maximum"
    assert "d2m_max" not in result
    binding = bind(result, schema)
    assert binding.table["temperature_max"].variables == ("t2m_max",)
    assert binding.table["temperature_mean"].variables == ("t2m",)
    assert binding.table["relative_humidity"].variables == ("d2m", "t2m")
    assert binding.table["precipitation"].units_found == "m"
    binding.check_ranges()


def test_extremes_of_the_source_are_kept(schema):
    hourly = (np.full_like(RAIN, 310.0), {"units": "K"})
    result = daily(era5(mx2t=hourly), schema, accumulation="step")
    assert "t2m_max" not in result
    assert float(result["mx2t"].max()) == 310.0
    assert result["mx2t"].attrs["cell_methods"] == "time: maximum"


def test_hours_that_are_sums_of_rates_are_refused(schema):
    ds = era5(start="2001-01-01T00")[["t2m"]]
    for units, refused in {"kg m-2 s-1": True, "mm d-1": True, "mm h-1": False}.items():
        ds["pr"] = (DIMS, np.ones(RAIN.shape), {"units": units, "cell_methods": "time: sum"})
        if refused:
            with pytest.raises(UnitsError, match="'pr': a sum of what is no amount"):
                daily(ds, schema)
        else:
            np.testing.assert_allclose(daily(ds, schema)["pr"][0], 1.0)
    ds["pr"].attrs = {"units": "mm", "cell_methods": "valid_time: mean valid_time: sum"}
    with pytest.raises(UnitsError, match="'pr': two methods along time"):
        daily(ds, schema)


def test_units_of_mean_rates_need_no_rule(schema):
    ds = era5(start="2001-01-01T00").drop_vars(["tp", "ssrd"])
    ds["pr"] = (DIMS, np.full(RAIN.shape, 1e-5, np.float32), {"units": "kg m-2 s-1"})
    result = daily(ds, schema)
    np.testing.assert_allclose(result["pr"], 1e-5, rtol=1e-5)
    assert "accumulation" not in result.attrs["history"]


def test_rates_over_the_step_before_belong_to_it(schema):
    ds = era5().drop_vars(["tp", "ssrd"])
    flux = np.broadcast_to(np.arange(DAYS * 24)[:, None, None], RAIN.shape)
    ds["rsds"] = (DIMS, flux.astype(np.float32), {"units": "W m-2", "cell_methods": "time: mean"})
    result = daily(ds, schema)
    np.testing.assert_allclose(result["rsds"][0], np.arange(24).mean())


@pytest.mark.parametrize("hours", [1, 3])
@pytest.mark.parametrize(
    ("name", "attrs", "method"),
    [
        ("pr", {"units": "kg m-2 s-1", "cell_methods": "area: time: mean"}, "mean"),
        ("pr", {"units": "mm", "cell_methods": "time: sum"}, "sum"),
        ("tasmax", {"units": "K", "cell_methods": "time: maximum"}, "max"),
    ],
)
def test_a_stamp_in_the_middle_of_its_interval_belongs_to_it(schema, hours, name, attrs, method):
    """As CMIP6 has its 3-hourly means, here without the bounds."""
    count = DAYS * 24 // hours
    times = pd.date_range("2001-01-01", periods=count, freq=f"{hours}h") + pd.Timedelta(
        hours / 2, "h"
    )
    values = RAIN[:count]
    ds = xr.Dataset({name: (DIMS, values, attrs)}, {"valid_time": times, **COORDS})
    result = daily(ds, schema)[name]
    expected = getattr(values.reshape(DAYS, -1, 2, 3), method)(axis=1)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("said", [{"GRIB_stepType": "avg"}, {}], ids=["by GRIB", "by name"])
def test_mean_rates_of_era5_are_those_of_the_hour_before(schema, said):
    ds = era5(start="2001-01-01T00")[["t2m"]]
    flux = np.broadcast_to(np.arange(DAYS * 24.0)[:, None, None], RAIN.shape)
    ds["avg_sdswrf"] = (DIMS, flux, {"units": "W m**-2"} | said)
    result = daily(ds, schema)["avg_sdswrf"]
    np.testing.assert_allclose(result[0], np.arange(1, 25).mean())
    assert result[-1].isnull().all()


def test_bounds_say_which_interval_a_value_covers(schema):
    ds = era5(start="2001-01-01T00")
    stamps = ds["valid_time"].values
    bounds = np.stack([stamps, stamps + np.timedelta64(1, "h")], axis=1)
    ds = ds.assign(valid_time_bnds=(("valid_time", "nv"), bounds))
    ds["valid_time"].attrs["bounds"] = "valid_time_bnds"
    result = daily(ds, schema, accumulation="step")
    np.testing.assert_allclose(result["tp"], RAIN_OF_DAY, rtol=1e-5)
    assert "bounds" not in result["valid_time"].attrs


def test_three_hourly_gldas(schema):
    steps = pd.date_range("2001-01-01T03", periods=16, freq="3h")
    shape = (16, 2, 3)
    ds = xr.Dataset(
        {
            "Rainf_f_tavg": (("time", "lat", "lon"), np.full(shape, 1e-5, np.float32),
                             {"units": "kg m-2 s-1", "cell_methods": "time: mean",
                              "standard_name": "precipitation_flux"}),
            "Tair_f_inst": (("time", "lat", "lon"), np.full(shape, 280.0, np.float32),
                            {"units": "K", "cell_methods": "time: point",
                             "standard_name": "air_temperature"}),
            "Rainf_tavg": (("time", "lat", "lon"), np.zeros(shape), {"units": "kg m-2 s-1"}),
        },
        coords={"time": steps},
    )  # fmt: skip
    result = daily(ds, schema)
    assert result["Rainf_f_tavg"].notnull().all()
    assert {"Tair_f_inst_max", "Tair_f_inst_min"} <= set(result)
    assert "left out: Rainf_tavg" in result.attrs["history"]
    assert bind(result, schema).table["temperature_max"].variables == ("Tair_f_inst_max",)


def test_nldas_2_amounts_of_each_hour(schema):
    ds = era5(start="2001-01-01T01").rename(t2m="Tair", valid_time="time").drop_vars(["tp", "ssrd"])
    ds["Rainf"] = (("time", *DIMS[1:]), (RAIN * 1e3).astype(np.float32),
                   {"units": "kg m-2", "cell_methods": "time: sum"})  # fmt: skip
    binding = bind(daily(ds, schema), schema)
    np.testing.assert_allclose(binding.forcing["precipitation"], RAIN_OF_DAY * 1e3, rtol=1e-5)


def test_rates_per_three_hours(schema):
    steps = pd.date_range("2001-01-01", periods=16, freq="3h")
    ds = xr.Dataset(
        {
            "precipitation": ("time", np.full(16, 0.5), {"units": "mm/3h"}),
            "air_temperature": ("time", np.full(16, 5.0), {"units": "degree_Celsius"}),
        },
        coords={"time": steps},
    )
    binding = bind(daily(ds, schema), schema)
    np.testing.assert_allclose(binding.forcing["precipitation"], 4.0, rtol=1e-6)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars(schema, calendar):
    times = xr.date_range("2000-02-28T01", periods=72, freq="h", calendar=calendar, use_cftime=True)
    ds = era5().isel(valid_time=slice(72)).assign_coords(valid_time=times)
    result = daily(ds, schema, accumulation="step")
    kind = cftime.DatetimeNoLeap if calendar == "noleap" else cftime.Datetime360Day
    following = (3, 1) if calendar == "noleap" else (2, 29)
    assert list(result["valid_time"].values[:2]) == [kind(2000, 2, 28), kind(2000, *following)]
    np.testing.assert_allclose(result["tp"], RAIN_OF_DAY[:3], rtol=1e-5)


def test_daily_data_is_returned_as_it_is(schema):
    ds = daily(era5(), schema, accumulation="step")
    assert daily(ds, schema) is ds


def test_with_the_rule_given_nothing_is_read(schema, tmp_path):
    era5().to_netcdf(tmp_path / "hours.nc")

    def refuse(*args, **kwargs):
        raise AssertionError("data was read")

    with xr.open_dataset(tmp_path / "hours.nc", chunks={"valid_time": 24}) as ds:
        with dask.config.set(scheduler=refuse):
            result = daily(ds, schema, accumulation="step")
        np.testing.assert_allclose(result["tp"], RAIN_OF_DAY, rtol=1e-5)
        assert result["tp"].chunksizes["valid_time"] == (1, 1, 1, 1, 1)


# ---- refusals


def test_amounts_that_nothing_tells_are_refused_with_both_readings(schema):
    dry = era5()[["tp", "t2m"]]
    dry["tp"][:] = 0.0
    with pytest.raises(UnitsError) as caught:
        daily(dry, schema)
    assert "accumulation='step'" in caught.value.fix
    assert "accumulation='day'" in caught.value.fix
    assert caught.value.variable == "tp"
    assert caught.value.found
    assert caught.value.expected


def test_unequal_steps_are_refused(schema):
    times = pd.date_range("2001-01-01", periods=DAYS * 24, freq="7h")
    with pytest.raises(CalendarError, match="whole number"):
        daily(era5().assign_coords(valid_time=times), schema)


def test_unknown_series_are_refused(schema):
    ds = era5()[["lsm"]].assign(foo=era5()["tp"].drop_attrs())
    with pytest.raises(MissingTokenError, match="foo"):
        daily(ds, schema)
