"""The transformer that reads a window of days and a site's attributes together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstefa.model import kernels
from xstefa.model.architecture import EncoderSize
from xstefa.model.embedding import VariableEmbedding

# While training. Not on attention weights: dropout there costs 1.5 times the step.
DROPOUT = 0.1

# On a CPU, windows pass through all layers a few at a time, so that what one layer writes is still
# in the cache when the next one reads it; and in whole blocks of tokens, which the kernels like.
SMALL_BATCH = 4
TOKEN_BLOCK = 16


class Representation(NamedTuple):
    """Embeddings of the encoder: `days` (B, T, d) and `site` (B, d)."""

    days: Tensor
    site: Tensor


class EncoderLayer(nn.Module):
    """A post-norm transformer layer, equations (9)-(12)."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.heads, self.activation, width = size.heads, size.activation, size.width
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.linear1 = nn.Linear(width, size.feedforward)
        self.linear2 = nn.Linear(size.feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.project_in.weight)
        nn.init.zeros_(self.project_in.bias)

    def forward(self, tokens: Tensor, length: int | None = None) -> Tensor:
        """Map tokens (B, L, d) to tokens (B, L, d); those behind `length` are padding."""
        qkv = kernels.apply(self.project_in, tokens)
        attended = kernels.attention(qkv, heads=self.heads, length=length or tokens.shape[1])
        return self._after(attended, tokens)

    def _after(self, attended: Tensor, tokens: Tensor) -> Tensor:
        """Return what follows attention: projection and feed-forward, each added and normalised."""
        tokens = self.norm1(self._added(self.project_out, attended, tokens))
        inner = self._drop(kernels.apply(self.linear1, tokens, activation=self.activation))
        return self.norm2(self._added(self.linear2, inner, tokens))

    def _added(self, layer: nn.Linear, x: Tensor, tokens: Tensor) -> Tensor:
        if self.training:
            return tokens + self._drop(layer(x))
        return kernels.apply(layer, x, add=tokens)

    def _drop(self, tokens: Tensor) -> Tensor:
        return functional.dropout(tokens, DROPOUT, self.training)


class TokenEncoder(nn.Module):
    """What encoders are made of: embeddings, layers, and the projection of equation (13).

    Parameters
    ----------
    size : EncoderSize
    forcings, statics : int
        Number of dynamic and static variables, ``C`` and ``S``.
    """

    layer: type[EncoderLayer] = EncoderLayer
    position: nn.Parameter  # learned, of an encoder that does not look back only

    def __init__(self, size: EncoderSize, *, forcings: int, statics: int) -> None:
        super().__init__()
        self.width = width = size.width
        self.embed_forcing = VariableEmbedding(variables=forcings, width=width, hidden=size.hidden)
        self.embed_static = VariableEmbedding(
            variables=statics,
            width=width,
            hidden=size.hidden,
            masked_as=size.static_masked_as,
            masked_rows=size.static_masked_rows,
        )
        if not size.causal:
            self.position = nn.Parameter(torch.randn(size.positions, width) * 0.02)
        self.layers = nn.ModuleList(self.layer(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)


def hidden(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return values, missing where a mask is True."""
    return values if mask is None else values.masked_fill(mask, torch.nan)


class Encoder(TokenEncoder):
    """Days and site attributes to their joint representation, equations (4)-(13).

    A window may have at most ``positions - 1`` days. The published weights use ReLU where the paper
    writes GELU.
    """

    def forward(
        self,
        forcing: Tensor,
        static: Tensor,
        mask_forcing: Tensor | None = None,
        mask_static: Tensor | None = None,
        *,
        published_static_mask: bool = False,
    ) -> Representation:
        """Encode windows.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
            Standardised forcings; NaN where missing.
        static : Tensor, shape (B, S)
            Standardised site attributes; NaN where missing.
        mask_forcing, mask_static : Tensor of bool, optional
            True where a known value is to be hidden.
        published_static_mask : bool
            Take masked static values by batch row as the released code does, see
            `VariableEmbedding.forward`.

        Returns
        -------
        Representation
            Days (B, T, d) and site (B, d), after the projection that equation (13) names enc-proj.
        """
        length = forcing.shape[1] + 1
        if length > len(self.position):
            raise ValueError(
                f"a window of {length - 1} days does not fit the position table of "
                f"{len(self.position)} rows; use at most {len(self.position) - 1} days"
            )
        forcing, static = hidden(forcing, mask_forcing), hidden(static, mask_static)
        if kernels.infers_on_cpu(forcing) and not published_static_mask:
            return self._in_small_batches(forcing, static)
        site = self.embed_static(static, published_rows=published_static_mask)
        days = self.embed_forcing(forcing)
        tokens = torch.cat([days, site.unsqueeze(1)], dim=1)
        # The scaling is not in the paper; the released code multiplies tokens with positions.
        tokens = (tokens + self.position[:length]) * self.width**0.5
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.project(self.norm(tokens))
        return Representation(days=tokens[:, :-1], site=tokens[:, -1])

    def _in_small_batches(self, forcing: Tensor, static: Tensor) -> Representation:
        """Encode as above, a few windows at a time.

        Kernels round by the shape, so all small batches have one, and a window's numbers do not
        depend on how many others there are.
        """
        rows, days, _ = forcing.shape
        length, dtype = days + 1, kernels.working_dtype(forcing)
        found = Representation(
            days=torch.empty((rows, days, self.width), dtype=dtype),
            site=torch.empty((rows, self.width), dtype=dtype),
        )
        padded = -(-length // TOKEN_BLOCK) * TOKEN_BLOCK
        inputs = torch.zeros((SMALL_BATCH, padded, self.width), dtype=self.position.dtype)
        for begin in range(0, rows, SMALL_BATCH):
            part = slice(begin, begin + SMALL_BATCH)
            inputs[:, :days] = self.embed_forcing(kernels.filled(forcing, part))
            inputs[:, days] = self.embed_static(kernels.filled(static, part))
            inputs[:, :length] += self.position[:length]
            tokens = (inputs * self.width**0.5).to(dtype)
            for layer in self.layers:
                tokens = layer(tokens, length)
            tokens = kernels.apply(self.project, self.norm(tokens))
            count = len(found.site[part])
            found.days[part] = tokens[:count, :days]
            found.site[part] = tokens[:count, days]
        return found
