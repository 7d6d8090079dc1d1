"""What has to hold of a model that behaves like water: a table of questions, each with a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xstefa.evaluation.probe_weather import (
    AREA,
    DEMAND,
    LADDER,
    RAIN,
    SETTLED,
    STEP,
    STORM,
    TIME,
    Weather,
)
from xstefa.windows import YEAR

Series: TypeAlias = NDArray[np.float64]
"""Shape (site, day)."""
Numbers: TypeAlias = NDArray[np.float64]
"""Shape (site,)."""
Kind: TypeAlias = Literal["flux", "state", "any"]

STORAGE = 500.0
"""Water, mm, that a catchment may hold more at the end of five years than at their beginning."""
SNOWY = 0.2
"""Share of the precipitation below 0 degC at sites that are asked about snow."""
DRAINING = 7 * 103
"""Two years without rain but the first week, in whole weeks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a model says of changed weather.

    Attributes
    ----------
    weather : mapping of str to Weather
        By the names of `CHANGES`.
    said : mapping of str to ndarray, shape (site, day)
        By the same names, and others of `xstefa.evaluation.probing`.
    water : mapping of str to ndarray
        All outputs of a model with stores, for the weather as it is.
    limits : (float, float)
        What is possible of the target.
    """

    weather: Mapping[str, Weather]
    said: Mapping[str, Series]
    water: Mapping[str, Series] = field(default_factory=dict)
    limits: tuple[float, float] = (-np.inf, np.inf)

    def __getitem__(self, name: str) -> Series:
        return self.said[name]

    @property
    def event(self) -> int:
        """The day on which something happens."""
        return self.weather["usual"].event

    def since(self, days: int | None = None, *, begin: int = 0) -> slice:
        """Return so many days from the event on, or all."""
        first = self.event + begin
        return slice(first, None if days is None else first + days)

    @cached_property
    def level(self) -> Numbers:
        """What is usual."""
        return np.asarray(self["usual"][:, SETTLED:].mean(axis=1))

    def total(self, name: str, days: slice = slice(SETTLED, None)) -> Numbers:
        """Return the sum of the answers over some days."""
        return np.asarray(self[name][:, days].sum(axis=1))

    def of(self, token: str, name: str = "usual", days: slice = slice(SETTLED, None)) -> Numbers:
        """Return the sum of a forcing over some days."""
        values = self.weather[name].data[token].transpose("site", TIME).values
        return np.asarray(values[:, days].sum(axis=1, dtype=np.float64))

    def change(self, name: str, to: str = "usual", days: slice = slice(None)) -> Series:
        """Return by how much answers differ."""
        return self[name][:, days] - self[to][:, days]

    def apart(self, name: str, to: str = "usual", days: slice = slice(SETTLED, None)) -> Numbers:
        """Return by how much they differ at most, over what is usual."""
        return np.asarray(abs(self.change(name, to, days)).max(axis=1) / self.level)

    @cached_property
    def snowy(self) -> NDArray[np.bool_]:
        """Where much of the precipitation is snow."""
        usual = self.weather["usual"]
        frozen = usual.rain.where(usual.temperature < 0, 0).sum(TIME) / usual.rain.sum(TIME)
        return np.asarray(frozen > SNOWY)

    def ladder(self) -> Series:
        """Return what each step of a ladder of storms adds, per millimetre of rain that it adds."""
        totals = [self.total(name, self.since()) for name in self.steps]
        return np.asarray(np.diff(totals, axis=0).T / (STEP * np.diff([0, *LADDER])))

    @property
    def steps(self) -> list[str]:
        """Names of a ladder of storms, from none."""
        return ["usual", *(f"storm x{n}" for n in LADDER)]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A question to a model, and between which numbers the answer has to be.

    Attributes
    ----------
    name, asks, number : str
        What is asked for, in a few words and in a sentence; and what the number is.
    measure : callable
        From `Answers` to a number for each site.
    least, most : float
    of : {"flux", "state", "any"}
        Of which targets it is asked: those in mm d-1, others, or all.
    needs : tuple of str
        Tokens without which it cannot be asked; or ``"stores"``, or ``"model"``.
    judge : str
        The probe of HydroTuring that asks the same, or a part of it.
    where : callable, optional
        At which sites it is asked; by default at all.
    """

    name: str
    asks: str
    number: str
    measure: Callable[[Answers], Numbers]
    least: float = -np.inf
    most: float = np.inf
    of: Kind = "any"
    needs: tuple[str, ...] = ()
    judge: str = ""
    where: Callable[[Answers], NDArray[np.bool_]] | None = None

    def passed(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Return where an answer is as it has to be."""
        return np.asarray((numbers >= self.least) & (numbers <= self.most))

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        if not np.isfinite(self.least):
            return f"at most {self.most:g}"
        return f"at least {self.least:g}" if not np.isfinite(self.most) else (
            f"{self.least:g} to {self.most:g}"
        )  # fmt: skip


def _rises(a: Answers) -> Numbers:
    """By how much weeks without rain exceed all before them, over the first."""
    weeks = (
        a["no more rain"][:, a.since(DRAINING, begin=7)].reshape(len(a.level), -1, 7).mean(axis=2)
    )
    lowest = np.minimum.accumulate(weeks, axis=1)[:, :-1]
    return np.asarray((weeks[:, 1:] - lowest).max(axis=1) / weeks[:, 0])


def _restless(a: Answers) -> Numbers:
    last = a["steady"][:, -YEAR:]
    return np.asarray(np.ptp(last, axis=1) / np.maximum(last.mean(axis=1), 0.05 * a.level))


def _cycles(a: Answers) -> Numbers:
    years = a["one year"].reshape(len(a.level), -1, YEAR)
    return np.asarray(abs(years[:, 6] - years[:, 4]).mean(axis=1) / years[:, 6].mean(axis=1))


def _middle(flow: Series) -> Numbers:
    """Return the mean day by which half of the year's flow has passed."""
    years = flow[:, SETTLED:].reshape(len(flow), -1, YEAR).cumsum(axis=2)
    return np.asarray((years < years[..., -1:] / 2).sum(axis=2).mean(axis=1))


def _demand(name: str) -> Callable[[Answers], Numbers]:
    def measure(a: Answers) -> Numbers:
        asked = a.of(DEMAND, name) - a.of(DEMAND, "mild")
        return np.asarray((a.total(name) - a.total("mild")) / asked)

    return measure


def _fastness(a: Answers) -> Numbers:
    frost, warmth = (
        a.change(f"storm in {name}", name, a.since(5)).sum(axis=1)
        for name in ("frost", "warm spell")
    )
    return np.asarray(frost / warmth)


def _residual(a: Answers) -> Numbers:
    stored = sum(a.water[n] for n in a.water if n not in ("streamflow", "evapotranspiration"))
    gone = a.water["streamflow"] + a.water["evapotranspiration"]
    rain = a.weather["usual"].rain.transpose("site", TIME).values
    days = slice(SETTLED, None)
    residual = (rain - gone)[:, 1:] - np.diff(stored, axis=1)
    return np.asarray(abs(residual[:, days].cumsum(axis=1)).max(axis=1) / a.of(RAIN))


def _impossible(a: Answers) -> Numbers:
    """Share of all answers that are no number, or outside what is possible."""
    low, high = a.limits
    wrong = [
        (~((said >= low) & (said <= high)))[:, SETTLED:].mean(axis=1)
        for name, said in a.said.items()
        if said.shape == a["usual"].shape
    ]
    return np.asarray(np.mean(wrong, axis=0))


RELATIVE = "over the usual level"

PROBES = (
    Probe(
        name="no anticipation",
        asks="Does rain change a day before it falls?",
        number=f"largest change before 120 mm, {RELATIVE}",
        measure=lambda a: a.apart("storm", days=slice(SETTLED, a.event)),
        most=1e-6,
        judge="mass/causality",
    ),
    Probe(
        name="no anticipation, cut",
        asks="Does a record that ends on a day say the same of it?",
        number=f"change of the last day, {RELATIVE}",
        measure=lambda a: abs(a["cut"][:, -1] - a["usual"][:, a.event]) / a.level,
        most=1e-4,
        judge="mass/causality",
    ),
    Probe(
        name="response",
        asks="Do 120 mm of rain raise the ten days from it on?",
        number=f"mean change, {RELATIVE}",
        measure=lambda a: a.change("storm", days=a.since(10)).mean(axis=1) / a.level,
        least=1e-3,
        judge="mass/causality",
    ),
    Probe(
        name="more rain, no day less",
        asks="Does added rain lower the flow of a later day?",
        number="lowest change after 120 mm, per mm added",
        measure=lambda a: a.change("storm", days=a.since()).min(axis=1) / STORM,
        least=-1e-3,
        of="flux",
        judge="mass/response-nonnegativity",
    ),
    Probe(
        name="more rain, no day drier",
        asks="Does added rain make a later day drier?",
        number=f"lowest change after 120 mm, {RELATIVE}",
        measure=lambda a: a.change("storm", days=a.since()).min(axis=1) / a.level,
        least=-0.01,
        of="state",
    ),
    Probe(
        name="larger storms, more flow",
        asks="Does each step from 50 to 500 mm on a day add flow?",
        number="least that a step adds, per mm added",
        measure=lambda a: a.ladder().min(axis=1),
        least=-0.01,
        of="flux",
        judge="mass/extreme-rain",
    ),
    Probe(
        name="larger storms, no more than fell",
        asks="Does a step add more flow than rain?",
        number="most that a step adds, per mm added",
        measure=lambda a: a.ladder().max(axis=1),
        most=1.05,
        of="flux",
        judge="mass/extreme-rain",
    ),
    Probe(
        name="larger storms run off",
        asks="Does 500 mm on a day run off, since it cannot evaporate?",
        number="share of the storm",
        measure=lambda a: a.change(f"storm x{LADDER[-1]}", days=a.since()).sum(axis=1)
        / (STEP * LADDER[-1]),
        least=0.1,
        of="flux",
        judge="mass/extreme-rain",
    ),
    Probe(
        name="larger storms, wetter",
        asks="Is the highest day higher with each step from 50 to 500 mm?",
        number=f"least rise of the peak, {RELATIVE}",
        measure=lambda a: np.diff(
            [a[name][:, a.since(10)].max(axis=1) for name in a.steps], axis=0
        ).min(axis=0) / a.level,
        least=0.0,
        of="state",
    ),
    Probe(
        name="wetter climate",
        asks="Is there more with 20 % less, 10 % more and 20 % more rain, in this order?",
        number=f"least rise of the mean, {RELATIVE}",
        measure=lambda a: np.diff(
            [a.total(n) for n in ("drier", "usual", "wetter", "much wetter")], axis=0
        ).min(axis=0) / a.total("usual"),
        least=1e-4,
        judge="mass/precipitation-counterfactual",
    ),
    Probe(
        name="elasticity",
        asks="How much more flow does one per cent more rain make?",
        number="per cent",
        measure=lambda a: (a.total("wetter") / a.total("usual") - 1) / 0.1,
        least=0.5,
        most=4.0,
        of="flux",
    ),
    Probe(
        name="recession",
        asks="Is any week of two years without rain or snow higher than one before it?",
        number="highest rise, over the first week",
        measure=_rises,
        most=0.02,
        judge="mass/dry-down",
    ),
    Probe(
        name="steady state",
        asks="Does everything settle if every day is the same?",
        number="range in the last year, over its mean",
        measure=_restless,
        most=0.01,
        judge="mass/steady-state",
    ),
    Probe(
        name="cycle",
        asks="Does a year that repeats itself repeat the answer?",
        number="mean difference of fifth and seventh time, over the mean",
        measure=_cycles,
        most=0.05,
        judge="mass/spinup-cycle-invariance",
    ),
    Probe(
        name="spin-up forgotten",
        asks="Is it forgotten two years later that a record began two years later?",
        number=f"largest difference from then on, {RELATIVE}",
        measure=lambda a: abs(a["later"][:, SETTLED:] - a["usual"][:, 2 * SETTLED :]).max(axis=1)
        / a.level,
        most=0.05,
    ),
    Probe(
        name="memory",
        asks="Does 60 mm run off more after a wet month, by no more than fell in it?",
        number="what it does in a month, per mm of the storm",
        measure=lambda a: a.change("wet month", "dry month", a.since(30)).sum(axis=1) / 60,
        least=0.02,
        most=2.0,
        of="flux",
        judge="mass/antecedent-monotonicity",
    ),
    Probe(
        name="memory of moisture",
        asks="Is it wetter for a month after a wet month?",
        number=f"mean difference, {RELATIVE}",
        measure=lambda a: a.change("wet month", "dry month", a.since(30)).mean(axis=1) / a.level,
        least=1e-3,
        of="state",
    ),
    Probe(
        name="calendar, 28 years",
        asks="Is the same weather 28 years later the same answer?",
        number=f"largest difference, {RELATIVE}",
        measure=lambda a: a.apart("28 years later"),
        most=1e-6,
        judge="mass/time-origin-invariance",
    ),
    Probe(
        name="calendar, 40 days",
        asks="Is the same weather 40 days later the same answer?",
        number=f"largest difference, {RELATIVE}",
        measure=lambda a: a.apart("40 days later"),
        most=1e-6,
    ),
    Probe(
        name="snow is water",
        asks="Does as much run off if what falls as snow falls as rain?",
        number="difference of the totals, over the rain",
        measure=lambda a: abs(a.total("no snow") - a.total("usual")) / a.of(RAIN),
        most=0.05,
        of="flux",
        judge="mass/phase-counterfactual",
    ),
    Probe(
        name="snow stays",
        asks="Does a storm in deep frost bring less in five days than in warmth?",
        number="response in frost, over that in warmth",
        measure=_fastness,
        most=0.5,
    ),
    Probe(
        name="warming, earlier melt",
        asks="Is half of the flow earlier in the year with 3 K more, where snow falls?",
        number="days later",
        measure=lambda a: _middle(a["3 K warmer"]) - _middle(a["usual"]),
        most=-1.0,
        of="flux",
        where=lambda a: a.snowy,
    ),
    Probe(
        name="warming, less flow",
        asks="Does flow fall with 3 K more and the demand that goes with it, by no more than that?",
        number="change of flow, per mm more demand",
        measure=_demand("3 K warmer, no snow"),
        least=-1.1,
        most=-1e-3,
        of="flux",
        needs=(DEMAND,),
        judge="mass/warming-response",
    ),
    Probe(
        name="cooling, more flow",
        asks="Does flow rise with 3 K less, and less demand, by no more than that?",
        number="change of flow, per mm more demand",
        measure=_demand("3 K cooler, no snow"),
        least=-1.1,
        most=-1e-3,
        of="flux",
        needs=(DEMAND,),
        judge="mass/warming-response",
    ),
    Probe(
        name="more demand, less water",
        asks="Does a third more potential evapotranspiration lower the mean?",
        number=f"change, {RELATIVE}",
        measure=lambda a: a.total("more demand") / a.total("usual") - 1,
        most=-1e-3,
        needs=(DEMAND,),
    ),
    Probe(
        name="water limit",
        asks="Does more run off than falls, over five years?",
        number="runoff less 500 mm that may have been stored, over rain",
        measure=lambda a: (a.total("usual") - STORAGE) / a.of(RAIN),
        most=1.02,
        of="flux",
        judge="mass/runoff-bounds",
    ),
    Probe(
        name="energy limit",
        asks="Is what does not run off more than can evaporate, over five years?",
        number="rain less runoff less 500 mm that may be stored, over demand",
        measure=lambda a: (a.of(RAIN) - a.total("usual") - STORAGE) / a.of(DEMAND),
        most=1.02,
        of="flux",
        needs=(DEMAND,),
        judge="mass/runoff-bounds",
    ),
    Probe(
        name="area",
        asks="Is the answer the same of a catchment that is said to be ten times larger?",
        number=f"largest difference, {RELATIVE}",
        measure=lambda a: a.apart("larger"),
        most=1e-6,
        needs=(AREA,),
        judge="mass/area-invariance",
    ),
    Probe(
        name="units",
        asks="Is the answer the same with rain in kg m-2 s-1 and temperature in K?",
        number=f"largest difference, {RELATIVE}",
        measure=lambda a: a.apart("other units"),
        most=1e-3,
        needs=("model",),
    ),
    Probe(
        name="neighbours",
        asks="Is the answer the same without the other sites, in another order?",
        number=f"largest difference, {RELATIVE}",
        measure=lambda a: a.apart("turned"),
        most=1e-5,
    ),
    Probe(
        name="possible",
        asks="Are all answers numbers that are possible, also of weather that no record has?",
        number="share of the answers that are not",
        measure=_impossible,
        most=0.0,
    ),
    Probe(
        name="closure",
        asks="Is precipitation what flows off, evaporates and is stored?",
        number="largest sum of what is missing, over the rain",
        measure=_residual,
        most=1e-3,
        of="flux",
        needs=("stores",),
        judge="mass/catchment-closure",
    ),
    Probe(
        name="evaporation, no more than demand",
        asks="Does more evaporate than potential evapotranspiration?",
        number="evapotranspiration, over demand",
        measure=lambda a: a.water["evapotranspiration"][:, SETTLED:].sum(axis=1) / a.of(DEMAND),
        most=1.0,
        of="flux",
        needs=("stores", DEMAND),
        judge="mass/catchment-closure",
    ),
)  # fmt: skip
"""All probes, in the order in which they are shown."""
