"""The head of the authors' fine-tuning script, which differs from the paper's equations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model.adapters import Residual
from xstefa.model.architecture import HeadSize
from xstefa.model.heads.recurrent import Head, State, remember


class Released(Head):
    """Raw inputs enter three times: in the adapter, before the LSTM and after it.

    ``a_t = residual(E_t, x_t)``, ``l_t = LSTM(A [a_t, x_t])``, ``y_t = W (l_t + B [l_t, x_t])``;
    ``x_t`` are the standardised forcings and site attributes. Without a representation ``a_t`` is
    left out: the script's LSTM baseline. A missing ``x_t`` counts as average here; the script
    fills it with one median over the whole batch, see `Model.estimate`.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        hidden = size.hidden
        raw = forcings + statics
        self.adapter = Residual(forcings=forcings, statics=statics, width=width) if width else None
        self.before = nn.Linear(width + raw, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.dropout = nn.Dropout(size.dropout)
        self.after = nn.Linear(hidden + raw, hidden)
        self.output = nn.Linear(hidden, size.outputs)

    def advance(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Predict the targets, shape (B, T), or (B, T, K) with several; see `Head.advance`."""
        forcing, static = forcing.nan_to_num(), static.nan_to_num()
        raw = torch.cat([forcing, static.unsqueeze(1).expand(-1, forcing.shape[1], -1)], dim=-1)
        read = raw
        if self.adapter is not None:
            read = torch.cat([self.adapter(days, forcing, static), raw], dim=-1)
        states, state = remember(self.lstm, self.before(read), state)
        states = self.dropout(states)
        found = self.output(states + self.after(torch.cat([states, raw], dim=-1)))
        return found.squeeze(-1), state
