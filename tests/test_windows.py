"""Windows over the calendar."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xstefa.windows import YEAR, SegmentPolicy, WindowPolicy, bridge


@st.composite
def policies(draw: st.DrawFn) -> WindowPolicy:
    blend = 2 * draw(st.integers(0, 15))
    spin_up = draw(st.integers(0, 250))
    stride = draw(st.integers(max(blend, 1), 120))
    return WindowPolicy(length=spin_up + blend + stride, spin_up=spin_up, blend=blend)


@given(policies(), st.integers(-20_000, 20_000), st.integers(1, 2000))
def test_every_day_is_read_by_the_windows_that_answer_for_it(
    policy: WindowPolicy, first: int, count: int
) -> None:
    record = np.arange(first, first + count)
    total = np.zeros(count)
    for window in policy.over(record):
        weight = policy.weight(window, record)
        read = policy.reads(window, first=first, last=first + count - 1)
        start = policy.start(window, first=first, last=first + count - 1)
        answered = record[weight > 0]
        assert ((answered >= start) & (answered < start + policy.length)).all()
        assert (read[answered - start] == answered).all()
        total += weight
    assert (total > 0).all()


@given(policies(), st.integers(-20_000, 20_000), st.integers(YEAR, 2000), st.data())
def test_needed_days_hold_all_that_is_read(
    policy: WindowPolicy, first: int, count: int, data: st.DataObject
) -> None:
    record = np.arange(first, first + count)
    begin = data.draw(st.integers(0, count - 1))
    end = data.draw(st.integers(begin + 1, count))
    windows, low, high = policy.needed(record[begin:end], record)
    for window in windows:
        read = policy.reads(window, first=first, last=int(record[-1]))
        inside = (read >= first) & (read <= record[-1])
        assert (read[inside] >= low).all()
        assert (read[inside] <= high).all()


def test_what_precedes_a_record_is_its_first_year() -> None:
    policy = WindowPolicy(length=365, spin_up=200, blend=30)
    first = 8 * policy.stride
    read = policy.reads(8, first=first, last=first + 1000)
    assert policy.start(8, first=first, last=first + 1000) == first - 200
    np.testing.assert_array_equal(read[:200], np.arange(first + YEAR - 200, first + YEAR))
    np.testing.assert_array_equal(read[200:], np.arange(first, first + 165))


def test_less_than_a_year_is_preceded_by_nothing() -> None:
    policy = WindowPolicy(length=365, spin_up=200, blend=30)
    read = policy.reads(0, first=0, last=299)
    np.testing.assert_array_equal(read, np.arange(-65, 300))


def test_neighbours_weights_add_up_to_one() -> None:
    policy = WindowPolicy(length=365, spin_up=150, blend=30)
    days = np.arange(0, 2000)
    total = sum(policy.weight(k, days) for k in range(-1, 13))
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_windows_fade_into_one_another() -> None:
    """Over four days, half of them in either; without blending, from one day to the next."""
    policy = WindowPolicy(length=40, spin_up=10, blend=4)
    assert policy.stride == 26
    days = np.arange(23, 30)
    rising = [0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1]
    np.testing.assert_allclose(policy.weight(1, days), rising, atol=1e-6)
    np.testing.assert_allclose(policy.weight(0, days), 1 - np.array(rising), atol=1e-6)
    sharp = WindowPolicy(length=36, spin_up=10, blend=0)
    assert sharp.weight(1, days).tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_a_day_is_spun_up_if_half_of_what_precedes_it_is_known() -> None:
    policy = WindowPolicy(length=40, spin_up=10, blend=4)
    known = np.ones((4, 40, 2), dtype=bool)
    known[1, :20, 0] = False  # begins on day 20
    known[2, 20:25, 1] = False  # a gap of 5 of 11 days
    known[3, 20:27, 1] = False  # of 7: half is missing from its sixth day to two days after it
    ready = policy.spun_up(known)
    assert np.flatnonzero(~ready[0]).tolist() == list(range(5))  # a window's own first days
    assert np.flatnonzero(~ready[1]).tolist() == list(range(25))
    assert np.flatnonzero(~ready[2]).tolist() == list(range(5))
    assert np.flatnonzero(~ready[3]).tolist() == [*range(5), *range(25, 32)]


@pytest.mark.parametrize(
    ("record", "without"),
    [
        (np.arange(100, 600), []),  # preceded by its own first year
        (np.arange(100, 400), range(100, 105)),
        (np.r_[100:300, 320:520], range(320, 325)),
        (np.arange(100, 104), range(100, 104)),
    ],
)
def test_days_of_a_record_for_which_there_is_an_answer(record, without) -> None:
    policy = WindowPolicy(length=40, spin_up=10, blend=4)
    assert record[~policy.answerable(record)].tolist() == list(without)


def test_gaps_of_up_to_three_days_are_bridged() -> None:
    day = np.arange(20, dtype=np.float32)
    values = np.stack([2 * day, -day, np.full(20, np.nan), day], axis=-1)[None]
    whole = values.copy()
    values[0, 5:8, 0] = np.nan
    values[0, [0, 12, 19], 1] = np.nan  # ends have nothing to be bridged to
    values[0, 10:14, 3] = np.nan  # too long
    before = values.copy()
    found = bridge(values)
    expected = whole.copy()
    expected[0, [0, 19], 1] = np.nan
    expected[0, 10:14, 3] = np.nan
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(values, before)
    assert bridge(whole) is whole


def test_a_record_is_one_segment() -> None:
    policy = SegmentPolicy(length=60, spin_up=20)
    record = np.arange(-500, 3000)
    assert list(policy.over(record)) == [0]
    assert policy.reads(0, first=-500, last=2999).tolist() == record.tolist()
    assert policy.weight(0, record).tolist() == [1.0] * len(record)
    # Nothing after the last day that is answered for is read.
    assert policy.needed(np.arange(100, 200), record) == ([0], -500, 199)


@pytest.mark.parametrize("policy", [{"spin_up": 1095}, {"span": 200, "blend": 30}])
def test_segments_that_make_no_sense(policy) -> None:
    with pytest.raises(ValueError, match=r"none to learn from|do not overlap"):
        SegmentPolicy(**policy)


def test_segments_begin_a_spin_up_before_what_they_answer_for() -> None:
    policy = SegmentPolicy(length=60, spin_up=20, span=100)
    record = np.arange(50, 420)
    assert list(policy.over(record)) == [0, 1, 2, 3, 4]
    reads = [policy.reads(k, first=50, last=419) for k in policy.over(record)]
    assert [(r[0], r[-1]) for r in reads] == [
        (50, 99),
        (80, 199),
        (180, 299),
        (280, 399),
        (380, 419),
    ]
    assert sum(policy.weight(k, record) for k in policy.over(record)).tolist() == [1.0] * 370
    assert policy.needed(np.arange(210, 220), record) == ([2], 180, 219)


def test_coverage_of_segments_looks_back() -> None:
    policy = SegmentPolicy(length=60, spin_up=3)
    known = np.array([True, False, True, True, True, True, False])[None, :, None]
    expected = [1, 1 / 2, 2 / 3, 3 / 4, 3 / 4, 1, 3 / 4]
    np.testing.assert_allclose(policy.coverage(known)[0], expected, rtol=1e-6)
    assert policy.spun_up(known)[0].tolist() == [False, False, True, True, True, True, True]


def test_physics_waits_for_nearly_all_of_its_spin_up() -> None:
    policy = SegmentPolicy(length=60, spin_up=20, known=0.95)
    assert policy.least == 20
    known = np.ones((1, 50, 1), dtype=bool)
    known[0, [30, 31]] = False
    expected = [19 <= day < 31 or day >= 51 for day in range(50)]
    assert policy.spun_up(known)[0].tolist() == expected
