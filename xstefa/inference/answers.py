"""What one pass of a network answers for each window.

The engine gathers windows, runs an answer on batches of them and blends the results; an answer
says what is taken from the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from xstefa.windows import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.network import StefaLand


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(ABC):
    """What is taken from the network. Immutable, and as small as a name: it travels in graphs.

    Attributes
    ----------
    daily : bool
        Whether there is a value for each day; otherwise for each site, the mean over its windows.
    needs_required : bool
        Whether there is no answer without the tokens that the model needs: none on days before
        which too little of them is known (`WindowPolicy.spun_up`), and from windows with such days
        only; and whether short gaps are bridged. Windows without any known value always go
        unanswered.
    """

    daily: ClassVar[bool] = True
    needs_required: ClassVar[bool] = True

    @abstractmethod
    def width(self, spec: ModelSpec) -> int:
        """Return the number of values for each day (or site)."""

    @abstractmethod
    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Answer a batch of windows.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.

        Returns
        -------
        Tensor, shape (B, T, width), or (B, width) if not `daily`
        """


def mean(members: Floats) -> Floats:
    """Return the mean over the last axis of those members that have an answer."""
    known = np.isfinite(members)
    count = known.sum(axis=-1, dtype=np.float32)
    count[count == 0] = np.nan
    return np.where(known, members, np.float32(0)).sum(axis=-1) / count


@dataclass(frozen=True, slots=True, kw_only=True)
class Members(Answer):
    """The target as each head predicts it, in its canonical unit; or all `ModelSpec.outputs`.

    Attributes
    ----------
    every : bool
        All outputs of a model that has several: first what each head says of the first.
    """

    every: bool = False

    def width(self, spec: ModelSpec) -> int:
        """Return the number of heads, times that of the outputs."""
        return len(spec.architecture.heads) * (len(spec.outputs) if self.every else 1)

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return the answers of the heads, shape (B, T, width)."""
        found = network.members(forcing, static, water=self.every)
        return found.flatten(2)
