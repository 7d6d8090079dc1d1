"""A head that stores water in linear reservoirs: they fill with rain and melt, and drain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstefa.model.architecture import HeadSize
from xstefa.model.heads.recurrent import Head, State, linked, require_drivers
from xstefa.model.physical import physical

RESERVOIRS = 8
RESIDENCE = (5.0, 150.0)
"""Days that water stays in the fastest and the slowest reservoir, before training, at 10 degC and
a potential evapotranspiration of 2 mm d-1."""
DEPTHS = (5.0, 30.0)
"""Their depths, mm, before training: what a millimetre adds counts less where more is stored."""
Q10, DEMAND = 2.0, 0.1
"""Factor by which 10 K speed the draining up, and by how much, as a logarithm, a millimetre of
potential evapotranspiration a day does, before training.

Chosen at 59 FLUXNET towers: one reservoir of 45 days with these two, the same everywhere, follows
the soil moisture there with a median correlation of 0.76 (`examples/towers.py`).
"""
LONGEST = 240.0
"""Days after which at most 1/e of the water is left, whatever the network says."""


class Reservoirs(Head):
    """An increasing function of the water in `RESERVOIRS` linear reservoirs.

    ``S_k(t) = exp(-r_k(t)) (S_k(t-1) + w(t))``, ``y_t = link(b + sum_k v_k log(1 + S_k(t) / c_k))``

    Rain and melt ``w``, mm d-1, fill each of them. The rates ``r_k`` grow with temperature and
    potential evapotranspiration, times a factor that follows from the other weather of the day, but
    not its precipitation, and the site's attributes; the level b and the weights v_k, none of which
    is negative, from the attributes alone. So by construction more water on a day makes no later
    day drier, more evaporative demand none wetter, without rain and melt the answer falls, and all
    is forgotten within years, at every site. The encoder's representation is not read: it knows of
    the precipitation.

    Everything is computed in single precision, whatever the precision of the rest.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        self.drivers, hidden = require_drivers(size, forcings), size.hidden
        self.fill_forcing = nn.Parameter(torch.zeros(forcings))
        self.fill_static = nn.Parameter(torch.zeros(statics))
        self.site = nn.Sequential(nn.Linear(statics, hidden), nn.Tanh())
        self.of_weather = nn.Linear(forcings, hidden)
        self.of_site = nn.Linear(hidden, hidden, bias=False)
        self.rate = nn.Linear(hidden, RESERVOIRS)
        self.output = nn.Linear(hidden, 1 + RESERVOIRS)
        for layer in (self.rate, self.output):
            nn.init.normal_(layer.weight, std=0.02)
        with torch.no_grad():
            self.rate.bias.copy_(-2 * DEMAND - _spaced(*RESIDENCE))  # at 2 mm d-1
            self.output.bias.fill_(-2.0)
        self.depth = nn.Parameter(_spaced(*DEPTHS))
        self.warming = nn.Parameter(torch.tensor(math.log(Q10)))
        self.demand = nn.Parameter(torch.tensor(math.log(DEMAND)))
        self.snowfall = nn.Parameter(torch.tensor([0.0, 1.0]))  # degC at which half is rain; 1/degC
        self.melt = nn.Parameter(torch.tensor([0.0, -2.0]))  # degC; log of the rate, 1/(d degC)

    def advance(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Fill, drain, map; see `Head.advance`."""
        with torch.autocast(forcing.device.type, enabled=False):
            forcing = torch.where(forcing.isnan(), self.fill_forcing, forcing)
            site = self.site(torch.where(static.isnan(), self.fill_static, static))
            snow = stores = None
            if state is not None:
                snow, stores = state["snow"], state["stores"]
            rain, temperature, demand = (
                physical(forcing[..., driver.column], driver.moments).unsqueeze(-1)
                for driver in self.drivers
            )
            water, snow = self._thaw(rain.clamp(min=0), temperature, snow)
            speed = self.warming * (temperature - 10) / 10
            speed = speed + self.demand.exp() * demand.clamp(min=0)
            keep = torch.exp(-self._rates(forcing, site, speed))
            filled, stores = _drain(water, keep, stores)
            level, weights = self.output(site).unsqueeze(1).split([1, RESERVOIRS], dim=-1)
            stored = torch.log1p(filled * torch.exp(-self.depth))
            answer = level[..., 0] + (functional.softplus(weights) * stored).sum(-1)
        return linked(answer, self.link), {"snow": snow, "stores": stores}

    def _thaw(
        self, rain: Tensor, temperature: Tensor, snow: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return rain and melt, mm d-1, shape (B, T, 1), and the snow that is left (B, 1)."""
        threshold, steepness = self.snowfall
        snowfall = rain * torch.sigmoid((threshold - temperature) * steepness.exp())
        begins, rate = self.melt
        keep = torch.exp(-functional.softplus(temperature - begins) * rate.exp())
        lying, left = _drain(snowfall, keep, snow)
        before = lying.new_zeros(len(lying), 1) if snow is None else snow
        before = torch.cat([before.unsqueeze(1), lying[:, :-1]], dim=1)
        return rain + (before - lying), left

    def _rates(self, forcing: Tensor, site: Tensor, speed: Tensor) -> Tensor:
        """Return the rate at which each reservoir drains, d-1, shape (B, T, K).

        Parameters
        ----------
        speed : Tensor, shape (B, T, 1)
            Logarithm of the factor by which temperature and demand change it.
        """
        rain, _, demand = self.drivers
        read = torch.ones_like(self.fill_forcing)
        read[[rain.column, demand.column]] = 0
        weather = self.of_weather(forcing * read) + self.of_site(site).unsqueeze(1)
        turned = functional.linear(torch.tanh(weather), self.rate.weight)
        rate = torch.exp(self.rate.bias + 2 * torch.tanh(turned / 2) + speed)
        return rate.clamp(max=3) + 1 / LONGEST


def _spaced(first: float, last: float) -> Tensor:
    """Return logarithms, evenly spaced, shape (K,)."""
    return torch.linspace(math.log(first), math.log(last), RESERVOIRS)


def _drain(inflow: Tensor, keep: Tensor, stores: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what is stored at the end of each day, shape (B, T, K), and of the last (B, K).

    Parameters
    ----------
    inflow : Tensor, shape (B, T, 1)
    keep : Tensor, shape (B, T, K)
        Share of the water that stays.
    stores : Tensor, shape (B, K), optional
        Before the first day; empty by default.
    """
    if stores is None:
        stores = keep.new_zeros(keep.shape[0], keep.shape[2])
    found = []
    for entering, kept in zip(inflow.unbind(1), keep.unbind(1), strict=True):
        stores = (stores + entering) * kept
        found.append(stores)
    return torch.stack(found, dim=1), stores
