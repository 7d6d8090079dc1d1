"""Adapters between the frozen representation and a head's LSTM, by name.

Each maps the representation of the days (B, T, d), the forcings (B, T, C) and the site attributes
(B, S), all without gaps, to what the LSTM reads (B, T, d).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


def _inputs(days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
    """Return ``[E_t, x_t]``, shape (B, T, d + C + S)."""
    site = static.unsqueeze(1).expand(-1, days.shape[1], -1)
    return torch.cat([days, forcing.to(days.dtype), site.to(days.dtype)], dim=-1)


class FeedForward(nn.Module):
    """``W2 GELU(W1 [E_t, x_t])``: nothing of the representation survives unless it is learned."""

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
        return self.layers(_inputs(days, forcing, static))


class Bottleneck(nn.Module):
    """``E_t + Up GELU(Down [E_t, x_t])`` through few units, as in Houlsby et al. (2019).

    It starts as the identity: ``Up`` is zero before training.
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
        inner = functional.gelu(self.down(_inputs(days, forcing, static)))
        return days + self.up(inner)


class Gated(nn.Module):
    """``g E_t + (1 - g) W [E_t, x_t]`` with ``g = sigmoid(V [E_t, x_t])``, elementwise.

    A highway layer (Srivastava et al., 2015): each element decides between the representation and
    what the inputs say. It starts with the gate mostly open for the representation.
    """

    def __init__(self, *, forcings: int, statics: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width + forcings + statics, width)
        self.candidate = nn.Linear(width + forcings + statics, width)
        nn.init.constant_(self.gate.bias, 1.0)

    def forward(self, days: Tensor, forcing: Tensor, static: Tensor) -> Tensor:
        """Map (B, T, d), (B, T, C), (B, S) to (B, T, d)."""
        inputs = _inputs(days, forcing, static)
        gate = torch.sigmoid(self.gate(inputs))
        return gate * days + (1 - gate) * self.candidate(inputs)


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
        inputs = _inputs(days, forcing, static)
        weights = torch.softmax(self.router(inputs), dim=-1)
        inner = functional.gelu(self.down(inputs)).unflatten(-1, (self.experts, -1))
        return days + self.up((inner * weights.unsqueeze(-1)).flatten(-2))


class Residual(nn.Module):
    """Two residual paths, one for the representation and one for the raw inputs.

    ``f_t = ReLU(F x_t)``, ``s = ReLU(S c)``,
    ``norm2(f_t + s + norm1(E_t + W2 ReLU(W1 [E_t, f_t, s])))``.
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


class _Adapter(Protocol):
    def __call__(self, *, forcings: int, statics: int, width: int) -> nn.Module: ...


ADAPTERS: dict[str, _Adapter] = {
    "feedforward": FeedForward,
    "bottleneck": Bottleneck,
    "gated": Gated,
    "mixture": Mixture,
    "residual": Residual,
}
