"""From hours to days, each variable by the rule of its kind.

States and rates are averaged, temperature gives its extremes too, amounts are summed: sums of steps
as they are, running totals from restart to restart (`xstefa.prepare.accumulation`). The value
stamped 00:00 belongs, as the end of an interval, to the day before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Self, TypeAlias

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.binding.explain import check_rename
from xstefa.binding.facts import Facts, check_methods, describe
from xstefa.binding.forecasts import Forecast
from xstefa.binding.geometry import with_fixed_places
from xstefa.binding.packing import decoded
from xstefa.binding.plain import in_memory, noted
from xstefa.binding.rules import Match, Rules, match_target
from xstefa.binding.time_axis import (
    along_valid_time,
    check_days,
    check_steps,
    find_time,
    lead_dimension,
    second_numbers,
    typical_minutes,
)
from xstefa.binding.units import check_sum, is_amount
from xstefa.errors import CalendarError, MissingTokenError
from xstefa.prepare.accumulation import Restarts, name_of, restarts_of, some_days, stated
from xstefa.schema import Schema, Target, Variable, load_schema

Method: TypeAlias = Literal["mean", "sum", "maximum", "minimum"]

_DAY = 86400  # s
_STEP = "step of the day"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """How one variable becomes daily.

    `interval` tells values over the time before their stamp from values at their stamp; `said_sum`
    that the metadata call them sums; `restarts` are those of an amount.
    """

    variable: str
    result: str
    method: Method
    interval: bool = False
    said_sum: bool = False
    restarts: Restarts | None = None
    standard_name: str | None = None


@checked
def daily(
    ds: xr.Dataset,
    schema: Schema | str | Path | None = None,
    *,
    accumulation: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Make a sub-daily dataset daily, each variable by the rule of its kind.

    States and rates are averaged, temperature also gives its daily extremes, amounts are
    summed. The value of an amount at 00:00 belongs to the day before. A day of which steps are
    missing has no value. Days are those of the time axis (mostly UTC).

    Parameters
    ----------
    accumulation : str, optional
        Over which time amounts collect: ``"step"``, since the step before (ERA5, NLDAS-2);
        ``"day"``, since 00 UTC (ERA5-Land); ``"6h"``, since the last of 00, 06, 12 and 18 UTC
        (GFS), likewise for other hours; ``"24h from 18:00"``, since 18:00; ``"start"``, since
        the first day. By default each variable by what the values of 4 to 64 days prove, else
        by what the metadata say: a running total falls at its restarts alone. If neither tells,
        `UnitsError`.
    rename : mapping of str to str, optional
        Dataset variable to token. Variables keep their names: give it to `predict` too.
    schema : Schema or str, optional
        By default that of the bundled models.

    Returns
    -------
    Dataset
        Lazy where the dataset is. Series that are no token, ingredient or target are left out,
        and named in the history. A daily dataset comes back as it is. Initial dates and lead
        times whose days do not overlap become one axis; else each initial date is made daily.

    Raises
    ------
    UnitsError, CalendarError, LayoutError, MissingTokenError
        If amounts are ambiguous; a day is not a whole number of steps, or products of different
        steps were merged; or nothing is known.
    """
    ds, schema = decoded(ds), load_schema(schema or "stefaland")
    renamed = check_rename(ds, schema, rename)
    forecast = Forecast.of(ds)
    if forecast is not None and (not forecast.several or forecast.overlaps):
        return forecast.each(
            partial(daily, schema=schema, accumulation=accumulation, rename=rename)
        )
    time = find_time(ds)
    check_steps(ds[time])
    if (lead := lead_dimension(ds, ds.dims)) is not None:
        ds, time = along_valid_time(ds, time=time, lead=lead)
    step = _step(ds[time])
    if step >= _DAY:
        check_days(ds[time])
        return ds
    ds = with_fixed_places(ds, time)
    rules, left_out = _rules(ds, schema, renamed, time=time, step=step)
    if not rules:
        raise MissingTokenError(
            "there is nothing to make daily: no series is a token or target",
            variable=time,
            found=f"series {', '.join(left_out) or 'none'}",
            expected="variables that xstefa knows by standard name or name",
            fix="print(ds.stefa) shows what is understood of each variable; "
            "ds.stefa.daily(rename={'<your variable>': 'precipitation'})",
        )
    days = _Days.of(ds, time, step)
    names = dict.fromkeys(rule.variable for rule in rules)
    if accumulation is None or in_memory(ds, names):
        _check_merged(ds, names, days, accumulation=accumulation, renamed=renamed)
    amounts = {rule.variable: rule.said_sum for rule in rules if rule.method == "sum"}
    if accumulation is not None:
        restarts = dict.fromkeys(amounts, stated(accumulation, step=step))
    else:
        sums = [name for name, said in amounts.items() if said]
        restarts = restarts_of(ds, [*amounts], time=time, ends=days.ends, step=step, sums=sums)
    rules = [replace(rule, restarts=restarts.get(rule.variable)) for rule in rules]
    made = {rule.result: _reduce(ds, rule, days) for rule in rules}
    untouched = {str(name): array for name, array in ds.data_vars.items() if time not in array.dims}
    result = xr.Dataset(made | untouched, attrs=ds.attrs)
    result[time].attrs = {k: v for k, v in ds[time].attrs.items() if k not in ("bounds", "units")}
    line = f"xstefa: daily values from steps of {step / 3600:g} h"
    line += "".join(
        f"; {name}: accumulation={name_of(each, step=step)!r}" for name, each in restarts.items()
    )
    line += f"; left out: {', '.join(left_out)}" if left_out else ""
    result.attrs["history"] = noted(ds, line)
    return result


def _step(time: xr.DataArray) -> int:
    """Seconds between steps; CalendarError if a day is not a whole number of them."""
    seconds, _ = second_numbers(time)
    gaps = np.diff(seconds)
    step = int(gaps.min()) if gaps.size else _DAY
    if step >= _DAY:
        return step
    if _DAY % step or (gaps % step).any():
        minutes = typical_minutes(seconds)
        # Where most stamps stand between the steps: 90 of 180 minutes for the middles of 3 h.
        offset = int(np.median(np.rint(seconds / 900) * 15 % minutes))
        raise CalendarError(
            "a day is not a whole number of equal steps",
            variable=str(time.name),
            found=f"steps of {np.unique(gaps)[:4].tolist()} s",
            expected="steps of 1, 3, 6, ... hours (missing ones are fine)",
            fix=f"shift = pd.Timedelta({offset}, 'min'); ds = ds.assign_coords({{{time.name!r}: "
            f"(ds.indexes[{time.name!r}] - shift).round('{minutes}min') + shift}})   # each stamp "
            "to the step next to it",
        )
    return step


def _check_merged(
    ds: xr.Dataset,
    names: Iterable[str],
    days: _Days,
    *,
    accumulation: str | None,
    renamed: Mapping[str, str],
) -> None:
    """Refuse products of different steps on one axis: of some, each day would be incomplete.

    A few days are read.
    """
    parts: dict[tuple[int, ...], list[str]] = {}
    complete = True
    for name in names:
        places, values = some_days(ds[name], time=days.time, steps=_DAY // days.step, days=4)
        known = pd.notna(values).any(axis=1)
        hours, slot = np.unique(days.stamps[places] % _DAY, return_inverse=True)
        share = np.bincount(slot, known) / np.bincount(slot)
        often = hours[share > 0.5]
        regular = np.unique(np.diff(often, append=often[:1] + _DAY)).size == 1
        if regular and often.size < hours.size and (share[share <= 0.5] == 0).all():
            hours, complete = often, False
        parts.setdefault(tuple(hours.tolist()), []).append(name)
    if complete:
        return
    time = days.time
    words = [f"accumulation={accumulation!r}"] if accumulation is not None else []
    words += [f"rename={{k: v for k, v in {renamed}.items() if k in names}}"] if renamed else []
    raise CalendarError(
        "products of different steps, or with different stamps, were merged on one time axis",
        variable=time,
        found="; ".join(f"{', '.join(part)} at {_clock(hours)}" for hours, part in parts.items()),
        expected="values at every step: each product made daily before the merge",
        fix=(
            f"ds = xr.merge([ds.drop_dims({time!r})] + [ds[names].dropna({time!r}, how='all')"
            f".stefa.daily({', '.join(words)}).assign_coords({{{time!r}: lambda day: "
            f"day[{time!r}].dt.floor('1D')}}) for names in {list(parts.values())}], join='outer')"
        ),
    )


def _clock(seconds: tuple[int, ...]) -> str:
    words = [f"{each // 3600:02}:{each // 60 % 60:02}" for each in seconds]
    return " ".join(words if len(words) < 5 else [*words[:3], "...", words[-1]])


# ---- which rule


def _rules(
    ds: xr.Dataset, schema: Schema, renamed: Mapping[str, str], *, time: str, step: int
) -> tuple[list[_Rule], list[str]]:
    """Return the rules, and the names of the series that no rule covers."""
    described = describe(ds, time=time)
    # For matching, an hourly value says nothing yet about the day.
    facts = [
        replace(fact, method=None) if fact.method in ("point", "mean", "sum") else fact
        for fact in described.values()
        if fact.has_time and fact.name in ds.data_vars
    ]
    understood = Rules(schema=schema, names=described.keys(), renamed=renamed)
    rules: dict[str, _Rule] = {}
    known: set[str] = set()
    everything: tuple[Variable | Target, ...] = (
        *schema.forcings, *schema.ingredients, *schema.targets
    )  # fmt: skip
    for wanted in everything:
        matches = (
            match_target([fact for fact in facts if fact.name not in renamed], wanted)
            if isinstance(wanted, Target)
            else understood.candidates(facts, wanted)
        )
        for match in matches:
            name = match.variable.name
            known.add(wanted.name)
            if name not in rules:
                grib = _OF_GRIB.get(str(ds[name].attrs.get("GRIB_stepType")))
                rules[name] = _rule(match, wanted, described[name], grib=grib, step=step)
    made = list(rules.values())
    for rule in list(made):
        if rule.standard_name == "air_temperature" and rule.method == "mean":
            made += [
                replace(rule, result=f"{rule.variable}_{short}", method=method)
                for token, short, method in _EXTREMES
                if token not in known
            ]
    left_out = [str(n) for n, a in ds.data_vars.items() if time in a.dims and n not in rules]
    return made, left_out


_EXTREMES: tuple[tuple[str, str, Method], ...] = (
    ("temperature_max", "max", "maximum"),
    ("temperature_min", "min", "minimum"),
)


# Cell methods by what a GRIB file says of the interval that a field stands for.
_OF_GRIB = {"instant": "point", "avg": "mean", "accum": "sum", "max": "maximum", "min": "minimum"}


def _rule(
    match: Match, wanted: Variable | Target, fact: Facts, *, grib: str | None, step: int
) -> _Rule:
    """Return the rule of a variable; UnitsError if what it says of itself contradicts it."""
    units, said_sum = match.stated_units, fact.method == "sum"
    extremes = {n.cell_method for n in wanted.standard_names} & {"maximum", "minimum"}
    method: Method = "mean"
    if extremes:
        method = "maximum" if "maximum" in extremes else "minimum"
    elif units is not None and is_amount(units, wanted.units):
        method = "sum"
    if said_sum and method != "sum" and fact.units is not None:
        check_sum(fact.units, variable=fact.name, interval=step)
    check_methods(fact)
    return _Rule(
        variable=fact.name,
        result=fact.name,
        method=method,
        interval=method != "mean" or (fact.method or grib or match.method) in ("mean", "sum"),
        said_sum=said_sum,
        standard_name=wanted.standard_names[0].name if wanted.standard_names else None,
    )


# ---- the arithmetic


@dataclass(frozen=True, kw_only=True, eq=False)
class _Days:
    """The steps of a dataset as slots of days.

    Parameters
    ----------
    time : str
    stamps, begins, ends : int64 array
        Seconds since 1970-01-01: the stamps, and the intervals that they stand for.
    step : int
        Seconds.
    """

    time: str
    stamps: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    step: int

    @classmethod
    def of(cls, ds: xr.Dataset, time: str, step: int) -> Self:
        """Read the stamps of `ds`, and its bounds where it has some."""
        stamps, _ = second_numbers(ds[time])
        # A stamp between two borders, as the middle of an hour, lies in its own interval; one on a
        # border ends the interval before it.
        begins, ends = stamps - 1, stamps
        if (bounds := ds[time].attrs.get("bounds")) in ds.variables:
            begins, ends = (second_numbers(ds[bounds][:, i].drop_vars(time))[0] for i in (0, 1))
        return cls(time=time, stamps=stamps, begins=begins, ends=ends, step=step)

    @property
    def first(self) -> int:
        """Day number of the first stamp."""
        return int(self.stamps[0] // _DAY)

    @property
    def count(self) -> int:
        """Number of days; a stamp at 00:00 ends a day and opens none by itself."""
        return max(1, int((self.stamps[-1] - 1) // _DAY) - self.first + 1)

    def coordinate(self, like: xr.DataArray) -> xr.DataArray:
        """Return the days as times of the kind that `like` has."""
        numbers = np.arange(self.first, self.first + self.count)
        if like.dtype.kind == "M":
            values = numbers.astype("datetime64[D]").astype(like.dtype)
        else:
            values = cftime.num2date(
                numbers, "days since 1970-01-01", calendar=str(like.dt.calendar)
            )
        return xr.DataArray(values, dims=self.time, name=self.time)


def _reduce(ds: xr.Dataset, rule: _Rule, days: _Days) -> xr.DataArray:
    array, time = ds[rule.variable], days.time
    slots = _DAY // days.step
    if rule.restarts is not None and len(rule.restarts) < slots:
        result = _running(array, rule.restarts, days)
    else:
        begins = days.begins if rule.interval else days.stamps
        places = (begins - days.first * _DAY) // days.step
        placed = _placed(array, places, days.count * slots, time)
        if placed.chunks is not None:
            longest = max(placed.chunksizes[time])
            placed = placed.chunk({time: max(1, round(longest / slots)) * slots})
        windows = placed.drop_vars(time).coarsen({time: slots}).construct({time: (time, _STEP)})
        function = {"maximum": "max", "minimum": "min"}.get(rule.method, rule.method)
        # An incomplete day has no value: its sum would be too small, its extremes not its extremes.
        result = getattr(windows, function)(_STEP, skipna=False)
    result = result.drop_vars(
        [name for name in result.coords if time in result[name].dims], errors="ignore"
    ).assign_coords({time: days.coordinate(ds[time])})
    return _described(result, array, rule)


def _running(array: xr.DataArray, restarts: Restarts, days: _Days) -> xr.DataArray:
    """Sum a running total over each day: what it had reached before each restart, and at its end.

    Only those values are needed, so that a gap between them does not cost the day.
    """
    slots, time = _DAY // days.step, days.time
    numbers = (days.ends - 1 - days.first * _DAY) // days.step
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)

    def reached(slot: int, *, later: int = 0) -> xr.DataArray:
        picked = np.flatnonzero(numbers % slots == slot)
        places = numbers[picked] // slots + later
        return _placed(array.isel({time: picked}), places, days.count, time)

    last = slots - 1
    first, *others = sorted({(slot - 1) % slots for slot in restarts} | {last})
    total = reached(first)
    if 0 not in restarts:
        total = total - reached(last, later=1)
    for slot in others:
        total = total + reached(slot)
    return total


def _placed(array: xr.DataArray, places: NDArray[np.int64], count: int, time: str) -> xr.DataArray:
    """Put steps at their places among `count`, NaN elsewhere; lazy where `array` is."""
    inside = (places >= 0) & (places < count)
    kept = array.isel({time: np.flatnonzero(inside)}) if not inside.all() else array
    kept = kept.drop_vars([name for name in kept.coords if time in kept[name].dims])
    kept = kept.assign_coords({time: places[inside]})
    if inside.sum() == count:
        return kept
    return kept.reindex({time: np.arange(count)})


def _described(result: xr.DataArray, array: xr.DataArray, rule: _Rule) -> xr.DataArray:
    attrs = {
        name: value
        for name, value in array.attrs.items()
        # GRIB's own description is of the step, not of the day.
        if name != "cell_methods" and not str(name).startswith("GRIB_")
    }
    spatial = str(array.attrs.get("cell_methods", "")).split("time:")[0].strip()
    attrs["cell_methods"] = f"{spatial} time: {rule.method}".strip()
    if rule.result != rule.variable:
        attrs["standard_name"] = rule.standard_name
        attrs["long_name"] = f"daily {rule.method} of {array.attrs.get('long_name', rule.variable)}"
    result = result.rename(rule.result)
    result.attrs = attrs
    result.encoding = {k: v for k, v in array.encoding.items() if k == "grid_mapping"}
    return result
