"""The whole network: an encoder, and on top of it a decoder, heads, or both."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from xstefa.model.architecture import Architecture
from xstefa.model.decoder import Decoder
from xstefa.model.encoder import Encoder
from xstefa.model.heads import build_head


class StefaLand(nn.Module):
    """Encoder, decoder and heads as the architecture says.

    Parameters
    ----------
    architecture : Architecture
        Sizes; a part that is None does not exist.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        forcings, statics = architecture.forcings, architecture.statics
        self.encoder: Encoder | None = None
        self.decoder: Decoder | None = None
        width = 0
        if architecture.encoder is not None:
            size = architecture.encoder
            width = size.width
            self.encoder = Encoder(forcings=forcings, statics=statics, **asdict(size))
            if architecture.decoder:
                self.decoder = Decoder(
                    forcings=forcings,
                    statics=statics,
                    width=width,
                    hidden=size.hidden,
                    recurrent=architecture.recurrent,
                )
        head = architecture.head
        self.scale = 1.0 if head is None else head.scale
        self.offset = 0.0 if head is None else head.offset
        self.hides_target = head is not None and head.kind == "direct"
        members = [] if head is None else [head] * head.members
        self.heads = nn.ModuleList(
            build_head(member, forcings=forcings, statics=statics, width=width)
            for member in members
        )

    def represent(self, forcing: Tensor, static: Tensor) -> Tensor | None:
        """Return what the heads read of the encoder, shape (B, T, d); None without an encoder.

        For heads of kind "direct" the last forcing is the target, and is hidden.
        """
        if self.encoder is None:
            return None
        mask = None
        if self.hides_target:
            mask = torch.zeros_like(forcing, dtype=torch.bool)
            mask[..., -1] = True
        return self.encoder(forcing, static, mask).days

    def members(self, forcing: Tensor, static: Tensor) -> Tensor:
        """Predict the target in its canonical unit with each head, shape (B, T, heads).

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.
        """
        days = self.represent(forcing, static)
        answers = [head(forcing, static, days) for head in self.heads]
        return torch.stack(answers, dim=-1) * self.scale + self.offset

    def forward(self, forcing: Tensor, static: Tensor) -> Tensor:
        """Predict the target, shape (B, T): the mean of `members`."""
        return self.members(forcing, static).mean(-1)
