"""Adapters between the frozen representation and a head's LSTM, by name.

Each maps the representation of the days (B, T, d), the forcings (B, T, C) and the site attributes
(B, S), all without gaps, to what the LSTM reads (B, T, d).
"""

from __future__ import annotations

from typing import Protocol

from torch import nn

from xstefa.model.adapters.bottleneck import Bottleneck
from xstefa.model.adapters.feedforward import FeedForward
from xstefa.model.adapters.gated import Gated
from xstefa.model.adapters.mixture import Mixture
from xstefa.model.adapters.residual import Residual


class _Adapter(Protocol):
    def __call__(self, *, forcings: int, statics: int, width: int) -> nn.Module: ...


ADAPTERS: dict[str, _Adapter] = {
    "feedforward": FeedForward,
    "bottleneck": Bottleneck,
    "gated": Gated,
    "mixture": Mixture,
    "residual": Residual,
}
