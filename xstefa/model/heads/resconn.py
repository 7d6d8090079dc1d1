"""The paper's head: raw inputs join the representation through a residual connection."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from xstefa.model import kernels
from xstefa.model.heads.recurrent import RecurrentHead


class ResConn(RecurrentHead):
    """Residual connection of raw inputs into an LSTM over the representation, equations (1)-(3).

    ``r_t = conv(x_t) + linear(x_t)``, ``h_t = LSTM(E_t + r_t)``, ``y_t = link(W h_t + b)``, where
    ``x_t`` are the standardised forcings and site attributes.

    Parameters
    ----------
    forcings, statics, link
        As for `RecurrentHead`.
    width : int
        Length of the encoder's tokens.
    hidden : int
        Size of the LSTM.
    kernel : int
        Days seen by the causal convolution.
    """

    def __init__(
        self,
        *,
        forcings: int,
        statics: int,
        width: int,
        hidden: int = 256,
        link: str = "identity",
        kernel: int = 5,
        dropout: float = 0.4,
    ) -> None:
        super().__init__(forcings=forcings, statics=statics, link=link)
        self.reach = kernel
        self.from_forcing = nn.Linear(forcings, width)
        self.from_static = nn.Linear(statics, width, bias=False)
        self.convolution = nn.Conv1d(forcings, width, kernel)
        self.norm = nn.LayerNorm(width)
        self._add_recurrence(width, hidden, dropout)

    def combine(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Return ``norm(E_t) + conv(x_t) + linear(x_t)``."""
        assert days is not None
        # The linear layer is one more tap on the same day, so both are one matrix product.
        today = functional.pad(self.from_forcing.weight.unsqueeze(-1), (self.reach - 1, 0))
        taps = forcing.unfold(1, self.reach, 1).flatten(2)
        return kernels.linear(
            taps,
            (self.convolution.weight + today).flatten(1),
            cast(Tensor, self.convolution.bias) + self.from_forcing.bias,
            add=self.norm(days) + self.from_static(static).unsqueeze(1),
        )
