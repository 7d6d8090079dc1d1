"""Weather as another product would give it, so that a head learns from no product's peculiarities.

Products of the same weather differ in how much rain they give, in their altitude and so in how warm
they are, in the formula of potential evapotranspiration, and in the hour at which a day begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from xstefa.model.physical import physical, standardised
from xstefa.model.scaler import Moments

RAIN, EVAPORATION = "precipitation", "potential_evapotranspiration"
TEMPERATURES = ("temperature_mean", "temperature_max", "temperature_min")

# Standard deviations over products: of the logarithm of a factor, or in K.
RAIN_SPREAD, EVAPORATION_SPREAD, WARMTH_SPREAD = 0.10, 0.15, 0.7
# In half of the products the day begins earlier: up to this share of the rain is tomorrow's.
LATEST_SHARE = 0.4


class Perturbation(nn.Module):
    """Changes the weather of whole windows, the same way each time a window comes by.

    Attributes
    ----------
    table : Tensor, shape (row, 4)
        Factor of precipitation, factor of potential evapotranspiration, warming [K], and share of
        a day's rain that is the next day's. Window ``n`` gets row ``n % rows``.

    Parameters
    ----------
    moments : mapping of str to Moments
        How each forcing was standardised, in the order of the network.
    probability : float
        Share of the windows that are changed at all.
    seed : int
    """

    table: Tensor

    def __init__(
        self, moments: Mapping[str, Moments], *, probability: float, seed: int, rows: int = 4093
    ) -> None:
        super().__init__()
        self.moments = dict(moments)
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn((3, rows), generator=generator)
        changed, early, share = torch.rand((3, rows), generator=generator)
        table = torch.stack(
            [
                (RAIN_SPREAD * normal[0]).exp(),
                (EVAPORATION_SPREAD * normal[1]).exp(),
                WARMTH_SPREAD * normal[2],
                LATEST_SHARE * share * (early < 0.5),
            ],
            dim=1,
        )
        same = torch.tensor([1.0, 1.0, 0.0, 0.0])
        table = torch.where((changed < probability)[:, None], table, same)
        self.register_buffer("table", table, persistent=False)

    def extra_repr(self) -> str:
        """Say what the buffers do not."""
        return repr(self.moments)

    def forward(self, number: Tensor, forcing: Tensor) -> Tensor:
        """Return the forcings of windows as another product has them.

        Parameters
        ----------
        number : Tensor of int64, shape (B,)
        forcing : Tensor, shape (B, T, C)
            Standardised; NaN, where missing, stays so.
        """
        rain, evaporation, warming, share = self.table[number % len(self.table)].T[..., None]
        changes: dict[str, Callable[[Tensor], Tensor]] = {
            RAIN: lambda x: rain * _earlier(x, share),
            EVAPORATION: lambda x: evaporation * x,
            **dict.fromkeys(TEMPERATURES, lambda x: x + warming),
        }
        columns = list(forcing.unbind(dim=-1))
        for i, (name, moments) in enumerate(self.moments.items()):
            if name in changes:
                columns[i] = standardised(changes[name](physical(columns[i], moments)), moments)
        return torch.stack(columns, dim=-1)


def _earlier(rain: Tensor, share: Tensor) -> Tensor:
    """Give each day a share of the next day's rain in place of its own; where that is known."""
    tomorrow = torch.cat([rain[:, 1:], rain[:, -1:]], dim=1)
    return torch.lerp(rain, torch.where(tomorrow.isnan(), rain, tomorrow), share)
