"""The baseline: an LSTM on the raw inputs, without StefaLand."""

from __future__ import annotations

from torch import Tensor, nn

from xstefa.model.heads.recurrent import RecurrentHead


class PlainLSTM(RecurrentHead):
    """``h_t = LSTM(linear(x_t))``, ``y_t = link(W h_t + b)``.

    Parameters
    ----------
    forcings, statics, link
        As for `RecurrentHead`.
    hidden : int
        Size of the LSTM and of its input.
    """

    def __init__(
        self,
        *,
        forcings: int,
        statics: int,
        hidden: int = 256,
        link: str = "identity",
        dropout: float = 0.4,
    ) -> None:
        super().__init__(forcings=forcings, statics=statics, link=link)
        self.from_forcing = nn.Linear(forcings, hidden)
        self.from_static = nn.Linear(statics, hidden, bias=False)
        self._add_recurrence(hidden, hidden, dropout)

    def combine(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Return ``linear(x_t)``."""
        return self.from_forcing(forcing) + self.from_static(static).unsqueeze(1)
