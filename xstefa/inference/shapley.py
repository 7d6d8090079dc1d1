"""What each of several players brings: Shapley values, whole or from sampled orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Coalitions: TypeAlias = NDArray[np.bool_]
"""Who takes part, shape (coalition, player)."""
Values: TypeAlias = NDArray[np.float64]
Game: TypeAlias = Callable[[Coalitions], Values]
"""From coalitions to what each of them is worth, shape (coalition,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """What the players bring.

    Attributes
    ----------
    nobody : float
        What the empty coalition is worth.
    each : ndarray, shape (player,)
        Their sum is what all are worth, less `nobody`; 0 of those who do not play.
    error : ndarray, shape (player,)
        Standard error of `each` from sampling; 0 where nothing was sampled.
    """

    nobody: float
    each: Values
    error: Values


def shapley(game: Game, playing: NDArray[np.bool_], *, samples: int, seed: int) -> Shares:
    """Share what all are worth among the players.

    Parameters
    ----------
    game : callable
        Asked for many coalitions at once.
    playing : ndarray of bool, shape (player,)
        The others never take part, and leave the orders of the rest as they are.
    samples : int
        Pairs of an order in which players join and its reverse. All coalitions are asked, and
        nothing is sampled, where these are no more.
    seed : int
        Of the orders.
    """
    players = np.flatnonzero(playing)
    if 2 ** len(players) <= 2 * samples * max(len(players) - 1, 1) + 2:
        return _whole(game, playing)
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(samples):
        order = random.permutation(len(playing))
        order = order[playing[order]]
        joined = [_joining(each, len(playing)) for each in (order, order[::-1])]
        values = game(np.concatenate(joined)).reshape(2, -1)
        found = np.zeros((2, len(playing)))
        found[0, order], found[1, order[::-1]] = np.diff(values, axis=1)
        pairs.append(found.mean(axis=0))
    spread = np.std(pairs, axis=0, ddof=1) if samples > 1 else np.full(len(playing), np.nan)
    return Shares(
        nobody=float(values[0, 0]),
        each=np.mean(pairs, axis=0),
        error=np.where(playing, spread / np.sqrt(samples), 0.0),
    )


def _joining(order: NDArray[np.int64], players: int) -> Coalitions:
    """Return the coalitions from nobody to all, shape (len(order) + 1, player)."""
    found = np.zeros((len(order) + 1, players), dtype=bool)
    for i, player in enumerate(order, start=1):
        found[i:, player] = True
    return found


def _whole(game: Game, playing: NDArray[np.bool_]) -> Shares:
    """Return what players bring on average over all orders, from all coalitions."""
    players = np.flatnonzero(playing)
    count = len(players)
    member = (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(bool)
    coalitions = np.zeros((2**count, len(playing)), dtype=bool)
    coalitions[:, players] = member
    values, sizes = game(coalitions), member.sum(axis=1)
    each = np.zeros(len(playing))
    for i, player in enumerate(players):
        without = np.flatnonzero(~member[:, i])
        orders = [
            factorial(n) * factorial(count - n - 1) / factorial(count) for n in sizes[without]
        ]
        each[player] = np.dot(orders, values[without + 2**i] - values[without])
    return Shares(nobody=float(values[0]), each=each, error=np.zeros(len(playing)))
