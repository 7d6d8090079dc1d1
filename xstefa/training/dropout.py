"""Hiding tokens while a head learns, so that it also serves datasets that lack them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xstefa.schema import Schema, Variable
from xstefa.training.sampling import Batch


class TokenDropout(nn.Module):
    """Hides whole tokens from windows, the same ones each time a window comes by.

    Attributes
    ----------
    forcing : Tensor of bool, shape (row, C)
    static : Tensor of bool, shape (row, S)
        Window ``n`` is hidden what row ``n % rows`` says.
    """

    forcing: Tensor
    static: Tensor

    def __init__(self, schema: Schema, *, probability: float, seed: int, rows: int = 4093) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def table(variables: Sequence[Variable]) -> Tensor:
            optional = torch.tensor([not variable.required for variable in variables])
            drawn = torch.rand((rows, len(variables)), generator=generator) < probability
            return drawn & optional  # a required token is never hidden

        self.register_buffer("forcing", table(schema.forcings), persistent=False)
        self.register_buffer("static", table(schema.statics), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return forcing (B, T, C) and static (B, S), NaN where hidden."""
        row = batch.number % len(self.forcing)
        return (
            batch.forcing.masked_fill(self.forcing[row].unsqueeze(1), torch.nan),
            batch.static.masked_fill(self.static[row], torch.nan),
        )
