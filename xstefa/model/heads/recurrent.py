"""What heads share: missing inputs are filled, an LSTM remembers, a link maps into the range."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "softplus": functional.softplus,  # streamflow cannot be negative
    "logistic": torch.sigmoid,  # a volume fraction lies in (0, 1)
}


def linked(values: Tensor, link: str) -> Tensor:
    """Map linear output (B, T) into the target's range.

    Vector kernels round the last few elements of an array by another formula; padding keeps those
    out of the answer, which then does not depend on a row's place in its batch.
    """
    length = values.shape[1]
    return LINKS[link](functional.pad(values, (0, -length % 32)))[:, :length]


class RecurrentHead(nn.Module):
    """A head whose LSTM reads something, day by day; subclasses say what.

    Parameters
    ----------
    forcings, statics : int
        Number of dynamic and static variables; missing values of each take a learned value.
    link : {"identity", "softplus", "logistic"}
        Maps the linear output into the target's range.
    """

    def __init__(self, *, forcings: int, statics: int, link: str) -> None:
        super().__init__()
        self.link = link
        self.fill_forcing = nn.Parameter(torch.zeros(forcings))
        self.fill_static = nn.Parameter(torch.zeros(statics))

    def _add_recurrence(self, size: int, hidden: int, dropout: float) -> None:
        """Add what follows inputs of length `size`: LSTM, dropout, linear layer."""
        self.lstm = nn.LSTM(size, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, 1)
        with torch.no_grad():  # remember by default: forget gate open at the start of training
            cast(Tensor, self.lstm.bias_ih_l0)[hidden : 2 * hidden] += 3.0

    def combine(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Return what the LSTM reads, shape (B, T, size); nothing is missing any more."""
        raise NotImplementedError

    def forward(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Predict the target.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.
        days : Tensor, shape (B, T, d), or None
            The encoder's representation of the days; None for the plain LSTM.

        Returns
        -------
        Tensor, shape (B, T)
        """
        forcing = torch.where(forcing.isnan(), self.fill_forcing, forcing)
        static = torch.where(static.isnan(), self.fill_static, static)
        states, _ = self.lstm(self.combine(forcing, static, days))
        return linked(self.output(self.dropout(states)).squeeze(-1), self.link)
