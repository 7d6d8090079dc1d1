"""Peaks, floods and flow signatures, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xstefa.errors import LayoutError, OptionError
from xstefa.evaluation import metrics, signatures
from xstefa.evaluation.evaluate import score
from xstefa.evaluation.report import compare, table
from xstefa.evaluation.signatures import SIGNATURES, runoff_ratio

PLAIN = {name: each for name, each in SIGNATURES.items() if name != "runoff_ratio"}


def flow(values, start: str = "2000-10-01", calendar: str = "standard") -> xr.DataArray:
    """Daily flows; one number of years gives so many water years of 1 mm/d."""
    days = xr.date_range(start, periods=len(values), calendar=calendar, use_cftime=None)
    values = np.asarray(values, dtype=float)
    return xr.DataArray(values, {"time": days}, "time", attrs={"units": "mm d-1"})


def years(count: int) -> xr.DataArray:
    days = (np.datetime64(f"{2000 + count}-10-01") - np.datetime64("2000-10-01")).astype(int)
    return flow(np.ones(days))


def peaked(at: dict[int, float], days: int = 1000) -> xr.DataArray:
    values = np.ones(days)
    for day, height in at.items():
        values[day] = height
    return flow(values)


def test_names():
    assert set(SIGNATURES) == set(signatures.__all__)


def test_peaks_are_off_in_days():
    obs = peaked({100: 50, 300: 60, 500: 70, 700: 80, 999: 90})
    pred = peaked({101: 40, 300: 30, 497: 70, 705: 80})
    # One day late, on the day, three days early; the first highest of seven equal days is three
    # days off; the last has no days after it.
    assert float(signatures.peak_timing(pred, obs)) == (1 + 0 + 3 + 3) / 4
    obs[301] = np.nan
    assert float(signatures.peak_timing(pred, obs)) == (1 + 3 + 3) / 3
    assert np.isnan(signatures.peak_timing(pred, xr.ones_like(obs)).item())


def test_peaks_are_missed():
    random = np.random.default_rng(0).uniform(0.9, 1, 1000)
    obs, pred = peaked({100: 50, 300: 60, 500: 70, 700: 80}), peaked({101: 40, 300: 9, 498: 70})
    found = signatures.missed_peaks(*(each * random for each in (pred, obs)))
    theirs = [each.values * random for each in (pred, obs)]
    assert float(found) == pytest.approx(missed(*theirs))
    assert float(signatures.missed_peaks(pred, obs)) == 2 / 4


def missed(pred, obs) -> float:
    """As in NeuralHydrology, whose series has no gaps here."""
    from scipy.signal import find_peaks

    peaks, predicted = (
        find_peaks(each, distance=30, height=np.percentile(each, 80))[0] for each in (obs, pred)
    )
    inner = [peak for peak in peaks if 1 <= peak < len(obs) - 1]
    return float(np.mean([abs(predicted - peak).min() > 1 for peak in inner]))


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_floods_of_water_years(calendar):
    year = {"standard": 365.25, "noleap": 365, "360_day": 360}[calendar]
    values = np.ones(round(10 * year))
    begins = [round(i * year) for i in range(10)]
    highest = np.array([3, 9, 1, 10, 2, 8, 4, 7, 5, 6.0])
    values[np.array(begins) + 5] = 10 * highest
    obs = flow(values, calendar=calendar)
    pred = obs * xr.where(obs > 60, 0.5, 1.0)
    # Of 11 equal parts between ten ranks the 10 % highest begin at rank 9.9, 20 % at 8.8.
    ranked = np.sort(np.where(highest > 6, 5 * highest, 10 * highest))
    for name, true, rank in (("flood_10", 99, 8.9), ("flood_5", 88, 7.8), ("flood_2", 55, 4.5)):
        found = np.interp(rank, np.arange(10), ranked)
        error = SIGNATURES[name](pred, obs).item()
        assert error == pytest.approx(100 * (found - true) / true), name
    nine = obs[: begins[9] + 300]
    assert np.isnan(signatures.flood_10(nine, nine))
    assert float(signatures.flood_5(nine, nine)) == 0


def test_a_year_counts_with_350_days():
    obs = years(5)
    assert signatures.flood_2(obs, obs).item() == 0
    obs[10:26] = np.nan
    assert np.isnan(signatures.flood_2(obs, obs))


def test_wet_years_and_dry_ones():
    obs = years(6)
    year = obs.time.dt.year + (obs.time.dt.month > 9)
    daily = np.random.default_rng(0).normal(size=obs.size)
    daily = xr.zeros_like(obs) + daily - daily.mean()
    obs, pred = obs * year, obs * (year + 0.5)
    found = signatures.annual_nse(pred + 100 * (year == 2003) * 0, obs)
    assert found.item() == pytest.approx(1 - 0.25 / np.var(np.arange(6)))
    assert np.isnan(signatures.annual_nse(obs * 0, obs * 0))


def test_frequency_and_duration():
    obs, pred = years(2), years(2)
    obs[100:104], obs[200:202], obs[400:430] = 20, 30, 0.05
    pred[100:101], pred[400:410], pred[410] = 20, 0.05, np.nan
    pred[411:421] = 0.05
    per_year = 365.25 / (obs.size - 1)
    for name, expected in {
        "high_q_freq": (1 - 6) * per_year,
        "high_q_dur": 1 - 3,
        "low_q_freq": (20 - 29) * per_year,
        "low_q_dur": 10 - 29 / 2,  # the unknown day ends a spell in both
    }.items():
        assert SIGNATURES[name](pred, obs).item() == pytest.approx(expected), name
    assert signatures.high_q_dur(years(2), years(2)).item() == 0


def test_slope_of_the_flow_duration_curve():
    ranks = np.linspace(0, 1, 731)
    obs, pred = flow(np.exp(2 * ranks)), flow(np.exp(3 * ranks))
    assert signatures.slope_fdc(pred, obs).item() == pytest.approx(1, rel=1e-3)
    assert np.isnan(signatures.slope_fdc(pred, obs.where(ranks > 0.4, 0)))


def test_baseflow():
    steady, flashy = years(2), years(2)
    flashy[::50] = 100
    error = signatures.baseflow_index(steady, flashy).item()
    base = 1.0 * flashy.values
    for step in (1, -1, 1):  # without mirrored ends, which matter little
        base, quick = base[::step], 0.0
        slow = base.copy()
        for i in range(1, base.size):
            quick = 0.925 * quick + 1.925 / 2 * (base[i] - base[i - 1])
            slow[i] = base[i] - max(quick, 0)
        base = slow[::step]
    assert error == pytest.approx(1 - base.sum() / flashy.values.sum(), abs=0.02)
    assert signatures.baseflow_index(steady, steady).item() == 0
    steady[::59] = np.nan
    assert np.isnan(signatures.baseflow_index(steady, flashy))


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_half_flow_date(calendar):
    obs = flow(np.zeros(720), calendar=calendar)
    pred = obs.copy()
    obs[[50, 100]], obs[365 + 20] = 5, 1
    pred[60], pred[365 + 40] = 5, 2
    expected = ((60 - 50) + (40 - 20)) / 2
    assert signatures.hfd_mean(pred, obs).item() == expected
    assert np.isnan(signatures.hfd_mean(obs * 0, obs))


def test_runoff_ratio():
    obs, rain = years(2), 4 * years(2)
    rain[:100] = np.nan
    pred = obs * xr.where(rain.isnull(), 9, 1.5)
    assert runoff_ratio(pred, obs, precipitation=rain).item() == pytest.approx(0.5 / 4)
    inches = (rain / 25.4).assign_attrs(units="inch d-1")
    assert runoff_ratio(pred, obs, precipitation=inches).item() == pytest.approx(0.5 / 4)
    with pytest.raises(OptionError, match="needs precipitation"):
        score(pred, obs, scores="runoff_ratio")


@pytest.mark.parametrize("name", PLAIN)
def test_sites_gaps_and_chunks(name):
    random = np.random.default_rng(0).gamma(0.5, 2.0, (2, 2, 4200))
    days = xr.date_range("1990-10-01", periods=4200)
    pred, obs = (
        xr.DataArray(v, dims=("site", "time"), coords={"time": days}).rolling(time=5).mean()
        for v in random
    )
    obs[0, 500:520] = np.nan
    obs[1, 200:] = np.nan
    found = PLAIN[name](pred, obs)
    assert found.dims == ("site",)
    assert np.isfinite(found[0])
    if name not in ("peak_timing", "missed_peaks"):
        assert np.isnan(found[1])
    gone = obs[0].notnull().values
    xr.testing.assert_allclose(PLAIN[name](pred[0, gone], obs[0, gone]), found[0])
    lazy = PLAIN[name](pred.chunk(time=1000), obs.chunk(site=1))
    assert lazy.chunks is not None
    xr.testing.assert_allclose(lazy, found)
    assert np.isnan(PLAIN[name](pred, obs * np.nan)).all()
    assert np.isnan(PLAIN[name](pred[:, :0], obs[:, :0])).all()
    assert PLAIN[name](pred[:0], obs[:0]).shape == (0,)
    with pytest.raises(LayoutError):
        PLAIN[name](pred.drop_vars("time"), obs.drop_vars("time"))
    with pytest.raises(LayoutError, match="one value a day"):
        PLAIN[name](*(each.isel(time=[0, 1, 1]) for each in (pred, obs)))


def test_beside_the_other_scores():
    obs = years(5) * np.random.default_rng(0).gamma(1.0, 1.0, years(5).size)
    found = score(1.2 * obs, obs, scores=["nse", "flood_2", "peak_timing"])
    assert found.flood_2.item() == pytest.approx(20)
    assert found.peak_timing.item() == 0
    xr.testing.assert_identical(found.nse, metrics.nse(1.2 * obs, obs))
    medians = table(compare({"a": 1.2 * obs, "b": 0.9 * obs}, obs, scores=["flood_2"]))
    assert medians.difference.iloc[1] == pytest.approx(10)  # 20 % too high, 10 % too low
