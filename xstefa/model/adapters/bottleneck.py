"""Bottleneck adapter."""

from __future__ import annotations

from torch import Tensor, nn

from xstefa.model.adapters.concatenated import concatenated


class Bottleneck(nn.Module):
    """``E_t + Up GELU(Down [E_t, x_t])`` through few units, as in Houlsby et al. (2019).

    It starts as the identity: ``Up`` is zero before training.

    Parameters
    ----------
    forcings, statics, width : int
    """

    def __init__(self, *, forcings: int, statics: int, width: int) -> None:
        super().__init__()
        narrow = max(1, width // 8)
        self.down = nn.Linear(width + forcings + statics, narrow)
        self.up = nn.Linear(narrow, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
        """Map (B, T, d), (B, T, C), (B, S) to (B, T, d)."""
        inner = nn.functional.gelu(self.down(concatenated(days, forcing, static)))
        return days + self.up(inner)
