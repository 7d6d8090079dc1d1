"""From hours to days, each variable by the rule of its kind.

States and rates are averaged, temperature gives its extremes too, amounts are summed. Two things
decide about amounts that units do not say. Over which time does a value collect: the step before it
(ERA5), or all the time since 00 UTC (ERA5-Land)? And to which day belongs the value stamped 00:00:
as the end of an interval, to the day before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.days import check_days, check_steps, find_time, second_numbers
from xstefa.binding.match import Facts, Match, check_methods, describe, match_target, match_variable
from xstefa.binding.plain import values_of
from xstefa.binding.units import check_sum, is_amount
from xstefa.errors import CalendarError, MissingTokenError, OptionError, UnitsError
from xstefa.schema import Schema, Target, Variable

__all__ = ["Accumulation", "daily"]

Accumulation: TypeAlias = Literal["step", "day"]
Method: TypeAlias = Literal["mean", "sum", "maximum", "minimum", "last"]

_DAY = 86400  # s
_STEP = "step of the day"

# What the evidence of the data looks at: so many days, and so many points along each dimension.
_DAYS_LOOKED_AT = 4
_POINTS_LOOKED_AT = 24
# Packing makes running totals fall a little: relative to the largest value of the series.
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """How one variable becomes daily.

    `interval` tells values over the time before their stamp from values at their stamp.
    """

    variable: str
    result: str
    method: Method
    interval: bool = False
    standard_name: str | None = None


def daily(
    ds: xr.Dataset, schema: Schema, *, accumulation: Accumulation | None = None
) -> xr.Dataset:
    """Aggregate a sub-daily dataset to days; see `StefaAccessor.daily`."""
    if not isinstance(accumulation, str | None) or accumulation not in (None, "step", "day"):
        raise OptionError(
            "accumulation says over which time amounts collect",
            variable="accumulation",
            found=repr(accumulation),
            expected="'step', 'day' or None",
            fix="'step' for sums over each step (ERA5), 'day' for sums since 00 UTC (ERA5-Land)",
        )
    time = find_time(ds)
    check_steps(ds[time])
    step = _step(ds[time])
    if step >= _DAY:
        check_days(ds[time])
        return ds
    rules, left_out = _rules(ds, schema, time, step)
    if not rules:
        raise MissingTokenError(
            "there is nothing to make daily: no series is a token or target",
            variable=time,
            found=f"series {', '.join(left_out) or 'none'}",
            expected="variables that xstefa knows by standard name or name",
            fix="print(ds.stefa) shows what is understood of each variable; rename with ds.rename",
        )
    amounts = [rule.variable for rule in rules if rule.method == "sum"]
    if amounts:
        accumulation = accumulation or _accumulation(ds, amounts, time, step)
        if accumulation == "day":
            rules = [replace(r, method="last") if r.method == "sum" else r for r in rules]
    days = _Days(time=time, stamps=second_numbers(ds[time])[0], step=step)
    made = {rule.result: _reduce(ds, rule, days) for rule in rules}
    untouched = {str(name): array for name, array in ds.data_vars.items() if time not in array.dims}
    result = xr.Dataset(made | untouched, attrs=ds.attrs)
    result[time].attrs = {k: v for k, v in ds[time].attrs.items() if k not in ("bounds", "units")}
    line = f"xstefa: daily values from steps of {step / 3600:g} h"
    line += f"; amounts of each {accumulation}" if amounts else ""
    line += f"; left out: {', '.join(left_out)}" if left_out else ""
    previous = ds.attrs.get("history")
    result.attrs["history"] = f"{line}\n{previous}" if previous else line
    return result


def _step(time: xr.DataArray) -> int:
    """Seconds between steps; CalendarError if a day is not a whole number of them."""
    seconds, _ = second_numbers(time)
    gaps = np.diff(seconds)
    step = int(gaps.min()) if gaps.size else _DAY
    if step >= _DAY:
        return step
    if _DAY % step or (gaps % step).any():
        raise CalendarError(
            "a day is not a whole number of equal steps",
            variable=str(time.name),
            found=f"steps of {np.unique(gaps)[:4].tolist()} s",
            expected="steps of 1, 3, 6, ... hours (missing ones are fine)",
            fix=f"ds = ds.resample({time.name}='1h').nearest(tolerance='30min')",
        )
    return step


# ---- which rule


def _rules(ds: xr.Dataset, schema: Schema, time: str, step: int) -> tuple[list[_Rule], list[str]]:
    """Return the rules, and the names of the series that no rule covers."""
    described = describe(ds, time=time)
    # For matching, an hourly value says nothing yet about the day.
    facts = [
        replace(fact, method=None) if fact.method in ("point", "mean", "sum") else fact
        for fact in described.values()
        if fact.has_time and fact.name in ds.data_vars
    ]
    methods = {
        name: fact.method or _OF_GRIB.get(str(ds[name].attrs.get("GRIB_stepType")))
        for name, fact in described.items()
    }
    rules: dict[str, _Rule] = {}
    known: set[str] = set()
    everything: tuple[Variable | Target, ...] = (
        *schema.forcings, *schema.ingredients, *schema.targets
    )  # fmt: skip
    for wanted in everything:
        for match in _matches(facts, wanted, schema):
            name = match.variable.name
            known.add(wanted.name)
            if name not in rules:
                rules[name] = rule = _rule(match, wanted, methods[name])
                units = match.variable.units
                if described[name].method == "sum" != rule.method and units is not None:
                    check_sum(units, variable=name, interval=step)
                check_methods(described[name])
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


def _matches(facts: Iterable[Facts], wanted: Variable | Target, schema: Schema) -> list[Match]:
    if isinstance(wanted, Target):
        return match_target(facts, wanted)
    return match_variable(facts, wanted, schema)


def _rule(match: Match, wanted: Variable | Target, stated: str | None) -> _Rule:
    name = match.variable.name
    units = match.variable.units or match.units
    extremes = {n.cell_method for n in wanted.standard_names} & {"maximum", "minimum"}
    method: Method = "mean"
    if extremes:
        method = "maximum" if "maximum" in extremes else "minimum"
    elif units is not None and is_amount(units, wanted.units):
        method = "sum"
    return _Rule(
        variable=name,
        result=name,
        method=method,
        interval=method != "mean" or (stated or match.method) in ("mean", "sum"),
        standard_name=wanted.standard_names[0].name if wanted.standard_names else None,
    )


# ---- over which time amounts collect


def _accumulation(ds: xr.Dataset, amounts: list[str], time: str, step: int) -> Accumulation:
    """Return what the metadata say, else what the values prove; UnitsError if neither tells."""
    if all("sum" in str(ds[name].attrs.get("cell_methods", "")) for name in amounts):
        return "step"
    stamps, _ = second_numbers(ds[time])
    slots = _DAY // step
    # Positions of the stamps after 00:00 up to the next 00:00, of days that are complete.
    ends = [
        i for i in np.flatnonzero(stamps % _DAY == 0)
        if i >= slots - 1 and stamps[i] - stamps[i - slots + 1] == (slots - 1) * step
    ]  # fmt: skip
    chosen = np.unique(np.linspace(0, len(ends) - 1, _DAYS_LOOKED_AT).astype(int)) if ends else ()
    grows = 0
    for name in amounts:
        array = ds[name]
        thinned = array.isel(
            {
                dim: slice(None, None, max(1, array.sizes[dim] // _POINTS_LOOKED_AT))
                for dim in array.dims
                if dim != time
            }
        ).transpose(time, ...)
        for number in chosen:
            end = ends[number]
            day = values_of(thinned.isel({time: slice(end - slots + 1, end + 1)}), name)
            series = day.reshape(slots, -1).astype(np.float64)
            change = np.diff(series, axis=0)
            size = np.nanmax(np.abs(series), initial=0.0)
            if (change < -_TOLERANCE * size).any():
                return "step"  # a running total never falls
            # Amounts of a step that grow through a quarter of the day and never fall: no weather.
            grows += int(((change > _TOLERANCE * size).sum(axis=0) >= slots // 4).sum())
    if grows >= 3 and slots >= 8:
        return "day"
    raise UnitsError(
        "an amount, and neither metadata nor values tell over which time it collects",
        variable=amounts[0],
        found=f"units {ds[amounts[0]].attrs.get('units')!r} every {step / 3600:g} h",
        expected="sums over each step, or running totals since 00 UTC",
        fix=(
            "ds.stefa.daily(accumulation='step') if each value covers the time since the step "
            "before (ERA5); accumulation='day' if it covers the time since 00 UTC (ERA5-Land)"
        ),
    )


# ---- the arithmetic


@dataclass(frozen=True, kw_only=True, eq=False)
class _Days:
    """The steps of a dataset as slots of days.

    Parameters
    ----------
    time : str
    stamps : int64 array
        Seconds since 1970-01-01.
    step : int
        Seconds.
    """

    time: str
    stamps: NDArray[np.int64]
    step: int

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
    bounds = ds[time].attrs.get("bounds")
    if rule.method == "last":
        picked = np.flatnonzero(days.stamps % _DAY == 0)
        places = days.stamps[picked] // _DAY - 1 - days.first
        result = _placed(array.isel({time: picked}), places, days.count, time)
    else:
        begins = days.stamps
        if rule.interval and bounds in ds.variables:
            begins = second_numbers(ds[bounds][:, 0].drop_vars(time))[0]
        elif rule.interval:
            # A stamp between two borders, as the middle of an hour, lies in its own interval; one
            # on a border ends the interval before it.
            begins = days.stamps - 1
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
    method = "sum" if rule.method == "last" else rule.method
    return _described(result, array, rule, method)


def _placed(array: xr.DataArray, places: NDArray[np.int64], count: int, time: str) -> xr.DataArray:
    """Put steps at their places among `count`, NaN elsewhere; lazy where `array` is."""
    inside = (places >= 0) & (places < count)
    kept = array.isel({time: np.flatnonzero(inside)}) if not inside.all() else array
    kept = kept.drop_vars([name for name in kept.coords if time in kept[name].dims])
    kept = kept.assign_coords({time: places[inside]})
    if inside.sum() == count:
        return kept
    return kept.reindex({time: np.arange(count)})


def _described(result: xr.DataArray, array: xr.DataArray, rule: _Rule, method: str) -> xr.DataArray:
    attrs = {
        name: value
        for name, value in array.attrs.items()
        # GRIB's own description is of the step, not of the day.
        if name != "cell_methods" and not str(name).startswith("GRIB_")
    }
    spatial = str(array.attrs.get("cell_methods", "")).split("time:")[0].strip()
    attrs["cell_methods"] = f"{spatial} time: {method}".strip()
    if rule.result != rule.variable:
        attrs["standard_name"] = rule.standard_name
        attrs["long_name"] = f"daily {method} of {array.attrs.get('long_name', rule.variable)}"
    result = result.rename(rule.result)
    result.attrs = attrs
    result.encoding = {k: v for k, v in array.encoding.items() if k == "grid_mapping"}
    return result
