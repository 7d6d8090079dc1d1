"""What heads of static targets read: attributes on one scale, by ranks in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model.architecture import HeadSize

KNOTS = 64
"""Quantiles of each attribute that are kept."""

OUTERMOST = 0.99
"""Level beyond which all values have one score."""


class Attributes(nn.Module):
    """Numbers as normal scores of their ranks, vectors as they are; and which tokens are missing.

    Attributes of sites are skewed, and their distances mean little: what counts is how many
    training sites have less. Levels are linear between quantiles.

    Parameters
    ----------
    statics : int
        Number of static variables.
    extras : tuple of int
        Lengths of the tokens that stand last among them: 1, or that of a vector.
    """

    knots: Tensor
    levels: Tensor
    share: Tensor

    def __init__(self, statics: int, extras: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.lengths = (*[1] * (statics - sum(extras)), *extras)
        share = torch.tensor([1 / n for n in self.lengths for _ in range(n)])
        self.register_buffer("knots", torch.zeros(statics, KNOTS))
        self.register_buffer("levels", torch.linspace(0, 1, KNOTS), persistent=False)
        self.register_buffer("share", share, persistent=False)

    @property
    def width(self) -> int:
        """Length of both together."""
        return len(self.share) + len(self.lengths)

    def fit(self, static: Tensor) -> None:
        """Take the quantiles of training sites (N, S)."""
        self.knots.copy_(torch.nanquantile(static, self.levels, dim=0).T.nan_to_num())

    def forward(self, static: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (B, S), 0 where missing; and for each token 1 where it is, else 0."""
        ranked = static.nan_to_num().T.contiguous()
        sides = []
        for right in (False, True):  # the level of equal quantiles is that of their middle
            place = torch.searchsorted(self.knots, ranked, right=right).clamp(1, KNOTS - 1)
            low, high = self.knots.gather(1, place - 1), self.knots.gather(1, place)
            between = ((ranked - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
            sides.append(torch.lerp(self.levels[place - 1], self.levels[place], between))
        level = (0.5 * (sides[0] + sides[1]).T).clamp(1 - OUTERMOST, OUTERMOST)
        scores = torch.special.ndtri(level)
        values = torch.where(self.share < 1, static, scores).masked_fill(static.isnan(), 0.0)
        first = [sum(self.lengths[:i]) for i in range(len(self.lengths))]
        return values, static[:, first].isnan().to(values.dtype)


class StaticHead(nn.Module):
    """A head of static targets: ``head(static, site)``, shape (B, outputs, levels).

    It reads attributes (B, S), and the site token (B, d) if there is an encoder.

    Parameters
    ----------
    size : HeadSize
    statics : int
        Number of static variables.
    width : int
        Length of the encoder's tokens; 0 without an encoder, whose site token is then left out.
    extras : tuple of int
        Lengths of the tokens that stand last among the static variables: 1, or that of a vector.
    """

    def __init__(
        self, size: HeadSize, *, statics: int, width: int, extras: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.link, self.shape, self.width = size.link, (size.outputs, size.levels), width
        self.attributes = Attributes(statics, extras)
