"""CF ragged arrays: exact values at their sites and times, or a refusal that says what is wrong."""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import bind
from xstefa.errors import CalendarError, LayoutError

LENGTHS = [20, 0, 30]


@pytest.fixture(params=["obs", "time"])
def obs(request):
    return request.param


def ragged(kind, obs="obs", *, places=True, interleaved=False):
    """Stations of 20, 0 and 30 days, of which the second and last begin on other days."""
    first = pd.to_datetime(["2001-01-05", "2001-01-01", "2000-12-30"])
    days = pd.DatetimeIndex(
        [
            start + pd.Timedelta(d, "D")
            for start, n in zip(first, LENGTHS, strict=True)
            for d in range(n)
        ]
    )
    index = np.repeat(np.arange(3), LENGTHS)
    link = {"row_size": ("station", LENGTHS, {"sample_dimension": obs})}
    if kind == "indexed":
        link = {"which": (obs, index, {"instance_dimension": "station"})}
    ds = xr.Dataset(
        {
            "pr": (obs, np.arange(50.0), {"units": "mm d-1"}),
            "tas": (obs, np.arange(50, dtype="f4"), {"units": "degC"}),
            "flag": (obs, np.arange(50)),
            **link,
        },
        {"time": (obs, days, {"long_name": "day"}), "height": (obs, np.full(50, 2.0))},
        {"featureType": "timeSeries", "history": "made"},
    )
    if places:
        ds = ds.assign(elevation=("station", [5.0, 6.0, 7.0], {"units": "m"}))
        ds = ds.assign_coords(lat=("station", [50.0, 55.0, 60.0], {"units": "degrees_north"}))
        ds = ds.assign_coords(
            station_name=("station", ["a", "b", "c"], {"cf_role": "timeseries_id"})
        )
    if interleaved:
        ds = ds.isel({obs: np.argsort(days, kind="stable")})
    return ds


def expected(ds, name):
    """The series of each station, laid out by pandas."""
    station = np.repeat(np.arange(3), LENGTHS)
    table = pd.Series(ds[name].values, [station, ds["time"].values]).unstack()
    return table.reindex(range(3)).to_numpy()


@pytest.mark.parametrize("kind", ["contiguous", "indexed"])
def test_values_are_at_their_sites_and_times(kind, obs, schema, tiny_model):
    ds = ragged(kind, obs)
    found = ds.stefa.from_ragged()
    assert found["pr"].dims == ("station", "time")
    assert found.sizes == {"station": 3, "time": 30}
    for name in ("pr", "tas", "flag", "height"):
        np.testing.assert_array_equal(found[name], expected(ds, name))
        assert found[name].attrs == ds[name].attrs
    assert found["tas"].dtype == np.float32
    assert found["time"].to_index().equals(pd.date_range("2000-12-30", periods=30))
    assert found["time"].attrs == {"long_name": "day"}
    assert set(found.coords) == {"time", "height", "lat", "station_name"}
    assert found.attrs["featureType"] == "timeSeries"
    assert found.attrs["history"].endswith(f"{kind} ragged array\nmade")
    assert not {"row_size", "which"} & set(found.variables)
    assert bind(found, schema).static["elevation"].values.tolist() == [5, 6, 7]
    answer = found.stefa.predict(tiny_model)
    assert answer.dims == ("station", "time")
    assert answer.notnull().any("time").values.tolist() == [True, False, True]


def test_observations_may_be_in_the_order_of_time_and_sites_without_a_table():
    ds = ragged("indexed", places=False, interleaved=True)
    assert not ds["which"].to_index().is_monotonic_increasing
    xr.testing.assert_identical(
        ds.stefa.from_ragged(), ragged("indexed", places=False).stefa.from_ragged()
    )


def test_chunks_and_calendars_stay(obs):
    def refuse(*_, **__):
        raise AssertionError("computed")

    ds = ragged("contiguous", obs)
    if obs == "time":
        ds = ds.convert_calendar("noleap", use_cftime=True)
    lazy = ds.chunk({obs: 7}).assign({"row_size": ds["row_size"]}).assign_coords(time=ds["time"])
    with dask.config.set(scheduler=refuse):
        found = lazy.stefa.from_ragged()
    assert found["pr"].chunks is not None
    xr.testing.assert_identical(found.compute(), ds.stefa.from_ragged())
    assert found["time"].dt.calendar == ("noleap" if obs == "time" else "proleptic_gregorian")


def test_it_is_read_from_a_file(tmp_path):
    ds = ragged("contiguous")
    ds.to_netcdf(tmp_path / "ragged.nc")
    with xr.open_dataset(tmp_path / "ragged.nc", chunks={}) as opened:
        found = opened.stefa.from_ragged()
        assert found["pr"].chunks is not None
        xr.testing.assert_equal(found.load(), ds.stefa.from_ragged())


WRONG = {
    "no ragged array": (
        "contiguous", lambda ds: ds.drop_vars("row_size"), LayoutError, "no ragged array",
    ),
    "counts of another file": (
        "contiguous",
        lambda ds: ds.isel(obs=slice(0, 40)),
        LayoutError,
        "50 counted, 40 along 'obs'",
    ),
    "counts that are shifted": (
        "contiguous",
        lambda ds: ds.assign(row_size=ds["row_size"].copy(data=[30, 0, 20])),
        CalendarError,
        "fall.*at site 0",
    ),
    "counts below 0": (
        "contiguous",
        lambda ds: ds.assign(row_size=ds["row_size"].copy(data=[60, -10, 0])),
        LayoutError,
        "whole numbers from 0",
    ),
    "counts that are missing": (
        "contiguous",
        lambda ds: ds.assign(row_size=ds["row_size"].copy(data=[20, np.nan, 30.0])),
        LayoutError,
        "fillna",
    ),
    "indices from 1": (
        "indexed",
        lambda ds: ds.assign(which=ds["which"] + 1).assign(
            which=(ds["which"] + 1).assign_attrs(ds["which"].attrs)
        ),
        LayoutError,
        "index 3, and 3 along 'station'",
    ),
    "an index of no site": (
        "indexed",
        lambda ds: ds.assign(which=ds["which"].where(ds["which"] > 0, -1)),
        LayoutError,
        "isel",
    ),
    "times out of order": (
        "indexed", lambda ds: ds.isel(obs=np.arange(50)[::-1]), CalendarError, "argsort",
    ),
    "a time twice": (
        "indexed",
        lambda ds: ds.isel(obs=np.repeat(np.arange(50), 2)),
        CalendarError,
        "two observations of one time",
    ),
    "no dates": ("contiguous", lambda ds: ds.drop_vars("time"), LayoutError, "no dates"),
    "missing dates": (
        "indexed",
        lambda ds: ds.assign_coords(time=ds["time"].where(ds["pr"] > 0)),
        CalendarError,
        "1 missing dates",
    ),
    "profiles": (
        "contiguous",
        lambda ds: ds.assign(levels=("obs", np.ones(50, int), {"sample_dimension": "z"})).assign(
            t=("z", np.zeros(50))
        ),
        LayoutError,
        "levels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    kind, change, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        change(ragged(kind)).stefa.from_ragged()


def test_fixes_lead_on(follow):
    flawed = {
        name: WRONG[name][1](ragged("indexed")) for name in ("times out of order", "missing dates")
    }
    for ds in flawed.values():
        with pytest.raises(CalendarError) as caught:
            ds.stefa.from_ragged()
        assert follow(caught.value, ds).stefa.from_ragged().sizes["station"] == 3
