"""What pretraining hides: whole groups, in whole windows, as much as they cover."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xstefa.model.masking import GroupMasking, covered
from xstefa.schema import load_schema

SCHEMA = load_schema()


def draw(*, batch: int = 1500, days: int = 365, seed: int = 0):
    masking = GroupMasking.from_schema(SCHEMA)
    return masking.draw(batch=batch, days=days, generator=torch.Generator().manual_seed(seed))


def test_groups_are_hidden_as_a_whole_and_some_variables_never() -> None:
    forcing, static = draw()
    assert forcing.shape == (1500, 365, len(SCHEMA.forcings))
    columns: dict[str, list[torch.Tensor]] = {}
    for i, variable in enumerate(SCHEMA.statics):
        if not variable.maskable:
            assert not static[:, i].any(), variable.name
        elif variable.group is not None:
            columns.setdefault(variable.group, []).append(static[:, i])
    assert columns
    for group in columns.values():
        assert all((column == group[0]).all() for column in group)
        assert 0.45 < group[0].float().mean() < 0.55


def test_repeated_draws_windows_that_reach_over_both_ends() -> None:
    default = GroupMasking.from_schema(SCHEMA)
    masking = replace(default, forcing=torch.eye(1), repeats=1, probability=1.0)
    generator = torch.Generator().manual_seed(0)
    hidden = masking.draw(batch=6000, days=365, generator=generator)[0][..., 0]
    first, days = hidden.long().argmax(1), hidden.sum(1)
    # They begin on any day, or so early that one day is left.
    assert days.min() > 0
    assert first.unique().tolist() == list(range(365))
    whole = (first > 0) & (first + days < 365)
    assert days[whole].unique().tolist() == list(range(30, 91))


def test_repeated_hides_as_much_as_its_windows_cover() -> None:
    forcing, static = draw(batch=3000)
    # A day is in 30 to 90 of the 394 windows that begin on its days or up to 29 before them, on
    # average 60, each hidden with probability a half, and that six times.
    assert forcing[:, 90:].float().mean() == pytest.approx(1 - (1 - 30 / 394) ** 6, abs=0.004)
    maskable = torch.tensor([variable.maskable for variable in SCHEMA.statics])
    assert static[:, maskable].float().mean(0).numpy() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("days", [1, 2, 29, 60])
def test_short_windows(days: int) -> None:
    assert draw(batch=3, days=days)[0].shape == (3, days, len(SCHEMA.forcings))


def test_same_seed_same_masks() -> None:
    for one, two in zip(draw(batch=8), draw(batch=8), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(draw(batch=8)[0], draw(batch=8, seed=1)[0])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(-20, 25), st.integers(0, 30)), min_size=1, max_size=5),
    st.integers(1, 20),
)
def test_covered_days_by_hand(windows: list[tuple[int, int]], days: int) -> None:
    starts = torch.tensor([start for start, _ in windows]).view(-1, 1, 1)
    lengths = torch.tensor([length for _, length in windows]).view(-1, 1, 1)
    found = covered(starts, lengths, days)[0, :, 0]
    by_hand = [any(s <= day < s + n for s, n in windows) for day in range(days)]
    assert found.tolist() == by_hand
