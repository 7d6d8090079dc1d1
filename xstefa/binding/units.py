"""Units: from what a variable says to what a token needs, as one affine map `scale * x + offset`.

The registry is private: pint's application registry, which other packages share, stays as it is.
Three conversions go beyond pint: a water mass per area is a depth (1000 kg m-3), an amount over a
day is a rate (only if the cell methods say that it is a sum), and a discharge is a depth per day
once the catchment area is known (`Conversion` of the target, see `xstefa.binding`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pint
import xarray as xr

from xstefa.errors import UnitsError
from xstefa.schema import UNKNOWN_UNITS

_EXPONENT = re.compile(r"(?<=[A-Za-z])(?![A-Za-z])(?<![0-9\-][eE])(?<![0-9\-])(?=[0-9\-])")
_WORD = re.compile(r"\b[A-Z][a-z]{4,}\b")  # Kelvin, Watts: names of units are small letters
_PER_HOURS = re.compile(r"/\s*([0-9]+)\s*(h|hr|hours?)$")
_NUMBER = re.compile(r"^[0-9.]+(?:[eE][+-]?[0-9]+)?$")
_SCALED = re.compile(r"^([0-9.]+(?:[eE][+-]?[0-9]+)?)\s+(\S.*)$")

_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}

# Spellings in real files that neither UDUNITS nor pint reads, or that pint reads as something else
# ("mb" would be a millibarn). Compared after lower-casing, so only unambiguous ones.
_SPELLINGS = {
    r"|-|~|\(?0 ?- ?1\)?|none|unitless|dimensionless|fraction|index": "1",
    r"%|percent(age)?|pct|vol %|% vol": "percent",
    r"deg(ree)?s?[ _]?c(elsius)?": "degC",
    r"deg(ree)?s?[ _]?k(elvin)?": "K",
    r"deg(ree)?s?[ _]?f(ahrenheit)?": "degF",
    r"m of water( equivalent)?|m ?a\.?s\.?l\.?": "m",
    r"mb": "mbar",
    r"hpa": "hPa",
    r"kpa": "kPa",
    r"cfs": "ft3 s-1",
    r"cumecs": "m3 s-1",
}

_WATER = "0.001 m**3 / kg"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """The affine map from found to used units.

    Parameters
    ----------
    scale, offset : float
        ``used = scale * found + offset``.
    found, used : str
        Units before and after, as text.
    note : str, optional
        What the map relies on beyond the units, e.g. the density of water.
    """

    found: str
    used: str
    scale: float = 1.0
    offset: float = 0.0
    note: str | None = None

    def __call__(self, array: xr.DataArray) -> xr.DataArray:
        """Return `array` in the used units as float32; lazy where the input is a dask array."""
        if array.dtype.kind == "m":
            # xarray may decode units like "days" to timedeltas; they count in seconds here.
            array = array / np.timedelta64(1, "s")
        result = array.astype(np.float32, copy=False)
        if self.scale != 1.0:
            result = result * np.float32(self.scale)
        if self.offset != 0.0:
            result = result + np.float32(self.offset)
        return result

    def inverse(self, values: Any) -> Any:
        """Return numbers in the used units as they were found."""
        return (values - self.offset) / self.scale


@cache
def _registry() -> pint.UnitRegistry[float]:
    # Definitions follow UDUNITS/CF as cf_xarray.units does; that module is not imported because
    # importing it replaces pint's application registry.
    registry: pint.UnitRegistry[float] = pint.UnitRegistry(
        autoconvert_offset_to_baseunit=True,
        preprocessors=[
            lambda text: _WORD.sub(lambda word: word[0].lower(), text),
            lambda text: _EXPONENT.sub("**", text),
            lambda text: text.replace("%", "percent"),
        ],
        cache_folder=None,
        on_redefinition="ignore",
    )
    registry.define("percent = 0.01 = %")
    registry.define("year = 365.25 * day = yr")
    registry.define("@alias degC = C")
    registry.define("@alias day = d = dy")
    registry.define("@alias hour = h = hr")
    registry.define("person = [] = people = persons = inhabitants")
    registry.define("USD = [currency]")
    return registry


@cache
def _parse(text: str) -> tuple[float, pint.Unit]:
    """Return (factor, unit) of a units string, e.g. ``"0.1 degC"`` → (0.1, degC)."""
    cleaned = _spelled(text.strip().replace("\N{MINUS SIGN}", "-"))
    factor = 1.0
    if interval := _PER_HOURS.search(cleaned):
        # "mm/3h" is a rate, which pint would read as "mm / 3 * h".
        factor, cleaned = 1.0 / float(interval[1]), f"{cleaned[: interval.start()]}/hour"
    if scaled := _SCALED.match(cleaned):
        factor, cleaned = factor * float(scaled[1]), _spelled(scaled[2])
    if _NUMBER.match(cleaned):
        return factor * float(cleaned), _registry().dimensionless
    try:
        return factor, _registry().parse_units(cleaned)
    except Exception as error:  # pint raises several unrelated types on text it cannot read
        raise UnitsError("cannot read these units", found=repr(text)) from error


def _spelled(text: str) -> str:
    lower = text.lower()
    return next((unit for words, unit in _SPELLINGS.items() if re.fullmatch(words, lower)), text)


def is_units(text: str) -> bool:
    """Whether `text` reads as units."""
    try:
        return _parse(text) is not None
    except UnitsError:
        return False


def _is_angle(unit: pint.Unit) -> bool:
    # Pint counts radians as dimensionless; a slope in degrees is not a slope in metres per metre.
    return "radian" in dict(_registry().get_root_units(unit)[1]._units)


def _affine(found: str, used: str, times: str) -> tuple[float, float] | None:
    """Scale and offset from `found`, times a quantity if one is given, to `used`, or None."""
    registry = _registry()
    factor, unit = _parse(found)
    target_factor, target = _parse(used)
    if _is_angle(unit) != _is_angle(target):
        return None
    ends = [registry.Quantity(value, unit) for value in (0.0, 1.0)]
    try:
        if times:
            ends = [end * registry.Quantity(times) for end in ends]
        zero, one = (end.to(target).magnitude for end in ends)
    except (pint.DimensionalityError, pint.OffsetUnitCalculusError):
        return None
    # Rounded to 12 digits: pint's chains leave 0.9999999999999999 where 1 is meant.
    scale = float(f"{factor * (one - zero) / target_factor:.12g}")
    return scale, float(f"{zero / target_factor:.12g}")


@cache
def _best(found: str, used: str) -> tuple[Conversion, bool] | None:
    """Return the map that relies on least, and whether on values being sums of a day; or None."""
    # Depths of water are in millimetres throughout the schema; speeds and heights never are.
    wet = (False, True) if used.startswith("mm") else (False,)
    rate = str(_parse(used)[1].dimensionality.get("[time]", "")).startswith("-")
    for daily, water in product((False, True) if rate else (False,), wet):
        times = " * ".join(["1 / day"] * daily + [_WATER] * water)
        if (affine := _affine(found, used, times)) is not None:
            note = ", ".join(["daily sum"] * daily + ["water at 1000 kg m-3"] * water) or None
            scale, offset = affine
            return Conversion(found=found, used=used, scale=scale, offset=offset, note=note), daily
    return None


def conversion(
    found: str,
    used: str,
    *,
    variable: str,
    time_method: str | None = None,
    interval: int | None = None,
) -> Conversion:
    """Find the map from the units of a variable to the units of its token.

    Parameters
    ----------
    found, used : str
        Units of the variable and of the token.
    variable : str
        Name of the variable, for the message.
    time_method : str, optional
        The variable's time cell method; ``"sum"`` lets an amount be read as a daily rate.
    interval : int, optional
        Seconds over which each value of a series was collected: a sum of anything but amounts is
        then refused, see `check_sum`.

    Returns
    -------
    Conversion

    Raises
    ------
    UnitsError
        If the units cannot be read or converted, are an amount without a stated interval, or no
        amount although the values are sums.
    """
    if used == UNKNOWN_UNITS:
        raise UnitsError(
            "the model does not say in which units it reads this variable",
            variable=variable,
            found=f"units {found!r} in the dataset, none in the model",
            expected="a model that knows the units of its variables",
            fix="xstefa.import_published(path, units={<name in the checkpoint>: <units>}), or "
            f"leave the variable out with ds.drop_vars({variable!r})",
        )
    why = "cannot convert these units"
    try:
        best = _best(found, used)
    except UnitsError as error:
        best, why = None, error.message or why
    if best is not None:
        known, daily = best
        if time_method == "sum" and interval is not None and not daily:
            check_sum(found, variable=variable, interval=interval)
        if time_method == "sum" or not daily:
            return known
        raise UnitsError(
            "an amount without the interval over which it was collected",
            variable=variable,
            found=f"units {found!r} and no time: sum cell method",
            expected=f"a rate such as {used!r}",
            fix=(
                f"if each value is the sum of its day, ds[{variable!r}].attrs['cell_methods'] = "
                "'time: sum'; if it accumulates since an earlier hour (ERA5-Land) or covers "
                "another interval (monthly, hourly mean of a day), make daily sums first"
            ),
        )
    raise UnitsError(
        why,
        variable=variable,
        found=repr(found),
        expected=f"units convertible to {used!r}",
        fix=(
            f"correct ds[{variable!r}].attrs['units'], or leave the variable out with "
            f"ds.drop_vars({variable!r})"
        ),
    )


def check_sum(found: str, *, variable: str, interval: int, by_history: bool = False) -> None:
    """Raise UnitsError: a sum of values in the units `found`, which are of no amount.

    A rate per `interval` seconds passes, because that is what a sum over the interval is.
    """
    factor, unit = _parse(found)
    seconds = next((s for name, s in _SECONDS.items() if f"/ {name}" in str(unit)), 0)
    if seconds in (interval, round(interval * factor)):
        return
    attrs = f"ds[{variable!r}].attrs"
    forget = "; del ds.attrs['history']" if by_history else ""
    raise UnitsError(
        "a sum of what is no amount, and the file does not say how many values were added up",
        variable=variable,
        found=f"units {found!r} and "
        f"{'daysum in the history' if by_history else 'the cell method time: sum'}",
        expected="a mean of such values, or an amount in units of amounts",
        fix=(
            f"ds[{variable!r}] = (ds[{variable!r}] / 24).assign_attrs({attrs} | "
            f"{{'cell_methods': 'time: mean'}}){forget}   # 24: how many values were added up; "
            "without the division if they are means after all"
        ),
    )


def is_amount(found: str, used: str) -> bool:
    """Whether `found` is an amount (mm, J m-2) where `used` is a rate (mm d-1, W m-2)."""
    best = _readable(found, used)
    return best is not None and best[1]


def same_kind(found: str, used: str) -> bool:
    """Whether `found` converts to `used` without further knowledge."""
    best = _readable(found, used)
    return best is not None and best[0].note is None


def _readable(found: str, used: str) -> tuple[Conversion, bool] | None:
    try:
        return _best(found, used)
    except UnitsError:
        return None
