"""Cross-variable group masking: what pretraining hides, for a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xstefa.schema import Schema, Variable


def _incidence(variables: Sequence[Variable]) -> Tensor:
    """Return groups by variables, 1 where the variable belongs.

    Ungrouped variables stand alone. Variables that are never masked (catchment size, population,
    GDP) belong to no row.
    """
    names = dict.fromkeys(v.group or v.name for v in variables if v.maskable)
    rows = [
        [float(v.maskable and (v.group or v.name) == name) for v in variables] for name in names
    ]
    return torch.tensor(rows).reshape(len(names), len(variables))


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupMasking:
    """Draws masks that hide whole physical groups together, after the paper's appendix A.2.

    Dynamic: windows of `shortest` to `longest` days, for every group its own, drawn `repeats`
    times and reaching over both ends; each hides its group with probability `probability`. Static:
    each group and each ungrouped variable is hidden with probability `probability`.

    Parameters
    ----------
    forcing, static : Tensor, shape (groups, variables)
        Which variables each group holds.
    """

    forcing: Tensor
    static: Tensor
    probability: float = 0.5
    shortest: int = 30
    longest: int = 90
    repeats: int = 6

    @classmethod
    def from_schema(cls, schema: Schema) -> GroupMasking:
        """Take the groups from the schema."""
        return cls(forcing=_incidence(schema.forcings), static=_incidence(schema.statics))

    def draw(self, *, batch: int, days: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw masks for a batch, True where hidden.

        Returns
        -------
        forcing : Tensor of bool, shape (batch, days, C)
        static : Tensor of bool, shape (batch, S)
        """
        shape = (self.repeats, batch, len(self.forcing))
        lengths = torch.randint(self.shortest, self.longest + 1, shape, generator=generator)
        starts = torch.randint(1 - self.shortest, days, shape, generator=generator)
        chosen = torch.rand(shape, generator=generator) < self.probability
        forcing = covered(starts, torch.where(chosen, lengths, 0), days)
        static = torch.rand((batch, len(self.static)), generator=generator) < self.probability
        return forcing.float() @ self.forcing > 0, static.float() @ self.static > 0


def covered(starts: Tensor, lengths: Tensor, days: int) -> Tensor:
    """Return the days that windows cover, (batch, days, groups), from (windows, batch, groups).

    Each window adds one at its first day and takes it away behind its last; the running sum counts
    the windows open on a day.
    """
    windows, batch, groups = starts.shape
    begins = starts.clamp(0, days)
    ends = (starts + lengths).clamp(0, days)
    change = torch.zeros((days + 1, batch, groups), dtype=torch.int16)
    one = torch.ones((windows, batch, groups), dtype=torch.int16)
    change.scatter_add_(0, begins, one)
    change.scatter_add_(0, torch.maximum(ends, begins), -one)
    return change[:-1].cumsum(0, dtype=torch.int16).transpose(0, 1) > 0
