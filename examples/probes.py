"""Does a model behave like water? Changed weather at three bundled basins, and what has to follow.

    python examples/probes.py [MODEL ...]        # by default all bundled models of one target

Prints a table: for each probe at how many of the basins (one wet, one with snow, one dry) the
answer changes as it has to. Nothing is compared with observations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import click
import numpy as np
import pandas as pd
import xarray as xr

import xstefa

YEARS = 6
DAY = 4 * 365 + 100  # a day in spring, four years after the beginning
Probe = Callable[["Subject"], xr.DataArray]
PROBES: dict[str, Probe] = {}


def probe(text: str) -> Callable[[Probe], Probe]:
    """Register a probe, which returns a truth for each basin."""

    def register(function: Probe) -> Probe:
        PROBES[text] = function
        return function

    return register


class Subject:
    """A model and the weather of three basins.

    Parameters
    ----------
    model : xstefa.Model
    """

    def __init__(self, model: xstefa.Model) -> None:
        self.model = model
        basins = xstefa.open_sample("camels_us").isel(time=slice(YEARS * 365)).load()
        aridity, snow = basins["aridity"].values, basins["frac_snow"].values
        chosen = [int(np.argmin(aridity)), int(np.argmax(snow)), int(np.argmax(aridity))]
        self.weather = basins.isel(basin=chosen)
        self.usual = self(self.weather)

    def __call__(self, weather: xr.Dataset) -> xr.DataArray:
        """Predict."""
        target = self.model.spec.target
        assert target is not None
        return weather.stefa.predict(target, model=self.model).transpose("basin", "time")

    def with_rain(self, rain: xr.DataArray) -> xr.DataArray:
        """Predict with another precipitation."""
        return self(self.weather.assign(prcp=rain.astype("f4").assign_attrs(self.rain.attrs)))

    @property
    def rain(self) -> xr.DataArray:
        """Return the precipitation."""
        return self.weather["prcp"]

    def storm(self, amount: float) -> xr.DataArray:
        """Return the precipitation with some more on `DAY`."""
        return self.rain + amount * (np.arange(self.rain.sizes["time"]) == DAY)

    def warmer(self, change: float) -> xr.Dataset:
        """Return the weather at other temperatures."""
        names = [name for name in ("tmax", "tmin", "tmean") if name in self.weather]
        return self.weather.assign(
            {n: (self.weather[n] + change).assign_attrs(self.weather[n].attrs) for n in names}
        )


def days(values: xr.DataArray, first: int, last: int) -> xr.DataArray:
    """Select days counted from `DAY`."""
    return values.isel(time=slice(DAY + first, DAY + last))


@probe("no anticipation: rain changes no day before it")
def _anticipation(s: Subject) -> xr.DataArray:
    return (days(s.with_rain(s.storm(80)) == s.usual, -300, 0)).all("time")


@probe("nowcast: a record that ends there has the same last day")
def _nowcast(s: Subject) -> xr.DataArray:
    last = s(s.weather.isel(time=slice(DAY + 1))).isel(time=-1)
    return abs(last - s.usual.isel(time=DAY)) <= 1e-5 * s.usual.mean("time")


@probe("response: 50 mm raise the ten days after")
def _response(s: Subject) -> xr.DataArray:
    return (days(s.with_rain(s.storm(50)) - s.usual, 0, 10)).mean("time") > 0


@probe("response: a storm lowers no later day by more than 1 %")
def _nothing_lower(s: Subject) -> xr.DataArray:
    change = days(s.with_rain(s.storm(50)) - s.usual, 0, 300)
    return change.min("time") > -0.01 * s.usual.mean("time")


@probe("extremes: three times the storm, a higher peak")
def _extremes(s: Subject) -> xr.DataArray:
    once, thrice = (days(s.with_rain(s.storm(a)), 0, 10).max("time") for a in (50, 150))
    return thrice > once


@probe("volume: a tenth more rain raises the mean")
def _volume(s: Subject) -> xr.DataArray:
    return s.with_rain(s.rain * 1.1).mean("time") > s.usual.mean("time")


@probe("dry-down: in a year without rain no four weeks are wetter than those before")
def _dry_down(s: Subject) -> xr.DataArray:
    after = np.arange(s.rain.sizes["time"]) >= DAY + 60
    dry = days(s.with_rain(s.rain.where(~after, 0)), 90, 90 + 12 * 28)
    months = dry.coarsen(time=28).mean()
    return (months.diff("time") <= 0.01 * s.usual.mean("time")).all("time")


@probe("steady state: in a steady climate the last year varies by less than 1 %")
def _steady(s: Subject) -> xr.DataArray:
    moving = [name for name, v in s.weather.data_vars.items() if "time" in v.dims]
    steady = {n: (s.weather[n].mean("time") + 0 * s.weather[n]).astype("f4") for n in moving}
    steady = {n: v.assign_attrs(s.weather[n].attrs) for n, v in steady.items()}
    last = s(s.weather.assign(steady)).isel(time=slice(-365, None))
    return (last.max("time") - last.min("time")) < 0.01 * last.mean("time")


@probe("spin-up: a year over and over is the same from its fourth time on, to 1 %")
def _cycles(s: Subject) -> xr.DataArray:
    year = s.weather.isel(time=slice(365))
    again = xr.concat([year] * YEARS, "time", data_vars="minimal")
    again = again.assign_coords(time=s.weather.time)
    found = s(again).isel(time=slice(4 * 365, None)).values.reshape(3, YEARS - 4, 365)
    return xr.DataArray(
        abs(np.diff(found, axis=1)).max((1, 2)) < 0.01 * s.usual.mean("time").values, dims="basin"
    )


@probe("memory: after a year of half the rain the next spring is drier")
def _memory(s: Subject) -> xr.DataArray:
    step = np.arange(s.rain.sizes["time"])
    halved = s.rain * xr.where((step >= DAY - 365) & (step < DAY), 0.5, 1.0).astype("f4")
    return days(s.with_rain(halved) - s.usual, 0, 30).mean("time") < 0


@probe("time origin: the same weather forty days later is the same answer")
def _origin(s: Subject) -> xr.DataArray:
    later = s.weather.assign_coords(time=s.weather.time + pd.Timedelta(days=40))
    change = abs(s(later).drop_vars("time") - s.usual.drop_vars("time"))
    return change.max("time") <= 0.01 * s.usual.mean("time")


@probe("phase: in frost a storm brings less in five days than in warmth")
def _phase(s: Subject) -> xr.DataArray:
    change = []
    for warming in (-25, 8):
        weather = s.warmer(warming)
        storm = weather.assign(prcp=s.storm(50).astype("f4").assign_attrs(s.rain.attrs))
        change.append(days(s(storm) - s(weather), 0, 5).sum("time"))
    return change[0] < 0.5 * change[1]


@probe("warming: 3 K bring half of the year's flow no later, and of the snowy basin's earlier")
def _warming(s: Subject) -> xr.DataArray:
    def half(values: xr.DataArray) -> xr.DataArray:
        year = values.isel(time=slice(4 * 365, 5 * 365)).cumsum("time")
        return (year < year.isel(time=-1) / 2).sum("time")

    change = half(s(s.warmer(3))) - half(s.usual)
    return change <= xr.DataArray([5, -1, 5], dims="basin")


@probe("evaporation: a third more of it lowers the mean")
def _evaporation(s: Subject) -> xr.DataArray:
    more = (s.weather["pet"] * 1.33).assign_attrs(s.weather["pet"].attrs)
    return s(s.weather.assign(pet=more)).mean("time") < s.usual.mean("time")


@click.command()
@click.argument("models", nargs=-1)
def main(models: tuple[str, ...]) -> None:
    """Print which probes MODELS pass."""
    warnings.simplefilter("ignore", xstefa.errors.XstefaWarning)
    names = models or [n for n in xstefa.list_models() if xstefa.load_model(n).target]
    subjects = {name: Subject(xstefa.load_model(name)) for name in names}
    passed = {
        text: {name: int(test(subject).sum()) for name, subject in subjects.items()}
        for text, test in PROBES.items()
    }
    table = pd.DataFrame(passed).T
    table.loc[f"of {3 * len(PROBES)}"] = table.sum()
    print("| probe | " + " | ".join(table.columns) + " |\n|---" + "|---" * len(table.columns) + "|")
    for text, row in table.iterrows():
        print(f"| {text} | " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
