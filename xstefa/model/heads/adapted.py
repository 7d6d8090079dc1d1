"""An LSTM behind an adapter, or behind nothing: what the paper compares resconn with."""

from __future__ import annotations

from torch import Tensor, nn

from xstefa.model.heads.recurrent import RecurrentHead


class Adapted(RecurrentHead):
    """``h_t = LSTM(adapter(E_t, x_t))``, ``y_t = link(W h_t + b)``.

    Parameters
    ----------
    forcings, statics, link
        As for `RecurrentHead`.
    width : int
        Length of the encoder's tokens, and of what the adapter returns.
    adapter : nn.Module or None
        One of `xstefa.model.adapters`; None is the ablation "no adapter", which reads ``E_t`` only.
    hidden : int
        Size of the LSTM.
    """

    def __init__(
        self,
        *,
        forcings: int,
        statics: int,
        width: int,
        adapter: nn.Module | None,
        hidden: int = 256,
        link: str = "identity",
        dropout: float = 0.4,
    ) -> None:
        super().__init__(forcings=forcings, statics=statics, link=link)
        self.norm = nn.LayerNorm(width)
        self.adapter = adapter
        self._add_recurrence(width, hidden, dropout)

    def combine(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Return ``adapter(norm(E_t), x_t)``."""
        days = self.norm(days)
        return days if self.adapter is None else self.adapter(days, forcing, static)
