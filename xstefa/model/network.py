"""The whole network: an encoder, and on top of it a decoder, heads, or both."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from xstefa.model.architecture import Architecture
from xstefa.model.decoder import Decoder
from xstefa.model.encoder import Encoder
from xstefa.model.heads import ResConn


class StefaLand(nn.Module):
    """Encoder, decoder and heads as the architecture says.

    Parameters
    ----------
    architecture : Architecture
        Sizes; a part that is None does not exist.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        counts = {"forcings": architecture.forcings, "statics": architecture.statics}
        self.encoder: Encoder | None = None
        self.decoder: Decoder | None = None
        self.scale = 1.0
        width = 0
        if architecture.encoder is not None:
            size = architecture.encoder
            width = size.width
            self.encoder = Encoder(**counts, **asdict(size))
            if architecture.decoder:
                self.decoder = Decoder(
                    **counts, width=width, hidden=size.hidden, recurrent=architecture.recurrent
                )
        members: list[ResConn] = []
        if architecture.head is not None:
            head = asdict(architecture.head)
            self.scale = head.pop("scale")
            members = [ResConn(**counts, width=width, **head) for _ in range(head.pop("members"))]
        self.heads = nn.ModuleList(members)

    def forward(self, forcing: Tensor, static: Tensor) -> Tensor:
        """Predict the target in its canonical unit, shape (B, T): the mean of the heads.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.
        """
        days = None if self.encoder is None else self.encoder(forcing, static).days
        members = [head(forcing, static, days) for head in self.heads]
        return torch.stack(members).mean(0) * self.scale
