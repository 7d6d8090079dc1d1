"""Hiding tokens while a head learns, so that it also serves datasets that lack them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xstefa.schema import Needs, Schema, Variable
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
    than those of an entry of `POOR`; all attributes, or a share of them. Of the forcings that a
    model needs none is hidden that is the last of its group in the window.

    Parameters
    ----------
    probability : float
        That a token is hidden by itself.
    needs : tuple of tuple of str, optional
        By default what the schema requires.
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
        needs: Needs | None = None,
        groups: float = 0.0,
        perturbation: Perturbation | None = None,
        rows: int = 4093,
    ) -> None:
        super().__init__()
        self.perturbation = perturbation
        needs = schema.needs if needs is None else needs
        self.needs = schema.columns(tuple(group for group in needs if len(group) > 1))
        alone = {group[0] for group in needs if len(group) == 1}
        alone |= {variable.name for variable in schema.attributes if variable.required}
        generator = torch.Generator().manual_seed(seed)
        forcing, static = (
            torch.rand((rows, len(variables)), generator=generator) < probability
            for variables in (schema.forcings, schema.attributes)
        )
        poor = (torch.rand(rows, generator=generator) < groups)[:, None]
        forcing |= poor & _of_poor_files(schema.forcings, rows, generator)
        static |= poor & _of_poor_sites(len(schema.attributes), rows, generator)
        for table, variables in ((forcing, schema.forcings), (static, schema.attributes)):
            table[:, [variable.name in alone for variable in variables]] = False
        # A vector is known as a whole or not at all.
        lengths = torch.tensor([variable.length for variable in schema.attributes])
        static = static.repeat_interleave(lengths, dim=1)
        self.register_buffer("forcing", forcing, persistent=False)
        self.register_buffer("static", static, persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return forcing (B, T, C) and static (B, S), NaN where hidden."""
        row = batch.number % len(self.forcing)
        forcing, hidden = batch.forcing, self.forcing[row]
        if self.perturbation is not None:
            forcing = self.perturbation(batch.number, forcing)
        for group in self.needs:
            # What is known on less than half of the days is not what a day can be answered from.
            known = forcing[..., group].isfinite().float().mean(dim=1) > 0.5
            hidden[:, group] &= (known & ~hidden[:, group]).any(dim=1, keepdim=True)
        return (
            forcing.masked_fill(hidden.unsqueeze(1), torch.nan),
            batch.static.masked_fill(self.static[row], torch.nan),
        )


def _of_poor_files(forcings: Sequence[Variable], rows: int, generator: torch.Generator) -> Tensor:
    """Draw what else than rain is there: an entry of `POOR`, or all; shape (row, C)."""
    kinds = [[v.name not in (RAIN, *kept) for v in forcings] for kept in POOR]
    kinds.append([False] * len(forcings))
    return torch.tensor(kinds)[torch.randint(len(kinds), (rows,), generator=generator)]


def _of_poor_sites(statics: int, rows: int, generator: torch.Generator) -> Tensor:
    """Hide all attributes (half of the rows), or a share that the row draws; shape (row, S)."""
    # With shares up to two, half of them hide all. Area and elevation alone are common.
    share = 2 * torch.rand((rows, 1), generator=generator)
    return torch.rand((rows, statics), generator=generator) < share
