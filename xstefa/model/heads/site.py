"""The head of static targets: from the attributes of a site to one value of it, or one a depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model.architecture import HeadSize
from xstefa.model.embedding import VariableEmbedding, VectorEmbedding
from xstefa.model.heads.recurrent import LINKS

_BLOCKS = 2


class SiteHead(nn.Module):
    """``y = link(W f(e(c) + V E_s) + b)``: attributes, each embedded by itself, and the site token.

    Vectors are embedded by one linear layer each.

    Parameters
    ----------
    size : HeadSize
    forcings, statics : int
        Number of dynamic and static variables; the former are not read.
    width : int
        Length of the encoder's tokens; 0 without an encoder, whose site token is then left out.
    extras : tuple of int
        Lengths of the tokens that stand last among the static variables: 1, or that of a vector.
    """

    def __init__(
        self,
        size: HeadSize,
        *,
        forcings: int,
        statics: int,
        width: int,
        extras: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.link, self.shape = size.link, (size.outputs, size.levels)
        hidden = size.hidden
        lengths = (*[1] * (statics - sum(extras)), *extras)
        self.lengths = lengths
        self.embed = VariableEmbedding(variables=lengths.count(1), width=hidden, hidden=16)
        self.vectors = nn.ModuleList(
            VectorEmbedding(length=n, width=hidden) for n in lengths if n > 1
        )
        self.from_site = nn.Linear(width, hidden) if width else None
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, hidden),
                nn.GELU(),
                nn.Dropout(size.dropout),
                nn.Linear(hidden, hidden),
            )
            for _ in range(_BLOCKS)
        )
        self.output = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Dropout(size.dropout),
            nn.Linear(hidden, size.outputs * size.levels),
        )

    def forward(self, static: Tensor, site: Tensor | None) -> Tensor:
        """Map attributes (B, S), standardised, NaN where missing, and the site token (B, d).

        Returns
        -------
        Tensor, shape (B, outputs, levels)
        """
        tokens = static.split(self.lengths, dim=-1)
        found = self.embed(torch.cat([token for token in tokens if token.shape[-1] == 1], dim=-1))
        vectors = [token for token in tokens if token.shape[-1] > 1]
        for embed, vector in zip(self.vectors, vectors, strict=True):
            found = found + embed(vector)
        if self.from_site is not None:
            assert site is not None
            found = found + self.from_site(site)
        for block in self.blocks:
            found = found + block(found)
        values = self.output(found).unflatten(-1, self.shape)
        return torch.softmax(values, dim=1) if self.link == "softmax" else LINKS[self.link](values)
