"""What pretraining hides: whole groups, as much as each scheme says, in whole windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


@pytest.mark.parametrize("scheme", ["paper", "released"])
def test_static_until_half_of_the_effective_variables(scheme: str) -> None:
    _, static = draw(scheme)
    masking = GroupMasking.from_schema(SCHEMA, scheme=scheme)
    first = masking.static.argmax(1)  # one variable stands for its group
    hidden = static[:, first]
    groups = hidden[:, masking.static_grouped].sum(1)
    singles = hidden[:, ~masking.static_grouped].sum(1)
    half = len(first) // 2
    possible = int((~masking.static_grouped).sum())
    assert (singles == (half - groups).clamp(0, possible)).all()


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
    assert 0.36 < share.mean() < 0.43
    assert 0.005 < share[0] < 0.02
    assert 0.43 < share[170:195].mean() < 0.51
    assert forcing.sum(1).max() <= 365 // 2
    # variables are hidden independently of each other
    assert not (forcing[..., 0] == forcing[..., 1]).all(1).any()


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
