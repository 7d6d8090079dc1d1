"""Time axes as files have them: clocks that scatter, merged products, forecasts, ragged arrays."""

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import bind, plan
from xstefa.binding.time_axis import day_numbers, second_numbers
from xstefa.errors import CalendarError, LayoutError
from xstefa.prepare.daily import daily

DAYS = 6
STEPS = pd.date_range("2001-01-01T01:30", periods=24 * DAYS, freq="h")


def rain(stamps, **attrs):
    values = np.random.default_rng(0).random((len(stamps), 2)).astype(np.float32)
    return xr.Dataset(
        {
            "pr": (("time", "site"), values, {"units": "mm d-1"} | attrs),
            "tas": (("time", "site"), values + 10, {"units": "degC"}),
        },
        {"time": stamps},
    )


def decoded(stamps, units, dtype):
    """Make the time axis of a file that counts in numbers of little precision."""
    numbers = cftime.date2num(stamps.to_pydatetime(), units, calendar="standard").astype(dtype)
    return xr.decode_cf(xr.Dataset({}, {"time": ("time", numbers, {"units": units})}))[
        "time"
    ].values


# ---- stamps that scatter


@pytest.mark.parametrize(
    "scatter",
    [
        lambda t: t - np.where(np.arange(t.size) % 3, 0, 512).astype("timedelta64[ns]"),
        lambda t: t + np.where(np.arange(t.size) % 2, 1, -1).astype("timedelta64[us]"),
        lambda t: t + np.random.default_rng(1).integers(-99, 99, t.size).astype("timedelta64[s]"),
        lambda t: decoded(t, "days since 1850-01-01", np.float32),
        lambda t: decoded(t, "days since 0001-01-01", np.float64),
        lambda t: xr.date_range(t[0], periods=t.size, freq="h", use_cftime=True).map(
            lambda stamp: stamp + pd.Timedelta(stamp.day, "us").to_pytimedelta()
        ),
    ],
    ids=["ns", "us", "seconds", "days32", "days64", "cftime"],
)
def test_steps_that_scatter_a_little_are_equal_steps(schema, scatter):
    exact, result = (
        daily(rain(stamps), schema) for stamps in (STEPS, scatter(STEPS.astype("M8[ns]")))
    )
    np.testing.assert_array_equal(result["pr"], exact["pr"])
    assert exact["pr"].notnull().sum("time").min() == DAYS - 1
    np.testing.assert_array_equal(day_numbers(result["time"])[0], day_numbers(exact["time"])[0])


@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 1.0, 120.0])
def test_days_a_breath_before_midnight_are_the_next_days(schema, seconds):
    days = pd.date_range("2001-01-01", periods=DAYS).astype("M8[ns]")
    early = days - pd.to_timedelta(np.where(np.arange(DAYS) % 2, seconds, 0), unit="s")
    assert plan(rain(early), schema).problems == ()
    np.testing.assert_array_equal(*(day_numbers(rain(t)["time"])[0] for t in (days, early)))


@pytest.mark.parametrize("unit", ["ns", "s", "min"])
def test_the_last_moment_of_every_day_stands_for_that_day(schema, unit):
    """As `pandas.PeriodIndex.to_timestamp(how="end")` makes it."""
    days = pd.date_range("2001-01-01", periods=DAYS).astype("M8[ns]")
    last = days + pd.Timedelta(1, "D") - pd.Timedelta(1, unit)
    np.testing.assert_array_equal(*(day_numbers(rain(t)["time"])[0] for t in (days, last)))


def test_stamps_of_other_times_of_day_stay(schema):
    odd = pd.DatetimeIndex(["2001-01-01T10:37:11", "2001-01-02T13:02:10", "2001-01-03T09:59:00"])
    seconds, _ = second_numbers(rain(odd)["time"])
    np.testing.assert_array_equal(seconds, odd.values.astype("M8[s]").astype(np.int64))
    # Centuries that nanoseconds do not reach.
    old = np.array(["1000-01-01T00:00", "1000-01-02T00:00"], "M8[s]")
    assert np.diff(day_numbers(rain(old)["time"])[0]).tolist() == [1]


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("hours", [1, 3, 6])
def test_the_fix_of_clocks_that_scatter_more_is_that_of_their_step(schema, hours, follow, calendar):
    stamps = xr.date_range(
        "2001-01-01T01:30",
        periods=24 * DAYS // hours,
        freq=f"{hours}h",
        calendar=calendar,
        use_cftime=calendar != "standard",
    )
    rng = np.random.default_rng(2)
    scattered = stamps + pd.to_timedelta(rng.integers(-700, 700, stamps.size), unit="s")
    with pytest.raises(CalendarError, match="whole number of equal steps") as caught:
        daily(rain(scattered), schema)
    mended = daily(follow(caught.value, rain(scattered)), schema)
    np.testing.assert_array_equal(mended["pr"], daily(rain(stamps), schema)["pr"])
    assert mended["pr"].notnull().mean() > 0.6


# ---- merged products


def test_noon_merged_with_midnight_is_named_and_the_fix_predicts(schema, tiny_model, follow):
    days = rain(pd.date_range("2001-01-01", periods=60)).assign(elevation=("site", [1.0, 2.0]))
    days["elevation"].attrs["units"] = "m"
    noon = days[["pr"]].assign_coords(time=days["time"] + np.timedelta64(12, "h"))
    both = xr.merge([noon, days.drop_vars("pr")], join="outer")
    with pytest.raises(CalendarError, match="merged") as caught:
        both.stefa.daily()
    assert caught.value.found == "pr at 12:00; tas at 00:00"
    assert "isel" not in caught.value.fix
    mended = follow(caught.value, both)
    xr.testing.assert_equal(mended, days)
    assert mended.stefa.predict(tiny_model).notnull().any()
    for variable in both.variables.values():
        assert variable.chunks is None
    with pytest.raises(CalendarError, match="merged"):
        both.chunk(time=10).stefa.daily()


def test_hours_merged_with_three_hours_are_named(schema, follow):
    hours = rain(pd.date_range("2001-01-01T01", periods=24 * DAYS, freq="h"), units="mm")
    coarse = hours[["pr"]].isel(time=slice(2, None, 3)).rename(pr="wet")
    merged = xr.merge([coarse, hours[["tas"]]], join="outer")
    words = {"accumulation": "step", "rename": {"wet": "precipitation"}}
    with pytest.raises(
        CalendarError, match=r"wet at 00:00 03:00 06:00 \.\.\. 21:00; tas"
    ) as caught:
        daily(merged, schema, **words)
    mended = follow(caught.value, merged)
    np.testing.assert_array_equal(mended["wet"], daily(coarse, schema, **words)["wet"])
    np.testing.assert_array_equal(mended["tas"], daily(hours, schema)["tas"])


def test_gaps_are_no_merged_products(schema):
    hours = rain(pd.date_range("2001-01-01", periods=24 * DAYS, freq="h"))
    hours["pr"][3::24] = np.nan  # the same hour of every day
    hours["tas"][:48] = np.nan
    result = daily(hours, schema)
    assert result["pr"].isnull().all()
    assert result["tas"].isnull().sum() == 2 * 2


@pytest.mark.parametrize("moved", ["forcing", "static"])
@pytest.mark.parametrize("coarser", [False, True])
def test_maps_on_axes_of_other_names_are_named_and_the_fix_predicts(
    schema, tiny_model, follow, moved, coarser
):
    days = pd.date_range("2001-01-01", periods=60)
    lat, lon = np.arange(50.0, 56), np.arange(6.0)
    shape = (days.size, lat.size, lon.size)
    ds = xr.Dataset(
        {
            "pr": (("time", "lat", "lon"), np.ones(shape), {"units": "mm d-1"}),
            "tas": (("time", "lat", "lon"), np.ones(shape), {"units": "degC"}),
            "elevation": (("lat", "lon"), np.add.outer(lat, lon), {"units": "m"}),
        },
        {"time": days, "lat": lat, "lon": lon},
    )
    name = {"forcing": "tas", "static": "elevation"}[moved]
    other = ds[[name]].rename(lat="latitude", lon="longitude")
    if coarser:
        other = other.isel(latitude=slice(None, None, 5), longitude=slice(None, None, 5))
    else:
        other = other.astype(np.float32).assign_coords(latitude=lat.astype(np.float32))
    both = xr.merge([ds.drop_vars(name), other])
    if coarser and moved == "static":
        assert plan(both, schema).problems == ()
        return
    with pytest.raises(LayoutError, match="different names were merged") as caught:
        both.stefa.predict(tiny_model)
    assert caught.value.variable == name
    assert "isel" not in caught.value.fix
    mended = follow(caught.value, both)
    np.testing.assert_allclose(mended[name], ds[name])
    assert mended.stefa.predict(tiny_model).notnull().any()


@pytest.mark.parametrize(("name", "other"), [("site", "station"), ("time", "valid_time")])
def test_a_dimension_of_another_name_is_renamed_and_not_cut(basins, schema, follow, name, other):
    ds = basins.drop_vars("cold").rename(hot="tas")
    ds["tas"].attrs = {"units": "degC"}
    ds = ds.drop_vars(["lat", "lon"]).assign_coords(site=["a", "b", "c"])
    both = xr.merge([ds.drop_vars("tas"), ds[["tas"]].rename({name: other})])
    (problem,) = plan(both, schema).problems
    assert "isel" not in problem.fix
    mended = follow(problem, both)
    np.testing.assert_array_equal(bind(mended, schema).forcing["temperature_mean"], ds["tas"])


def test_no_choice_of_one_row_of_a_map_is_proposed(basins, schema):
    ds = basins.drop_vars(["hot", "cold"])
    ds["tas"] = ("time", "lat_", "lon"), np.ones((10, 2, 2)), {"units": "degC"}
    ds = ds.drop_vars(["lat", "lon"]).rename(lat_="lat")
    (problem,) = plan(ds, schema).problems
    assert "aggregate" in problem.fix
    assert "isel" not in problem.fix


# ---- forecasts


def forecasts(leads, *, every=24, count=3):
    """Make forecasts as cfgrib opens them: (time, step), each hour's rain told by its time."""
    time = pd.date_range("2001-01-01", periods=count, freq=f"{every}h")
    step = pd.to_timedelta(leads, unit="h")
    valid = time.values[:, None] + step.values
    amount = (valid - time.values[0]) / np.timedelta64(1, "h")
    dims = ("time", "step", "site")
    return xr.Dataset(
        {
            "pr": (dims, np.repeat(amount[..., None], 2, axis=2), {"units": "mm h-1"}),
            "t2m": (dims, np.full((*valid.shape, 2), 280.0), {"units": "K"}),
            "sand": ("site", [10.0, 20.0], {"units": "%"}),
        },
        {
            "time": ("time", time, {"standard_name": "time"}),
            "step": ("step", step, {"standard_name": "forecast_period"}),
            "valid_time": (("time", "step"), valid, {"standard_name": "time"}),
            "number": 0,
        },
    )


@pytest.mark.parametrize("chunks", [None, 2])
@pytest.mark.parametrize(
    ("leads", "every"), [(range(1, 25), 24), (range(1, 13), 12), (range(24, 0, -1), 24)]
)
def test_lead_times_that_do_not_overlap_are_one_axis(schema, tiny_model, leads, every, chunks):
    ds = forecasts(list(leads), every=every, count=72 // every)
    ds = ds if chunks is None else ds.chunk(time=chunks)
    with pytest.raises(LayoutError, match=r"depend on two|sub-daily") as caught:
        ds.stefa.predict(tiny_model)
    names = {"ds": ds}
    exec(caught.value.fix, names)
    days = names["ds"]
    assert days["pr"].dims == ("valid_time", "site")
    series = rain(pd.date_range("2001-01-01T01", periods=72, freq="h"))[["pr"]]
    series["pr"] = series["pr"].dims, np.repeat(np.arange(1.0, 73)[:, None], 2, axis=1)
    series["pr"].attrs["units"] = "mm h-1"
    np.testing.assert_allclose(days["pr"], daily(series, schema)["pr"])
    assert days["sand"].dims == ("site",)
    assert days.stefa.predict(tiny_model).dims == ("valid_time", "site")


@pytest.mark.parametrize("unit", ["ns", "us"])
def test_lead_times_count_in_every_calendar(schema, tiny_model, unit):
    days = xr.date_range("2001-01-01", periods=4, calendar="noleap", use_cftime=True)
    for leads, overlap in (([0, 24], True), ([0, 12], False)):
        ds = forecasts(leads, every=24, count=4).assign_coords(time=days)
        ds = ds.drop_vars("valid_time").assign_coords(step=ds["step"].astype(f"m8[{unit}]"))
        with pytest.raises(LayoutError, match="overlap" if overlap else "depend on two"):
            ds.stefa.predict(tiny_model)


def test_forecasts_that_overlap_are_refused_and_the_fix_takes_the_first_of_each(tiny_model):
    ds = forecasts(list(range(0, 49)))
    with pytest.raises(LayoutError, match="overlap") as caught:
        ds.stefa.predict(tiny_model)
    names = {"ds": ds}
    exec(caught.value.fix, names)
    short = forecasts(list(range(1, 25)))
    xr.testing.assert_allclose(names["ds"], short.stefa.daily())


def test_days_by_lead_time_become_days(schema):
    ds = forecasts(list(range(24, 24 * 11, 24)), every=240)
    days = daily(ds, schema)
    assert days.sizes["valid_time"] == 30
    assert (np.diff(day_numbers(days["valid_time"])[0]) == 1).all()


# ---- ragged arrays


def ragged(kind, obs, *, places):
    """Two stations of 20 and 30 days in a row (CF H.2.4 and H.2.5)."""
    lengths, first = [20, 30], pd.Timestamp("2001-01-01")
    days = pd.DatetimeIndex(
        [first + pd.Timedelta(d, "D") for length in lengths for d in range(length)]
    )
    values = np.arange(50.0)
    if kind == "contiguous":
        link = {"row_size": ("station", lengths, {"sample_dimension": obs})}
    else:
        link = {"which": (obs, np.repeat([0, 1], lengths), {"instance_dimension": "station"})}
    ds = xr.Dataset(
        {
            "pr": (obs, values, {"units": "mm d-1"}),
            "tas": (obs, values, {"units": "degC"}),
            **link,
        },
        {"time": (obs, days)},
    )
    if places:
        ds = ds.assign(elevation=("station", [5.0, 7.0], {"units": "m"}))
        ds = ds.assign_coords(lat=("station", [50.0, 60.0], {"units": "degrees_north"}))
    return ds


@pytest.mark.parametrize("obs", ["obs", "time"])
@pytest.mark.parametrize(
    ("kind", "places"), [("contiguous", True), ("indexed", True), ("indexed", False)]
)
def test_ragged_arrays_are_named_before_all_else_and_the_fix_predicts(
    schema, tiny_model, follow, kind, places, obs
):
    ds = ragged(kind, obs, places=places)
    for ask in (lambda: ds.stefa.predict(tiny_model), ds.stefa.daily):
        with pytest.raises(LayoutError, match=f"{kind} ragged") as caught:
            ask()
    mended = follow(caught.value, ds)
    assert mended["pr"].dims == ("station", "time")
    np.testing.assert_array_equal(mended["pr"][0, :20], np.arange(20.0))
    assert mended["pr"][0, 20:].isnull().all()
    np.testing.assert_array_equal(mended["pr"][1], np.arange(20.0, 50))
    if places:
        assert bind(mended, schema).static["elevation"].values.tolist() == [5, 7]
        assert mended["lat"].dims == ("station",)
    assert mended.stefa.predict(tiny_model).notnull().any()


def test_a_link_of_what_is_ragged_no_longer_is_no_obstacle(schema, series):
    ds = xr.Dataset(
        {"pr": series(units="mm d-1"), "n": ("site", [10] * 3, {"sample_dimension": "time"})},
        {"time": pd.date_range("2001-01-01", periods=10)},
    )
    assert [p.variable for p in plan(ds, schema).problems] == ["temperature_mean"]


# ---- rename


def test_hours_are_made_daily_with_the_callers_names(schema, tiny_model):
    """The National Water Model's rain rate beside a temperature that is known."""
    ds = rain(pd.date_range("2001-01-01T01", periods=24 * DAYS, freq="h")).rename(pr="RAINRATE")
    rename = {"RAINRATE": "precipitation"}
    with pytest.raises(CalendarError, match="sub-daily") as caught:
        ds.stefa.predict(tiny_model, rename=rename)
    names = {"ds": ds}
    exec(caught.value.fix, names)
    days = names["ds"]
    np.testing.assert_allclose(days["RAINRATE"], daily(ds.rename(RAINRATE="pr"), schema)["pr"])
    assert days.stefa.predict(tiny_model, rename=rename).notnull().any()
    with pytest.raises(LookupError, match="does not have"):
        ds.stefa.daily(rename={"rain": "precipitation"})


def test_a_renamed_temperature_has_extremes_and_a_renamed_amount_is_summed(schema):
    ds = rain(pd.date_range("2001-01-01T01", periods=24 * DAYS, freq="h"), units="mm")
    ds = ds.rename(pr="a", tas="b")
    names = {"a": "precipitation", "b": "temperature_mean"}
    result = daily(ds, schema, rename=names, accumulation="step")
    np.testing.assert_allclose(result["a"][0], ds["a"][:24].sum("time"), rtol=1e-6)
    assert {"b_max", "b_min"} <= set(result)
    assert plan(result, schema, rename=names).problems == ()
