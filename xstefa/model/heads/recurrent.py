"""What heads share: missing inputs are filled, an LSTM remembers, a link maps into the range."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

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


State: TypeAlias = dict[str, Tensor]
"""What a head or encoder carries from one piece of a record to the next: by name, sites first."""


class Head(nn.Module):
    """From forcings, site attributes and the representation of the days to a target."""

    def forward(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Predict the target, shape (B, T), of a record or window as a whole.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.
        days : Tensor, shape (B, T, d), or None
            The encoder's representation of the days; None for the plain LSTM.
        """
        return self.advance(forcing, static, days, None)[0]

    def advance(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Predict a piece of a record, and return what the next piece begins with.

        Parameters
        ----------
        forcing, static, days
            As for `forward`.
        state : State or None
            What the piece before returned; None begins a record.
        """
        raise NotImplementedError


class RecurrentHead(Head):
    """A head whose LSTM reads something, day by day; subclasses say what.

    Parameters
    ----------
    forcings, statics : int
        Number of dynamic and static variables; missing values of each take a learned value.
    link : {"identity", "softplus", "logistic"}
        Maps the linear output into the target's range.
    """

    reach = 1
    """Days, up to today, whose forcings `combine` looks at."""

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
        """Return what the LSTM reads, shape (B, T, size).

        Nothing is missing any more, and `forcing` begins `reach` - 1 days before `days`.
        """
        raise NotImplementedError

    def advance(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Remember, map; see `Head.advance`."""
        found, state = self._remember(forcing, static, days, state)
        return linked(found.squeeze(-1), self.link), state

    def _remember(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Fill what is missing, combine, remember; return the last layer's output (B, T, n)."""
        forcing = torch.where(forcing.isnan(), self.fill_forcing, forcing)
        static = torch.where(static.isnan(), self.fill_static, static)
        before = self.reach - 1
        if state is None:
            forcing, memory = functional.pad(forcing, (0, 0, before, 0)), None
        else:
            forcing = torch.cat([state["forcing"], forcing], dim=1)
            memory = state["hidden"][None], state["cell"][None]
        states, (hidden, cell) = self.lstm(self.combine(forcing, static, days), memory)
        recent = forcing[:, forcing.shape[1] - before :]
        found = self.output(self.dropout(states))
        return found, {"forcing": recent, "hidden": hidden[0], "cell": cell[0]}
