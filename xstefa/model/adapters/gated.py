"""Gated adapter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model.adapters.concatenated import concatenated


class Gated(nn.Module):
    """``g E_t + (1 - g) W [E_t, x_t]`` with ``g = sigmoid(V [E_t, x_t])``, elementwise.

    A highway layer (Srivastava et al., 2015): each element decides between the representation and
    what the inputs say. It starts with the gate mostly open for the representation.

    Parameters
    ----------
    forcings, statics, width : int
    """

    def __init__(self, *, forcings: int, statics: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width + forcings + statics, width)
        self.candidate = nn.Linear(width + forcings + statics, width)
        nn.init.constant_(self.gate.bias, 1.0)

    def forward(self, days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
        """Map (B, T, d), (B, T, C), (B, S) to (B, T, d)."""
        inputs = concatenated(days, forcing, static)
        gate = torch.sigmoid(self.gate(inputs))
        return gate * days + (1 - gate) * self.candidate(inputs)
