"""What is usual for the time of year: percentiles and anomalies of a day against all years."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from xstefa.binding.time_axis import find_time
from xstefa.errors import LayoutError

WINDOW = 15
"""Days before and after a day of the year whose values make its climatology."""

LEAST_YEARS = 3


def percentile(values: xr.DataArray, steps: Sequence[int], *, window: int = WINDOW) -> xr.DataArray:
    """Return how many in 100 days of this time of year, in all years, were lower.

    Parameters
    ----------
    values : DataArray
        The record. Lazy in, lazy out.
    steps : sequence of int
        Positions of the days to return.
    window : int
        Days before and after the day of the year that count as the same time of year.

    Returns
    -------
    DataArray
        The days of `steps`, from 0 to 100; days that are as high count half. NaN where less than
        three years are known.

    Raises
    ------
    LayoutError
        If the record has less than three years.
    """

    def rank(value: xr.DataArray, usual: xr.DataArray, time: str) -> xr.DataArray:
        below = (usual < value).sum(time) + 0.5 * (usual == value).sum(time)
        return 100 * below / usual.notnull().sum(time)

    found = _against(values, steps, rank, window)
    return found.assign_attrs(units="1", long_name=f"percentile of {_name(values)}")


def anomaly(values: xr.DataArray, steps: Sequence[int], *, window: int = WINDOW) -> xr.DataArray:
    """Return how far days are above the mean of their time of year; else as `percentile`."""
    found = _against(values, steps, lambda value, usual, time: value - usual.mean(time), window)
    units = {"units": values.attrs["units"]} if "units" in values.attrs else {}
    return found.assign_attrs(long_name=f"anomaly of {_name(values)}", **units)


def _name(values: xr.DataArray) -> str:
    return str(values.attrs.get("long_name", values.name))


def _against(
    values: xr.DataArray,
    steps: Sequence[int],
    compare: Callable[[xr.DataArray, xr.DataArray, str], xr.DataArray],
    window: int,
) -> xr.DataArray:
    """Compare days with those of their time of year, in all years with a known one."""
    time = find_time(values.coords.to_dataset())
    when = values[time].dt
    years, place = when.year.values, (when.dayofyear.values - 1) / when.days_in_year.values
    if len(set(years.tolist())) < LEAST_YEARS:
        raise LayoutError(
            "what is usual for the time of year takes several years to know",
            variable=str(values.name),
            found=f"a record in {len(set(years.tolist()))} calendar years",
            expected=f"at least {LEAST_YEARS}",
            fix="give the whole record, and the day with day=",
        )
    found = []
    for step in steps:
        away = np.abs((place - place[step] + 0.5) % 1 - 0.5)  # of a year, in either direction
        usual = values.isel({time: np.flatnonzero(away <= (window + 0.5) / 365.25)})
        known = usual.notnull().groupby(usual[time].dt.year).any().sum("year")
        value = values.isel({time: step})
        compared = compare(value.drop_vars(time), usual, time).where(known >= LEAST_YEARS)
        found.append(compared.assign_coords({time: value[time]}))
    return xr.concat(found, time).transpose(*values.dims).rename(values.name)
