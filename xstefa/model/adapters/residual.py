"""Residual adapter: the "dual residual" one of the authors' fine-tuning script."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two residual paths, one for the representation and one for the raw inputs.

    ``f_t = ReLU(F x_t)``, ``s = ReLU(S c)``,
    ``norm2(f_t + s + norm1(E_t + W2 ReLU(W1 [E_t, f_t, s])))``.

    Parameters
    ----------
    forcings, statics, width : int
    """

    def __init__(self, *, forcings: int, statics: int, width: int) -> None:
        super().__init__()
        self.from_forcing = nn.Linear(forcings, width)
        self.from_static = nn.Linear(statics, width)
        self.linear1 = nn.Linear(3 * width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
        """Map (B, T, d), (B, T, C), (B, S) to (B, T, d)."""
        daily = self._drop(functional.relu(self.from_forcing(forcing)), 0.1)
        site = self._drop(functional.relu(self.from_static(static)), 0.1).unsqueeze(1)
        site = site.expand(-1, days.shape[1], -1)
        inner = functional.relu(self.linear1(torch.cat([days, daily, site], dim=-1)))
        mixed = self.norm1(days + self.linear2(self._drop(inner, 0.2)))
        return self.norm2(daily + site + mixed)

    def _drop(self, values: Tensor, share: float) -> Tensor:
        return functional.dropout(values, share, self.training)
