"""Hiding tokens while a head learns, so that it also serves datasets that lack them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xstefa.schema import Schema, Variable
from xstefa.training.perturbation import RAIN, Perturbation
from xstefa.training.sampling import Batch

# What files have beside rain; the last is a reanalysis without potential evapotranspiration.
POOR: tuple[tuple[str, ...], ...] = (
    ("temperature_mean",),
    ("temperature_mean", "temperature_max", "temperature_min"),
    ("potential_evapotranspiration",),
    ("temperature_mean", "potential_evapotranspiration"),
    (
        "temperature_mean", "shortwave_down", "longwave_down", "relative_humidity", "wind_speed",
        "surface_pressure",
    ),
)  # fmt: skip


class TokenDropout(nn.Module):
    """Hides whole tokens from windows, the same ones each time a window comes by.

    Some single ones, and of some windows all that a poorer dataset would not have: forcings other
    than those of an entry of `POOR`; all attributes, or some groups of them.

    Parameters
    ----------
    probability : float
        That a token is hidden by itself.
    groups : float
        That a window is one of a poorer dataset.
    perturbation : Perturbation, optional
        What else is changed of a window.
    seed : int

    Attributes
    ----------
    forcing : Tensor of bool, shape (row, C)
    static : Tensor of bool, shape (row, S)
        Window ``n`` is hidden what row ``n % rows`` says.
    """

    forcing: Tensor
    static: Tensor

    def __init__(
        self,
        schema: Schema,
        *,
        probability: float,
        seed: int,
        groups: float = 0.0,
        perturbation: Perturbation | None = None,
        rows: int = 4093,
    ) -> None:
        super().__init__()
        self.perturbation = perturbation
        generator = torch.Generator().manual_seed(seed)
        forcing, static = (
            torch.rand((rows, len(variables)), generator=generator) < probability
            for variables in (schema.forcings, schema.statics)
        )
        poor = (torch.rand(rows, generator=generator) < groups)[:, None]
        forcing |= poor & _of_poor_files(schema.forcings, rows, generator)
        static |= poor & _of_poor_sites(schema.statics, rows, generator)
        # A required token is never hidden.
        self.register_buffer("forcing", forcing & _optional(schema.forcings), persistent=False)
        self.register_buffer("static", static & _optional(schema.statics), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return forcing (B, T, C) and static (B, S), NaN where hidden."""
        row = batch.number % len(self.forcing)
        forcing = batch.forcing
        if self.perturbation is not None:
            forcing = self.perturbation(batch.number, forcing)
        return (
            forcing.masked_fill(self.forcing[row].unsqueeze(1), torch.nan),
            batch.static.masked_fill(self.static[row], torch.nan),
        )


def _optional(variables: Sequence[Variable]) -> Tensor:
    return torch.tensor([not variable.required for variable in variables])


def _of_poor_files(forcings: Sequence[Variable], rows: int, generator: torch.Generator) -> Tensor:
    """Draw what else than rain is there: an entry of `POOR`, or all; shape (row, C)."""
    kinds = [[v.name not in (RAIN, *kept) for v in forcings] for kept in POOR]
    kinds.append([False] * len(forcings))
    return torch.tensor(kinds)[torch.randint(len(kinds), (rows,), generator=generator)]


def _of_poor_sites(statics: Sequence[Variable], rows: int, generator: torch.Generator) -> Tensor:
    """Hide all attributes (half of the rows), some groups, or none; shape (row, S)."""
    groups = sorted({str(variable.group) for variable in statics})
    column = [groups.index(str(variable.group)) for variable in statics]
    some = torch.rand((rows, len(groups)), generator=generator) < 0.5
    what = torch.rand((rows, 1), generator=generator)
    return (what < 0.5) | ((what < 0.75) & some[:, column])
