"""The pretraining decoder: what the hidden values probably were."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstefa.model.encoder import Representation


class Reconstructed(NamedTuple):
    """Reconstructed standardised values: `forcing` (B, T, C) and `static` (B, S)."""

    forcing: Tensor
    static: Tensor


class VariableProjection(nn.Module):
    """One small network per variable, from a token to that variable's value, equation (16)."""

    def __init__(self, *, variables: int, width: int, hidden: int = 64) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight1 = nn.Parameter(torch.empty(variables, width, hidden).uniform_(-bound, bound))
        self.bias1 = nn.Parameter(torch.empty(variables, hidden).uniform_(-bound, bound))
        bound = hidden**-0.5
        self.weight2 = nn.Parameter(torch.empty(variables, hidden).uniform_(-bound, bound))
        self.bias2 = nn.Parameter(torch.empty(variables).uniform_(-bound, bound))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., d) to values (..., V)."""
        variables, width, hidden = self.weight1.shape
        flat = self.weight1.permute(1, 0, 2).reshape(width, variables * hidden)
        inner = functional.gelu(tokens @ flat + self.bias1.flatten())
        inner = inner.unflatten(-1, (variables, hidden))
        return (inner * self.weight2).sum(-1) + self.bias2


class Decoder(nn.Module):
    """LSTM over the tokens, LayerNorm, then one projection per variable, equations (13)-(16).

    Parameters
    ----------
    forcings, statics : int
        Number of dynamic and static variables.
    width : int
        Token length.
    recurrent : bool
        Whether there are the LSTM and its LayerNorm; without, the variables are projected from the
        representation itself, as published checkpoints without decoder layers do.
    both_ways : bool
        Whether the LSTM also reads the days from the last to the first, half of its width each
        way: behind an encoder that looks back only, what fills a gap has to see its far end.
    """

    def __init__(
        self,
        *,
        forcings: int,
        statics: int,
        width: int = 256,
        hidden: int = 64,
        recurrent: bool = True,
        both_ways: bool = False,
    ) -> None:
        super().__init__()
        size = width // 2 if both_ways else width
        self.lstm = (
            nn.LSTM(width, size, batch_first=True, bidirectional=both_ways) if recurrent else None
        )
        self.norm = nn.LayerNorm(width) if recurrent else None
        self.project_forcing = VariableProjection(variables=forcings, width=width, hidden=hidden)
        self.project_static = VariableProjection(variables=statics, width=width, hidden=hidden)

    def forward(self, encoded: Representation) -> Reconstructed:
        """Reconstruct every variable from the encoder's representation."""
        tokens = torch.cat([encoded.days, encoded.site.unsqueeze(1)], dim=1)
        if self.lstm is not None and self.norm is not None:
            tokens, _ = self.lstm(tokens)
            tokens = self.norm(tokens)
        return Reconstructed(
            forcing=self.project_forcing(tokens[:, :-1]), static=self.project_static(tokens[:, -1])
        )
