"""Cross-variable group masking: what pretraining hides (appendix A.2), for a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from xstefa.schema import Schema, Variable

Scheme: TypeAlias = Literal["repeated", "paper", "released"]


def _incidence(variables: Sequence[Variable]) -> tuple[Tensor, Tensor]:
    """Return groups by variables, 1 where the variable belongs, and which rows are real groups.

    Ungrouped variables stand alone. Variables that are never masked (catchment size, population,
    GDP) belong to no row.
    """
    names = dict.fromkeys(v.group or v.name for v in variables if v.maskable)
    rows = [
        [float(v.maskable and (v.group or v.name) == name) for v in variables] for name in names
    ]
    groups = {v.group for v in variables if v.maskable}
    return (
        torch.tensor(rows).reshape(len(names), len(variables)),
        torch.tensor([name in groups for name in names], dtype=torch.bool),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupMasking:
    """Draws masks that hide whole physical groups together.

    Three schemes differ in how much is hidden:

    - ``"paper"``, as A.2 says. Dynamic: one window of `shortest` to `longest` days a sample, in
      which each group is hidden with probability `probability`. Static: each group is hidden with
      probability `probability`; then ungrouped variables, one by one, until half of all effective
      variables are hidden (a group counts as one).
    - ``"released"``, as the authors' code does. Dynamic: for every variable windows are drawn
      until their lengths add up to half of the days, the last one cut short. They overlap, so that
      fewer days are hidden: of a year 1 % at its ends, 45 to 50 % in its middle, 40 % in all.
      Static as in the paper.
    - ``"repeated"``, ours. Dynamic: the paper's windows, for every group its own, drawn `repeats`
      times and reaching over both ends. Static: each group and each ungrouped variable is hidden
      with probability `probability`.

    Parameters
    ----------
    forcing, static : Tensor, shape (groups, variables)
        Which variables each group holds.
    static_grouped : Tensor of bool, shape (groups,)
        Which rows of `static` are groups, and not single variables.
    scheme : {"repeated", "paper", "released"}
    """

    forcing: Tensor
    static: Tensor
    static_grouped: Tensor
    scheme: Scheme = "repeated"
    probability: float = 0.5
    shortest: int = 30
    longest: int = 90
    repeats: int = 6

    @classmethod
    def from_schema(cls, schema: Schema, *, scheme: Scheme = "repeated") -> GroupMasking:
        """Take the groups from the schema."""
        forcing, _ = _incidence(schema.forcings)
        static, grouped = _incidence(schema.statics)
        return cls(forcing=forcing, static=static, static_grouped=grouped, scheme=scheme)

    def draw(self, *, batch: int, days: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw masks for a batch, True where hidden.

        Returns
        -------
        forcing : Tensor of bool, shape (batch, days, C)
        static : Tensor of bool, shape (batch, S)
        """
        return _DYNAMIC[self.scheme](self, batch, days, generator), (
            self._singly(batch, generator)
            if self.scheme == "repeated"
            else self._to_half(batch, generator)
        )

    def _repeated(self, batch: int, days: int, generator: torch.Generator) -> Tensor:
        shape = (self.repeats, batch, len(self.forcing))
        lengths = self._lengths(shape, generator)
        starts = torch.randint(1 - self.shortest, days, shape, generator=generator)
        chosen = torch.rand(shape, generator=generator) < self.probability
        return self._spread(_covered(starts, torch.where(chosen, lengths, 0), days))

    def _paper(self, batch: int, days: int, generator: torch.Generator) -> Tensor:
        lengths = self._lengths((1, batch, 1), generator).clamp(max=days)
        starts = _uniform(days - lengths, generator)
        chosen = torch.rand((1, batch, len(self.forcing)), generator=generator) < self.probability
        return self._spread(_covered(starts.expand_as(chosen), lengths * chosen, days))

    def _released(self, batch: int, days: int, generator: torch.Generator) -> Tensor:
        half = days // 2
        shape = (-(-half // self.shortest), batch, self.forcing.shape[1])
        lengths = self._lengths(shape, generator)
        before = lengths.cumsum(0) - lengths
        lengths = torch.minimum(lengths, (half - before).clamp(min=0))
        hidden = _covered(_uniform(days - lengths, generator), lengths, days)
        return hidden & (self.forcing.sum(0) > 0)

    def _singly(self, batch: int, generator: torch.Generator) -> Tensor:
        hidden = torch.rand((batch, len(self.static)), generator=generator) < self.probability
        return hidden.float() @ self.static > 0

    def _to_half(self, batch: int, generator: torch.Generator) -> Tensor:
        shape = (batch, len(self.static))
        groups = (torch.rand(shape, generator=generator) < self.probability) & self.static_grouped
        left = len(self.static) // 2 - groups.sum(1, keepdim=True)
        # A random order of the ungrouped; groups come after all of them.
        order = torch.rand(shape, generator=generator) + self.static_grouped.float()
        single = (order.argsort(1).argsort(1) < left) & ~self.static_grouped
        return (groups | single).float() @ self.static > 0

    def _lengths(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(self.shortest, self.longest + 1, shape, generator=generator)

    def _spread(self, hidden: Tensor) -> Tensor:
        """Hide the variables of hidden groups: (batch, days, groups) to (batch, days, C)."""
        return hidden.float() @ self.forcing > 0


_DYNAMIC: dict[str, Callable[[GroupMasking, int, int, torch.Generator], Tensor]] = {
    "repeated": GroupMasking._repeated,
    "paper": GroupMasking._paper,
    "released": GroupMasking._released,
}


def _uniform(largest: Tensor, generator: torch.Generator) -> Tensor:
    """Draw whole numbers from 0 to `largest`, both included."""
    share = torch.rand(largest.shape, generator=generator, dtype=torch.float64)
    return (share * (largest + 1)).long()


def _covered(starts: Tensor, lengths: Tensor, days: int) -> Tensor:
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
