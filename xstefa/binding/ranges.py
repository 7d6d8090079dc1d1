"""Do the values fit their units? A wrong label is found here, because nothing else can see it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from xstefa.binding.layout import Layout
from xstefa.binding.plain import values_of
from xstefa.binding.sources import Direct
from xstefa.binding.units import conversion
from xstefa.errors import RangeError, UnitsError

__all__ = ["range_problems"]

# Values that may lie outside: real records have spikes, a wrong label moves nearly all of a few
# values, and many of many.
TOLERATED = 0.01
_SPIKES = 2

# Units in which values of a quantity are often stored under another label.
_CONFUSED = {
    "degC": ("degC", "K", "degF", "0.1 degC"),
    "hPa": ("hPa", "Pa", "kPa"),
    "%": ("%", "1"),
    "1": ("1", "%", "0.0001"),
    "kg kg-1": ("kg kg-1", "g kg-1"),
    "mm d-1": ("mm d-1", "m d-1", "kg m-2 s-1", "0.1 mm d-1"),
    "W m-2": ("W m-2", "J m-2 d-1", "MJ m-2 d-1"),
    "km2": ("km2", "m2", "ha"),
    "m m-1": ("m m-1", "m km-1", "%"),
    "m": ("m", "cm", "mm"),
    "s": ("s", "h"),
}


def range_problems(
    ds: xr.Dataset,
    sources: Iterable[Direct],
    *,
    layout: Layout,
    days: int,
    tolerated: float = TOLERATED,
) -> list[RangeError]:
    """Compare a sample of the values with what is physically possible. Reads data.

    Parameters
    ----------
    ds : xarray.Dataset
    sources : iterable of Direct
        Recipes of the variables to look at.
    layout : Layout
    days : int
        Number of days, evenly spread over the record, that are read of each series.
    tolerated : float
        Share of the sample that may be outside.

    Returns
    -------
    list of RangeError
        One for each variable of which more is outside.
    """
    steps = np.unique(np.linspace(0, ds.sizes[layout.time] - 1, days).astype(int))
    problems = []
    for source in {source.match.variable.name: source for source in sources}.values():
        array = ds[source.match.variable.name]
        if layout.time in array.dims:
            array = array.isel({layout.time: steps})
        raw = values_of(array, source.match.variable.name).astype(np.float64).ravel()
        problem = _check(raw[np.isfinite(raw)], source, tolerated)
        if problem is not None:
            problems.append(problem)
    return problems


def _check(
    raw: np.ndarray[tuple[int], np.dtype[np.float64]], source: Direct, tolerated: float
) -> RangeError | None:
    wanted, used = source.wanted, source.conversion
    low, high = wanted.valid_range

    def fits(scale: float, offset: float) -> bool:
        values = scale * raw + offset
        outside = int(((values < low) | (values > high)).sum())
        return outside <= tolerated * raw.size or (outside <= _SPIKES and 2 * outside < raw.size)

    if raw.size == 0 or fits(used.scale, used.offset):
        return None
    name, method = source.match.variable.name, source.match.time_method
    likely = []
    for units in _CONFUSED.get(wanted.units, ()):
        try:
            other = conversion(units, wanted.units, variable=name, time_method=method)
        except UnitsError:
            continue
        if fits(other.scale, other.offset):
            likely.append(units)
    values = used.scale * raw + used.offset
    return RangeError(
        f"the values do not fit {wanted.name} in {used.found or used.used}",
        variable=name,
        found=f"{values.min():.4g} to {values.max():.4g} {wanted.units}",
        expected=f"{low:g} to {high:g} {wanted.units}",
        fix=(
            f"the values look like {' or '.join(likely)}: ds[{name!r}].attrs['units'] = "
            f"{likely[0]!r}"
            if likely
            else f"check the source of {name!r}; missing values must be NaN, not a number"
        ),
    )
