"""Forecasts that go on from a history: the same as one record of both, date by date."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xstefa
from xstefa.errors import CalendarError, LayoutError, MissingTokenError, ModelError, OptionError
from xstefa.inference.run import SpinUpWarning
from xstefa.inference.state import ForecastWarning
from xstefa.windows import SegmentPolicy

RECORD = SegmentPolicy(length=60, spin_up=20)
LEADS, DATES = 7, (60, 75, 62)
EXAMPLES = settings(max_examples=6, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=["encoder", "lstm"])
def model(request, make_model):
    kind = {"causal": True} if request.param == "encoder" else {"encoder": False}
    return make_model(windows=RECORD, members=2, **kind)


@pytest.fixture(scope="module")
def weather(make_dataset):
    """Analysis on a map with a coast; do not change it."""
    ds = make_dataset(days=90, lat=2, lon=3)
    for name in ("precipitation", "temperature_mean"):
        ds[name][:, 0, 0] = np.nan
    return ds


def forecasts(ds, dates=DATES, *, members=0):
    """The analysis as forecasts without error: (member, init_time, lead_time, ...)."""
    series = ds.drop_vars(["sand", "catchment_area"])
    found = [
        series.isel(time=slice(day, day + LEADS))
        .rename(time="lead_time")
        .assign_coords(lead_time=pd.to_timedelta(range(LEADS), unit="D"))
        .assign_coords(init_time=series["time"].values[day])
        for day in dates
    ]
    found = xr.concat(found, dim="init_time")
    if not members:
        return found
    factors = xr.DataArray(np.linspace(0.5, 1.5, members), dims="member")
    rain = (found["precipitation"] * factors).assign_attrs(ds["precipitation"].attrs)
    return found.assign(precipitation=rain.transpose("member", ...).astype("f4"))


def ask(ds, model, **kwargs):
    with dask.config.set(scheduler="synchronous"):
        return ds.stefa.predict(model, device="cpu", **kwargs).compute()


def pieces(whole, dates=DATES):
    return np.stack([whole.values[day : day + LEADS] for day in dates])


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@EXAMPLES
@given(data=st.data())
def test_without_error_they_are_the_record(weather, model, data):
    chunks = [None, {"init_time": 1, "lead_time": 3}, {"lat": 1, "lon": 2}]
    fine = forecasts(weather)
    here, there = (data.draw(st.sampled_from(chunks)) for _ in range(2))
    there = None if there is None else {"time": 20} if "lead_time" in there else there
    fine = fine if here is None else fine.chunk(here)
    history = weather if there is None else weather.chunk(there)
    found = ask(fine, model, history=history)
    assert found.dims == ("init_time", "lead_time", "lat", "lon")
    close(found, pieces(ask(weather, model)))
    valid = fine["init_time"] + fine["lead_time"]
    np.testing.assert_array_equal(found["valid_time"], valid)
    assert found["valid_time"].attrs["standard_name"] == "time"


def test_dimensions_in_any_order(weather, model):
    expected = pieces(ask(weather, model))
    turned = forecasts(weather, members=2).transpose("lead_time", "lon", "member", "lat", ...)
    found = ask(turned, model, history=weather).mean("member")
    both = ask(forecasts(weather, members=2), model, history=weather).mean("member")
    close(found.transpose(*both.dims), both)
    fine = forecasts(weather)
    fine["temperature_mean"] = fine["temperature_mean"].transpose("lat", "lon", ...)
    fine["precipitation"] = fine["precipitation"].isel(init_time=0)
    found = ask(fine, model, history=weather).transpose("init_time", "lead_time", "lat", "lon")
    close(found[0], expected[0])


def test_a_day_that_the_history_lacks_is_not_known(weather, model):
    """It has passed all the same: a state is of the day before what goes on from it."""
    history = weather.drop_isel(time=[60, 61])
    found = ask(forecasts(weather, (60, 75)), model, history=history)
    close(found[1], ask(history, model)[73:80])
    close(found[0], pieces(ask(weather, model))[0])


def test_members_in_any_order(weather, model):
    fine = forecasts(weather, members=3)
    found = ask(fine, model, history=weather)
    assert found.dims == ("member", "init_time", "lead_time", "lat", "lon")
    close(found.isel(member=1), pieces(ask(weather, model)))
    assert (abs(found.isel(member=0) - found.isel(member=2)).isel(lead_time=0).max() > 1e-6).all()
    turned = ask(fine.isel(member=[2, 0, 1]), model, history=weather)
    close(turned, found.isel(member=[2, 0, 1]))
    close(ask(fine.chunk(member=1, lat=1), model, history=weather.chunk(lat=2)), found)


def test_one_initial_date_with_a_history_or_a_state(weather, model):
    fine = forecasts(weather, members=2).isel(init_time=1)
    found = ask(fine, model, history=weather)
    assert found.dims == ("member", "lead_time", "lat", "lon")
    assert found["init_time"] == fine["init_time"]
    assert found["valid_time"].dims == ("lead_time",)
    whole = ask(forecasts(weather, members=2), model, history=weather)
    close(found, whole.isel(init_time=1))
    state = weather.isel(time=slice(DATES[1])).stefa.spin_up(model)
    known = fine.assign({n: weather[n] for n in ("sand", "catchment_area")})
    close(ask(known, model, state=state), found)
    with pytest.raises(LayoutError, match="3 initial dates") as caught:
        ask(forecasts(weather), model, state=state)
    assert "history=" in str(caught.value)


def test_days_of_one_axis_go_on(weather, model):
    whole = ask(weather, model, coverage=True)
    found = ask(weather.isel(time=slice(60, None)), model, history=weather, coverage=True)
    close(found, whole[60:])
    close(found["coverage"], whole["coverage"][60:])


def test_later_days_of_the_history_are_not_read(weather, model):
    history = weather.copy(deep=True)
    history["precipitation"][DATES[1] :] = np.nan
    fine = forecasts(weather)
    close(ask(fine, model, history=history), ask(fine, model, history=weather))


def test_a_history_that_is_too_short_begins_earlier(weather, model):
    short = weather.isel(time=slice(55, None))
    with pytest.warns(SpinUpWarning, match="begin the history, or the record of the state, earl"):
        ask(forecasts(weather, (60,)), model, history=short)
    with pytest.raises(CalendarError, match="too short") as caught:
        ask(forecasts(weather, (60,)).isel(lead_time=[0]), model, history=short)
    assert "period=" not in caught.value.fix
    assert "1 days, 2000-03-05 to 2000-03-05, after 5 days" in str(caught.value)


def test_units_and_names_of_each(weather, model):
    fine = forecasts(weather).rename(precipitation="tp")
    fine["tp"] = (fine["tp"] / 1000).assign_attrs(fine["tp"].attrs, units="m d-1")
    close(ask(fine, model, history=weather), pieces(ask(weather, model)))
    close(
        ask(fine, model, history=weather, rename={"tp": "precipitation"}),
        ask(fine, model, history=weather),
    )
    other = weather.rename(precipitation="rain")
    del other["rain"].attrs["standard_name"]
    found = ask(fine, model, history=other, rename={"rain": "precipitation"})
    close(found, pieces(ask(weather, model)))
    with pytest.raises(MissingTokenError, match="'snow'"):
        ask(fine, model, history=other, rename={"rain": "precipitation", "snow": "lai"})
    with pytest.warns(ForecastWarning, match="shortwave_down"):
        ask(forecasts(weather.drop_vars("shortwave_down")), model, history=weather)


def test_attributes_of_either_count_for_both(weather, model):
    names = ["sand", "catchment_area"]
    fine = forecasts(weather).assign(weather[names])
    close(ask(fine, model, history=weather.drop_vars(names)), pieces(ask(weather, model)))


def test_where_latitudes_are_known_of_the_history_only(weather, model):
    """Of them and temperatures potential evapotranspiration is made."""
    ds = weather.rename(lat="y", lon="x").drop_vars(["y", "x"])
    latitude = ("y", "x"), [[40.0, 50, 60], [41, 51, 61]], {"standard_name": "latitude"}
    ds = ds.assign_coords(latitude=latitude)
    fine = forecasts(ds).drop_vars("latitude")
    close(ask(fine, model, history=ds), pieces(ask(ds, model)))


def test_in_memory_at_once(weather, model):
    """As lazy as the forecast; and what one date begins with is not made again for the next."""
    read = []
    days = da.from_array(weather["precipitation"].data, chunks=(1, -1, -1))
    days = days.map_blocks(lambda block: read.append(0) or block, meta=np.empty((0, 0, 0), "f4"))
    history = weather.chunk(time=1)
    history["precipitation"] = history["precipitation"].copy(data=days)
    with dask.config.set(scheduler="synchronous"):
        found = forecasts(weather).stefa.predict(model, device="cpu", history=history)
    assert found.chunks is None
    assert len(read) == max(DATES)


def test_lead_times_that_are_not_decoded_are_no_members(weather, model):
    fine = forecasts(weather, tuple(range(60, 75)))
    fine = fine.assign(weather[["sand", "catchment_area"]])
    hours = ("lead_time", 24 * np.arange(LEADS), {"units": "hours"})
    for bare in (
        fine.assign_coords(lead_time=hours),
        fine.assign_coords(lead_time=np.arange(LEADS)).rename(lead_time="step"),
        fine.drop_vars("lead_time").rename(lead_time="prediction_timedelta"),
    ):
        for how in ({}, {"history": weather}):
            with pytest.raises(LayoutError, match="the lead times are numbers") as caught:
                ask(bare, model, **how)
        names = {"ds": bare, "xr": xr, "pd": pd}
        exec(caught.value.fix, names)
        close(ask(names["ds"], model, history=weather), ask(fine, model, history=weather))


def test_other_calendars(weather, model):
    days = xr.date_range("2000-01-01", periods=90, calendar="360_day", use_cftime=True)
    other = weather.assign_coords(time=days)
    close(ask(forecasts(other), model, history=other), pieces(ask(other, model)))
    with pytest.raises(CalendarError, match="same calendar"):
        ask(forecasts(weather), model, history=other)
    ours = weather.convert_calendar("proleptic_gregorian", use_cftime=True)
    close(ask(forecasts(weather), model, history=ours), pieces(ask(weather, model)))


def test_quantiles_and_water(weather, make_model, distribution):
    model = make_model(encoder=False, windows=RECORD, members=2, distribution=distribution)
    found = ask(forecasts(weather), model, history=weather, quantiles=[0.1, 0.9])
    assert found.dims == ("quantile", "init_time", "lead_time", "lat", "lon")
    close(found.isel(quantile=1), pieces(ask(weather, model, quantiles=[0.9]).isel(quantile=0)))
    both = ask(forecasts(weather), model, history=weather, interval=0.8)
    close(both["upper"], found.isel(quantile=1))


def test_hours_become_days_date_by_date(weather, model):
    fine = forecasts(weather)
    hours = pd.to_timedelta(np.arange(1, 24 * LEADS + 1), unit="h")
    which = xr.DataArray(np.repeat(np.arange(LEADS), 24), dims="lead_time")
    hourly = fine.isel(lead_time=which).assign_coords(lead_time=hours)
    for name in hourly.data_vars:
        hourly[name].attrs = fine[name].attrs
    found = hourly.stefa.daily()
    assert dict(found.sizes) == dict(fine.sizes)
    np.testing.assert_array_equal(found["lead_time"], fine["lead_time"])
    np.testing.assert_allclose(found["precipitation"], fine["precipitation"], rtol=1e-6)
    close(ask(found, model, history=weather), pieces(ask(weather, model)))
    noon = hourly["init_time"] + np.array([0, 12, 0]).astype("timedelta64[h]")
    mixed = hourly.assign_coords(init_time=noon).stefa.daily()
    assert mixed.sizes["lead_time"] == LEADS + 1
    close(mixed["precipitation"][0, :LEADS], found["precipitation"][0])
    assert mixed["precipitation"][[0, 2], LEADS].isnull().all()
    assert mixed["precipitation"][1].isnull().all(["lat", "lon"]).values.tolist() == [
        *[True],
        *[False] * (LEADS - 1),
        *[True],
    ]


def test_what_does_not_fit_is_refused(weather, model, tiny_model):
    fine = forecasts(weather)
    with pytest.raises(CalendarError, match="day before each initial date") as caught:
        ask(fine, model, history=weather.isel(time=slice(70)))
    assert "2000-03-20" in str(caught.value)
    with pytest.raises(CalendarError, match="day before each initial date"):
        ask(forecasts(weather, (0,)), model, history=weather)
    with pytest.raises(LayoutError, match="same sites in the same order"):
        ask(fine, model, history=weather.isel(lat=[1, 0]))
    with pytest.raises(LayoutError, match="3 along 'lon', and 2"):
        ask(fine.isel(lon=[0, 1]), model, history=weather)
    with pytest.raises(LayoutError, match="one value of 'lon'"):
        ask(fine, model, history=weather.isel(lon=0))
    with pytest.raises(LayoutError, match="no dimension 'lon'"):
        ask(fine, model, history=weather.isel(lon=0, drop=True))
    for here, there in (
        (fine.assign_coords(lat=fine["lat"] + 1e-6), weather),
        (fine.assign_coords(lon=fine["lon"] + 355), weather.assign_coords(lon=fine["lon"] - 5)),
        (fine.isel(lon=[0, 1]), weather),
        (fine, weather.isel(lon=[0, 1])),
        (fine.isel(lon=[0, 1]), weather.isel(lon=[1, 2])),
        (fine.isel(lon=[1, 0]), weather),
    ):
        with pytest.raises(LayoutError, match="same sites in the same order") as caught:
            ask(here, model, history=there)
        names = {"history": there, "ds": here, "xr": xr}
        exec(caught.value.fix, names)
        found = ask(names["ds"], model, history=names["history"])
        np.testing.assert_array_equal(found["lon"], names["ds"]["lon"])
        assert found.notnull().any()
    one = {"lat": [0], "lon": [1]}
    with pytest.raises(LayoutError, match="same sites") as caught:
        ask(fine.isel(one), model, history=weather.isel(lat=[1], lon=[1]))
    assert caught.value.fix == "a history of the sites of ds"
    with pytest.raises(ModelError, match="those that look back only"):
        ask(fine, tiny_model, history=weather)
    with pytest.raises(LayoutError, match="history="):
        ask(fine, model)
    state = weather.isel(time=slice(60)).stefa.spin_up(model)
    for other in ({"period": "2000-03"}, {"state": state}):
        with pytest.raises(OptionError, match="history="):
            ask(fine, model, history=weather, **other)
    for nothing in ({"init_time": []}, {"lead_time": []}):
        with pytest.raises(LayoutError, match="no initial date or lead time"):
            ask(fine.isel(nothing), model, history=weather)
    with pytest.raises(LayoutError, match="counted from"):
        ask(fine.isel(init_time=0, drop=True), model, history=weather)


def test_released_model():
    ds = xstefa.open_sample("camels_us").isel(basin=[0, 5]).isel(time=slice(0, 500)).load()
    attributes = [n for n, v in ds.data_vars.items() if "time" not in v.dims]
    days = ds.isel(time=slice(450, 460)).drop_vars([*attributes, "lat", "lon"])
    lead = pd.to_timedelta(range(10), unit="D")
    begin = days["time"].values[0]
    fine = days.rename(time="lead_time").assign_coords(lead_time=lead, init_time=begin)
    found = fine.stefa.predict("streamflow", history=ds)
    np.testing.assert_allclose(
        found, ds.stefa.predict("streamflow")[..., 450:460], rtol=1e-5, atol=2e-5
    )
