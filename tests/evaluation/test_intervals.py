"""Intervals and paired comparisons against hand counts and another library."""

from __future__ import annotations

import numpy as np
import pytest

from xstefa.evaluation.intervals import median_interval, paired_difference


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
