"""One vector per day and one per site, summed over the variables that are there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model import kernels


class VariableEmbedding(nn.Module):
    """Embed each variable with its own two-layer network and sum, equations (4)-(6).

    A value that is missing (NaN) contributes that variable's learned vector instead.
    All variables run as one matrix product over their concatenated hidden units: with
    ``keep`` 1 where a value is known,

        sum_v keep_v (W2_v h_v + b2_v) + (1 - keep_v) m_v
            = concat(keep_v h_v) W2 + keep (b2 - m) + sum_v m_v

    Parameters
    ----------
    variables : int
        Number of variables, ``V``.
    width : int
        Length of the embedding, ``d``.
    hidden : int
        Hidden units per variable.
    masked_as : {"vector", "scalar"}
        What a masked value becomes: a learned vector (the paper, and the dynamic variables of the
        published weights), or a learned scalar that is then embedded like a value (the static
        variables of the published weights).
    masked_rows : int
        Rows of the table of learned scalars. Only row 0 counts; published weights carry 1000, and
        their code takes the row by the sample's place in the batch, see `forward`.
    """

    def __init__(
        self,
        *,
        variables: int,
        width: int,
        hidden: int = 64,
        masked_as: str = "vector",
        masked_rows: int = 1,
    ) -> None:
        super().__init__()
        self.masked_as = masked_as
        self.weight1 = nn.Parameter(torch.empty(variables, hidden).uniform_(-1, 1))
        self.bias1 = nn.Parameter(torch.empty(variables, hidden).uniform_(-1, 1))
        bound = hidden**-0.5
        self.weight2 = nn.Parameter(torch.empty(variables, hidden, width).uniform_(-bound, bound))
        self.bias2 = nn.Parameter(torch.empty(variables, width).uniform_(-bound, bound))
        shape = (variables, width) if masked_as == "vector" else (masked_rows, variables)
        self.masked = nn.Parameter(torch.randn(shape) * 0.02)

    def forward(self, values: Tensor, *, published_rows: bool = False) -> Tensor:
        """Sum the variables' embeddings.

        Parameters
        ----------
        values : Tensor, shape (..., V)
            Standardised values; NaN where missing or hidden.
        published_rows : bool
            With ``masked_as="scalar"``: give row ``i`` of a batch, ``values`` of shape (B, V), the
            scalars of row ``i`` of the table, as the released code does. The answer then depends
            on the order of the batch; it serves comparison with that code only.

        Returns
        -------
        Tensor, shape (..., d)
        """
        hide = values.isnan()
        if self.masked_as == "scalar":
            masked = self.masked[: len(values)] if published_rows else self.masked[0]
            values = torch.where(hide, masked, values)
            return self._project(self._hidden(values)) + self.bias2.sum(0)
        keep = (~hide).to(self.weight1.dtype)
        hidden = self._hidden(values.masked_fill(hide, 0.0)) * keep.unsqueeze(-1)
        return self._project(hidden) + keep @ (self.bias2 - self.masked) + self.masked.sum(0)

    def _hidden(self, values: Tensor) -> Tensor:
        """Return the hidden units (..., V, hidden) of values (..., V)."""
        return nn.functional.gelu(values.unsqueeze(-1) * self.weight1 + self.bias1)

    def _project(self, hidden: Tensor) -> Tensor:
        """Return ``concat(hidden) W2``, shape (..., d)."""
        return kernels.linear(hidden.flatten(-2), self.weight2.flatten(0, 1).T, None)
