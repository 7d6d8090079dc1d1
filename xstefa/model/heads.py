"""From the frozen representation to a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LINKS = {
    "identity": lambda z: z,
    "softplus": functional.softplus,  # streamflow cannot be negative
    "logistic": torch.sigmoid,  # a volume fraction lies in (0, 1)
}


class ResConn(nn.Module):
    """Residual connection of raw inputs into an LSTM over the representation, equations (1)-(3).

    ``r_t = conv(x_t) + linear(x_t)``, ``h_t = LSTM(E_t + r_t)``, ``y_t = link(W h_t + b)``, where
    ``x_t`` are the standardised forcings and site attributes; a missing one takes a learned value.
    With ``width=0`` there is no representation and what is left is the plain LSTM baseline.

    Parameters
    ----------
    forcings, statics : int
        Number of dynamic and static variables.
    width : int
        Length of the encoder's tokens; 0 for none.
    hidden : int
        Size of the LSTM.
    link : {"identity", "softplus", "logistic"}
        Maps the linear output into the target's range.
    kernel : int
        Days seen by the causal convolution.
    """

    def __init__(
        self,
        *,
        forcings: int,
        statics: int,
        width: int = 256,
        hidden: int = 256,
        link: str = "identity",
        kernel: int = 5,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.width = width
        self.link = LINKS[link]
        size = width or hidden
        self.kernel = kernel
        self.fill_forcing = nn.Parameter(torch.zeros(forcings))
        self.fill_static = nn.Parameter(torch.zeros(statics))
        self.from_forcing = nn.Linear(forcings, size)
        self.from_static = nn.Linear(statics, size, bias=False)
        self.convolution = nn.Conv1d(forcings, size, kernel) if width else None
        self.norm = nn.LayerNorm(width) if width else None
        self.lstm = nn.LSTM(size, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, 1)
        with torch.no_grad():  # remember by default: forget gate open at the start of training
            self.lstm.bias_ih_l0[hidden : 2 * hidden] += 3.0

    def forward(self, forcing: Tensor, static: Tensor, days: Tensor | None) -> Tensor:
        """Predict the target.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
        days : Tensor, shape (B, T, d), or None
            The encoder's representation of the days; None for the plain LSTM.

        Returns
        -------
        Tensor, shape (B, T)
        """
        forcing = torch.where(forcing.isnan(), self.fill_forcing, forcing)
        static = torch.where(static.isnan(), self.fill_static, static)
        inputs = self.from_forcing(forcing) + self.from_static(static).unsqueeze(1)
        if self.convolution is not None and self.norm is not None and days is not None:
            padded = functional.pad(forcing.transpose(1, 2), (self.kernel - 1, 0))
            inputs = inputs + self.convolution(padded).transpose(1, 2) + self.norm(days)
        states, _ = self.lstm(inputs)
        linear = self.output(self.dropout(states)).squeeze(-1)
        # Vector kernels round the last few elements of an array by another formula; padding keeps
        # those out of the answer, which then does not depend on a row's place in its batch.
        length = linear.shape[1]
        return self.link(functional.pad(linear, (0, -length % 32)))[:, :length]
