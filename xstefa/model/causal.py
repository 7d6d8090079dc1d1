"""The encoder that looks back only: a record of any length is one sequence.

A day attends to itself, to a band of days before it and to the site; the site attends to itself,
else what a day knows would reach earlier days through it. There are no positions: scores fall with
the lag (ALiBi, Press et al. 2022, arXiv:2108.12409), with another time constant in each head, so
neither the date nor the length of a record changes an answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xstefa.model import kernels
from xstefa.model.architecture import ROWS, EncoderSize
from xstefa.model.encoder import SMALL_BATCH, EncoderLayer, Representation, TokenEncoder, hidden
from xstefa.model.heads.recurrent import State

BLOCK = 64
"""Days whose attention is computed together."""
KEYS = ".keys"
"""Ends names of what is handed from piece to piece, and can be computed from the rest."""


class CausalLayer(EncoderLayer):
    """A post-norm transformer layer, equations (9)-(12), over days and the site before them."""

    def advance(
        self, days: Tensor, site: Tensor, past: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map days (B, T, d) and site (B, 1, d).

        `past` (B, band, 2 d) holds keys and values of the days before; what the next days need is
        returned last.
        """
        width, band = days.shape[-1], past.shape[1]
        qkv, own = kernels.apply(self.project_in, days), kernels.apply(self.project_in, site)
        past = torch.cat([past.to(qkv.dtype), qkv[..., width:]], dim=1)
        attended = kernels.banded_attention(
            qkv[..., :width], past, own[..., width:], bias, heads=self.heads
        )
        # What attends to itself alone is its own value.
        site = self._after(own[..., 2 * width :], site)
        return self._after(attended, days), site, past[:, past.shape[1] - band :]

    def keys(self, days: Tensor) -> Tensor:
        """Return keys and values (B, T, 2 d) of days (B, T, d)."""
        width, layer = days.shape[-1], self.project_in
        return kernels.linear(days, layer.weight[width:], layer.bias[width:])


class CausalEncoder(TokenEncoder):
    """Days and site attributes to their joint representation, equations (4)-(13), looking back.

    A day attends to the last ``band`` days, itself included. What lies further back reaches it
    through the layers, and through the memory of the head.
    """

    layer = CausalLayer
    bias: Tensor

    def __init__(self, size: EncoderSize, *, forcings: int, statics: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics)
        self.band = size.band
        self.register_buffer("bias", fading(size.heads, size.band), persistent=False)

    def forward(
        self,
        forcing: Tensor,
        static: Tensor,
        mask_forcing: Tensor | None = None,
        mask_static: Tensor | None = None,
    ) -> Representation:
        """Encode a record or window as a whole.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.
        mask_forcing, mask_static : Tensor of bool, optional
            True where a known value is to be hidden.

        Returns
        -------
        Representation
            Days (B, T, d) and site (B, d), which knows the attributes only.
        """
        forcing, static = hidden(forcing, mask_forcing), hidden(static, mask_static)
        return self.advance(forcing, static, None)[0]

    def advance(
        self, forcing: Tensor, static: Tensor, state: State | None
    ) -> tuple[Representation, State]:
        """Encode a piece of a record, and return what the next piece begins with.

        Parameters
        ----------
        forcing, static
            As for `forward`.
        state : State or None
            What the piece before returned: what each layer read of the last `band` days, the first
            forcings (B, band, C), others (B, band, d), infinite before the record begins; and, to
            be left out where it is kept, their keys and values (B, band, 2 d), of zero before it.
            None begins a record.
        """
        if not kernels.infers_on_cpu(forcing):
            return self._advance(forcing, static, state)
        found, states = [], []
        # Of a few days the state is all there is to move: once.
        size = SMALL_BATCH if forcing.shape[1] >= BLOCK else -(-len(forcing) // ROWS) * ROWS
        for begin in range(0, len(forcing), size):
            rows = slice(begin, begin + size)
            part = kernels.filled(forcing, rows), kernels.filled(static, rows)
            before = None
            if state is not None:
                before = {name: kernels.filled(tensor, rows) for name, tensor in state.items()}
            encoded, after = self._advance(*part, before)
            found.append(encoded)
            states.append(after)
        count = len(forcing)
        days, site = (torch.cat(parts)[:count] for parts in zip(*found, strict=True))
        if len(states) == 1:
            (joined,) = states
        else:
            joined = {name: torch.cat([s[name] for s in states]) for name in states[0]}
        return Representation(days=days, site=site), {n: t[:count] for n, t in joined.items()}

    def _advance(
        self, forcing: Tensor, static: Tensor, state: State | None
    ) -> tuple[Representation, State]:
        days = self.embed_forcing(forcing) * self.width**0.5
        site = self.embed_static(static).unsqueeze(1) * self.width**0.5
        dtype = kernels.working_dtype(days)
        days, site = days.to(dtype), site.to(dtype)
        read, after = forcing, {}
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, CausalLayer)
            name = f"layer{i}"
            if state is None:
                before = read.new_full((len(read), self.band, read.shape[-1]), torch.inf)
                keys = days.new_zeros(len(days), self.band, 2 * self.width)
            else:
                before = state[name]
                keys = state[name + KEYS] if name + KEYS in state else self._keys(layer, before)
            after[name] = _latest(before, read)
            days, site, after[name + KEYS] = layer.advance(days, site, keys, self.bias)
            read = days
        days, site = (kernels.apply(self.project, self.norm(x)) for x in (days, site))
        return Representation(days=days, site=site[:, 0]), after

    def _keys(self, layer: CausalLayer, read: Tensor) -> Tensor:
        """Return keys and values of days of which a layer read this."""
        days = read
        if layer is self.layers[0]:
            days = self.embed_forcing(read) * self.width**0.5
        keys = layer.keys(days.to(kernels.working_dtype(days)))
        absent = read[..., :1].isinf()
        return keys.masked_fill(absent, 0) if absent.any() else keys


def _latest(before: Tensor, read: Tensor) -> Tensor:
    """Return as many of the last days as there are before, without a copy where they suffice."""
    band = before.shape[1]
    if read.shape[1] < band:
        read = torch.cat([before.to(read.dtype), read], dim=1)
    return read[:, read.shape[1] - band :]


def fading(heads: int, band: int) -> Tensor:
    """Return what is added to the scores, shape (heads, block, band + block).

    Column 0 is the site, column j the day j - band from the block's first. Heads fade by
    2 ** (-8 k / heads) a day of lag, k = 1, 2, ...: with four heads over 4, 16, 64 and 256 days.
    """
    lag = band + torch.arange(BLOCK)[:, None] - torch.arange(band + BLOCK)
    slopes = 2.0 ** (-8 * torch.arange(1, heads + 1, dtype=torch.float32) / heads)
    bias = (-slopes[:, None, None] * lag).masked_fill((lag < 0) | (lag >= band), -torch.inf)
    bias[..., 0] = 0
    return bias
