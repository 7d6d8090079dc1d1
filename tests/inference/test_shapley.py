"""Shapley values of games whose shares are known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from xstefa.inference.shapley import shapley

PLAYERS = 6
WORTH = np.random.default_rng(0).normal(size=2**PLAYERS)
ALL = np.ones(PLAYERS, dtype=bool)


def game(coalitions):
    """Any coalition is worth anything."""
    return WORTH[coalitions @ (1 << np.arange(PLAYERS))]


def by_definition(players=range(PLAYERS)):
    """Average what each brings over all orders in which they can join."""
    found = np.zeros(PLAYERS)
    orders = list(permutations(players))
    for order in orders:
        there = np.zeros((1, PLAYERS), dtype=bool)
        for player in order:
            before = game(there)[0]
            there[0, player] = True
            found[player] += game(there)[0] - before
    return found / len(orders)


def test_few_players_are_shared_by_definition() -> None:
    found = shapley(game, ALL, samples=10, seed=0)
    np.testing.assert_allclose(found.each, by_definition(), atol=1e-12)
    np.testing.assert_allclose(found.error, 0)
    assert found.nobody == WORTH[0]


@pytest.mark.parametrize("samples", [1, 4])
def test_samples_add_up(samples) -> None:
    found = shapley(game, ALL, samples=samples, seed=1)
    assert found.each.sum() == pytest.approx(WORTH[-1] - WORTH[0])
    assert not np.allclose(found.each, by_definition())  # they were sampled


def test_errors_are_as_large_as_they_say() -> None:
    exact = by_definition()
    found = [shapley(game, ALL, samples=5, seed=seed) for seed in range(200)]
    apart = np.sqrt(np.mean([(each.each - exact) ** 2 for each in found], axis=0))
    said = np.sqrt(np.mean([each.error**2 for each in found], axis=0))
    np.testing.assert_allclose(apart, said, rtol=0.15)


def test_who_does_not_play_gets_nothing_and_changes_nothing() -> None:
    playing = np.array([1, 1, 0, 1, 1, 0], dtype=bool)
    asked = []

    def watched(coalitions):
        asked.append(coalitions)
        return game(coalitions)

    for samples in (1, 50):
        found = shapley(watched, playing, samples=samples, seed=0)
        assert (found.each[~playing] == 0).all()
        assert (found.error[~playing] == 0).all()
    assert not np.concatenate(asked)[:, ~playing].any()
    np.testing.assert_allclose(found.each, by_definition(np.flatnonzero(playing)), atol=1e-12)


def test_nobody_plays() -> None:
    found = shapley(game, ~ALL, samples=1, seed=0)
    assert (found.each == 0).all()
    assert found.nobody == WORTH[0]
