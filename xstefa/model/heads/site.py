"""The head of static targets: from the attributes of a site to one value of it, or one a depth."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstefa.model.architecture import HeadSize
from xstefa.model.heads.attributes import StaticHead
from xstefa.model.heads.recurrent import LINKS

NOISE = 0.1
"""What is added to scores of attributes in training."""


class SiteHead(StaticHead):
    """``y = link(W f(r(c), E_s) + b)``: ranks of attributes, which are missing, and the site token.

    ``f`` is a layer and a residual block. Several members with weights of their own are computed
    together, and averaged.
    """

    def __init__(self, size: HeadSize, **inputs: Any) -> None:
        super().__init__(size, **inputs)
        hidden, members, width = size.hidden, size.members, self.width
        self.norm = nn.LayerNorm(width) if width else None

        def layer(inputs: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
            bound = inputs**-0.5
            weight = torch.empty(members, inputs, outputs).uniform_(-bound, bound)
            return nn.Parameter(weight), nn.Parameter(torch.zeros(members, 1, outputs))

        self.weight_in, self.bias_in = layer(self.attributes.width + width, hidden)
        self.weight1, self.bias1 = layer(hidden, hidden)
        self.weight2, self.bias2 = layer(hidden, hidden)
        self.weight_out, self.bias_out = layer(hidden, math.prod(self.shape))
        self.dropout = nn.Dropout(size.dropout)

    def each(self, static: Tensor, site: Tensor | None) -> Tensor:
        """Return the answer of each member, shape (member, B, outputs, levels)."""
        values, missing = self.attributes(static)
        if self.training:
            values = values + NOISE * torch.randn_like(values)
        inputs = torch.cat([values, missing], dim=-1)
        if self.norm is not None:
            assert site is not None
            inputs = torch.cat([inputs, self.norm(site)], dim=-1)
        state = inputs @ self.weight_in + self.bias_in
        within = functional.layer_norm(state, state.shape[-1:])
        within = self.dropout(functional.gelu(within @ self.weight1 + self.bias1))
        state = functional.layer_norm(state + within @ self.weight2 + self.bias2, state.shape[-1:])
        values = (self.dropout(state) @ self.weight_out + self.bias_out).unflatten(-1, self.shape)
        return torch.softmax(values, dim=2) if self.link == "softmax" else LINKS[self.link](values)

    def forward(self, static: Tensor, site: Tensor | None) -> Tensor:
        """Map attributes (B, S), standardised, NaN where missing, and the site token (B, d).

        Returns
        -------
        Tensor, shape (B, outputs, levels)
        """
        return self.each(static, site).mean(0)
