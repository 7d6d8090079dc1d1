"""Weather that is changed to see whether a model behaves like water."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from xstefa.binding import Binding
from xstefa.errors import CalendarError, LayoutError
from xstefa.windows import YEAR

SITE, TIME = "site", "time"
RAIN, DEMAND, AREA = "precipitation", "potential_evapotranspiration", "catchment_area"
WARMTH = ("temperature_mean", "temperature_max", "temperature_min")

DAYS = 7 * YEAR
SETTLED = 2 * YEAR
"""Days after which a record counts."""
FIFTH = slice(4 * YEAR, 5 * YEAR)
"""The year in which something happens."""
STORM, STEP = 120.0, 50.0
"""Rain that is added on it, mm; and the lowest step of a ladder of storms."""
LADDER = (1, 2, 5, 10)
FROST, THAW, MILD = -10.0, 3.0, 6.0
"""Temperatures, degC, at which what falls is snow, is rain, and is rain also 3 K below."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weather:
    """Seven years of weather at a few sites, by token, in canonical units.

    Attributes
    ----------
    data : Dataset
        Dimensions ``site`` and ``time``; variables called like tokens.
    event : int
        The day on which something happens: in the fifth year, in the warm season.
    """

    data: xr.Dataset
    event: int

    @classmethod
    def of(cls, binding: Binding, *, sites: int) -> tuple[Weather, list[int]]:
        """Choose sites of a dataset, and read them; return where they are, too.

        The snowiest, and others from the wettest to the driest. A record of less than seven years
        is repeated; missing days of a forcing that is there are filled linearly.

        Raises
        ------
        CalendarError
            If there is less than a year.
        """
        layout, schema = binding.layout, binding.schema
        days = layout.days.size
        if days < YEAR:
            raise CalendarError(
                "probes begin with a year of weather",
                variable=layout.time,
                found=f"{days} days",
                expected="at least 365",
                fix='xstefa.open_sample("camels_us").stefa.probe(model)',
            )
        steps = np.arange(DAYS) % (days if days >= DAYS else days // YEAR * YEAR)
        names = [name for name in binding.sources if name in schema.forcing_names]
        names += [name for name in binding.sources if name in schema.static_names]
        flat = _flat(binding, names)
        places = _chosen(flat, sites)
        flat = flat.isel({SITE: places, TIME: steps})
        begin = pd.Timestamp(f"1990-{_month_and_day(binding)}")
        flat = flat.assign_coords({TIME: pd.date_range(begin, periods=DAYS)})
        moving = {name: _filled(flat[name]) for name in names if name in schema.forcing_names}
        whole = cls(data=flat.assign(moving), event=0)
        # The warmest month of the coldest site: what falls is rain.
        month = whole.temperature.isel({TIME: FIFTH}).rolling({TIME: 31}, center=True).mean()
        event = FIFTH.start + int(month.min(SITE).fillna(-np.inf).argmax(TIME))
        return replace(whole, event=event), places

    def __contains__(self, token: str) -> bool:
        return token in self.data and bool(self.data[token].notnull().any())

    def where(self, **tokens: xr.DataArray) -> Weather:
        """Return the weather with other values of some tokens."""
        changed = {
            name: values.transpose(*self.data[name].dims)
            .astype("f4")
            .assign_attrs(self.data[name].attrs)
            for name, values in tokens.items()
        }
        return replace(self, data=self.data.assign(changed))

    @property
    def rain(self) -> xr.DataArray:
        """Precipitation, mm d-1."""
        return self.data[RAIN]

    @property
    def day(self) -> xr.DataArray:
        """Days since the first one."""
        return xr.DataArray(np.arange(self.data.sizes[TIME]), dims=TIME)

    @property
    def temperature(self) -> xr.DataArray:
        """Mean temperature of each day, degC."""
        there = [self.data[name] for name in WARMTH if name in self.data]
        return there[0] if WARMTH[0] in self.data else sum(there) / len(there)  # type: ignore[return-value]

    def storm(self, amount: float) -> Weather:
        """Add rain on one day."""
        return self.where(**{RAIN: self.rain + amount * (self.day == self.event)})

    def rains(self, factor: float) -> Weather:
        """Multiply all rain."""
        return self.where(**{RAIN: self.rain * factor})

    def warmed(self, by: float | xr.DataArray) -> Weather:
        """Change temperatures, and nothing that follows from them."""
        names = [name for name in WARMTH if name in self.data]
        return self.where(**{name: self.data[name] + by for name in names})

    def demanding(self, factor: float | xr.DataArray) -> Weather:
        """Multiply potential evapotranspiration."""
        if DEMAND not in self:
            return self
        return self.where(**{DEMAND: self.data[DEMAND] * factor})

    def thawed(self, least: float = THAW) -> Weather:
        """Lift all colder days, so that all that falls is rain."""
        return self.warmed((least - self.temperature).clip(min=0))

    def spell(self, *, frost: bool) -> Weather:
        """Let the event be in frost, or in warmth: from five days before it to ten after."""
        lacking = (FROST if frost else MILD) - self.temperature
        limited = lacking.clip(max=0) if frost else lacking.clip(min=0)
        return self.warmed(limited.where(abs(self.day - self.event - 2.5) <= 7.5, 0))

    def climate(self, by: float) -> Weather:
        """Warm a climate without snow, with the demand that goes with it (Hargreaves)."""
        thawed = self.thawed(MILD)
        felt = thawed.temperature + 17.8
        return thawed.warmed(by).demanding((felt + by) / felt)

    def rainless(self) -> Weather:
        """Let no rain fall from the event on, in a climate without snow."""
        thawed = self.thawed()
        return thawed.where(**{RAIN: thawed.rain.where(self.day < self.event, 0)})

    def steady(self) -> Weather:
        """Let every day after the first year be the same."""
        moving = [name for name, values in self.data.items() if TIME in values.dims]
        first = self.day < YEAR
        return self.where(
            **{str(n): self.data[n].where(first, self.data[n].mean(TIME)) for n in moving}
        )

    def cycle(self) -> Weather:
        """Repeat the first year."""
        again = self.data.isel({TIME: np.arange(self.data.sizes[TIME]) % YEAR})
        return replace(self, data=again.assign_coords({TIME: self.data[TIME]}))

    def after_month(self, amount: float) -> Weather:
        """Let 60 mm fall on the event, after a month of so much rain, and ten dry days."""
        before = self.day - self.event
        rain = self.rain.where((before < -40) | (before > 0), 0)
        rain = rain + amount / 30 * ((before >= -40) & (before < -10)) + 60 * (before == 0)
        return self.thawed().where(**{RAIN: rain})

    def larger(self, factor: float) -> Weather:
        """Say that catchments are larger."""
        return self.where(**{AREA: self.data[AREA] * factor}) if AREA in self else self

    def beyond(self) -> Weather:
        """Return days that no record has: of frost, heat, half a metre of rain, and none."""
        part = self.day % 1000
        hard = self.warmed(xr.where(part < 100, -40.0, xr.where(part < 200, 25.0, 0.0)))
        return hard.where(**{RAIN: self.rain.where(part > 300, 0) + 500 * (part == 500)})


CHANGES: Mapping[str, Callable[[Weather], Weather]] = {
    "usual": lambda w: w,
    "storm": lambda w: w.storm(STORM),
    **{f"storm x{n}": lambda w, n=n: w.storm(STEP * n) for n in LADDER},  # type: ignore[misc]
    "drier": lambda w: w.rains(0.8),
    "wetter": lambda w: w.rains(1.1),
    "much wetter": lambda w: w.rains(1.2),
    "no more rain": Weather.rainless,
    "steady": Weather.steady,
    "one year": Weather.cycle,
    "dry month": lambda w: w.after_month(0),
    "wet month": lambda w: w.after_month(120),
    "no snow": Weather.thawed,
    "mild": lambda w: w.climate(0),
    "3 K warmer, no snow": lambda w: w.climate(3),
    "3 K cooler, no snow": lambda w: w.climate(-3),
    "frost": lambda w: w.spell(frost=True),
    "storm in frost": lambda w: w.storm(STEP).spell(frost=True),
    "warm spell": lambda w: w.spell(frost=False),
    "storm in warm spell": lambda w: w.storm(STEP).spell(frost=False),
    "3 K warmer": lambda w: w.warmed(3),
    "more demand": lambda w: w.demanding(1.33),
    "larger": lambda w: w.larger(10),
    "extremes": Weather.beyond,
}
"""What is made of the weather, by name."""


def _flat(binding: Binding, names: list[str]) -> xr.Dataset:
    """Return tokens with one dimension of sites."""
    layout, schema = binding.layout, binding.schema
    found = {}
    for name in names:
        array = binding.token(name).reset_coords(drop=True).drop_vars(layout.dims, errors="ignore")
        dims = {d: binding.dataset.sizes[d] for d in layout.site_dims if d not in array.dims}
        array = array.expand_dims(dims or ([] if layout.site_dims else [SITE]))
        array = array.stack(_places=layout.site_dims or [SITE], create_index=False)
        names_of = {"_places": SITE, layout.time: TIME}
        found[name] = array.rename({dim: names_of[dim] for dim in map(str, array.dims)})
        attrs = {"units": schema[name].units, "long_name": schema[name].long_name}
        standard = schema[name].standard_names
        if standard and name in schema.forcing_names:
            attrs["cell_methods"] = "time: mean"
        found[name].attrs = attrs
    flat = xr.Dataset(found)
    return flat.assign_coords({SITE: np.arange(flat.sizes[SITE])})


def _chosen(flat: xr.Dataset, count: int) -> list[int]:
    """Return places of sites: the snowiest, and from the wettest to the driest.

    Raises
    ------
    LayoutError
        If it rains nowhere.
    """
    means = flat[[n for n in (RAIN, DEMAND) if n in flat]].mean(TIME).compute()
    known = (means[RAIN] > 0).values
    if not known.any():
        raise LayoutError(
            "there is no site where it rains, and probes change rain",
            variable=RAIN,
            found=f"{known.size} sites, of none a day with rain",
            expected="at least one site",
            fix="check the selection that made the dataset, and the values of the rain",
        )
    dryness = (means[DEMAND] / means[RAIN] if DEMAND in means else -means[RAIN]).values
    cold = [flat[name] for name in WARMTH if name in flat][:1]
    snow = (flat[RAIN].where(cold[0] < 0, 0).mean(TIME) / flat[RAIN].mean(TIME)).values
    order = np.argsort(np.where(known, dryness, np.inf))[: known.sum()]
    spread = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    snowiest = int(np.nanargmax(np.where(known, snow, -1)))
    return list(dict.fromkeys([int(spread[0]), snowiest, *map(int, spread[:0:-1])]))[:count]


def _filled(array: xr.DataArray) -> xr.DataArray:
    """Fill days that are missing of a series that is there."""
    array = array.transpose(SITE, TIME).compute()
    values, day = array.values.copy(), np.arange(array.sizes[TIME])
    for row in values:
        known = np.isfinite(row)
        if known.any():
            row[~known] = np.interp(day[~known], day[known], row[known])
    return array.copy(data=values)


def _month_and_day(binding: Binding) -> str:
    first = binding.layout.days[0]
    return pd.Timestamp(int(first), unit="D").strftime("%m-%d").replace("02-29", "03-01")
