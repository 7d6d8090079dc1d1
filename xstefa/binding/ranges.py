"""Can the values be? What nobody measures is refused, what is a little off is taken to the edge."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.units import Conversion, conversion
from xstefa.errors import RangeError, UnitsError
from xstefa.schema import Target, Variable

__all__ = ["TOLERATED", "misfit", "possible", "within"]

# Values that may lie outside while the units fit: real records have spikes, a wrong label moves
# nearly all of a few values, and many of many.
TOLERATED = 0.01
_SPIKES = 2

# How far a value may lie outside, as a share of the range. Below a range that begins at 0 there is
# nothing to be measured, only the noise of packing, differencing and interpolation; of amounts with
# a long range (rain) no more than 1 in their unit.
_OUTSIDE, _BELOW_ZERO, _MOST_BELOW_ZERO = 0.05, 0.01, 1.0

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


def possible(wanted: Variable | Target) -> tuple[float, float]:
    """Return the limits at and beyond which a single value is refused, in canonical units."""
    low, high = wanted.valid_range
    width = high - low
    if isinstance(wanted, Target):  # sensors wander a little below zero, and tides turn rivers
        most = 900.0 if wanted.units == "m3 s-1" else _MOST_BELOW_ZERO
        return low - min(_BELOW_ZERO * width, most), high + 0.01 * width
    below = min(_BELOW_ZERO * width, _MOST_BELOW_ZERO) if low == 0 else _OUTSIDE * width
    return low - below, high + _OUTSIDE * width


def within(
    array: xr.DataArray,
    wanted: Variable | Target,
    *,
    name: str,
    used: Conversion,
    method: str | None = None,
) -> xr.DataArray:
    """Return an array in canonical units with what is a little outside its range at the edge.

    Observations of targets stay as they are.

    Parameters
    ----------
    array : DataArray
        Lazy ones are looked at when they are computed, block by block.
    wanted : Variable or Target
    name : str
        Of the dataset's variable.
    used : Conversion
        That made `array`.
    method : str, optional
        The variable's time cell method.

    Raises
    ------
    RangeError
        If a single value is impossible.
    """
    look = partial(_within, wanted=wanted, name=name, used=used, method=method)
    return xr.apply_ufunc(
        look, array, dask="parallelized", output_dtypes=[array.dtype], keep_attrs=True
    )


def _within(
    values: NDArray[Any],
    *,
    wanted: Variable | Target,
    name: str,
    used: Conversion,
    method: str | None,
) -> NDArray[Any]:
    if not values.size:
        return values
    low, high = wanted.valid_range
    least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    lowest, highest = possible(wanted)
    if least <= lowest or most >= highest:
        flat = values.ravel()
        wrong = flat[(flat <= lowest) | (flat >= highest)]
        raise _refusal(flat, wrong, wanted, name=name, used=used, method=method)
    if isinstance(wanted, Variable) and (least < low or most > high):
        return np.clip(values, values.dtype.type(low), values.dtype.type(high))
    return values


def misfit(
    values: NDArray[Any],
    wanted: Variable,
    *,
    name: str,
    used: Conversion,
    method: str | None,
    tolerated: float = TOLERATED,
) -> RangeError | None:
    """Return what is wrong if more than a share of a sample of values is outside its range.

    Parameters
    ----------
    values : ndarray
        In canonical units; NaN where missing.
    tolerated : float
    """
    known = values[~np.isnan(values)]
    if known.size == 0 or _fits(known, wanted, tolerated):
        return None
    low, high = wanted.valid_range
    wrong = known[(known < low) | (known > high)]
    return _refusal(known, wrong, wanted, name=name, used=used, method=method, tolerated=tolerated)


def _fits(known: NDArray[Any], wanted: Variable | Target, tolerated: float) -> bool:
    low, high = wanted.valid_range
    # Dry days of -1e-6 mm, and 100.0001 %, are what computers make of 0 and 100.
    noise = min(0.05, 1e-4 * (high - low))
    outside = int(((known < low - noise) | (known > high + noise)).sum())
    return outside <= tolerated * known.size or (outside <= _SPIKES and 2 * outside < known.size)


def _is_mark(wrong: NDArray[Any]) -> bool:
    """Whether some values, as they are stored, are one number such as mark what is missing."""
    first = abs(float(wrong[0]))
    if not np.isfinite(first) or not np.allclose(wrong, wrong[0], rtol=1e-5):
        return False
    digits = f"{first:.4g}".replace(".", "")
    nines = set(digits) == {"9"} and (len(digits) > 1 or wrong[0] < 0)
    return nines or first in (1, 255, 32767, 32768, 65535) or first > 1e19


def _refusal(
    values: NDArray[Any],
    wrong: NDArray[Any],
    wanted: Variable | Target,
    *,
    name: str,
    used: Conversion,
    method: str | None,
    tolerated: float = TOLERATED,
) -> RangeError:
    """Say what is wrong with values of which some cannot be."""
    raw = (values[~np.isnan(values)].astype(np.float64) - used.offset) / used.scale
    likely = []
    low, high = wanted.valid_range
    # No other unit makes a negative amount possible, nor a number that marks what is missing.
    hopeless = low == 0 and bool((wrong < 0).all()) and not used.offset
    if not (hopeless or _is_mark((wrong - used.offset) / used.scale)) and not _fits(
        used.scale * raw + used.offset, wanted, tolerated
    ):
        for units in _CONFUSED.get(wanted.units, ()):
            try:
                other = conversion(units, wanted.units, variable=name, time_method=method)
            except UnitsError:
                continue
            if _fits(other.scale * raw + other.offset, wanted, tolerated):
                likely.append(units)
    example = (float(wrong[0]) - used.offset) / used.scale
    above = bool(wrong[0] > high)
    refused = possible(wanted)[above]
    # What is only noise outside of the range stays, where it is not what is complained of.
    far = bool((wrong >= refused if above else wrong <= refused).any())
    bound = ((refused if far else wanted.valid_range[above]) - used.offset) / used.scale
    inside = f"{'<' if above else '>'}{'' if far else '='} {bound:.6g}"
    mark = f"ds[{name!r}] = ds[{name!r}].where(ds[{name!r}] {inside})"
    return RangeError(
        f"the values do not fit {wanted.name} in {used.found or used.used}"
        if likely
        else f"impossible values of {wanted.name}",
        variable=name,
        found=f"{wrong.size} values, e.g. {example:g} {used.found or used.used}"
        f"{'' if np.isfinite(example) else ' (infinite)'}",
        expected=f"{low:g} to {high:g} {wanted.units}",
        fix=(
            f"the values look like {' or '.join(likely)}: ds[{name!r}].attrs['units'] = "
            f"{likely[0]!r}"
            if likely
            else f"{mark}   # missing values must be NaN, not a number; else check the source"
        ),
    )
