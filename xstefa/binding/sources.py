"""Recipes: how a token is made from the variables of a dataset.

`variables` are those that the token table names; `inputs` are all that `realise` reads, coordinates
included, so that a part of the dataset with these variables is enough for that part of the token.
What nobody measures is refused as it is read, what is a little off is taken to the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.derive import Derivation
from xstefa.binding.facts import check_methods
from xstefa.binding.rules import Match
from xstefa.binding.units import Conversion, check_sum, conversion, is_amount
from xstefa.errors import RangeError, UnitsError
from xstefa.schema import Target, Variable

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """A variable of the dataset that is a token, ingredient or observation, up to units.

    What `otherwise` derives from other tokens stands in, value by value, where it has none.
    """

    wanted: Variable | Target
    match: Match
    conversion: Conversion
    otherwise: Derived | None = None

    @classmethod
    def of(cls, match: Match, wanted: Variable | Target, *, needed: bool = False) -> Direct:
        """Find the conversion of a matched variable to the units of what it was matched with.

        Parameters
        ----------
        needed : bool
            Whether it is a token that a model needs, of which no zero may be lost.

        Raises
        ------
        UnitsError
            If units are missing, ambiguous or impossible.
        RangeError
            If zeros were lost.
        """
        used = _conversion(match, wanted, needed=needed)
        return cls(wanted=wanted, match=match, conversion=used)

    @property
    def name(self) -> str:
        """Name of the variable."""
        return self.match.variable.name

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the dataset it needs."""
        return (self.name,)

    @property
    def inputs(self) -> tuple[str, ...]:
        """That, and what stands in where it has no values."""
        return _once(self.variables, () if self.otherwise is None else self.otherwise.inputs)

    @property
    def rule(self) -> str:
        """How it was recognised, for the token table."""
        note = self.conversion.note
        return self.match.rule if note is None else f"{self.match.rule}; {note}"

    def realise(self, ds: xr.Dataset) -> xr.DataArray:
        """Return the array in canonical units; RangeError if a single value is impossible."""
        found = self.within_limits(self.read(ds))
        if self.otherwise is None or (found.chunks is None and bool(found.notnull().all())):
            return found
        return found.fillna(self.otherwise.realise(ds))

    def read(self, ds: xr.Dataset) -> xr.DataArray:
        """Return the array in canonical units, whatever its values are."""
        fact = self.match.variable
        array = ds[fact.name]
        if fact.repeated is not None:
            array = array.isel({fact.repeated: 0}, drop=True)
        return self.conversion(fact.storage(array))

    def within_limits(self, array: xr.DataArray) -> xr.DataArray:
        """Return an array in canonical units; RangeError if a single value is impossible.

        Of tokens what is a little outside the range is at its edge; observations stay as they are.
        Lazy arrays are looked at when they are computed, block by block.
        """
        return xr.apply_ufunc(
            self._within, array, dask="parallelized", output_dtypes=[array.dtype], keep_attrs=True
        )

    def problem(self, values: NDArray[Any], tolerated: float = TOLERATED) -> RangeError | None:
        """Return what is wrong if more than a share of a sample of values is outside the range.

        Parameters
        ----------
        values : ndarray
            In canonical units; NaN where missing.
        tolerated : float
        """
        known = values[~np.isnan(values)]
        if known.size == 0 or self._fits(known, tolerated):
            return None
        low, high = self.wanted.valid_range
        return self._refusal(known, known[(known < low) | (known > high)], tolerated)

    def as_if(self, units: str, values: Any) -> Any | None:
        """Return canonical values as they were if the label said `units`; None if it cannot."""
        fact, used = self.match.variable, self.conversion
        try:
            other = conversion(
                units,
                self.wanted.units,
                variable=fact.name,
                time_method=self.match.time_method,
                interval=86400 if fact.has_time else None,
            )
        except UnitsError:
            return None
        return other.scale * used.inverse(values) + other.offset

    def _within(self, values: NDArray[Any]) -> NDArray[Any]:
        if not values.size:
            return values
        low, high = self.wanted.valid_range
        least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
        lowest, highest = self._limits
        if least <= lowest or most >= highest:
            flat = values.ravel()
            raise self._refusal(flat, flat[(flat <= lowest) | (flat >= highest)])
        if isinstance(self.wanted, Variable) and (least < low or most > high):
            return np.clip(values, values.dtype.type(low), values.dtype.type(high))
        return values

    @property
    def _limits(self) -> tuple[float, float]:
        """The limits at and beyond which a single value is refused, in canonical units."""
        low, high = self.wanted.valid_range
        width = high - low
        if isinstance(self.wanted, Target):  # sensors wander below zero, and tides turn rivers
            most = 900.0 if self.wanted.units == "m3 s-1" else _MOST_BELOW_ZERO
            return low - min(_BELOW_ZERO * width, most), high + 0.01 * width
        below = min(_BELOW_ZERO * width, _MOST_BELOW_ZERO) if low == 0 else _OUTSIDE * width
        return low - below, high + _OUTSIDE * width

    def _fits(self, known: NDArray[Any], tolerated: float) -> bool:
        low, high = self.wanted.valid_range
        # Dry days of -1e-6 mm, and 100.0001 %, are what computers make of 0 and 100.
        noise = min(0.05, 1e-4 * (high - low))
        outside = int(((known < low - noise) | (known > high + noise)).sum())
        return outside <= tolerated * known.size or (
            outside <= _SPIKES and 2 * outside < known.size
        )

    def _refusal(
        self, values: NDArray[Any], wrong: NDArray[Any], tolerated: float = TOLERATED
    ) -> RangeError:
        """Say what is wrong with values of which some cannot be."""
        name, wanted, used = self.name, self.wanted, self.conversion
        known = values[~np.isnan(values)].astype(np.float64)
        low, high = wanted.valid_range
        # No other unit makes a negative amount possible, nor a number that marks what is missing.
        hopeless = low == 0 and bool((wrong < 0).all()) and not used.offset
        hopeless = hopeless or _is_mark(used.inverse(wrong)) or self._fits(known, tolerated)
        likely = [
            units
            for units in (() if hopeless else _CONFUSED.get(wanted.units, ()))
            if (other := self.as_if(units, known)) is not None and self._fits(other, tolerated)
        ]
        example = used.inverse(float(wrong[0]))
        above = bool(wrong[0] > high)
        refused = self._limits[above]
        # What is only noise outside of the range stays, where it is not what is complained of.
        far = bool((wrong >= refused if above else wrong <= refused).any())
        bound = used.inverse(refused if far else wanted.valid_range[above])
        inside = f"{'<' if above else '>'}{'' if far else '='} {bound:.6g}"
        label = used.found or used.used
        if wanted.kind == "class" and not hopeless:
            return RangeError(
                "the labels of a class are 0 and 1",
                variable=name,
                found=f"{wrong.size} values, e.g. {example:g}",
                expected="1 where the class is, 0 where it is not, NaN where nobody knows",
                fix=f"ds[{name!r}] = (ds[{name!r}] == <label>).astype('f4'), NaN where it was",
            )
        return RangeError(
            f"the values do not fit {wanted.name} in {label}"
            if likely
            else f"impossible values of {wanted.name}",
            variable=name,
            found=f"{wrong.size} values, e.g. {example:g} {label}"
            f"{'' if np.isfinite(example) else ' (infinite)'}",
            expected=f"{low:g} to {high:g} {wanted.units}",
            fix=(
                f"the values look like {' or '.join(likely)}: ds[{name!r}].attrs['units'] = "
                f"{likely[0]!r}"
                if likely
                else f"ds[{name!r}] = ds[{name!r}].where(ds[{name!r}] {inside})   # missing values "
                "must be NaN, not a number; else check the source"
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Coordinate:
    """What formulas take from coordinates, which the token table does not name.

    Parameters
    ----------
    realise : callable
        Makes it of a dataset: float32 over the time or site dimensions (or a subset).
    inputs : tuple of str
        The coordinates it reads; the time axis is always there.
    """

    realise: Callable[[xr.Dataset], xr.DataArray]
    inputs: tuple[str, ...] = ()
    variables: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """A token computed from others."""

    derivation: Derivation
    parts: tuple[Source, ...]

    def realise(self, ds: xr.Dataset) -> xr.DataArray:
        """Return the result of the formula, lazy if any part is."""
        return xr.apply_ufunc(
            self.derivation.kernel,
            # Coordinates of the parts may differ in what does not matter (a height of 2 m).
            *(part.realise(ds).reset_coords(drop=True) for part in self.parts),
            dask="parallelized",
            output_dtypes=[np.float32],
        )

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the dataset it needs: each once, in order of first use."""
        return _once(*(part.variables for part in self.parts))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Variables and coordinates that its parts read: each once, in order of first use."""
        return _once(*(part.inputs for part in self.parts))

    @property
    def rule(self) -> str:
        """How it is computed, for the token table."""
        return f"derived: {self.derivation.rule}"


TokenSource: TypeAlias = Direct | Derived
Source: TypeAlias = Direct | Coordinate | Derived


def leaves(source: Source) -> Iterator[Direct]:
    """Yield the variables at the ends of a recipe."""
    if isinstance(source, Direct):
        yield source
    elif isinstance(source, Derived):
        for part in source.parts:
            yield from leaves(part)


def _once(*names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def _is_mark(wrong: NDArray[Any]) -> bool:
    """Whether some values, as they are stored, are one number such as mark what is missing."""
    first = abs(float(wrong[0]))
    if not np.isfinite(first) or not np.allclose(wrong, wrong[0], rtol=1e-5):
        return False
    digits = f"{first:.4g}".replace(".", "")
    nines = set(digits) == {"9"} and (len(digits) > 1 or wrong[0] < 0)
    return nines or first in (1, 255, 32767, 32768, 65535) or first > 1e19


def _conversion(match: Match, wanted: Variable | Target, *, needed: bool) -> Conversion:
    name, storage = match.variable.name, match.variable.storage
    storage.check()
    if needed and wanted.valid_range[0] == 0 and storage.zero_kept is not None:
        raise RangeError(
            "its fill value is 0, so that days of 0 are read as missing",
            variable=name,
            found="a fill value of 0 (Zarr's default, where a writer chose none)",
            expected="a number that marks what is missing and nothing else",
            fix=f"{storage.zero_kept}   # if no day is missing; if some are, where the data come "
            "from must say which",
        )
    if (units := match.stated_units) is not None:
        found = conversion(
            units,
            wanted.units,
            variable=name,
            time_method=match.time_method,
            interval=86400 if match.variable.has_time else None,
        )
        check_methods(match.variable)
        water = wanted.units == "mm d-1" and not is_amount(units, wanted.units)
        if match.variable.added_up and water:
            check_sum(units, variable=name, interval=86400, by_history=True)
        return found
    if isinstance(wanted, Target) and wanted.kind == "class":
        return Conversion(found="", used="1", note="labels")
    if wanted.units == "1" and wanted.valid_range != (0.0, 1.0):
        return Conversion(found="", used="1", note="no units: a pure number (CF 3.1)")
    # A fraction without units may be a percentage, so not even CF's default decides.
    readings = {
        "1": "a fraction (1) or a percentage (%)",
        "%": "a percentage (%) or a fraction (1)",
    }
    raise UnitsError(
        "the variable has no units, and xstefa does not guess",
        variable=name,
        found=f"no units on what matches {wanted.name!r}",
        expected=readings.get(wanted.units, f"units convertible to {wanted.units!r}"),
        fix=f"ds[{name!r}].attrs['units'] = {wanted.units!r}   # or what they really are",
    )
