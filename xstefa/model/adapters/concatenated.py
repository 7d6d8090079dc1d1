"""What most adapters read."""

from __future__ import annotations

import torch
from torch import Tensor


def concatenated(days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
    """Return ``[E_t, x_t]``, shape (B, T, d + C + S), from (B, T, d), (B, T, C) and (B, S)."""
    site = static.unsqueeze(1).expand(-1, days.shape[1], -1)
    return torch.cat([days, forcing.to(days.dtype), site.to(days.dtype)], dim=-1)
