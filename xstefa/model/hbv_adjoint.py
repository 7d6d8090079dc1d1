"""HBV over many days at the speed of a few operations a day, with the adjoint written out.

Forward, only the five stores are stepped from day to day; all fluxes are functions of the stores of
that morning and are computed afterwards, for many days at once. Backward, the branches of a block
of days become coefficients first, and the adjoint of a day is then linear in those of the stores.
The tests hold it against a readable day, `hbv_step` in `tests/benchmarks/physics.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xstefa.model.hbv import BOUNDS, FLOOR, Fluxes, Forcing, Stores

# Days whose local quantities are recomputed together: their temporaries stay in the cache.
BLOCK_DAYS = 24


class Simulation(NamedTuple):
    """What `simulate` returns.

    Attributes
    ----------
    runoff : Tensor, shape (T, B, M)
        Before routing; differentiable with respect to parameters and initial stores.
    stores : Stores of shape (T, B, M)
        At the end of each day. No gradient.
    """

    runoff: Tensor
    stores: Stores


def simulate(
    forcing: Forcing, parameters: Mapping[str, Tensor], initial: Stores | None = None
) -> Simulation:
    """Run the stores over a record.

    Parameters
    ----------
    forcing : Forcing
        Of shape (T, B, 1).
    parameters : mapping of str to Tensor
        Those of `xstefa.model.hbv.BOUNDS`: static (1, B, M) or dynamic (T, B, M).
    initial : Stores, optional
        Of shape (B, M); nearly empty by default.

    Returns
    -------
    Simulation
    """
    values = [parameters[name] for name in BOUNDS]
    if initial is None:
        initial = Stores.initial(values[0][0])
    runoff, *stores = _Simulate.apply(*forcing, *initial, *values)  # type: ignore[no-untyped-call]
    return Simulation(runoff=runoff, stores=Stores(*stores))


def fluxes(
    forcing: Forcing, parameters: Mapping[str, Tensor], simulation: Simulation, initial: Stores
) -> Iterator[tuple[slice, Fluxes]]:
    """Yield blocks of days and what moved on them, each of shape (days, B, M); no gradient.

    Parameters
    ----------
    forcing, parameters, initial
        As given to `simulate`.
    simulation : Simulation
        What it returned.
    """
    morning = [
        torch.cat([first[None], store[:-1]])
        for first, store in zip(initial, simulation.stores, strict=True)
    ]
    with torch.no_grad():
        for days in _blocks(len(morning[0])):
            p = {name: _part(parameters[name], days) for name in BOUNDS}
            local = _local([store[days] for store in morning], [f[days] for f in forcing], p)
            yield days, local.fluxes(p)


class _Local(NamedTuple):
    """All that happens on some days, from the stores in the morning; shapes (days, B, M)."""

    above: Tensor  # temperature above tt
    snow0: Tensor  # snow after snowfall
    melt_possible: Tensor
    water1: Tensor  # meltwater after melt
    freeze_possible: Tensor
    snow2: Tensor  # snow after refreezing
    outflow: Tensor
    infiltration: Tensor
    soil: Tensor
    log_wet: Tensor  # log of soil / fc
    recharge: Tensor
    soil1: Tensor  # after infiltration
    soil2: Tensor  # after excess
    log_dry: Tensor  # log of soil2 / (lp fc)
    factor: Tensor
    demand: Tensor  # evaporation asked for
    soil3: Tensor  # after evapotranspiration
    lower0: Tensor
    deficit: Tensor
    upper1: Tensor  # after recharge and excess
    upper2: Tensor  # after percolation
    above_threshold: Tensor  # upper2 - uzl where positive
    lower2: Tensor  # after percolation

    def fluxes(self, p: Mapping[str, Tensor]) -> Fluxes:
        quick = p["k0"] * self.above_threshold
        return Fluxes(
            quick_runoff=quick,
            interflow=p["k1"] * (self.upper2 - quick),
            baseflow=p["k2"] * self.lower2,
            evapotranspiration=self.soil2 - self.soil3,
            recharge=self.recharge,
            excess=self.soil1 - self.soil2,
            infiltration=self.infiltration,
            outflow_of_snow=self.outflow,
            evaporation_factor=self.factor,
            percolation=self.upper1 - self.upper2,
            capillary_rise=p["c"] * self.lower0 * self.deficit,
        )


def _local(stores: list[Tensor], forcing: list[Tensor], p: Mapping[str, Tensor]) -> _Local:
    snow, meltwater, soil, upper, lower = stores
    precipitation, temperature, evaporation = forcing
    above = temperature - p["tt"]
    rain = precipitation * (above >= 0)
    snow0 = snow + (precipitation - rain)
    melt_possible = p["cfmax"] * above.clamp(min=0)
    melt = torch.minimum(melt_possible, snow0)
    water1 = meltwater + melt
    freeze_possible = p["cfr"] * p["cfmax"] * (-above).clamp(min=0)
    refreezing = torch.minimum(freeze_possible, water1)
    snow2 = snow0 - melt + refreezing
    outflow = (water1 - refreezing - p["cwh"] * snow2).clamp(min=0)
    infiltration = rain + outflow

    log_wet = (soil / p["fc"]).log()
    recharge = infiltration * (p["beta"] * log_wet).clamp(max=0).exp()
    soil1 = soil + infiltration - recharge
    soil2 = torch.minimum(soil1, p["fc"])
    log_dry = (soil2 / (p["lp"] * p["fc"])).log()
    factor = (p["betaet"] * log_dry).clamp(max=0).exp()
    demand = evaporation * factor
    soil3 = soil2 - torch.minimum(demand, soil2 - FLOOR)
    deficit = 1 - soil3 / p["fc"]
    capillary = p["c"] * lower * deficit

    upper1 = upper + recharge + (soil1 - soil2)
    upper2 = (upper1 - p["perc"]).clamp(min=0)
    return _Local(
        above=above,
        snow0=snow0,
        melt_possible=melt_possible,
        water1=water1,
        freeze_possible=freeze_possible,
        snow2=snow2,
        outflow=outflow,
        infiltration=infiltration,
        soil=soil,
        log_wet=log_wet,
        recharge=recharge,
        soil1=soil1,
        soil2=soil2,
        log_dry=log_dry,
        factor=factor,
        demand=demand,
        soil3=soil3,
        lower0=lower,
        deficit=deficit,
        upper1=upper1,
        upper2=upper2,
        above_threshold=(upper2 - p["uzl"]).clamp(min=0),
        lower2=lower - capillary + (upper1 - upper2),
    )


def _blocks(days: int) -> list[slice]:
    return [slice(i, min(i + BLOCK_DAYS, days)) for i in range(0, days, BLOCK_DAYS)]


def _part(value: Tensor, days: slice) -> Tensor:
    """Return a parameter on some days: all of it if it is static."""
    return value if len(value) == 1 else value[days]


class _Simulate(torch.autograd.Function):
    """Forcing, initial stores and parameters to runoff and stores."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> tuple[Tensor, ...]:
        forcing, initial = arguments[:3], arguments[3:8]
        values = dict(zip(BOUNDS, arguments[8:], strict=True))
        days = len(forcing[0])
        stores = initial[0].new_empty(5, days + 1, *initial[0].shape)
        for store, first in zip(stores, initial, strict=True):
            store[0] = first
        _step_snow(stores[:2], infiltration := torch.empty_like(stores[0, 1:]), forcing, values)
        _step_soil(stores[2:], infiltration, forcing[2], values)
        runoff = torch.empty_like(infiltration)
        for part in _blocks(days):
            p = {name: _part(value, part) for name, value in values.items()}
            local = _local(list(stores[:, :-1][:, part]), [f[part] for f in forcing], p)
            runoff[part] = local.fluxes(p).runoff
        ctx.save_for_backward(stores, *forcing, *arguments[8:])
        after = tuple(stores[:, 1:])
        ctx.mark_non_differentiable(*after)
        return runoff, *after

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        stores, *rest = ctx.saved_tensors
        forcing, values = rest[:3], dict(zip(BOUNDS, rest[3:], strict=True))
        gradients = {name: torch.zeros_like(value) for name, value in values.items()}
        bar = torch.zeros_like(stores[:, 0])  # adjoints of the five stores
        for part in reversed(_blocks(len(gradient))):
            p = {name: _part(value, part) for name, value in values.items()}
            local = _local(list(stores[:, :-1][:, part]), [f[part] for f in forcing], p)
            for name, value in _adjoint(local, forcing[2][part], p, gradient[part], bar).items():
                if len(values[name]) == 1:
                    gradients[name] += value.sum(0, keepdim=True)
                else:
                    gradients[name][part] = value
        return None, None, None, *bar, *gradients.values()


def _day(values: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """Return a parameter's days; of a static one the only."""
    return list(values[name].unbind(0))


def _step_snow(
    stores: Tensor, infiltration: Tensor, forcing: tuple[Tensor, ...], p: Mapping[str, Tensor]
) -> None:
    """Step snow and meltwater (2, T + 1, B, M), and say what reaches the soil (T, B, M)."""
    precipitation, temperature, _ = forcing
    above = temperature - p["tt"]
    rain = precipitation * (above >= 0)
    snowfall = (precipitation - rain).unbind(0)
    melt_possible = (p["cfmax"] * above.clamp(min=0)).unbind(0)
    freeze_possible = (p["cfr"] * p["cfmax"] * (-above).clamp(min=0)).unbind(0)
    holding = _day(p, "cwh")
    snows, waters = stores[0].unbind(0), stores[1].unbind(0)
    moved = torch.empty_like(snows[0])
    for day, water in enumerate(infiltration.unbind(0)):
        snow, melt = snows[day + 1], waters[day + 1]
        torch.add(snows[day], snowfall[day], out=snow)
        torch.minimum(melt_possible[day], snow, out=moved)
        snow.sub_(moved)
        torch.add(waters[day], moved, out=melt)
        torch.minimum(freeze_possible[day], melt, out=moved)
        snow.add_(moved)
        melt.sub_(moved)
        hold = holding[day % len(holding)]
        torch.addcmul(melt, hold, snow, value=-1, out=water).clamp_(min=0)
        melt.sub_(water)
    infiltration.add_(rain)


def _step_soil(
    stores: Tensor, infiltration: Tensor, evaporation: Tensor, p: Mapping[str, Tensor]
) -> None:
    """Step soil, upper and lower box (3, T + 1, B, M)."""
    wettable = _day({"x": 1 / p["fc"]}, "x")
    dryable = _day({"x": 1 / (p["lp"] * p["fc"])}, "x")
    names = ("fc", "beta", "betaet", "c", "perc", "uzl", "k0", "k1", "k2")
    fc, beta, betaet, c, perc, uzl, k0, k1, k2 = (_day(p, name) for name in names)
    soils, uppers, lowers = (store.unbind(0) for store in stores)
    power, moved, flow = (torch.empty_like(soils[0]) for _ in range(3))
    days = zip(infiltration.unbind(0), evaporation.unbind(0), strict=True)
    for day, (water, demand) in enumerate(days):
        soil, upper, lower = soils[day + 1], uppers[day + 1], lowers[day + 1]
        torch.mul(soils[day], wettable[day % len(wettable)], out=power)
        power.log_().mul_(beta[day % len(beta)]).clamp_(max=0).exp_()
        torch.mul(water, power, out=moved)  # recharge
        torch.add(soils[day], water, out=soil).sub_(moved)
        torch.add(uppers[day], moved, out=upper)
        torch.sub(soil, fc[day % len(fc)], out=moved).clamp_(min=0)  # excess
        soil.sub_(moved)
        upper.add_(moved)
        torch.mul(soil, dryable[day % len(dryable)], out=power)
        power.log_().mul_(betaet[day % len(betaet)]).clamp_(max=0).exp_().mul_(demand)
        torch.sub(soil, FLOOR, out=moved)
        soil.sub_(torch.minimum(power, moved, out=moved))  # evapotranspiration
        torch.mul(soil, wettable[day % len(wettable)], out=moved).neg_().add_(1)
        moved.mul_(lowers[day]).mul_(c[day % len(c)])  # capillary rise
        soil.add_(moved)
        torch.sub(lowers[day], moved, out=lower)
        torch.minimum(upper, perc[day % len(perc)], out=moved)  # percolation
        upper.sub_(moved)
        lower.add_(moved)
        torch.sub(upper, uzl[day % len(uzl)], out=flow).clamp_(min=0).mul_(k0[day % len(k0)])
        upper.sub_(flow)
        upper.addcmul_(upper, k1[day % len(k1)], value=-1)
        lower.addcmul_(lower, k2[day % len(k2)], value=-1)


def _adjoint(
    local: _Local, evaporation: Tensor, p: Mapping[str, Tensor], g: Tensor, bar: Tensor
) -> dict[str, Tensor]:
    """Carry the adjoints of the stores through a block of days, from its end to its begin.

    Parameters
    ----------
    local : _Local
        Of the block.
    evaporation : Tensor, shape (days, B, 1)
    p : mapping of str to Tensor
        Parameters on these days.
    g : Tensor, shape (days, B, M)
        Derivative of the loss with respect to the runoff of these days.
    bar : Tensor, shape (5, B, M)
        Adjoints of the stores at the end of the block; at its begin when this returns.

    Returns
    -------
    dict of str to Tensor
        Derivatives with respect to the parameters, day by day, shape (days, B, M).
    """
    v = local
    kind = g.dtype
    quick = (v.upper2 > p["uzl"]).to(kind)
    unlimited = (v.upper1 < p["perc"]).to(kind)  # percolation takes all there is
    full = (v.soil1 > p["fc"]).to(kind)
    watered = (v.demand < v.soil2 - FLOOR).to(kind)
    log_recharge, log_factor = p["beta"] * v.log_wet, p["betaet"] * v.log_dry
    open_wet, open_dry = (log_recharge < 0).to(kind), (log_factor < 0).to(kind) * watered
    spilling = (v.outflow > 0).to(kind)
    melted = (v.melt_possible >= v.snow0).to(kind)  # all snow melts
    frozen = (v.freeze_possible >= v.water1).to(kind)  # all water freezes
    share = log_recharge.clamp(max=0).exp()
    slope_recharge = open_wet * v.recharge * p["beta"] / v.soil
    steepness = open_dry * v.demand * p["betaet"]
    keep_evaporation = watered - steepness / v.soil2
    keep0 = quick * p["k0"]
    rise_by_lower, rise_by_soil = p["c"] * v.deficit, p["c"] * v.lower0 / p["fc"]
    one_less_k1, one_less_k2 = 1 - p["k1"], 1 - p["k2"]
    g_k1, g_k2 = p["k1"] * g, p["k2"] * g

    # Adjoints that the parameters need, day by day.
    after_upper, after_lower, upper3, upper2, lower2, rise, soil3, soil2, soil1, seep, inflow = (
        torch.empty_like(g) for _ in range(11)
    )
    snow_bar, water_bar, soil_bar, upper_bar, lower_bar = bar.unbind(0)

    def at(value: Tensor, day: int) -> Tensor:
        return value[day if len(value) > 1 else 0]

    for day in reversed(range(len(g))):
        after_upper[day], after_lower[day] = upper_bar, lower_bar
        l2, u3, u2 = lower2[day], upper3[day], upper2[day]
        torch.addcmul(g_k2[day], lower_bar, at(one_less_k2, day), out=l2)
        torch.addcmul(g_k1[day], upper_bar, at(one_less_k1, day), out=u3)
        torch.lerp(u3, g[day], keep0[day], out=u2)
        torch.lerp(u2, l2, unlimited[day], out=upper_bar)
        c = torch.sub(soil_bar, l2, out=rise[day])
        torch.addcmul(l2, c, rise_by_lower[day], out=lower_bar)
        s3 = torch.addcmul(soil_bar, c, rise_by_soil[day], value=-1, out=soil3[day])
        s2 = torch.mul(s3, keep_evaporation[day], out=soil2[day])
        s1 = torch.lerp(s2, upper_bar, full[day], out=soil1[day])
        r = torch.sub(upper_bar, s1, out=seep[day])
        torch.addcmul(s1, r, share[day], out=inflow[day])
        torch.addcmul(s1, r, slope_recharge[day], out=soil_bar)

    after_water, snow2, water2, water1 = (torch.empty_like(g) for _ in range(4))
    for day in reversed(range(len(g))):
        after_water[day] = water_bar
        w2 = torch.lerp(water_bar, inflow[day], spilling[day], out=water2[day])
        s2 = snow2[day]
        torch.addcmul(snow_bar, at(p["cwh"], day), water_bar - w2, out=s2)
        torch.lerp(w2, s2, frozen[day], out=water_bar)
        water1[day] = water_bar
        torch.lerp(s2, water_bar, melted[day], out=snow_bar)

    after_quick = g - upper3
    drawn = soil3 * steepness  # derivative of - evapotranspiration by the logarithm, times betaet
    recharged = seep * v.recharge * open_wet
    melting, freezing = (1 - melted) * (water1 - snow2), (1 - frozen) * (snow2 - water2)
    warm, cold = v.above.clamp(min=0), (-v.above).clamp(min=0)
    quick_flow = p["k0"] * v.above_threshold
    return {
        "beta": recharged * v.log_wet,
        "fc": full * (soil2 - _upper1(upper2, lower2, unlimited))
        + (rise * p["c"] * v.lower0 * v.soil3 / p["fc"] + drawn - recharged * p["beta"]) / p["fc"],
        "k0": v.above_threshold * after_quick,
        "k1": (v.upper2 - quick_flow) * (g - after_upper),
        "k2": v.lower2 * (g - after_lower),
        "lp": drawn / p["lp"],
        "perc": (1 - unlimited) * (lower2 - upper2),
        "uzl": -keep0 * after_quick,
        "tt": p["cfmax"]
        * (p["cfr"] * freezing * (v.above < 0).to(kind) - melting * (v.above > 0).to(kind)),
        "cfmax": melting * warm + freezing * p["cfr"] * cold,
        "cfr": freezing * p["cfmax"] * cold,
        "cwh": spilling * v.snow2 * (after_water - inflow),
        "betaet": -soil3 * open_dry * v.demand * v.log_dry,
        "c": rise * v.lower0 * v.deficit,
    }


def _upper1(upper2: Tensor, lower2: Tensor, unlimited: Tensor) -> Tensor:
    """Return the adjoint of the upper box before percolation."""
    return torch.lerp(upper2, lower2, unlimited)
