"""A head of static targets that is solved, not descended to: what sites of like attributes have.

Kernel ridge regression, the mean of a Gaussian process (Rasmussen and Williams 2006, chapter 2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xstefa.model.architecture import HeadSize
from xstefa.model.heads.attributes import StaticHead

REACH, RIDGE = 0.75, 0.1
"""How fast likeness falls with the mean difference of scores; variance that attributes do not tell,
as a share of what they do. Chosen by blocks of space at the basins of CAMELS-US."""

CENTRES = 2048
"""Training sites that are kept at most."""

_MISSING = 0.5  # difference of a known and a missing attribute, beside that of their scores
_SHARP, _LEAST = 200.0, 1e-6


class KernelHead(StaticHead):
    """``y = m + sum_i a_i exp(-reach |r(c) - r(c_i)|)`` over ``hidden`` training sites.

    Attributes are all that is read.
    """

    centres: Tensor
    missing: Tensor
    weights: Tensor
    mean: Tensor
    read: Tensor

    def __init__(self, size: HeadSize, **inputs: Any) -> None:
        super().__init__(size, **inputs)
        tokens, statics = len(self.attributes.lengths), len(self.attributes.share)
        self.register_buffer("centres", torch.zeros(size.hidden, statics))
        self.register_buffer("missing", torch.zeros(size.hidden, tokens))
        self.register_buffer("weights", torch.zeros(size.hidden, *self.shape))
        self.register_buffer("mean", torch.zeros(self.shape))
        self.register_buffer("read", torch.ones(()))

    def fit(self, static: Tensor, observed: Tensor) -> None:
        """Solve for training sites: attributes (N, S), and targets (N, outputs, levels)."""
        values, missing = self.attributes(static)
        kept = torch.linspace(0, len(static) - 1, len(self.centres)).round().long()
        self.centres.copy_(values[kept])
        self.missing.copy_(missing[kept])
        self.read.fill_(float((missing < 1).any(dim=0).sum()))
        all_sites = self._likeness(static).double()
        among = all_sites[kept]
        for level in range(self.shape[1]):
            target = observed[..., level].double()
            known = target.isfinite().all(dim=1)
            mean = target[known].mean(dim=0)
            some = all_sites[known]
            left = some.T @ some + RIDGE * among
            left += 1e-6 * torch.eye(len(left), dtype=left.dtype)
            self.weights[..., level] = torch.linalg.solve(left, some.T @ (target[known] - mean))
            self.mean[:, level] = mean

    def _likeness(self, static: Tensor) -> Tensor:
        values, missing = self.attributes(static)
        share = self.attributes.share
        apart = torch.cdist(values * share, self.centres * share, p=1.0)
        apart = apart + _MISSING * torch.cdist(missing, self.missing, p=1.0)
        return torch.exp(-REACH / self.read * apart)

    def forward(self, static: Tensor, site: Tensor | None) -> Tensor:
        """Map attributes (B, S), standardised, NaN where missing, to (B, outputs, levels)."""
        found = self.mean + (self._likeness(static) @ self.weights.flatten(1)).unflatten(
            -1, self.shape
        )
        if self.link == "identity":
            return found
        found = _above_zero(found)
        if self.link == "softmax":
            return found / found.sum(dim=1, keepdim=True)
        return found if self.link == "softplus" else found.clamp(max=1 - _LEAST)


def _above_zero(values: Tensor) -> Tensor:
    """Return values as they are, but for those below a hundredth, which approach 0."""
    return functional.softplus(values, beta=_SHARP) + _LEAST
