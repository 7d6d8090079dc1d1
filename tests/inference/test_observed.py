"""Predictions that know what was observed before them, and nothing later."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

import xstefa
from xstefa.cli import main
from xstefa.errors import LayoutError, MissingTokenError, OptionError
from xstefa.evaluation.metrics import nse
from xstefa.inference.observed import FADING, FARTHEST, updated

FLOW = FADING["streamflow"]
SITES, DAYS = 3, 200


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def simulated(rng):
    return rng.gamma(2.0, 1.0, (SITES, DAYS)).astype(np.float32)


def each_day(simulated, observed, fading=FLOW):
    ahead = simulated[..., None]
    found = updated(ahead, simulated, observed, starts=np.arange(DAYS), fading=fading)
    return found[..., 0]


def test_without_observations_nothing_changes(simulated):
    found = each_day(simulated, np.full_like(simulated, np.nan))
    np.testing.assert_array_equal(found, simulated)
    one = np.full_like(simulated, np.nan)
    one[1, 50] = 9.0
    found = each_day(simulated, one)
    changed = found != simulated
    assert not changed[[0, 2]].any()
    assert np.flatnonzero(changed[1]).tolist() == list(range(51, 51 + FARTHEST))


def test_no_day_knows_what_was_observed_on_it_or_later(simulated, rng):
    observed = rng.gamma(2.0, 1.0, simulated.shape).astype(np.float32)
    other = observed.copy()
    other[:, 120] = 50.0
    before, after = each_day(simulated, observed), each_day(simulated, other)
    np.testing.assert_array_equal(after[:, :121], before[:, :121])
    assert (after[:, 121] > before[:, 121]).all()


@pytest.mark.parametrize("name", list(FADING))
def test_the_first_day_after_one_observation_by_hand(name):
    fading = FADING[name]
    simulated = np.full((1, DAYS), 0.2, np.float32)
    observed = np.full((1, DAYS), np.nan, np.float32)
    observed[0, 10] = 0.3
    found = each_day(simulated, observed, fading)[0]
    level, error = fading.forward(np.array([0.2, 0.3])), None
    error = level[1] - level[0]
    for days in (1, 5, 40):
        expected = fading.back(level[0] + error * np.exp(-days / fading.memory))
        np.testing.assert_allclose(found[10 + days], expected, rtol=1e-5)
    assert (np.diff(found[11:60]) < 0).all()
    assert fading.back(fading.forward(np.array([0.17]))) == pytest.approx(0.17)


def test_the_error_of_a_month_counts_more_as_time_goes_on():
    simulated = np.full((1, DAYS), 2.0, np.float32)
    observed = np.full((1, DAYS), np.nan, np.float32)
    observed[0, [50, 52]] = 3.0, 2.5
    found = each_day(simulated, observed)[0]
    level, *errors = FLOW.forward(np.array([2.0, 3.0, 2.5]))
    errors = np.array(errors) - level
    for days in (1, 3, 20):
        error = errors[1] + days / (days + FLOW.half) * (errors.mean() - errors[1])
        expected = FLOW.back(level + np.exp(-days / FLOW.memory) * error)
        np.testing.assert_allclose(found[52 + days], expected, rtol=1e-5)


def test_errors_that_stay_are_mended_and_those_that_do_not_are_left(rng):
    truth = rng.gamma(2.0, 1.0, (2, DAYS)).astype(np.float32)
    constant = FLOW.back(FLOW.forward(truth[0]) + 0.5)
    noise = FLOW.back(FLOW.forward(truth[1]) + rng.normal(0, 0.5, DAYS))
    simulated = np.stack([constant, noise]).astype(np.float32)
    found = each_day(simulated, truth)
    wrong, left = abs(simulated - truth).mean(1), abs(found - truth)[:, 100:].mean(1)
    assert left[0] < 0.3 * wrong[0]
    assert left[1] < 1.1 * wrong[1]


def test_starts_and_leads_are_days(simulated, rng):
    observed = rng.gamma(2.0, 1.0, simulated.shape).astype(np.float32)
    starts, ahead = np.array([60, 90, 61]), 5
    later = np.stack([simulated[:, day : day + ahead] for day in starts], axis=1)
    found = updated(later, simulated, observed, starts=starts, fading=FLOW)
    np.testing.assert_array_equal(found[:, :, 0], each_day(simulated, observed)[:, starts])
    hidden = observed.copy()
    hidden[:, 60:] = np.nan
    np.testing.assert_array_equal(found[:, 0], each_day(simulated, hidden)[:, 60:65])
    some = np.array([0, 1, 3])
    gap = updated(later[..., some], simulated, observed, starts=starts, fading=FLOW, leads=some)
    np.testing.assert_array_equal(gap, found[..., some])
    members = np.stack([later, later * 1.1])
    both = updated(members, simulated[None], observed[None], starts=starts, fading=FLOW)
    np.testing.assert_array_equal(both[0], found)
    assert (both[1] != both[0]).all()


@pytest.fixture(scope="module")
def basins():
    return xstefa.open_sample("camels_us").isel(basin=[0, 1, 5], time=slice(0, 1300)).load()


@pytest.fixture(scope="module")
def moved(basins):
    return basins.stefa.predict("streamflow", observed="streamflow")


def test_better_than_without(basins, moved):
    plain = basins.stefa.predict("streamflow")
    gain = nse(moved, basins["streamflow"]) - nse(plain, basins["streamflow"])
    assert (gain > 0).all()
    assert gain.max() > 0.1
    assert moved.dims == plain.dims
    assert moved.attrs["units"] == "mm d-1"
    xr.testing.assert_identical(moved.coords.to_dataset(), plain.coords.to_dataset())


def test_lazily_and_by_other_units_the_same(basins, moved):
    chunked = basins.chunk(time=500, basin=2)
    found = chunked.stefa.predict("streamflow", observed="streamflow", coverage=True)
    assert found.chunks is not None
    np.testing.assert_array_equal(found, moved)
    assert found["coverage"].max() > 0.5
    bare = basins.drop_vars("streamflow")
    discharge = basins["streamflow"] * basins["area_gages2"] / 86.4
    found = bare.stefa.predict("streamflow", observed=discharge.assign_attrs(units="m3 s-1"))
    np.testing.assert_allclose(found, moved, rtol=1e-4, atol=1e-5)
    part = basins["streamflow"].isel(basin=[1])
    found = bare.stefa.predict("streamflow", observed=part)
    np.testing.assert_array_equal(found.isel(basin=1), moved.isel(basin=1))
    np.testing.assert_array_equal(
        found.isel(basin=[0, 2]), bare.stefa.predict("streamflow").isel(basin=[0, 2])
    )


def test_several_targets_of_one_and_the_command(basins, moved, tmp_path):
    xr.testing.assert_identical(
        basins.stefa.predict(["streamflow"], observed="streamflow"), moved.to_dataset()
    )
    basins.to_netcdf(tmp_path / "basins.nc")
    words = ["predict", tmp_path / "basins.nc", tmp_path / "flow.nc", "--target", "streamflow"]
    words += ["--observed", "streamflow"]
    found = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    with xr.open_dataset(tmp_path / "flow.nc") as flow:
        np.testing.assert_allclose(flow["streamflow"], moved, rtol=1e-5, atol=1e-5)


def test_forecasts_know_what_was_observed_before_they_began(basins, moved):
    names = [n for n, v in basins.data_vars.items() if "time" not in v.dims] + ["streamflow"]
    series = basins.drop_vars([*names, "lat", "lon"])
    dates = (1200, 1210)
    fine = xr.concat(
        [
            series.isel(time=slice(day, day + 5))
            .drop_vars("time")
            .rename(time="step")
            .assign_coords(step=pd.to_timedelta(range(5), unit="D"), time=series.time.values[day])
            for day in dates
        ],
        dim="time",
    )
    found = fine.stefa.predict("streamflow", history=basins, observed="streamflow")
    expected = moved.isel(time=list(dates)).transpose(*found.isel(step=0).dims)
    np.testing.assert_allclose(found.isel(step=0), expected, rtol=1e-5, atol=2e-5)
    hidden = basins["streamflow"].copy(deep=True)
    hidden[:, 1200:] = np.nan
    again = fine.isel(time=0).stefa.predict("streamflow", history=basins, observed=hidden)
    np.testing.assert_allclose(again, found.isel(time=0), rtol=1e-5, atol=2e-5)
    once = hidden.where(hidden["time"] == hidden["time"][1203 - FARTHEST])
    some = fine.isel(time=0, step=[0, 1, 2, 4])
    known = some.stefa.predict("streamflow", history=basins, observed=once)
    changed = known != some.stefa.predict("streamflow", history=basins)
    assert changed.all("basin").values.tolist() == [True, True, True, False]
    days = basins.isel(time=slice(1200, 1205))
    history = basins.isel(time=slice(0, 1200))
    plain = days.stefa.predict("streamflow", history=history, observed="streamflow")
    np.testing.assert_allclose(
        plain.transpose("basin", "time"), again.transpose("basin", "step"), rtol=1e-5, atol=2e-5
    )


def test_what_does_not_go_together_is_refused(basins):
    ask = basins.stefa.predict
    with pytest.raises(OptionError, match=r"observed= and interval="):
        ask("streamflow", observed="streamflow", interval=0.9)
    with pytest.raises(MissingTokenError, match="'flow'"):
        ask("streamflow", observed="flow")
    with pytest.raises(OptionError, match="streamflow or soil_moisture"):
        ask(["streamflow", "evapotranspiration"], observed="streamflow", model="water-balance")
    later = basins["streamflow"].assign_coords(time=basins["time"] + pd.Timedelta(9000, "D"))
    with pytest.raises(LayoutError, match="pair up"):
        ask("streamflow", observed=later)
    flow = basins["streamflow"]
    ds = basins.isel(time=slice(0, 500))
    noon = flow.isel(time=slice(0, 500))
    noon = noon.assign_coords(time=noon["time"] + pd.Timedelta(12, "h"))
    plain = ds.stefa.predict("streamflow")
    for wrong, found in (
        (flow, "800 of 1300 labels of 'time'"),
        (noon, "500 of 500 labels of 'time'"),
        (flow.isel(time=[3, 3, 4]), "1 label of 'time' more than once"),
        (ds["streamflow"].isel(basin=0), "no dimension 'basin'"),
        (ds["streamflow"].isel(basin=0, drop=True), "no dimension 'basin'"),
        (ds["streamflow"].expand_dims(level=2), "a dimension 'level'"),
    ):
        with pytest.raises(LayoutError, match=found) as caught:
            ds.stefa.predict("streamflow", observed=wrong)
        names = {"observed": wrong, "ds": ds, "np": np}
        exec(caught.value.fix.partition("   #")[0], names)
        found = names["ds"].stefa.predict("streamflow", observed=names["observed"])
        assert (found != plain).any()
