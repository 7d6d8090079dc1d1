"""Time a training step of the physics against the plain way of writing it.

    python -m tests.benchmarks.physics [--sites 100] [--days 730] [--rounds 5]

Forward, routing, loss after a year and backward to the network's output; 16 components, three of
14 parameters daily, float32, one thread, CPU seconds, the two ways in turn. The plain way is the
readable step of a day, `hbv_step`, in a loop that slices each parameter's day out of its series
and writes each flux into its day's place: backward then makes a whole series of zeros, or copies
one, for every day, so that time grows with the square of the record.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from xstefa.model.hbv import BOUNDS, FLOOR, Fluxes, Forcing, Stores, bounded, route, unit_hydrograph
from xstefa.model.hbv_adjoint import simulate

COMPONENTS, SPIN_UP = 16, 365
DAILY = [list(BOUNDS).index(name) for name in ("beta", "k0", "betaet")]


def hbv_step(
    stores: Stores, forcing: Forcing, parameters: Mapping[str, Tensor]
) -> tuple[Stores, Fluxes]:
    """Run one day; the readable form of what `simulate` computes.

    Parameters
    ----------
    stores : Stores
        Of shape (B, M), at the end of the day before.
    forcing : Forcing
        Of one day, shape (B, 1).
    parameters : mapping of str to Tensor
        Those of `BOUNDS`, shape (B, M).

    Returns
    -------
    stores : Stores
    fluxes : Fluxes
    """
    p = parameters
    snow, meltwater, soil, upper, lower = stores
    precipitation, temperature, evaporation = forcing

    above = temperature - p["tt"]
    rain = torch.where(above >= 0, precipitation, torch.zeros_like(precipitation))
    snow = snow + precipitation - rain
    melt = torch.minimum(p["cfmax"] * above.clamp(min=0), snow)
    snow, meltwater = snow - melt, meltwater + melt
    refreezing = torch.minimum(p["cfr"] * p["cfmax"] * (-above).clamp(min=0), meltwater)
    snow, meltwater = snow + refreezing, meltwater - refreezing
    outflow = (meltwater - p["cwh"] * snow).clamp(min=0)
    meltwater = meltwater - outflow
    infiltration = rain + outflow

    recharge = infiltration * _power(soil / p["fc"], p["beta"])
    soil = soil + infiltration - recharge
    excess = (soil - p["fc"]).clamp(min=0)
    soil = soil - excess
    factor = _power(soil / (p["lp"] * p["fc"]), p["betaet"])
    evapotranspiration = torch.minimum(evaporation * factor, soil - FLOOR)
    soil = soil - evapotranspiration
    capillary = p["c"] * lower * (1 - soil / p["fc"])
    soil, lower = soil + capillary, lower - capillary

    upper = upper + recharge + excess
    percolation = torch.minimum(upper, p["perc"])
    upper = upper - percolation
    quick = p["k0"] * (upper - p["uzl"]).clamp(min=0)
    upper = upper - quick
    interflow = p["k1"] * upper
    upper = upper - interflow
    lower = lower + percolation
    baseflow = p["k2"] * lower
    lower = lower - baseflow
    return Stores(snow, meltwater, soil, upper, lower), Fluxes(
        quick,
        interflow,
        baseflow,
        evapotranspiration,
        recharge,
        excess,
        infiltration,
        outflow,
        factor,
        percolation,
        capillary,
    )


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    """Return ``min(base ** exponent, 1)``."""
    return (exponent * base.log()).clamp(max=0).exp()


class Case:
    """Random weather, and what a network may have said about it."""

    def __init__(self, sites: int, days: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        season = torch.sin(torch.arange(days) * 2 * torch.pi / 365)[:, None, None]
        warm = 8 + 12 * season + 4 * random(days, sites, 1)
        rain = 12 * (random(days, sites, 1) - 0.5).clamp(min=0)
        self.forcing = Forcing(rain, warm, (0.15 * warm).clamp(min=0))
        self.observed = random(days, sites).abs()
        self.static = random(sites, len(BOUNDS), COMPONENTS)
        self.daily = random(days, sites, len(DAILY), COMPONENTS)
        self.routing = random(sites, 2)

    def loss(self, runoff: Tensor, routing: Tensor) -> Tensor:
        """Return the squared error after the first year; runoff (T, B, M)."""
        flow = route(runoff.mean(-1), unit_hydrograph(routing))
        return (flow - self.observed)[SPIN_UP:].square().mean()

    def fast(self) -> tuple[Tensor, ...]:
        """Return the loss, and its gradients to the static and daily parameters."""
        static, daily = self.static.clone().requires_grad_(), self.daily.clone().requires_grad_()
        raw = dict(zip(BOUNDS, static[None].unbind(2), strict=True))
        raw |= dict(zip([list(BOUNDS)[i] for i in DAILY], daily.unbind(2), strict=True))
        p = {name: bounded(value, BOUNDS[name]) for name, value in raw.items()}
        loss = self.loss(simulate(self.forcing, p).runoff, self.routing)
        loss.backward()
        return loss.detach(), static.grad, daily.grad

    def naive(self) -> tuple[Tensor, ...]:
        """Return what `fast` does."""
        days = len(self.daily)
        raw = self.static.expand(days, -1, -1, -1).clone()  # all parameters, every day
        raw[:, :, DAILY] = self.daily
        raw.requires_grad_()
        parameters = {name: bounded(raw[:, :, i], BOUNDS[name]) for i, name in enumerate(BOUNDS)}
        stores = Stores.initial(parameters["fc"][0])
        fluxes = Fluxes(*(torch.zeros_like(parameters["fc"]) for _ in Fluxes._fields))
        for day in range(days):
            p = {name: value[day] for name, value in parameters.items()}
            stores, moved = hbv_step(stores, Forcing(*(f[day] for f in self.forcing)), p)
            for series, value in zip(fluxes, moved, strict=True):
                series[day] = value
        loss = self.loss(fluxes.runoff, self.routing)
        loss.backward()
        return loss.detach(), raw.grad.sum(0), raw.grad[:, :, DAILY]


def seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    """Time both ways, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    case = Case(chosen.sites, chosen.days)
    (loss, static, daily), (same, *plain) = case.fast(), case.naive()
    static[:, DAILY] = plain[0][:, DAILY] = 0  # those are daily
    torch.testing.assert_close(loss, same)
    for found, known in ((static, plain[0]), (daily, plain[1])):
        assert (found - known).abs().max() <= 2e-5 * known.abs().max()
    times: dict[str, list[float]] = {"naive": [], "adjoint": []}
    for _ in range(chosen.rounds):
        times["naive"].append(seconds(case.naive))
        times["adjoint"].append(seconds(case.fast))
    best = {name: min(taken) for name, taken in times.items()}
    print("| way | best | all rounds, CPU s |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {best[name]:.2f} | {', '.join(f'{t:.2f}' for t in taken)} |")
    print(f"{best['naive'] / best['adjoint']:.1f} x; the same loss {float(loss):.4f} and gradients")


if __name__ == "__main__":
    main()
