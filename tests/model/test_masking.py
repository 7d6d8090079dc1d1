"""What pretraining hides: whole groups, as much as each scheme says, in whole windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.plain import plain_masks
from xstefa.model.masking import GroupMasking, _covered
from xstefa.schema import load_schema

SCHEMA = load_schema()
SCHEMES = ["paper", "released", "repeated"]


def draw(scheme: str, *, batch: int = 1500, days: int = 365, seed: int = 0):
    masking = GroupMasking.from_schema(SCHEMA, scheme=scheme)
    return masking.draw(batch=batch, days=days, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_groups_are_hidden_as_a_whole_and_some_variables_never(scheme: str) -> None:
    forcing, static = draw(scheme)
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


def test_paper_hides_half_of_the_effective_variables() -> None:
    _, static = draw("paper")
    masking = GroupMasking.from_schema(SCHEMA, scheme="paper")
    first = masking.static.argmax(1)  # one variable stands for its group
    hidden = static[:, first]
    groups = hidden[:, masking.static_grouped].sum(1)
    singles = hidden[:, ~masking.static_grouped].sum(1)
    half = len(first) // 2
    possible = int((~masking.static_grouped).sum())
    assert (singles == (half - groups).clamp(0, possible)).all()


def test_released_counts_the_variables_that_it_never_hides() -> None:
    # Three groups of two, two single variables, four that are never hidden: 9 // 2 = 4 are drawn.
    static = torch.zeros(5, 12)
    for row in range(3):
        static[row, 2 * row : 2 * row + 2] = 1.0
    static[3, 6] = static[4, 7] = 1.0
    masking = GroupMasking(
        forcing=torch.eye(1),
        static=static,
        static_grouped=torch.tensor([True, True, True, False, False]),
        scheme="released",
    )
    generator = torch.Generator().manual_seed(0)
    _, hidden = masking.draw(batch=20_000, days=1, generator=generator)
    groups = hidden[:, [0, 2, 4]].sum(1)
    assert not hidden[:, 8:].any()
    assert groups.float().mean() == pytest.approx(1.5, abs=0.02)
    for count in range(4):
        singles = hidden[groups == count][:, 6:8].float().mean()
        assert singles == pytest.approx((4 - count) / 6, abs=0.02)


def test_released_takes_the_first_groups_up_to_half() -> None:
    masking = GroupMasking(
        forcing=torch.eye(1),
        static=torch.eye(4),
        static_grouped=torch.ones(4, dtype=torch.bool),
        scheme="released",
    )
    generator = torch.Generator().manual_seed(0)
    _, hidden = masking.draw(batch=20_000, days=1, generator=generator)
    assert hidden.sum(1).max() == 2
    # The third is left out if both before it are hidden, the fourth if two before it are.
    expected = torch.tensor([0.5, 0.5, 0.375, 0.25])
    torch.testing.assert_close(hidden.float().mean(0), expected, atol=0.02, rtol=0)


def test_paper_hides_groups_in_one_window() -> None:
    forcing, _ = draw("paper")
    window = forcing.any(-1)
    drawn = window.any(1)
    lengths = window.sum(1)[drawn]
    assert lengths.min() >= 30
    assert lengths.max() <= 90
    edges = (window[:, 1:] != window[:, :-1]).sum(1) + window[:, 0] + window[:, -1]
    assert (edges[drawn] == 2).all()
    inside = forcing.any(1)[drawn].float()
    assert 0.46 < inside.mean() < 0.54
    # the hidden days of every hidden variable are those of the window
    assert (forcing == (window.unsqueeze(-1) & forcing.any(1, keepdim=True))).all()


def test_released_realises_less_than_half() -> None:
    forcing, _ = draw("released")
    share = forcing.float().mean((0, 2))
    assert share.mean() == pytest.approx(0.375, abs=0.005)
    assert share[0] == pytest.approx(0.01, abs=0.005)
    assert share[170:195].mean() == pytest.approx(0.45, abs=0.015)
    assert forcing.sum(1).max() <= 365 // 2
    # variables are hidden independently of each other
    assert not (forcing[..., 0] == forcing[..., 1]).all(1).any()


@pytest.mark.parametrize("days", [61, 120, 365])
def test_released_equals_loops(days: int) -> None:
    generator = torch.Generator().manual_seed(0)
    expected = plain_masks(1000, days, 5, generator)
    masking = GroupMasking(
        forcing=torch.eye(5),
        static=torch.eye(1),
        static_grouped=torch.zeros(1, dtype=torch.bool),
        scheme="released",
    )
    found, _ = masking.draw(batch=2000, days=days, generator=generator)
    shares = [mask.float().mean((0, 2)) for mask in (expected, found)]
    torch.testing.assert_close(shares[0], shares[1], atol=0.04, rtol=0)
    counts = [mask.sum(1).double() for mask in (expected, found)]
    assert float(counts[0].mean()) == pytest.approx(float(counts[1].mean()), rel=0.02)
    assert float(counts[0].std()) == pytest.approx(float(counts[1].std()), rel=0.05)


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
    forcing, static = draw("repeated", batch=3000)
    # A day is in 30 to 90 of the 394 windows that begin on its days or up to 29 before them, on
    # average 60, each hidden with probability a half, and that six times.
    assert forcing[:, 90:].float().mean() == pytest.approx(1 - (1 - 30 / 394) ** 6, abs=0.004)
    maskable = torch.tensor([variable.maskable for variable in SCHEMA.statics])
    assert static[:, maskable].float().mean(0).numpy() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("days", [1, 2, 29, 60])
def test_short_windows(scheme: str, days: int) -> None:
    assert draw(scheme, batch=3, days=days)[0].shape == (3, days, len(SCHEMA.forcings))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_seed_same_masks(scheme: str) -> None:
    for one, two in zip(draw(scheme, batch=8), draw(scheme, batch=8), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(draw(scheme, batch=8)[0], draw(scheme, batch=8, seed=1)[0])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(-20, 25), st.integers(0, 30)), min_size=1, max_size=5),
    st.integers(1, 20),
)
def test_covered_days_by_hand(windows: list[tuple[int, int]], days: int) -> None:
    starts = torch.tensor([start for start, _ in windows]).view(-1, 1, 1)
    lengths = torch.tensor([length for _, length in windows]).view(-1, 1, 1)
    found = _covered(starts, lengths, days)[0, :, 0]
    by_hand = [any(s <= day < s + n for s, n in windows) for day in range(days)]
    assert found.tolist() == by_hand
