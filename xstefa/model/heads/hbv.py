"""Physics: a hydrological model whose parameters the network sets, so that water is conserved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xstefa.model.architecture import HeadSize
from xstefa.model.hbv import (
    BOUNDS,
    ROUTING_BOUNDS,
    ROUTING_DAYS,
    Forcing,
    Stores,
    bounded,
    route,
    unit_hydrograph,
)
from xstefa.model.hbv_adjoint import fluxes, simulate
from xstefa.model.heads.recurrent import ResConn, State, require_drivers
from xstefa.model.physical import physical

COMPONENTS = 16
DAILY = ("beta", "k0", "betaet")
"""Parameters that the network sets anew each day; all others belong to the site."""

KNOWN_DAYS = 365
KNOWN_SHARE = 0.95
"""Share of the last `KNOWN_DAYS` days on which each driver has to be known for an answer.

Rain that is not known is rain that does not fall: a tenth of the days missing are a fifth of the
flow. And stores begin empty: after half a year the groundwater lacks more than half of its water,
so models with this head ask for as much of their spin-up.
"""


class HBV(ResConn):
    """HBV 1.1p in 16 components, whose mean is routed; see `xstefa.model.hbv`.

    The three daily parameters follow from ``h_t = LSTM(E_t + r_t)`` as in `ResConn`; the others,
    and the routing, from the site's attributes alone, so that they depend neither on the window
    nor on any day. Precipitation, temperature and potential evapotranspiration are those of the
    data, in their units: what falls is evaporated, stored or runs off.

    On a day on which a driver is missing nothing falls, or nothing evaporates, or nothing melts
    and freezes and precipitation is rain. There is no answer, but NaN, where one of them is not
    known on 95 % of the last 365 days, or, at the beginning, half of those there are; for how early
    there are answers, see `SegmentPolicy.known`.

    Everything physical is computed in single precision, whatever the precision of the rest.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        drivers, hidden = require_drivers(size, forcings), size.hidden
        self.drivers, self.spin_up = drivers, size.spin_up
        self._of_site = [name for name in BOUNDS if name not in DAILY]
        self.output = nn.Linear(hidden, len(DAILY) * COMPONENTS)
        last = nn.Linear(hidden, len(self._of_site) * COMPONENTS + len(ROUTING_BOUNDS))
        self.site = nn.Sequential(nn.Linear(statics, hidden), nn.Tanh(), last)
        for layer in (self.output, last):
            # In the middle of their bounds; equal components would remain so.
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.normal_(layer.bias, std=0.5)

    def advance(
        self,
        forcing: Tensor,
        static: Tensor,
        days: Tensor | None,
        state: State | None,
        *,
        guess: bool = False,
    ) -> tuple[Tensor, State]:
        """Predict streamflow, mm d-1, shape (B, T); see `Head.advance`.

        Parameters
        ----------
        guess : bool
            Answer where too little is known, too: with nothing known, nothing falls and flows.
        """
        found, state = self._run(forcing, static, days, state, all_water=False, guess=guess)
        return found[..., 0], state

    def water(
        self,
        forcing: Tensor,
        static: Tensor,
        days: Tensor | None,
        state: State | None,
        *,
        guess: bool = False,
    ) -> tuple[Tensor, State]:
        """Say where the water is; see `advance`.

        Returns
        -------
        Tensor, shape (B, T, 5)
            Those of `xstefa.model.architecture.WATER`, of each day or at its end: streamflow and
            evapotranspiration, mm d-1, snow (with the liquid water in it), soil and groundwater
            (both boxes, and the runoff under way to the gauge), mm. No gradient but streamflow's.
        State
        """
        return self._run(forcing, static, days, state, all_water=True, guess=guess)

    def _run(
        self,
        forcing: Tensor,
        static: Tensor,
        days: Tensor | None,
        state: State | None,
        *,
        all_water: bool,
        guess: bool,
    ) -> tuple[Tensor, State]:
        daily, carried = self._remember(forcing, static, days, state)
        with torch.autocast(forcing.device.type, enabled=False):
            parameters, routing = self._estimate(daily.float(), static)
            weather, known = self._weather(forcing, parameters["tt"])
            like = parameters["fc"][0]
            if state is None:
                stores = Stores.initial(like)
                before = like.new_zeros(len(like), ROUTING_DAYS - 1)
                known_before = like.new_zeros(len(like), KNOWN_DAYS - 1, len(self.drivers))
            else:
                stores = Stores(*state["stores"].unbind(1))
                before, known_before = state["runoff"], state["known"]
            run = simulate(weather, parameters, stores)
            runoff, under_way = run.runoff.mean(-1), before.T
            found = [route(runoff, routing, under_way)]
            if all_water:
                left = routing.flip(-1).cumsum(-1).flip(-1)
                evaporated = [
                    moved.evapotranspiration.mean(-1)
                    for _, moved in fluxes(weather, parameters, run, stores)
                ]
                after = run.stores
                # Of each day's runoff, what has not passed the gauge at the end of a day.
                ahead = torch.cat([left[:, 1:], torch.zeros_like(left[:, :1])], dim=-1)
                found += [
                    torch.cat(evaporated),
                    (after.snow + after.meltwater).mean(-1),
                    after.soil.mean(-1),
                    (after.upper + after.lower).mean(-1) + route(runoff, ahead, under_way),
                ]
            answered, known_before = _enough(known, known_before, self.spin_up)
            answer = torch.stack([value.T for value in found], dim=-1)
            if not guess:
                answer = torch.where(answered[..., None], answer, torch.nan)
        carried["stores"] = torch.stack([store[-1] for store in run.stores], dim=1)
        carried["runoff"] = torch.cat([before, runoff.T], dim=1)[:, 1 - ROUTING_DAYS :]
        carried["known"] = known_before
        return answer, carried

    def _estimate(self, daily: Tensor, static: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return parameters (T or 1, B, 16) and the weights of the routing (B, 15)."""
        site = self.site(torch.where(static.isnan(), self.fill_static, static))
        site, routing = site.split([len(self._of_site) * COMPONENTS, len(ROUTING_BOUNDS)], dim=-1)
        raw = dict(
            zip(self._of_site, site[None].unflatten(-1, (-1, COMPONENTS)).unbind(2), strict=True)
        )
        each = daily.transpose(0, 1).unflatten(-1, (-1, COMPONENTS))
        raw |= dict(zip(DAILY, each.unbind(2), strict=True))
        parameters = {name: bounded(raw[name], bounds) for name, bounds in BOUNDS.items()}
        return parameters, unit_hydrograph(routing)

    def _weather(self, forcing: Tensor, threshold: Tensor) -> tuple[Forcing, Tensor]:
        """Return the drivers in their units (T, B, 1), and where they are known (B, T, 3)."""
        columns = forcing[..., [driver.column for driver in self.drivers]]
        known = columns.isfinite()
        precipitation, temperature, evaporation = (
            physical(column, driver.moments).T[..., None]
            for column, driver in zip(columns.unbind(-1), self.drivers, strict=True)
        )
        if not known[..., 1].all():
            temperature = torch.where(temperature.isnan(), threshold, temperature)
        return Forcing(
            precipitation.nan_to_num(0.0).clamp(min=0),
            temperature,
            evaporation.nan_to_num(0.0).clamp(min=0),
        ), known


def _enough(known: Tensor, before: Tensor, spin_up: int) -> tuple[Tensor, Tensor]:
    """Say on which days enough is known.

    Parameters
    ----------
    known : Tensor of bool, shape (B, T, n)
    before : Tensor, shape (B, 364, n)
        Of the days before: 1 where known, -1 where not, 0 before the beginning.
    spin_up : int
        Days there have to be, known or not.

    Returns
    -------
    enough : Tensor of bool, shape (B, T)
    after : Tensor, shape (B, 364, n)
        What the days that follow need of `before`.
    """
    scores = torch.cat([before, known.to(before.dtype) * 2 - 1], dim=1)

    def recent(values: Tensor) -> Tensor:
        total = torch.nn.functional.pad(values, (0, 0, 1, 0)).cumsum(1)
        return total[:, KNOWN_DAYS:] - total[:, :-KNOWN_DAYS]

    missing = recent((scores < 0).to(before.dtype))
    enough = (missing <= (1 - KNOWN_SHARE) * KNOWN_DAYS) & (recent(scores) >= 0)
    enough &= recent(scores.abs()) > spin_up
    return enough.all(-1), scores[:, 1 - KNOWN_DAYS :]
