"""The transformer that reads a window of days and a site's attributes together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstefa.model.embedding import VariableEmbedding

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}


class Representation(NamedTuple):
    """What the encoder says: `days` (B, T, d) and `site` (B, d)."""

    days: Tensor
    site: Tensor


class EncoderLayer(nn.Module):
    """A post-norm transformer layer, equations (9)-(12)."""

    def __init__(
        self, *, width: int, heads: int, feedforward: int, activation: str, dropout: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.activation = ACTIVATIONS[activation]
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.project_in.weight)
        nn.init.zeros_(self.project_in.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, d) to tokens (B, L, d)."""
        batch, length, width = tokens.shape
        qkv = self.project_in(tokens).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        attended = self.project_out(attended.transpose(1, 2).reshape(batch, length, width))
        tokens = self.norm1(tokens + self._drop(attended))
        inner = self._drop(self.activation(self.linear1(tokens)))
        return self.norm2(tokens + self._drop(self.linear2(inner)))

    def _drop(self, tokens: Tensor) -> Tensor:
        return functional.dropout(tokens, self.dropout, self.training)


class Encoder(nn.Module):
    """Days and site attributes to their joint representation, equations (4)-(13).

    Parameters
    ----------
    forcings, statics : int
        Number of dynamic and static variables, ``C`` and ``S``.
    width : int
        Token length ``d``.
    layers, heads, feedforward : int
        Size of the transformer.
    positions : int
        Rows of the learned position table; a window may have at most ``positions - 1`` days.
    activation : {"relu", "gelu"}
        The published weights use ReLU where the paper writes GELU.
    static_masked_as : {"vector", "scalar"}
    static_masked_rows : int
        See `VariableEmbedding`.
    dropout : float
        Applied while training. Not on attention weights: dropout there costs 1.5 times the step.
    """

    def __init__(
        self,
        *,
        forcings: int,
        statics: int,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        feedforward: int = 512,
        hidden: int = 64,
        positions: int = 1000,
        activation: str = "relu",
        static_masked_as: str = "vector",
        static_masked_rows: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width = width
        self.embed_forcing = VariableEmbedding(variables=forcings, width=width, hidden=hidden)
        self.embed_static = VariableEmbedding(
            variables=statics,
            width=width,
            hidden=hidden,
            masked_as=static_masked_as,
            masked_rows=static_masked_rows,
        )
        self.position = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width=width,
                heads=heads,
                feedforward=feedforward,
                activation=activation,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)

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
        days = self.embed_forcing(forcing, mask_forcing)
        site = self.embed_static(static, mask_static, published_rows=published_static_mask)
        tokens = torch.cat([days, site.unsqueeze(1)], dim=1)
        length = tokens.shape[1]
        if length > len(self.position):
            raise ValueError(
                f"a window of {length - 1} days does not fit the position table of "
                f"{len(self.position)} rows; use at most {len(self.position) - 1} days"
            )
        # The scaling is not in the paper; the released code multiplies tokens with positions.
        tokens = (tokens + self.position[:length]) * self.width**0.5
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.project(self.norm(tokens))
        return Representation(days=tokens[:, :-1], site=tokens[:, -1])
