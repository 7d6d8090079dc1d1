"""Daily totals of amounts, however they were collected: right, or refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.errors import OptionError, UnitsError
from xstefa.prepare.accumulation import name_of, stated
from xstefa.prepare.daily import daily

DAYS, CELLS = 40, (3, 4)
HOURS = np.arange(24 * DAYS)


def storms(rng):
    """Make rain that lasts for hours and comes over all cells, m in each hour."""
    noise = rng.normal(size=(HOURS.size, *CELLS)) * 0.6 + rng.normal(size=(HOURS.size, 1, 1)) * 0.8
    for hour in HOURS[1:]:
        noise[hour] = 0.85 * noise[hour - 1] + 0.5 * noise[hour]
    return 1e-3 * np.maximum(noise - 0.3, 0) ** 1.5


def showers(rng):
    """Make rain in single hours of single cells."""
    return rng.gamma(0.3, 1e-3, (HOURS.size, *CELLS)) * (rng.random((HOURS.size, *CELLS)) < 0.2)


def traces(rng):
    """Make a hundredth of a millimetre, a few hours long, every tenth day: a dry country."""
    rain = np.zeros((HOURS.size, *CELLS))
    for day in range(3, DAYS, 10):
        first = 24 * day + rng.integers(24)
        part = rain[first : first + 4]
        part[:] = rng.gamma(1.0, 1e-5, part.shape)
    return rain


def sunshine(rng):
    """Make shortwave radiation, J m-2 in each hour."""
    height = np.maximum(np.sin((HOURS % 24 - 6) / 12 * np.pi), 0)
    return 3e6 * height[:, None, None] * rng.uniform(0.4, 1.0, (HOURS.size, *CELLS))


WEATHER = {"storms": storms, "showers": showers, "traces": traces, "sunshine": sunshine}


def of_steps(hourly, hours):
    return hourly.reshape(-1, hours, *CELLS).sum(axis=1)


def running(steps, *, hours, period, first):
    """Add up over `period` hours, anew from each hour that is `first` modulo `period`."""
    total = np.cumsum(steps, axis=0)
    if period is None:
        return total
    begins = np.arange(len(steps)) * hours
    # What had come until the last restart before each step.
    restart = (begins - (begins - first) % period) // hours
    before = np.concatenate([np.zeros((1, *CELLS)), total])[np.maximum(restart, 0)]
    return total - before


def packed(values):
    """Round as GRIB does at 16 bits: each field by its own quantum, that of a wetter world."""
    largest = 8 * np.maximum(values.max(axis=(1, 2)), values.max() / 50)
    quantum = 2.0 ** np.ceil(np.log2(largest / 65535))[:, None, None]
    return np.round(values / quantum) * quantum, quantum.max()


def dataset(values, hours, **attrs):
    stamps = pd.date_range("2001-01-01", periods=len(values) + 1, freq=f"{hours}h")[1:]
    units = "J m-2" if values.max() > 1e3 else "m"
    name = {"m": "tp", "J m-2": "ssrd"}[units]
    coords = {"time": stamps, "lat": [1.0, 2.0, 3.0], "lon": [1.0, 2.0, 3.0, 4.0]}
    return xr.Dataset(
        {name: (("time", "lat", "lon"), values.astype(np.float32), {"units": units} | attrs)},
        coords,
    )


def result_of(ds, schema, **kwargs):
    """Return the daily values of the one variable, or None where they are refused."""
    try:
        return next(iter(daily(ds, schema, **kwargs).data_vars.values())).values
    except UnitsError:
        return None


CHANGES = ("as it is", "packed", "with gaps")


def is_right(schema, values, truth, *, hours, change, rng, values_a_day):
    """Whether the daily values are `truth`, NaN only where it must be; None if refused."""
    quantum = 0.0
    if change == "packed":
        values, quantum = packed(values)
    elif change == "with gaps":
        values = np.where(rng.random(values.shape) < 0.02, np.nan, values)
    result = result_of(dataset(values, hours), schema)
    if result is None:
        return None
    known = np.isfinite(result)
    error = np.abs(result - truth)[known].mean()
    return (
        known[1:].mean() > (0.97 ** (values_a_day + 2) if change == "with gaps" else 0.99)
        and error <= 0.01 * truth[known].mean() + quantum / 4 * values_a_day
    )


@pytest.mark.parametrize(
    ("hours", "period"),
    [(hours, period) for hours in (1, 3) for period in (3, 6, 12, 24, None) if period != hours],
)
@pytest.mark.parametrize("weather", WEATHER)
def test_running_totals_are_right_or_refused(schema, weather, hours, period):
    rng = np.random.default_rng(5)
    steps = of_steps(WEATHER[weather](rng), hours)
    found = [
        is_right(
            schema,
            running(steps, hours=hours, period=period, first=first),
            of_steps(steps, 24 // hours),
            hours=hours,
            change=CHANGES[number % 3],
            rng=rng,
            values_a_day=24 // (period or 24) + 2,
        )
        for number, first in enumerate(range(0, period or 1, hours))
    ]
    assert False not in found
    if weather in ("storms", "showers") or (weather, period) == ("sunshine", 24):
        assert True in found  # refusing everything would be safe as well


@pytest.mark.parametrize("hours", [1, 3, 6, 12])
@pytest.mark.parametrize("weather", WEATHER)
def test_sums_of_steps_are_right_or_refused(schema, weather, hours):
    rng = np.random.default_rng(6)
    steps = of_steps(WEATHER[weather](rng), hours)
    truth = of_steps(steps, 24 // hours)
    found = [
        is_right(schema, steps, truth, hours=hours, change=c, rng=rng, values_a_day=24 // hours)
        for c in CHANGES
    ]
    refused = {("sunshine", 6), ("sunshine", 12)}  # half a day of sun: nothing tells
    assert found == [None if (weather, hours) in refused else True] * len(CHANGES)


def test_the_only_rain_of_a_record_is_right_or_refused_wherever_it_falls(schema):
    """The days looked at may see it grow, and not the restart."""
    for day in (5, 13, 26):
        rain = np.zeros((HOURS.size, *CELLS))
        rain[24 * day + 8 : 24 * day + 11] = np.random.default_rng(day).gamma(2, 1e-3, (3, *CELLS))
        for first in (0, 6):
            result = result_of(dataset(running(rain, hours=1, period=24, first=first), 1), schema)
            if result is not None:
                np.testing.assert_allclose(result[1:], of_steps(rain, 24)[1:], atol=1e-6)


def test_a_record_of_one_day_may_be_a_running_total(schema):
    rain = storms(np.random.default_rng(1))[:24]
    result = result_of(dataset(running(rain, hours=1, period=24, first=0), 1), schema)
    np.testing.assert_allclose(result, of_steps(rain, 24), rtol=1e-5)


# ---- the caller's word


@pytest.mark.parametrize(
    ("word", "hours", "first"),
    [
        ("day", 24, 0),
        ("24h from 18:00", 24, 18),
        ("12h", 12, 0),
        ("6h", 6, 0),
        ("6h from 02:00", 6, 2),
        ("start", None, 0),
    ],
)
@pytest.mark.parametrize("chunks", [None, 100])
def test_the_callers_word_is_taken_whatever_the_values_look_like(
    schema, word, hours, first, chunks
):
    rain = traces(np.random.default_rng(0))
    ds = dataset(running(rain, hours=1, period=hours, first=first), 1)
    if chunks is not None:
        ds = ds.chunk(time=chunks)
    result = result_of(ds, schema, accumulation=word)
    np.testing.assert_allclose(result[1:], of_steps(rain, 24)[1:], atol=1e-9)
    assert name_of(stated(word, step=3600), step=3600) == word
    assert f"tp: accumulation={word!r}" in daily(ds, schema, accumulation=word).attrs["history"]


@pytest.mark.parametrize("word", ["hourly", "5h", "48h", "0h", "6h from 01:30", "90"])
def test_other_words_are_refused_with_those_there_are(schema, word):
    with pytest.raises(OptionError, match="'24h from 18:00'") as caught:
        daily(dataset(storms(np.random.default_rng(0)), 1), schema, accumulation=word)
    for choice in ("step", "day", "6h", "start"):
        assert f"'{choice}'" in caught.value.fix


def test_each_amount_has_a_rule_of_its_own_and_the_dry_one_that_of_the_others(schema):
    rng = np.random.default_rng(1)
    rain, sun = storms(rng), sunshine(rng)
    buckets = dataset(running(rain, hours=1, period=6, first=0), 1).rename(tp="APCP")
    ds = buckets.merge(dataset(sun, 1))
    result = daily(ds, schema)
    np.testing.assert_allclose(result["APCP"], of_steps(rain, 24), rtol=1e-5)
    np.testing.assert_allclose(result["ssrd"], of_steps(sun, 24), rtol=1e-5)

    dry = ds.assign(APCP=0 * ds["APCP"].assign_attrs(units="m"))
    assert "APCP: accumulation='step'" in daily(dry, schema).attrs["history"]


@pytest.mark.parametrize("period", [None, 24])
def test_values_decide_over_a_cell_method_that_running_totals_carry_too(schema, period):
    rain = storms(np.random.default_rng(2))
    values = rain if period is None else running(rain, hours=1, period=period, first=0)
    result = result_of(dataset(values, 1, cell_methods="time: sum"), schema)
    np.testing.assert_allclose(result, of_steps(rain, 24), rtol=1e-5)
    stated_alone = result_of(dataset(0 * rain, 1, cell_methods="time: sum"), schema)
    assert (stated_alone == 0).all()


def test_a_total_that_counts_downwards_is_one(schema):
    rain = -storms(np.random.default_rng(2))
    result = result_of(dataset(running(rain, hours=1, period=24, first=6), 1), schema)
    np.testing.assert_allclose(result[1:], of_steps(rain, 24)[1:], rtol=1e-3, atol=1e-7)


def test_a_total_that_is_zero_when_it_restarts_has_lost_its_last_step(schema):
    """Forecasts from their hour 0 on: the value at 00:00 is zero, that of the whole day is not."""
    total = running(storms(np.random.default_rng(2)), hours=1, period=24, first=0)
    total[23::24] = 0
    assert result_of(dataset(total, 1), schema) is None


def test_totals_of_two_days_are_nothing_that_is_known(schema):
    total = running(storms(np.random.default_rng(2)), hours=1, period=48, first=0)
    assert result_of(dataset(total, 1), schema) is None


def test_the_bounds_of_a_running_total_say_when_it_ends(schema):
    rain = storms(np.random.default_rng(3))
    ds = dataset(running(rain, hours=1, period=24, first=0), 1)
    ends = ds["time"].values
    ds = ds.assign_coords(time=ends - np.timedelta64(1, "h"))
    bounds = np.stack([(ends - np.timedelta64(1, "s")).astype("M8[D]").astype(ends.dtype), ends], 1)
    ds = ds.assign(time_bnds=(("time", "nv"), bounds))
    ds["time"].attrs["bounds"] = "time_bnds"
    np.testing.assert_allclose(result_of(ds, schema), of_steps(rain, 24), rtol=1e-5)


def test_following_the_printed_fix_gives_a_prediction(schema, tiny_model):
    """The line is run as it is printed; which of its words is right the user must know."""
    rain = traces(np.random.default_rng(0))[:48]
    ds = dataset(rain, 1).assign(t2m=lambda ds: (ds["tp"] + 280).assign_attrs(units="K"))
    with pytest.raises(UnitsError, match="over which time it collects") as caught:
        daily(ds, schema)
    names = {"ds": ds}
    exec(caught.value.fix, names)
    assert names["ds"].sizes["time"] == 2
    assert names["ds"].stefa.predict(tiny_model).notnull().any()
