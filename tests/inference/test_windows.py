"""Windows over the calendar."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xstefa.inference.windows import YEAR, WindowPolicy


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


def test_a_record_begins_with_its_last_variable_and_outlasts_gaps_of_the_spin_up() -> None:
    policy = WindowPolicy(length=40, spin_up=10, blend=4)
    days = np.arange(100, 200)
    known = np.ones((4, 100, 2), dtype=bool)
    known[1, :30, 0] = False  # begins on day 130
    known[2, 50:60, 1] = False  # a gap of 10 days
    known[3, 50:65, 1] = False  # a gap of 15 days: after 10 there is nothing to go on from
    begun = policy.begun(known, days=days, out=days)
    assert begun[[0, 2]].all()
    assert days[~begun[1]].tolist() == list(range(100, 130))
    assert days[~begun[3]].tolist() == list(range(160, 165))


def test_days_that_are_not_in_a_record_are_not_known() -> None:
    policy = WindowPolicy(length=40, spin_up=10, blend=4)
    days = np.r_[100:120, 150:200]
    begun = policy.begun(np.ones((1, 70, 1), dtype=bool), days=days, out=np.arange(100, 200))
    assert np.flatnonzero(~begun[0]).tolist() == list(range(30, 50))
