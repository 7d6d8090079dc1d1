"""What training data held of each token, and what a model reads beyond it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xstefa.model.ranges import Range, bounded, join_ranges, ranges_of
from xstefa.schema import load_schema

SCHEMA = load_schema()
SLOPE, ARIDITY = (SCHEMA.static_names.index(name) for name in ("slope", "aridity"))


def nothing(sites: int = 3, days: int = 800):
    forcing = np.full((sites, days, len(SCHEMA.forcings)), np.nan, dtype=np.float32)
    return forcing, np.full((sites, len(SCHEMA.statics)), np.nan, dtype=np.float32)


def test_values_and_means_of_what_is_known():
    forcing, static = nothing()
    forcing[0, :400, 0] = 1.0
    forcing[1, ::2, 0] = np.arange(400) % 2 * 6.0
    forcing[2, :30, 0] = 50.0  # a month: a season, no climate
    static[:, SLOPE] = [0.2, np.nan, 0.1]
    found = ranges_of(SCHEMA, forcing, static)
    assert set(found) == {"precipitation", "slope"}
    assert found["precipitation"] == Range(low=0.0, high=50.0, mean_low=1.0, mean_high=3.0)
    low, high = map(float, np.float32([0.1, 0.2]))
    assert found["slope"] == Range(low=low, high=high, mean_low=low, mean_high=high)


def test_short_records_do_where_there_are_no_others():
    forcing, static = nothing()
    forcing[2, :30, 0] = 50.0
    found = ranges_of(SCHEMA, forcing, static)
    assert found["precipitation"] == Range(low=50.0, high=50.0, mean_low=50.0, mean_high=50.0)
    assert ranges_of(SCHEMA, *nothing()) == {}


def test_joined_ranges_hold_both():
    first = {"slope": Range(low=0.0, high=2.0, mean_low=1.0, mean_high=2.0)}
    second = {"slope": Range(low=1.0, high=3.0, mean_low=1.5, mean_high=1.5)}
    other = {"sand": Range(low=0.0, high=2.0, mean_low=1.0, mean_high=2.0)}
    joint = Range(low=0.0, high=3.0, mean_low=1.0, mean_high=2.0)
    assert join_ranges(first, second | other) == {"slope": joint} | other


@pytest.mark.parametrize(
    ("rule", "read"),
    [
        ("clip", [1.0, 2.0, np.nan, 1.5, 2.00001]),
        ("unknown", [np.nan, np.nan, np.nan, 1.5, 2.00001]),
        ("keep", [-5.0, 9.0, np.nan, 1.5, 2.00001]),
    ],
)
def test_each_rule_for_what_lies_outside(rule, read):
    statics = [replace(v, beyond=rule) if v.name == "slope" else v for v in SCHEMA.statics]
    static = nothing(sites=5)[1]
    static[:, SLOPE] = [-5.0, 9.0, np.nan, 1.5, 2.00001]  # the last: rounding of another unit
    static[:, ARIDITY] = 900.0  # a token whose range is not known
    ranges = {"slope": Range(low=1.0, high=2.0, mean_low=1.0, mean_high=2.0)}
    before = static.copy()
    found = bounded(static, replace(SCHEMA, statics=tuple(statics)), ranges)
    np.testing.assert_array_equal(found[:, SLOPE], np.float32(read))
    np.testing.assert_array_equal(found[:, ARIDITY], 900)
    np.testing.assert_array_equal(static, before)
