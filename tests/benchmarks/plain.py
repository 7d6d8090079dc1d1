"""StefaLand written the plain way: one pair of linear layers per variable, `torch.nn` for the rest.

It is what the package's network is timed against, and a second opinion on what it computes: its
state has the keys of the published checkpoints, so that tests make such files of any size with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Embeddings(nn.Module):
    """A loop over variables, each its own two linear layers, summed."""

    def __init__(self, names: list[str], width: int, hidden: int, prefix: str = "") -> None:
        super().__init__()
        self.names = names
        self.first, self.second = f"{prefix}embeddings1", f"{prefix}embeddings2"
        setattr(self, self.first, nn.ModuleDict({n: nn.Linear(1, hidden) for n in names}))
        setattr(self, self.second, nn.ModuleDict({n: nn.Linear(hidden, width) for n in names}))

    def embed(self, name: str, values: Tensor) -> Tensor:
        inner = functional.gelu(getattr(self, self.first)[name](values.unsqueeze(-1)))
        return getattr(self, self.second)[name](inner)


class ForcingEmbedding(Embeddings):
    """Hidden values become the variable's learned vector."""

    def __init__(self, names: list[str], width: int, hidden: int) -> None:
        super().__init__(names, width, hidden)
        self.masked_values = nn.Parameter(torch.randn(len(names), width) * 0.02)

    def forward(self, values: Tensor, hide: Tensor) -> Tensor:
        parts = []
        for i, name in enumerate(self.names):
            embedded = self.embed(name, values[..., i].nan_to_num())
            parts.append(torch.where(hide[..., i : i + 1], self.masked_values[i], embedded))
        return torch.stack(parts).sum(0)


class StaticEmbedding(Embeddings):
    """Hidden values become a learned scalar, which is then embedded: row 0 of a table."""

    def __init__(self, names: list[str], width: int, hidden: int) -> None:
        super().__init__(names, width, hidden, prefix="numerical_")
        self.masked_values = nn.Parameter(torch.randn(1000, len(names)))

    def forward(self, values: Tensor, hide: Tensor) -> Tensor:
        values = torch.where(hide, self.masked_values[0], values)
        return torch.stack([self.embed(n, values[:, i]) for i, n in enumerate(self.names)]).sum(0)


class Projections(nn.Module):
    """A loop over variables, from tokens to values."""

    def __init__(self, names: list[str], width: int, hidden: int, prefix: str = "") -> None:
        super().__init__()
        self.names = names
        self.first, self.second = f"{prefix}embeddings1", f"{prefix}embeddings2"
        setattr(self, self.first, nn.ModuleDict({n: nn.Linear(width, hidden) for n in names}))
        setattr(self, self.second, nn.ModuleDict({n: nn.Linear(hidden, 1) for n in names}))

    def forward(self, tokens: Tensor) -> Tensor:
        first, second = getattr(self, self.first), getattr(self, self.second)
        return torch.cat([second[n](functional.gelu(first[n](tokens))) for n in self.names], -1)


class Positions(nn.Module):
    """The learned table."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.position_embedding = nn.Parameter(torch.randn(rows, width) * 0.02)


class Transformer(nn.Module):
    """Post-norm layers with ReLU, torch's default."""

    def __init__(self, width: int, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.1, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class PlainStefaLand(nn.Module):
    """Encoder and decoder with the published names.

    Parameters
    ----------
    forcings, statics : list of str
    width, layers, heads, feedforward, hidden, positions : int
    recurrent : bool
        Whether the decoder has an LSTM.
    """

    def __init__(
        self,
        forcings: list[str],
        statics: list[str],
        *,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        feedforward: int = 512,
        hidden: int = 64,
        positions: int = 1000,
        recurrent: bool = True,
    ) -> None:
        super().__init__()
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder_norm = nn.LayerNorm(width)
        self.time_series_embedding = ForcingEmbedding(forcings, width, hidden)
        self.static_embedding = StaticEmbedding(statics, width, hidden)
        self.positional_encoding = Positions(positions, width)
        self.encoder = Transformer(width, layers, heads, feedforward)
        self.enc_2_dec_embedding = nn.Linear(width, width)
        if recurrent:
            self.decoder = nn.LSTM(width, width, batch_first=True)
        self.time_series_projection = Projections(forcings, width, hidden)
        self.static_projection = Projections(statics, width, hidden, prefix="numerical_")
        self.recurrent = recurrent

    def encode(
        self, x: Tensor, c: Tensor, mask_x: Tensor | None = None, mask_c: Tensor | None = None
    ) -> Tensor:
        """Return the representation, (B, T + 1, d), site last."""
        hide_x = x.isnan() if mask_x is None else x.isnan() | mask_x
        hide_c = c.isnan() if mask_c is None else c.isnan() | mask_c
        days = self.time_series_embedding(x, hide_x)
        site = self.static_embedding(c, hide_c)
        tokens = torch.cat([days, site.unsqueeze(1)], dim=1)
        tokens = tokens + self.positional_encoding.position_embedding[: tokens.shape[1]]
        tokens = self.encoder.transformer_encoder(tokens * tokens.shape[-1] ** 0.5)
        return self.enc_2_dec_embedding(self.encoder_norm(tokens))

    def reconstruct(
        self, x: Tensor, c: Tensor, mask_x: Tensor | None = None, mask_c: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return forcings (B, T, C) and statics (B, S)."""
        tokens = self.encode(x, c, mask_x, mask_c)
        if self.recurrent:
            tokens = self.decoder_norm(self.decoder(tokens)[0])
        return self.time_series_projection(tokens[:, :-1]), self.static_projection(tokens[:, -1])
