"""The time axis: which dimension counts the days, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.plain import check_names
from xstefa.errors import CalendarError, LayoutError


def find_time(ds: xr.Dataset) -> str:
    """Name of the time dimension; LayoutError if there is none, more than one, or an odd name."""
    check_names(ds)
    _check_ragged(ds)
    found = [str(dim) for dim in ds.dims if dim in ds.coords and _is_time(ds.variables[dim])]
    if len(found) > 1:
        axis = [dim for dim in found if ds[dim].attrs.get("axis") == "T"] or [
            dim for dim in found if ds[dim].attrs.get("standard_name") == "time"
        ]
        found = axis or (["time"] if "time" in found else found)
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise LayoutError(
            "more than one time axis",
            variable=found[0],
            found=f"dimensions {', '.join(map(repr, found))}",
            expected="one dimension of days",
            fix=f"ds[{found[0]!r}].attrs['axis'] = 'T' on the one that counts the days",
        )
    raise _why_no_time(ds)


def has_time(ds: xr.Dataset) -> bool:
    """Whether any dimension or variable counts times, whatever is wrong with it."""
    return any(
        _is_time(each) or " since " in str(each.attrs.get("units", ""))
        for each in ds.variables.values()
    )


def _is_time(variable: xr.Variable) -> bool:
    if variable.dtype.kind == "M":
        return True
    # Only index variables (in memory already) are looked at, never data.
    if variable.dtype.kind == "O" and isinstance(variable, xr.IndexVariable) and variable.size:
        return isinstance(variable.to_index()[0], cftime.datetime | pd.Period)
    return False


def _why_no_time(ds: xr.Dataset) -> LayoutError:
    """Say what stands where a dimension of days should be."""
    lead_dimension(ds, ds.dims)
    for dim in map(str, ds.dims):
        if dim in ds.coords and " since " in str(ds[dim].attrs.get("units", "")):
            return LayoutError(
                "the time axis is not decoded",
                variable=dim,
                found=f"units {ds[dim].attrs['units']!r}",
                expected="datetime64 or cftime values",
                fix="ds = xr.decode_cf(ds)",
            )
    for key, variable in ds.variables.items():
        name, dims = str(key), tuple(map(str, variable.dims))
        if not _is_time(variable):
            continue
        if len(dims) == 1:
            (dim,) = dims
            return LayoutError(
                "the dates are not on a dimension of their own name",
                variable=name,
                found=f"dates along dimension {dim!r}",
                expected="a time dimension with a coordinate of dates",
                fix=f"ds = ds.swap_dims({{{dim!r}: {name!r}}})",
            )
        if len(dims) > 1:
            site, step = dims[:2]
            return LayoutError(
                "the dates differ from site to site",
                variable=name,
                found=f"dates over ({', '.join(dims)})",
                expected="one time axis for all sites, with NaN where a site has no value",
                fix=(
                    f"sites = [ds.isel({site}=i).swap_dims({step}={name!r}) for i in "
                    f"range(ds.sizes[{site!r}])]; ds = xr.concat(sites, dim={site!r}, "
                    "join='outer')"
                ),
            )
    if "Times" in ds.variables and ds["Times"].ndim == 1 and ds["Times"].dtype.kind in "SUO":
        (dim,) = map(str, ds["Times"].dims)
        return LayoutError(
            "the dates are text, as WRF writes it",
            variable="Times",
            found=f"text along {dim!r}",
            expected="datetime64 or cftime values",
            fix=f"ds = ds.assign_coords({dim}=pd.to_datetime(ds['Times'].astype(str).values, "
            "format='%Y-%m-%d_%H:%M:%S'))",
        )
    for dim in map(str, ds.dims):
        if dim in ds.coords and ds[dim].dtype.kind in "UO" and _reads_as_dates(ds[dim]):
            return LayoutError(
                "the dates are text",
                variable=dim,
                found=f"{str(ds[dim].values[0])!r}",
                expected="datetime64 or cftime values",
                fix=f"ds[{dim!r}] = pd.to_datetime(ds[{dim!r}])",
            )
    return LayoutError(
        "no time axis",
        variable="time",
        found=f"dimensions {', '.join(repr(str(dim)) for dim in ds.dims) or 'none'}",
        expected="a dimension with dates (datetime64 or cftime), one step a day",
        fix="ds = ds.assign_coords(time=pd.date_range(start, periods=ds.sizes['time']))",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The variable `name` of a ragged array (CF 9.3), which puts `samples` to their `sites`."""

    name: str
    samples: str
    sites: str
    contiguous: bool


def ragged_links(ds: xr.Dataset) -> list[Link]:
    """Return how series follow one another on one dimension, whatever it is called."""
    links = []
    for name, variable in ds.variables.items():
        for key in {"sample_dimension", "instance_dimension"} & variable.attrs.keys():
            ends = (str(variable.attrs[key]), *map(str, variable.dims))
            if len(ends) != 2:
                continue
            samples, sites = ends if key == "sample_dimension" else ends[::-1]
            if any(samples in v.dims and sites not in v.dims for v in ds.data_vars.values()):
                contiguous = key == "sample_dimension"
                link = Link(name=str(name), samples=samples, sites=sites, contiguous=contiguous)
                links.append(link)
    return links


def dates_along(ds: xr.Dataset, dim: str) -> str | None:
    """Name of the dates along a dimension: its own, else those that are called time, or first."""
    found = [str(name) for name, v in ds.variables.items() if v.dims == (dim,) and _is_date(v)]
    return next((name for name in (dim, "time") if name in found), next(iter(found), None))


def _is_date(variable: xr.Variable) -> bool:
    return variable.dtype.kind == "M" or (
        variable.dtype.kind == "O"
        and variable.size > 0
        and isinstance(variable[0].values.item(), cftime.datetime)
    )


def _check_ragged(ds: xr.Dataset) -> None:
    """Refuse series that follow one another on one dimension."""
    for link in ragged_links(ds):
        kind = "contiguous" if link.contiguous else "indexed"
        raise LayoutError(
            f"the series follow one another in the {kind} ragged representation (CF 9.3)",
            variable=link.name,
            found=f"the values of all {link.sites!r} along {link.samples!r}",
            expected="series over (site, time), one time axis for all sites",
            fix="ds = ds.stefa.from_ragged()",
        )


def lead_dimension(ds: xr.Dataset, dims: Iterable[Hashable]) -> str | None:
    """Name of the dimension of lead times (a forecast period beside a reference time), or None.

    Raises
    ------
    LayoutError
        If there are lead times, but as numbers: they are no members of an ensemble.
    """
    for dim in map(str, dims):
        kind = ds[dim].dtype.kind if dim in ds.coords else ""
        if kind == "m":
            return dim
        if kind and kind not in "iuf":
            continue
        units = str(ds[dim].attrs.get("units", "")) if kind else ""
        unit = next((unit for unit, words in _UNITS_OF_LEAD.items() if units in words), None)
        period = kind and ds[dim].attrs.get("standard_name") == "forecast_period"
        if unit or period or dim.lower() in _LEADS or (kind and dim == "step"):
            ahead = f"ds[{dim!r}].values" if kind else f"range(ds.sizes[{dim!r}])"
            raise LayoutError(
                "the lead times are numbers, and not times",
                variable=dim,
                found=f"{ds[dim].dtype} [{units or 'no units'}]" if kind else "no coordinate",
                expected="timedelta64",
                fix=f"ds = ds.assign_coords({dim}=pd.to_timedelta({ahead}, unit={unit or 'D'!r}))"
                + ("" if unit else "   # 'D', 'h' or what they are"),
            )
    return None


_LEADS = ("lead", "lead_time", "leadtime", "prediction_timedelta", "forecast_period")
_UNITS_OF_LEAD = {
    "D": ("days", "day", "d"),
    "h": ("hours", "hour", "hr", "h"),
    "min": ("minutes", "minute", "min"),
    "s": ("seconds", "second", "sec", "s"),
}


def valid_times(ds: xr.Dataset, *, time: str, lead: str) -> xr.DataArray:
    """Return the times (time, lead) that the values of a forecast are for.

    Raises
    ------
    LayoutError
        If forecasts overlap, so that a time has more than one value.
    """
    ahead = pd.to_timedelta(ds[lead].values)
    # Dates of cftime are objects, to which only those of Python can be added.
    steps = ahead.to_pytimedelta() if ds[time].dtype.kind == "O" else ahead.to_numpy()
    valid = xr.DataArray(ds[time].values[:, None] + steps, dims=(time, lead))
    if np.unique(valid).size == valid.size:
        return valid
    between = min(np.diff(second_numbers(ds[time])[0]), default=np.inf)
    seconds = ahead.total_seconds()
    first = np.flatnonzero((seconds > 0) & (seconds <= between))
    begin, end = (int(first[0]), int(first[-1]) + 1) if first.size else (0, 1)
    raise LayoutError(
        "the days of this forecast depend on two dimensions",
        variable=lead,
        found=f"lead times along {lead!r} that overlap beside reference times along {time!r}",
        expected="one time axis, of the times that the values are for; or the weather before the "
        "forecasts, history=<a dataset>",
        fix=(
            f"ds = ds.isel({lead}=slice({begin}, {end})).stefa.daily()   # the first of each "
            f"forecast; to take the first forecast alone: ds = ds.isel({time}=0); ds = "
            f"ds.assign_coords(valid_time=ds[{time!r}] + ds[{lead!r}]).swap_dims({lead}="
            f"'valid_time').drop_vars({time!r})"
        ),
    )


def along_valid_time(ds: xr.Dataset, *, time: str, lead: str) -> tuple[xr.Dataset, str]:
    """Put reference and lead times that do not overlap on one axis; return it and its name."""
    valid = valid_times(ds, time=time, lead=lead)
    named = [str(n) for n, v in ds.coords.items() if set(v.dims) == {time, lead} and _is_time(v)]
    name = named[0] if named else "valid_time"
    order = np.argsort(valid.values, axis=None)
    inner = [n for n, v in ds.coords.items() if {time, lead} & set(v.dims)]
    flat = ds.drop_vars(inner).stack({name: (time, lead)}, create_index=False)
    flat = flat.isel({name: order}).assign_coords({name: valid.values.ravel()[order]})
    return flat.transpose(name, ...), name


def _reads_as_dates(variable: xr.DataArray) -> bool:
    if variable.ndim != 1 or not variable.size or not isinstance(variable.values[0], str):
        return False
    return bool(pd.notna(pd.to_datetime(variable.values[0], errors="coerce")))


def day_numbers(time: xr.DataArray) -> tuple[NDArray[np.int64], str]:
    """Day numbers since 1970-01-01 in the calendar of `time`, and the calendar's name."""
    seconds, calendar = second_numbers(time)
    return seconds // 86400, calendar


def second_numbers(time: xr.DataArray) -> tuple[NDArray[np.int64], str]:
    """Seconds since 1970-01-01 in the calendar of `time`, and the calendar's name.

    Stamps that scatter a little around equal steps (a time axis of floats, clocks) are put on them.
    """
    if time.dtype.kind == "M":
        whole = time.values.astype("datetime64[s]")
        fraction = (time.values - whole) / np.timedelta64(1, "s")
        return _on_steps(whole.astype(np.int64), fraction), "standard"
    calendar = str(time.dt.calendar)
    numbers = cftime.date2num(time.values, "seconds since 1970-01-01", calendar=calendar)
    whole = np.floor(np.asarray(numbers, dtype=np.float64))
    if calendar == "proleptic_gregorian" and whole.min(initial=0) > _GREGORIAN:
        calendar = "standard"  # files, read again, say the one or the other
    return _on_steps(whole.astype(np.int64), np.round(numbers - whole, 6)), calendar


_GREGORIAN = -12_219_292_800  # seconds to 1582-10-15, since when the two are the same


def typical_minutes(seconds: NDArray[np.int64] | NDArray[np.float64]) -> int:
    """Minutes between most stamps, of those that divide a day."""
    typical = float(np.median(np.diff(seconds))) / 60
    return min((n for n in range(1, 1441) if 1440 % n == 0), key=lambda n: abs(n - typical))


def _on_steps(whole: NDArray[np.int64], fraction: NDArray[np.float64]) -> NDArray[np.int64]:
    """Put times of `whole` seconds and a `fraction` on the quarter hours of equal steps.

    Times that are all displaced alike stay: 23:59:59.999 on every day stands for that day.
    """
    if whole.size < 2:
        return whole
    step = 60 * typical_minutes(whole + fraction)
    grid = math.gcd(step // 2, 900)
    nearest = np.rint((whole + fraction) / grid).astype(np.int64) * grid
    off = whole - nearest + fraction
    scatters = np.ptp(off) > 0 and np.abs(off).max() <= min(grid / 4, step / 20)
    return nearest if scatters and (np.diff(nearest) > 0).all() else whole


def daily_call(rename: Mapping[str, str] | None) -> str:
    """Return the line that makes a dataset daily, for an error; `rename` is the caller's."""
    return f"ds = ds.stefa.daily({f'rename={dict(rename)}' if rename else ''})"


def check_days(time: xr.DataArray, *, rename: Mapping[str, str] | None = None) -> None:
    """Raise LayoutError or CalendarError if `time` is not a sequence of distinct, ordered days."""
    check_steps(time)
    name, stamps = str(time.name), time.values
    days, _ = day_numbers(time)
    steps = np.diff(days)
    if (steps == 0).any():
        raise CalendarError(
            "the data is sub-daily",
            variable=name,
            found=f"more than one step on the day of {stamps[int(np.argmax(steps == 0))]}",
            expected="one step a day",
            fix=(
                f"{daily_call(rename)}   # by hand: ds.resample({name}='1D') and .sum() for "
                "amounts, .mean() for rates and states, .max() and .min() for extremes"
            ),
        )
    if steps.size and np.median(steps) > 1:
        raise CalendarError(
            "the steps are longer than a day",
            variable=name,
            found=f"a typical step of {np.median(steps):g} days",
            expected="one step a day (single missing days are fine)",
            fix="use daily data; a coarser series cannot be turned into days",
        )


def check_steps(time: xr.DataArray) -> None:
    """Raise LayoutError or CalendarError if `time` is not a sequence of distinct, ordered times."""
    name = str(time.name)
    if time.size == 0:
        raise LayoutError(
            "the time axis is empty",
            variable=name,
            found="no steps",
            expected="at least one day",
            fix="check the selection that made it: .sel() outside of the record gives nothing",
        )
    index = time.to_index()
    if isinstance(index, pd.PeriodIndex):
        raise CalendarError(
            "the time axis holds periods",
            variable=name,
            found=str(index.dtype),
            expected="datetime64 or cftime values",
            fix=f"ds[{name!r}] = ds.indexes[{name!r}].to_timestamp()",
        )
    if isinstance(index, pd.DatetimeIndex) and index.tz is not None:
        raise CalendarError(
            "the time axis has a time zone, so the day of a step has two readings",
            variable=name,
            found=f"time zone {index.tz}",
            expected="times without a zone",
            fix=(
                f"for days of that zone ds[{name!r}] = ds.indexes[{name!r}].tz_localize(None); "
                f"for days of UTC ds[{name!r}] = ds.indexes[{name!r}].tz_convert(None)"
            ),
        )
    kinds = {"datetime64"}
    if not isinstance(index, pd.DatetimeIndex):
        kinds = {getattr(date, "calendar", type(date).__name__) for date in index}
    if len(kinds) > 1 or not isinstance(index, pd.DatetimeIndex | xr.CFTimeIndex):
        raise CalendarError(
            "the dates are not all of one kind",
            variable=name,
            found=", ".join(sorted(kinds)),
            expected="datetime64 values, or cftime values of one calendar",
            fix=f"split ds by the calendar of ds[{name!r}], and bring the parts to one with "
            "ds.convert_calendar('standard')",
        )
    if bool(index.isna().any()):
        raise CalendarError(
            "the time axis has missing dates",
            variable=name,
            found=f"{int(index.isna().sum())} NaT",
            expected="a date on every step",
            fix=f"ds = ds.sel({name}=ds[{name!r}].notnull())",
        )
    later, earlier = time.values[1:], time.values[:-1]
    for wrong, message, expected, fix in (
        (later < earlier, "the days are not in order", "ascending days", "sortby"),
        (later == earlier, "days occur twice", "one step a day", "drop_duplicates"),
    ):
        if bool(wrong.any()):
            at = int(np.argmax(wrong))
            raise CalendarError(
                message,
                variable=name,
                found=f"{later[at]} after {earlier[at]}",
                expected=expected,
                fix=f"ds = ds.{fix}({name!r})",
            )


def day_of_year(ds: xr.Dataset, time: str) -> xr.DataArray:
    """Day of the year (time,) as float32 on a 365-day scale (360-day calendars are stretched)."""
    days = ds[time].dt.dayofyear.astype(np.float32)
    if ds[time].dtype.kind == "O" and ds[time].dt.calendar == "360_day":
        days = days * np.float32(365.0 / 360.0)
    return days.drop_vars([name for name in days.coords if name != time])
