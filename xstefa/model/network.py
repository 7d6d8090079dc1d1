"""The whole network: an encoder, and on top of it a decoder, heads, or both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstefa.model import kernels
from xstefa.model.architecture import ROWS, Architecture
from xstefa.model.causal import BLOCK, KEYS, CausalEncoder
from xstefa.model.decoder import Decoder
from xstefa.model.encoder import Encoder, Representation
from xstefa.model.heads import build_head
from xstefa.model.heads.attributes import StaticHead
from xstefa.model.heads.hbv import HBV
from xstefa.model.heads.recurrent import Head, State

# Days that a record runs through the network at a time, where nothing is learned: what they write
# stays in the cache. In whole blocks of attention.
PIECE = 192


class StefaLand(nn.Module):
    """Encoder, decoder and heads as the architecture says.

    Parameters
    ----------
    architecture : Architecture
        Sizes; a part that is None does not exist.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.forcings, self.statics = architecture.forcings, architecture.statics
        self.attributes = self.statics + sum(architecture.extras)
        self.encoder: Encoder | CausalEncoder | None = None
        self.decoder: Decoder | None = None
        width = 0
        if architecture.encoder is not None:
            size = architecture.encoder
            width = size.width
            kind = CausalEncoder if size.causal else Encoder
            self.encoder = kind(size, forcings=self.forcings, statics=self.statics)
            if architecture.decoder:
                self.decoder = Decoder(
                    forcings=self.forcings,
                    statics=self.statics,
                    width=width,
                    hidden=size.hidden,
                    recurrent=architecture.recurrent,
                    both_ways=size.causal,
                )
        self.sizes = architecture.heads
        self.hides_target = any(size.kind == "direct" for size in self.sizes)
        self.heads = nn.ModuleList(
            build_head(
                size,
                forcings=self.forcings,
                statics=self.attributes,
                width=width,
                extras=architecture.extras,
            )
            for size in self.sizes
        )

    def represent(self, forcing: Tensor, static: Tensor) -> Tensor | None:
        """Return what the heads read of the encoder, shape (B, T, d); None without an encoder.

        For heads of kind "direct" the last forcing is the target, and is hidden.
        """
        if self.encoder is None:
            return None
        mask = None
        if self.hides_target:
            mask = torch.zeros_like(forcing, dtype=torch.bool)
            mask[..., -1] = True
        return self.encode(forcing, static, mask).days

    def encode(self, forcing: Tensor, static: Tensor, mask: Tensor | None = None) -> Representation:
        """Return what the encoder makes of days and site; of attributes it reads its own."""
        assert self.encoder is not None
        return self.encoder(forcing, static[:, : self.statics], mask)

    @property
    def causal(self) -> bool:
        """Whether no answer depends on later days, and a record can be read piece by piece."""
        return not isinstance(self.encoder, Encoder)

    def members(
        self,
        forcing: Tensor,
        static: Tensor,
        state: State | None = None,
        *,
        water: bool = False,
        guess: bool = False,
    ) -> Tensor:
        """Predict the target in its canonical unit with each head, shape (B, T, heads).

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.
        state : State, optional
            Of the days before, from `follow`; by default a record begins.
        water : bool
            Say where all water is, shape (B, T, 5, heads): see `HBV.water`, which all heads have
            to be.
        guess : bool
            Answer whatever is known: see `HBV.advance`.
        """
        if torch.is_grad_enabled() or not self.causal:
            days = self.represent(forcing, static)
            asked = (_asked(head, water, guess) for head in self.heads)
            return self._in_units([answer(forcing, static, days, None)[0] for answer in asked])
        length = forcing.shape[1]
        if self.encoder is not None and state is None:
            # Kernels may round by the length: in whole blocks of attention it leaves no trace.
            forcing = functional.pad(forcing, (0, 0, 0, -length % BLOCK), value=torch.nan)
        return self.follow(forcing, static, state, water=water, guess=guess)[0][:, :length]

    def follow(
        self,
        forcing: Tensor,
        static: Tensor,
        state: State | None,
        *,
        water: bool = False,
        guess: bool = False,
    ) -> tuple[Tensor, State]:
        """Predict a record of any length as `members` does, and return the state at its end.

        It holds what has to be kept, and nothing that can be computed from it.
        """
        found = []
        for piece in forcing.split(PIECE, dim=1):
            answer, state = self.advance(piece, static, state, water=water, guess=guess)
            found.append(answer)
        assert state is not None
        kept = {name: tensor for name, tensor in state.items() if not name.endswith(KEYS)}
        return torch.cat(found, dim=1), kept

    def advance(
        self,
        forcing: Tensor,
        static: Tensor,
        state: State | None,
        *,
        water: bool = False,
        guess: bool = False,
    ) -> tuple[Tensor, State]:
        """Predict a piece of a record as `members` does, and return what the next begins with.

        Parameters
        ----------
        forcing, static, water, guess
            As for `members`.
        state : State or None
            What the piece before returned, under the names of the parts; None begins a record.
        """
        assert self.causal
        days: Tensor | None = None
        after: State = {}
        if isinstance(self.encoder, CausalEncoder):
            own = static[:, : self.statics]
            encoded, carried = self.encoder.advance(forcing, own, _of("encoder", state))
            days = encoded.days
            after |= _named("encoder", carried)
        rows, answers = len(forcing), []
        forcing, static = _rounded_up(forcing), _rounded_up(static)
        days = None if days is None else _rounded_up(days)
        for i, head in enumerate(self.heads):
            before = _of(f"head{i}", state)
            if before is not None:
                before = {name: _rounded_up(tensor) for name, tensor in before.items()}
            answer, carried = _asked(head, water, guess)(forcing, static, days, before)
            answers.append(answer[:rows])
            after |= _named(f"head{i}", {name: t[:rows] for name, t in carried.items()})
        return self._in_units(answers), after

    def represent_sites(self, static: Tensor) -> Tensor | None:
        """Return what the encoder makes of attributes (B, S) alone, shape (B, d), if there is one.

        It reads a day of which nothing is known.
        """
        if self.encoder is None:
            return None
        nothing = static.new_full((len(static), 1, self.forcings), torch.nan)
        return self.encode(nothing, static).site

    def sites(self, static: Tensor) -> Tensor:
        """Predict static targets with each head, shape (B, outputs, levels, heads).

        Parameters
        ----------
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.
        """
        site, answers = self.represent_sites(static), []
        for head in self.heads:
            assert isinstance(head, StaticHead)
            answers.append(head(static, site))
        return self._in_units(answers)

    def _in_units(self, answers: list[Tensor]) -> Tensor:
        """Return the answers of the heads in the unit of the target, stacked."""
        return torch.stack(
            [
                (answer if size.power == 1 else answer**size.power) * size.scale + size.offset
                for answer, size in zip(answers, self.sizes, strict=True)
            ],
            dim=-1,
        )

    def forward(self, forcing: Tensor, static: Tensor) -> Tensor:
        """Predict the target, shape (B, T): the mean of those `members` that have an answer."""
        return self.members(forcing, static).nanmean(-1)


def _asked(head: nn.Module, water: bool, guess: bool) -> Callable[..., tuple[Tensor, State]]:
    """Return the method of a head that answers."""
    if isinstance(head, HBV):
        return partial(head.water if water else head.advance, guess=guess)
    assert isinstance(head, Head) and not water
    return head.advance


def _rounded_up(rows: Tensor) -> Tensor:
    """Fill up to whole multiples of `ROWS` with rows of zeros, where nothing is learned."""
    if torch.is_grad_enabled():
        return rows
    return kernels.filled(rows, slice(0, -(-len(rows) // ROWS) * ROWS))


def _of(part: str, state: State | None) -> State | None:
    """Return the state of one part of the network."""
    if state is None:
        return None
    return {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(f"{part}.")}


def _named(part: str, state: State) -> State:
    return {f"{part}.{name}": tensor for name, tensor in state.items()}
