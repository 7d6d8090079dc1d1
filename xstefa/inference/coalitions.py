"""What a model would say of one day if only a part of its inputs were known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xstefa.inference.engine import Answer, Before, Engine
from xstefa.inference.predict import Members
from xstefa.inference.shapley import Coalitions, Values
from xstefa.inference.state import FinalState, carries_state, split
from xstefa.windows import Days, Floats

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.heads.recurrent import State
    from xstefa.model.network import StefaLand

Lags: TypeAlias = tuple[int, ...]
PIECE = 64
"""Days that are worth a piece of their own: the encoder reads whole blocks of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess(Members):
    """What the heads say, however little is known."""

    @property
    def needs_required(self) -> bool:
        """There is an answer without the tokens that the model needs."""
        return False

    @property
    def needs_any(self) -> bool:
        """There is one where nothing is known."""
        return False

    def run(
        self, network: StefaLand, forcing: Tensor, static: Tensor, state: State | None = None
    ) -> Tensor:
        """Return the answers of the heads, shape (B, T, width)."""
        asked = network.members(forcing, static, state, water=self.every, guess=True)
        return asked.flatten(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Players:
    """Parts of the inputs that are known or not: forcings by lag, attributes, and what was before.

    Attributes
    ----------
    forcings : int
        Of the schema.
    lags : tuple of int
        The last day of each bin, counted back from the day that is asked for.
    attributes : tuple of tuple of int
        Columns of the site attributes that count as one.
    """

    forcings: int
    lags: Lags
    attributes: tuple[tuple[int, ...], ...]

    @property
    def bins(self) -> int:
        """Those of the lags, and one of the days after."""
        return len(self.lags) + 1

    def __len__(self) -> int:
        """Return how many: forcings by lag, attributes, all that was before the last lag."""
        return self.forcings * self.bins + len(self.attributes) + 1

    def parts(self, of: NDArray[np.generic]) -> tuple[NDArray, NDArray, NDArray]:  # type: ignore[type-arg]
        """Split the last axis: forcings (..., C, bins), attributes (..., G), before (..., 1)."""
        first = self.forcings * self.bins
        forcing = of[..., :first].reshape(*of.shape[:-1], self.forcings, self.bins)
        return forcing, of[..., first:-1], of[..., -1:]

    def bin_of(self, lag: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where days fall: in a bin, or one further if before all of them."""
        found = np.searchsorted(self.lags, lag)
        return np.where(lag < 0, len(self.lags), found + (found == len(self.lags)))

    def earlier(self, days: Days, out: Days) -> int:
        """Return how many days lie before all bins."""
        return int((self.bin_of(out[0] - days) == self.bins).sum())


class DayGame:
    """The model as a game: what it says of a day if a coalition of `Players` is all it knows.

    Parameters
    ----------
    engine : Engine
    players : Players
    answer : Guess
    heads : ndarray of int
        Which values of the answer count, on average.
    forcing : ndarray of float32, shape (day, C)
    static : ndarray of float32, shape (S,)
    before : Before, optional
        What the days before the last lag have left: those who know them go on from there, the
        others begin a record. Without it days before the last lag are known or hidden as others.
    days, record, out : ndarray of int64
        As for `Engine.answer`; `days` without gaps, and one day is asked for.
    """

    def __init__(
        self,
        engine: Engine,
        players: Players,
        answer: Guess,
        heads: NDArray[np.int64],
        forcing: Floats,
        static: Floats,
        before: Before | None,
        *,
        days: Days,
        record: Days,
        out: Days,
    ) -> None:
        self.engine, self.players, self.answer, self.heads = engine, players, answer, heads
        self.forcing, self.static, self.before = forcing, static, before
        self.days, self.record, self.out = days, record, out
        self.bins = players.bin_of(out[0] - days)
        self.pieces = self._cut() if carries_state(self.spec) else [slice(0, len(days))]

    @property
    def spec(self) -> ModelSpec:
        """That of the model."""
        return self.engine.key.model.spec

    @property
    def playing(self) -> NDArray[np.bool_]:
        """Who has anything to tell, shape (player,)."""
        known = np.isfinite(self.forcing)
        found = [known[self.bins == i].any(axis=0) for i in range(self.players.bins + 1)]
        attributes = [
            np.isfinite(self.static[list(each)]).any() for each in self.players.attributes
        ]
        before = found.pop().any() or self.before is not None
        return np.array([*np.stack(found, axis=1).ravel(), *attributes, before], dtype=bool)

    def _cut(self) -> list[slice]:
        """Return days that are read one after the other, so that coalitions can share them."""
        bounds, end = [0], len(self.days)
        for cut in np.flatnonzero(np.diff(self.bins)) + 1:
            if cut - bounds[-1] >= PIECE and end - cut >= PIECE:
                bounds.append(int(cut))
        return [slice(*each) for each in pairwise([*bounds, end])]

    def __call__(self, coalitions: Coalitions) -> Values:
        """Return what the model says, shape (coalition,)."""
        left = self.before
        parents = np.where(coalitions[:, -1] & (left is not None), 0, -1)
        for piece in self.pieces:
            last = piece is self.pieces[-1]
            rows, first, which = np.unique(
                coalitions & self._told_until(piece), axis=0, return_index=True, return_inverse=True
            )
            answer = self.answer if last else FinalState.of(self.spec)
            values = self._ask(answer, rows, piece, left, parents[first], last=last)
            parents = which.ravel()
            if not last:
                left = states_of(values, self.spec, piece.stop)
        return np.asarray(values[:, 0, self.heads].mean(axis=1, dtype=np.float64)[parents])

    def _told_until(self, piece: slice) -> NDArray[np.bool_]:
        """Return which players tell something of the days up to the end of a piece."""
        told = np.ones(len(self.players), dtype=bool)
        if piece is not self.pieces[-1]:
            self.players.parts(told)[0][:, : self.bins[piece.stop - 1]] = False
        return told

    def _ask(
        self,
        answer: Answer,
        rows: Coalitions,
        piece: slice,
        left: Before | None,
        parents: NDArray[np.int64],
        *,
        last: bool,
    ) -> Floats:
        """Ask for the days of a piece; rows with a parent go on from what that has left."""
        on, attributes, before = self.players.parts(rows)
        on = np.concatenate([on, np.broadcast_to(before[:, None], (*on.shape[:2], 1))], axis=2)
        shown = on[:, :, self.bins[piece]].transpose(0, 2, 1)
        forcing = np.where(shown, self.forcing[piece], np.float32(np.nan))
        static = np.full((len(rows), len(self.static)), np.nan, dtype=np.float32)
        for i, columns in enumerate(self.players.attributes):
            static[:, columns] = np.where(
                attributes[:, i, None], self.static[list(columns)], np.nan
            )
        days = self.days[piece]
        values = np.empty(0, dtype=np.float32)
        for some in (parents < 0, parents >= 0):
            if not some.any():
                continue
            found, _ = self.engine.answer(
                answer,
                forcing[some],
                static[some],
                days=days,
                record=days if carries_state(self.spec) else self.record,
                out=self.out if last else days,
                before=replace(left, places=parents[some])
                if left and parents[some][0] >= 0
                else None,
            )
            if not values.size:
                values = np.empty((len(rows), *found.shape[1:]), dtype=np.float32)
            values[some] = found
        return values


def states_of(vectors: Floats, spec: ModelSpec, days: int) -> Before:
    """Return what `FinalState` has answered as something to go on from, one for each site."""
    return Before(
        parts=split(vectors, spec, days),
        places=np.arange(len(vectors)),
        unknown=np.zeros(len(vectors), dtype=bool),
    )
