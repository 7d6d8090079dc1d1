"""Scores by lead time, beside persistence and climatology."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.errors import LayoutError, OptionError
from xstefa.evaluation.leads import compare_by_lead
from xstefa.plotting.scores import plot_cdf, plot_leads

LEADS = 3


@pytest.fixture
def observed():
    """Four years of a season, with a step each year, at two sites."""
    time = pd.date_range("2001-01-01", "2004-12-31")
    season = (
        3 + np.sin(2 * np.pi * time.day_of_year.values / 365.25) + 0.1 * (time.year.values - 2001)
    )
    values = np.stack([season, 2 * season], axis=1)
    attrs = {"units": "mm d-1"}
    return xr.DataArray(
        values, {"time": time, "basin": ["a", "b"]}, ("time", "basin"), "streamflow", attrs
    )


def forecasts(observed, starts, error=0.0):
    lead = pd.to_timedelta(range(LEADS), unit="D")
    parts = [
        observed.sel(time=slice(start, start + lead[-1])).drop_vars("time").rename(time="lead_time")
        for start in starts
    ]
    found = xr.concat(parts, dim=pd.Index(starts, name="init_time")) + error
    valid = np.asarray(starts.values)[:, None] + lead.values
    return found.assign_coords(lead_time=lead, valid_time=(("init_time", "lead_time"), valid))


def test_references_by_hand(observed):
    starts = pd.date_range("2003-02-01", periods=40)
    found = compare_by_lead(
        {"perfect": forecasts(observed, starts), "off": forecasts(observed, starts, 1.0)},
        observed,
        scores=["rmse", "nse"],
    )
    assert found["rmse"].dims == ("model", "lead_time", "basin")
    assert found["model"].values.tolist() == ["perfect", "off", "persistence", "climatology"]
    np.testing.assert_allclose(found["rmse"].sel(model="perfect"), 0, atol=1e-12)
    np.testing.assert_allclose(found["rmse"].sel(model="off"), 1)
    before = observed.sel(time=starts - pd.Timedelta(1, "D")).values
    for lead in range(LEADS):
        wrong = observed.sel(time=starts + pd.Timedelta(lead, "D")).values - before
        np.testing.assert_allclose(
            found["rmse"].sel(model="persistence").isel(lead_time=lead),
            np.sqrt((wrong**2).mean(axis=0)),
        )
    # Other years are 0.2, 0.1 below and 0.1 above: on average a fifteenth below.
    climatology = found["rmse"].sel(model="climatology")
    np.testing.assert_allclose(climatology, [[0.2 / 3, 0.4 / 3]] * LEADS, atol=0.02)


def test_units_of_observations_may_be_others(observed):
    starts = pd.date_range("2003-02-01", periods=40)
    off = forecasts(observed, starts, 1.0)
    inches = (observed / 25.4).assign_attrs(units="inch d-1")
    found = compare_by_lead({"off": off}, inches, scores="rmse")
    expected = compare_by_lead({"off": off}, observed, scores="rmse")
    np.testing.assert_allclose(25.4 * found["rmse"], expected["rmse"])
    assert off.attrs == observed.attrs
    with pytest.raises(LayoutError, match="mean of its members"):
        compare_by_lead({"members": off.expand_dims(number=3)}, observed)


def test_other_calendars(observed):
    starts = pd.date_range("2003-03-05", periods=40)
    other = observed.convert_calendar("noleap", use_cftime=True)
    fine = forecasts(observed, starts)
    begins = xr.date_range("2003-03-05", periods=40, calendar="noleap", use_cftime=True)
    fine = fine.drop_vars("valid_time").assign_coords(init_time=begins).to_dataset()
    ahead = pd.to_timedelta(fine["lead_time"].values).to_pytimedelta()
    fine["valid_time"] = ("init_time", "lead_time"), np.asarray(begins)[:, None] + ahead
    fine = fine.set_coords("valid_time")["streamflow"]
    found = compare_by_lead({"perfect": fine}, other, scores="rmse")
    np.testing.assert_allclose(found["rmse"].sel(model="perfect"), 0, atol=1e-12)


def test_what_is_missing_is_left_out_of_all(observed):
    starts = pd.date_range("2004-12-20", periods=12)  # some days lie beyond the record
    hole = observed.copy()
    hole[{"time": slice(-8, -6)}] = np.nan
    found = compare_by_lead({"perfect": forecasts(observed, starts[:8])}, hole, scores="rmse")
    assert found["rmse"].sel(model="perfect").notnull().all()
    gone = observed.copy()
    gone[{"basin": 1}] = np.nan
    found = compare_by_lead({"perfect": forecasts(observed, starts[:8])}, gone, scores="rmse")
    assert found["rmse"].sel(basin="b").isnull().all()


def test_days_that_are_not_there_are_as_days_without_a_value(observed):
    starts = pd.date_range("2003-02-01", periods=40)
    off = forecasts(observed, starts, 1.0)
    gone = observed["time"].isin(pd.date_range("2003-02-05", "2003-02-20"))
    expected = compare_by_lead({"off": off}, observed.where(~gone), scores="rmse")
    found = compare_by_lead({"off": off}, observed[~gone], scores="rmse")
    xr.testing.assert_allclose(found, expected)


def test_a_single_date_is_refused(observed):
    one = forecasts(observed, pd.date_range("2003-02-01", periods=2)).isel(init_time=0)
    with pytest.raises(LayoutError, match="scored over its initial dates"):
        compare_by_lead({"one": one}, observed)


def test_a_picture_of_a_score_that_is_not_there(observed):
    starts = pd.date_range("2003-02-01", periods=40)
    compared = compare_by_lead({"model": forecasts(observed, starts)}, observed, scores="rmse")
    for plot in (plot_leads, plot_cdf):
        with pytest.raises(OptionError, match="'nse'") as caught:
            plot(compared)
        assert caught.value.fix == "score='rmse'"
    plot_leads(compared, score="rmse")


def test_picture(observed):
    starts = pd.date_range("2003-02-01", periods=40)
    off = forecasts(observed, starts, 0.1)
    figure = plot_leads(compare_by_lead({"model": off}, observed, scores="nse"))
    (axis,) = figure.axes
    assert axis.get_xlabel() == "lead time [d]"
    assert [line.get_label() for line in axis.lines] == ["model", "persistence", "climatology"]
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), [0, 1, 2])
