"""Cross-variable group masking: what pretraining hides (appendix A.2), for a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

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
      until their lengths add up to half of the days; the last days of the last window, those above
      half, are uncovered again, also where an earlier window hid them. Windows overlap, so that
      fewer days are hidden: of a year 1 % at its ends, 45 % in its middle, 37.5 % in all. Static
      as in the paper, but no more groups than half of the variables, first come first served; and
      variables that are never masked are drawn like single ones, then uncovered.
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
        hides = _SCHEMES[self.scheme]
        return hides.dynamic(self, batch, days, generator), hides.static(self, batch, generator)

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
        half, shape = days // 2, (batch, self.forcing.shape[1])
        covered = torch.zeros(shape, dtype=torch.long)
        windows = []
        for _ in range(max(1, -(-half // self.shortest))):
            longest = (days - covered).clamp(max=self.longest)
            shortest = longest.clamp(max=self.shortest)
            length = shortest + _uniform(longest - shortest, generator)
            windows.append(torch.where(covered < half, length, 0))
            covered = covered + windows[-1]
        lengths = torch.stack(windows)
        starts = _uniform(days - lengths, generator)
        # No window is drawn once half is reached: only the last one reaches over it.
        last = (lengths > 0).sum(0, keepdim=True).clamp(min=1) - 1
        ends = (starts + lengths).gather(0, last)
        over = (covered - half).unsqueeze(0)
        hidden = _covered(starts, lengths, days) & ~_covered(ends - over, over, days)
        return hidden & (self.forcing.sum(0) > 0)

    def _singly(self, batch: int, generator: torch.Generator) -> Tensor:
        hidden = torch.rand((batch, len(self.static)), generator=generator) < self.probability
        return hidden.float() @ self.static > 0

    def _to_half(self, batch: int, generator: torch.Generator) -> Tensor:
        groups = self._groups(batch, generator)
        return self._filled_up(groups, half=len(self.static) // 2, decoys=0, generator=generator)

    def _released_to_half(self, batch: int, generator: torch.Generator) -> Tensor:
        never = int((self.static.sum(0) == 0).sum())
        half = (len(self.static) + never) // 2
        groups = self._groups(batch, generator)
        groups &= groups.cumsum(1) <= half
        return self._filled_up(groups, half=half, decoys=never, generator=generator)

    def _groups(self, batch: int, generator: torch.Generator) -> Tensor:
        shape = (batch, len(self.static))
        return (torch.rand(shape, generator=generator) < self.probability) & self.static_grouped

    def _filled_up(
        self, groups: Tensor, *, half: int, decoys: int, generator: torch.Generator
    ) -> Tensor:
        """Hide groups, and single variables until `half` are hidden, `decoys` among the drawn."""
        batch, rows = groups.shape
        grouped = torch.cat([self.static_grouped, torch.zeros(decoys, dtype=torch.bool)])
        # A random order of the ungrouped; groups come after all of them.
        order = torch.rand((batch, rows + decoys), generator=generator) + grouped.float()
        chosen = order.argsort(1).argsort(1) < half - groups.sum(1, keepdim=True)
        single = (chosen & ~grouped)[:, :rows]
        return (groups | single).float() @ self.static > 0

    def _lengths(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(self.shortest, self.longest + 1, shape, generator=generator)

    def _spread(self, hidden: Tensor) -> Tensor:
        """Hide the variables of hidden groups: (batch, days, groups) to (batch, days, C)."""
        return hidden.float() @ self.forcing > 0


class _Hides(NamedTuple):
    """How a scheme draws: (masking, batch, days, generator), and the same without days."""

    dynamic: Callable[[GroupMasking, int, int, torch.Generator], Tensor]
    static: Callable[[GroupMasking, int, torch.Generator], Tensor]


_SCHEMES: dict[str, _Hides] = {
    "repeated": _Hides(GroupMasking._repeated, GroupMasking._singly),
    "paper": _Hides(GroupMasking._paper, GroupMasking._to_half),
    "released": _Hides(GroupMasking._released, GroupMasking._released_to_half),
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
