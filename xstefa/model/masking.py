"""Cross-variable group masking: what pretraining hides (appendix A.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xstefa.schema import Schema, Variable


def _incidence(variables: Sequence[Variable]) -> Tensor:
    """Groups by variables, 1 where the variable belongs; ungrouped variables stand alone.

    Variables that are never masked (catchment size, population, GDP) belong to none.
    """
    names = dict.fromkeys(v.group or v.name for v in variables if v.maskable)
    rows = [
        [float(v.maskable and (v.group or v.name) == name) for v in variables] for name in names
    ]
    return torch.tensor(rows).reshape(len(names), len(variables))


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupMasking:
    """Draws masks that hide whole physical groups together.

    Static: each group (climate, topography, ...) or ungrouped variable is hidden with probability
    `probability`. Dynamic: for every group a window of `shortest` to `longest` days is hidden with
    probability `probability`; this is repeated `repeats` times, as in the released code, which hides
    windows until half of the days are hidden.

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
        day = torch.arange(days).view(-1, 1, 1, 1)
        inside = ((day >= starts) & (day < starts + lengths) & chosen).any(dim=1)
        forcing = torch.einsum("tbg,gv->btv", inside.float(), self.forcing) > 0
        hidden = torch.rand((batch, len(self.static)), generator=generator) < self.probability
        return forcing, hidden.float() @ self.static > 0
