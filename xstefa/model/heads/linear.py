"""The linear probe: how much of the target the representation already holds."""

from __future__ import annotations

from torch import Tensor, nn

from xstefa.model.heads.recurrent import Head, State, linked


class LinearProbe(Head):
    """``y_t = link(W E_t + b)``; neither memory nor raw inputs.

    Parameters
    ----------
    width : int
        Length of the encoder's tokens.
    link : {"identity", "softplus", "logistic"}
        Maps the linear output into the target's range.
    """

    def __init__(self, *, width: int, link: str = "identity") -> None:
        super().__init__()
        self.link = link
        self.output = nn.Linear(width, 1)

    def advance(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Predict the target, shape (B, T), from the representation (B, T, d)."""
        return linked(self.output(days).squeeze(-1), self.link), {}
