"""Mixture-of-experts adapter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model.adapters.concatenated import concatenated


class Mixture(nn.Module):
    """``E_t + sum_k p_k Up_k GELU(Down_k [E_t, x_t])`` with ``p = softmax(V [E_t, x_t])``.

    All experts answer and are weighed (Jacobs et al., 1991). They run as two matrix products: the
    weights scale each expert's hidden units before one common ``Up``.

    Parameters
    ----------
    forcings, statics, width : int
    experts : int
    """

    def __init__(self, *, forcings: int, statics: int, width: int, experts: int = 4) -> None:
        super().__init__()
        narrow = max(1, width // experts)
        self.experts = experts
        self.router = nn.Linear(width + forcings + statics, experts)
        self.down = nn.Linear(width + forcings + statics, experts * narrow)
        self.up = nn.Linear(experts * narrow, width)

    def forward(self, days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
        """Map (B, T, d), (B, T, C), (B, S) to (B, T, d)."""
        inputs = concatenated(days, forcing, static)
        weights = torch.softmax(self.router(inputs), dim=-1)
        inner = nn.functional.gelu(self.down(inputs)).unflatten(-1, (self.experts, -1))
        return days + self.up((inner * weights.unsqueeze(-1)).flatten(-2))
