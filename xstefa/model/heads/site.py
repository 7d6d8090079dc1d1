"""The head of static targets: from the attributes of a site to one value of it, or one a depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model.architecture import HeadSize
from xstefa.model.embedding import VariableEmbedding
from xstefa.model.heads.recurrent import LINKS

_BLOCKS = 2


class SiteHead(nn.Module):
    """``y = link(W f(e(c) + V E_s) + b)``: attributes, each embedded by itself, and the site token.

    Parameters
    ----------
    size : HeadSize
    forcings, statics : int
        Number of dynamic and static variables; the former are not read.
    width : int
        Length of the encoder's tokens; 0 without an encoder, whose site token is then left out.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__()
        self.link, self.shape = size.link, (size.outputs, size.levels)
        hidden = size.hidden
        self.embed = VariableEmbedding(variables=statics, width=hidden, hidden=16)
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
        found = self.embed(static)
        if self.from_site is not None:
            assert site is not None
            found = found + self.from_site(site)
        for block in self.blocks:
            found = found + block(found)
        values = self.output(found).unflatten(-1, self.shape)
        return torch.softmax(values, dim=1) if self.link == "softmax" else LINKS[self.link](values)
