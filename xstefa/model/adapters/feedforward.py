"""Feed-forward adapter."""

from __future__ import annotations

from torch import Tensor, nn

from xstefa.model.adapters.concatenated import concatenated


class FeedForward(nn.Module):
    """``W2 GELU(W1 [E_t, x_t])``: nothing of the representation survives unless it is learned.

    Parameters
    ----------
    forcings, statics, width : int
    """

    def __init__(self, *, forcings: int, statics: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width + forcings + statics, 2 * width),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(2 * width, width),
        )

    def forward(self, days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
        """Map (B, T, d), (B, T, C), (B, S) to (B, T, d)."""
        return self.layers(concatenated(days, forcing, static))
