"""Intervals and paired comparisons against hand counts and another library."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xstefa.errors import OptionError
from xstefa.evaluation.intervals import (
    OF_SUMS,
    block_interval,
    median_interval,
    paired_difference,
)
from xstefa.evaluation.metrics import METRICS


def test_median_and_missing():
    found = median_interval(np.array([1.0, np.nan, 3.0, 2.0]))
    assert (found.median, found.sites) == (2.0, 3)
    assert 1 <= found.low <= 2 <= found.high <= 3
    assert str(median_interval(np.array([0.5]))) == "0.500 (0.500 to 0.500)"
    nothing = median_interval(np.array([np.nan]))
    assert nothing.sites == 0
    assert np.isnan([nothing.median, nothing.low]).all()


def test_interval_covers():
    """A 90 % interval holds the true median in about 90 % of samples."""
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = median_interval(random.normal(size=80), level=0.9, resamples=400, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.82 < hits / 200 < 0.97


@pytest.fixture(scope="module")
def flows():
    """Eight sites over ten years, of which some are wet, with gaps."""
    days = xr.date_range("1990-10-01", "2000-09-30", calendar="noleap", use_cftime=True)
    random = np.random.default_rng(0)
    wet = random.gamma(2, 1, (8, 11))[:, days.year - 1990]
    obs = xr.DataArray(
        wet * random.gamma(1, 1, wet.shape), {"time": days}, ("site", "time"), attrs={"units": "mm"}
    )
    pred = 0.3 + 0.8 * obs * random.gamma(5, 0.2, obs.shape)
    return pred.where(random.random(obs.shape) > 0.1), obs


@pytest.mark.parametrize("score", OF_SUMS)
def test_scores_of_sums_are_those_of_days(flows, score):
    found = block_interval(*flows, score, resamples=200)
    true = METRICS[score](*flows)
    assert found.median == pytest.approx(float(true.median()))
    assert (found.sites, found.low < found.median < found.high) == (8, True)
    far = block_interval(*(each + 1e4 for each in flows), "nse", resamples=1)
    assert far.median == pytest.approx(float(METRICS["nse"](*flows).median()), rel=1e-6)


def test_years_are_drawn_as_blocks(flows):
    """At one site the interval is that of its years, drawn again and again by hand."""
    pred, obs = (each.isel(site=[0]) for each in flows)
    found = block_interval(pred, obs, "rmse", resamples=4000)
    year = obs.time.dt.year + (obs.time.dt.month > 9)
    squares = [
        ((pred - obs) ** 2)[0].values[(year == y) & pred[0].notnull()] for y in np.unique(year)
    ]
    random = np.random.default_rng(1)
    by_hand = [
        np.sqrt(np.concatenate([squares[i] for i in random.integers(10, size=10)]).mean())
        for _ in range(4000)
    ]
    assert [found.low, found.high] == pytest.approx(np.percentile(by_hand, [2.5, 97.5]), rel=0.02)
    sites = median_interval(METRICS["rmse"](*flows).values)
    both = block_interval(*flows, "rmse")
    assert both.high - both.low > sites.high - sites.low


def test_too_few_years_are_no_interval(flows):
    pred, obs = (each.isel(time=slice(4 * 365)) for each in flows)
    found = block_interval(pred, obs)
    assert found.sites == 0
    assert np.isnan([found.median, found.low, found.high]).all()
    for none in (flows[0][:0], flows[0] * np.nan):
        assert block_interval(none, none).sites == 0
    pred, obs = (each.where((each.site > 2) | (each.time.dt.year > 1996)) for each in flows)
    assert block_interval(pred, obs).sites == 5
    with pytest.raises(OptionError, match="nse, kge"):
        block_interval(pred, obs, "fhv")


def test_paired_difference():
    random = np.random.default_rng(1)
    base = random.normal(size=60)
    better = paired_difference(base + 0.1, base)
    assert better.median.median == pytest.approx(0.1)
    assert better.better == 1.0
    assert better.p_value < 1e-3
    same = paired_difference(base, base)
    assert (same.better, same.p_value) == (0.5, 1.0)
    # Sites that one of them lacks do not count.
    holes = base.copy()
    holes[:5] = np.nan
    assert paired_difference(holes, base).median.sites == 55
    assert np.isnan(paired_difference(holes * np.nan, base).p_value)


def test_pairs_see_more_than_medians():
    random = np.random.default_rng(2)
    base = random.normal(size=100)
    found = paired_difference(base + 0.1 + random.normal(0, 0.02, 100), base)
    assert found.p_value < 0.01
    assert found.median.low > 0


def test_p_value_is_wilcoxons():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(3)
    for shift in (0.0, 0.15, 0.3):
        one, two = random.normal(shift, 1, 40), random.normal(0, 1, 40)
        found = paired_difference(one, two, resamples=4000).p_value
        assert found == pytest.approx(stats.wilcoxon(one, two).pvalue, abs=0.02)
    ties = np.array([1.0, 1, 1, -1, 2, 2, 0, 0])
    assert paired_difference(ties, ties * 0).p_value == pytest.approx(
        stats.permutation_test(
            (np.array([1.0, 1, 1, -1, 2, 2]),),
            lambda x: np.sum(np.sign(x) * stats.rankdata(abs(x))),
            permutation_type="samples",
        ).pvalue,
        abs=0.03,
    )
