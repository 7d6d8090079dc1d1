"""What heads share: missing inputs are filled, an LSTM remembers, a link maps into the range."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstefa.errors import OptionError
from xstefa.model import kernels
from xstefa.model.adapters import ADAPTERS
from xstefa.model.architecture import Driver, HeadSize

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


def remember(lstm: nn.LSTM, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Run an LSTM over (B, T, size), from the state that it left; return its states and its own."""
    memory = None if state is None else (state["hidden"][None], state["cell"][None])
    states, (hidden, cell) = lstm(inputs, memory)
    return states, {"hidden": hidden[0], "cell": cell[0]}


class Head(nn.Module):
    """From forcings, site attributes and the representation of the days to a target.

    Parameters
    ----------
    size : HeadSize
    forcings, statics : int
        Number of dynamic and static variables.
    width : int
        Length of the encoder's tokens; 0 without an encoder.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__()
        self.link = size.link

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


def require_drivers(size: HeadSize, forcings: int) -> tuple[Driver, ...]:
    """Return where precipitation, temperature and potential evapotranspiration are.

    Raises
    ------
    OptionError
        If the size of the head does not say.
    """
    if len(size.drivers) != 3 or any(d.column >= forcings for d in size.drivers):
        raise OptionError(
            variable="drivers",
            found=f"{len(size.drivers)} of {forcings} forcings",
            expected="the columns of precipitation, temperature and potential evapotranspiration",
            fix=f'head="{size.kind}", for which training finds them',
        )
    return size.drivers


class LinearProbe(Head):
    """``y_t = link(W E_t + b)``: how much of the target the representation already holds."""

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        self.output = nn.Linear(width, 1)

    def advance(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Map each day by itself; see `Head.advance`."""
        return linked(self.output(days).squeeze(-1), self.link), {}


class RecurrentHead(Head):
    """A head whose LSTM reads something, day by day; subclasses say what.

    Missing forcings and attributes take a learned value each.
    """

    reach = 1
    """Days, up to today, whose forcings `combine` looks at."""

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        self.fill_forcing = nn.Parameter(torch.zeros(forcings))
        self.fill_static = nn.Parameter(torch.zeros(statics))

    def _add_recurrence(self, length: int, size: HeadSize) -> None:
        """Add what follows inputs of this length: LSTM, dropout, linear layer."""
        hidden = size.hidden
        self.lstm = nn.LSTM(length, hidden, batch_first=True)
        self.dropout = nn.Dropout(size.dropout)
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
        if before and state is not None:
            forcing = torch.cat([state["forcing"], forcing], dim=1)
        else:
            forcing = functional.pad(forcing, (0, 0, before, 0))
        states, after = remember(self.lstm, self.combine(forcing, static, days), state)
        if before:
            after["forcing"] = forcing[:, forcing.shape[1] - before :]
        return self.output(self.dropout(states)), after


class PlainLSTM(RecurrentHead):
    """``h_t = LSTM(linear(x_t))``, ``y_t = link(W h_t + b)``: the baseline without StefaLand."""

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        self.from_forcing = nn.Linear(forcings, size.hidden)
        self.from_static = nn.Linear(statics, size.hidden, bias=False)
        self._add_recurrence(size.hidden, size)

    def combine(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Return ``linear(x_t)``."""
        return self.from_forcing(forcing) + self.from_static(static).unsqueeze(1)


class Adapted(RecurrentHead):
    """``h_t = LSTM(adapter(E_t, x_t))``, ``y_t = link(W h_t + b)``.

    The adapter is the one of `xstefa.model.adapters` that the kind of head names; by another name
    there is none, and the LSTM reads ``E_t`` only.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        self.norm = nn.LayerNorm(width)
        self.adapter: nn.Module | None = None
        if size.kind in ADAPTERS:
            kind = ADAPTERS[size.kind]
            self.adapter = kind(forcings=forcings, statics=statics, width=width)
        self._add_recurrence(width, size)

    def combine(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Return ``adapter(norm(E_t), x_t)``."""
        days = self.norm(days)
        return days if self.adapter is None else self.adapter(days, forcing, static)


class ResConn(RecurrentHead):
    """Residual connection of raw inputs into an LSTM over the representation, equations (1)-(3).

    ``r_t = conv(x_t) + linear(x_t)``, ``h_t = LSTM(E_t + r_t)``, ``y_t = link(W h_t + b)``, where
    ``x_t`` are the standardised forcings and site attributes.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        self.reach = size.kernel
        self.from_forcing = nn.Linear(forcings, width)
        self.from_static = nn.Linear(statics, width, bias=False)
        self.convolution = nn.Conv1d(forcings, width, size.kernel)
        self.norm = nn.LayerNorm(width)
        self._add_recurrence(width, size)

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
