"""How numbers are stored: packing, marks of missing values and limits, in the words of CF.

What xarray decoded is in the encoding; what is still among the attributes was not applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.errors import RangeError, UnitsError

_PACKING = ("scale_factor", "add_offset")
_MARKS = ("_FillValue", "missing_value")
_LIMITS = ("valid_range", "valid_min", "valid_max")
_NAMES = frozenset((*_PACKING, *_MARKS, *_LIMITS))
_DISTINCT = 16  # so many different numbers are no marks of missing values
_STRAY = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """From what is stored to what is meant.

    Parameters
    ----------
    variable : str
    scale, offset : float
        ``meant = scale * stored + offset`` (CF 8.1).
    missing : tuple of float
        Stored numbers that mark missing values (CF 2.5.1).
    low, high : float
        Values outside are missing (CF 2.5.1), in meant numbers.
    doubt : str, optional
        What the attributes leave open.
    zero_kept : str, optional
        What keeps values of 0 from being read as missing, where they are or were.
    """

    variable: str
    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    low: float = -np.inf
    high: float = np.inf
    doubt: str | None = None
    zero_kept: str | None = None

    @classmethod
    def of(cls, variable: xr.Variable, name: str) -> Self:
        """Read the attributes and the encoding of a variable; no data."""
        attrs, encoding = variable.attrs, variable.encoding
        if variable.dtype.kind not in "iuf" or not (
            _NAMES & attrs.keys() or _NAMES & encoding.keys()
        ):
            return cls(variable=name)
        scale, offset = _packing(attrs)
        packed, doubt = (scale, offset) != (1.0, 0.0), None
        if packed and (variable.dtype.kind == "f" or not np.isfinite(scale * offset)):
            # Programs that unpack may leave the attributes, programs that only mask may not unpack.
            doubt = ", ".join(f"{key} {attrs[key]}" for key in _PACKING if key in attrs)
            scale, offset = 1.0, 0.0
        were = (scale, offset) if packed else _packing(encoding)
        stored = getattr(variable.dtype if packed else encoding.get("dtype"), "kind", "f")
        low, high = _limits(attrs, were, packed=were != (1.0, 0.0) and stored in "iu")
        marks, gone = (
            [mark for key in _MARKS for mark in _numbers(each.get(key))]
            for each in (attrs, encoding)
        )
        array, kept = f"ds[{name!r}]", None
        if 0 in (scale * mark + offset for mark in marks):
            kept = f"[{array}.attrs.pop(key, None) for key in {_MARKS}]"
        elif 0 in (were[0] * mark + were[1] for mark in gone):
            kept = f"{array} = {array}.fillna(0).drop_encoding()"
        return cls(
            variable=name,
            scale=scale,
            offset=offset,
            missing=tuple(sorted({mark for mark in marks if np.isfinite(mark)})),
            low=low,
            high=high,
            doubt=doubt,
            zero_kept=kept,
        )

    def check(self) -> None:
        """Raise UnitsError if it is not clear whether the numbers are packed."""
        if self.doubt is None:
            return
        attrs = f"ds[{self.variable!r}].attrs"
        raise UnitsError(
            "attributes of packed integers on numbers that are none",
            variable=self.variable,
            found=self.doubt,
            expected="integers, or numbers that are unpacked and say nothing of packing",
            fix=f"ds = xr.decode_cf(ds)   # if they are packed; else [{attrs}.pop(key, None) for "
            f"key in {_PACKING}]",
        )

    @property
    def as_it_is(self) -> bool:
        """Whether the numbers that are stored are those that are meant."""
        return self.scale == 1 and self.offset == 0 and not self.missing and not self.limited

    @property
    def limited(self) -> bool:
        """Whether there are limits."""
        return bool(np.isfinite(self.low) or np.isfinite(self.high))

    def __call__(self, array: xr.DataArray) -> xr.DataArray:
        """Return an array of the variable unpacked, and NaN where missing; lazy if it is."""
        if self.as_it_is:
            return array
        dtype = np.result_type(array.dtype, np.float32)
        return xr.apply_ufunc(
            self._read, array, dask="parallelized", output_dtypes=[dtype], keep_attrs=True
        )

    def _read(self, stored: NDArray[Any]) -> NDArray[Any]:
        meant = stored.astype(np.result_type(stored.dtype, np.float32))
        if self.scale != 1 or self.offset != 0:
            meant = self.scale * meant + self.offset
        for mark in self.missing:
            same = mark if stored.dtype.kind in "iu" else stored.dtype.type(mark)
            meant[stored == same] = np.nan
        if self.limited:
            # What lies a breath outside is rounding, and not missing.
            sides = [abs(side) for side in (self.low, self.high) if np.isfinite(side)]
            breath = 1e-3 * max(1.0, *sides)
            outside = (meant < self.low - breath) | (meant > self.high + breath)
            self._check_limits(meant, outside)
            meant[outside] = np.nan
        return meant

    def _check_limits(self, meant: NDArray[Any], outside: NDArray[np.bool_]) -> None:
        """Refuse limits that cut through the values: they are those of other units."""
        count, known = int(outside.sum()), int(np.isfinite(meant).sum())
        if count <= _STRAY * known or np.unique(meant[outside][:1000]).size < _DISTINCT:
            return
        raise RangeError(
            "its attributes call a good part of its values invalid",
            variable=self.variable,
            found=f"{count} of {known} values outside of valid limits {self.low:g} to "
            f"{self.high:g}, e.g. {meant[outside][0]:g}",
            expected="limits in the units of the values (CF 2.5.1)",
            fix=f"[ds[{self.variable!r}].attrs.pop(key, None) for key in {_LIMITS}]",
        )


def decoded(ds: xr.Dataset) -> xr.Dataset:
    """Return a dataset of the values that are meant, without the attributes that say how.

    What leaves a doubt keeps its attributes, for whoever reads it as a token.
    """
    found = {}
    for key, array in ds.data_vars.items():
        storage = Storage.of(array.variable, str(key))
        if storage.doubt is None and not storage.as_it_is:
            found[key] = storage(array)
            found[key].attrs = {k: v for k, v in array.attrs.items() if k not in _NAMES}
    return ds.assign(found) if found else ds


def _packing(attrs: Mapping[Any, Any]) -> tuple[float, float]:
    scale, offset = (
        next(iter(_numbers(attrs[key])), np.nan) if key in attrs else default
        for key, default in zip(_PACKING, (1.0, 0.0), strict=True)
    )
    return scale, offset


def _limits(
    attrs: Mapping[Any, Any], packing: tuple[float, float], *, packed: bool
) -> tuple[float, float]:
    """Return the limits in meant numbers. Those of packed values are packed, if of their type."""
    span: Any = attrs.get("valid_range")
    pair = isinstance(span, np.ndarray | list | tuple) and len(span) == 2
    ends = [*span] if pair else [attrs.get(key) for key in _LIMITS[1:]]
    scale, offset = packing
    found = []
    for end, free, widest in zip(ends, (-np.inf, np.inf), (min, max), strict=True):
        number = next(iter(_numbers(end)), free)
        readings = [number]
        if packed and not isinstance(end, float | np.floating):
            # Zarr's attributes are JSON, which has no types of integers: then both are allowed.
            readings = [scale * number + offset, *(readings if type(end) is int else ())]
        found.append(widest(readings))
    low, high = found
    return (low, high) if low < high and scale > 0 else (-np.inf, np.inf)


def _numbers(value: object) -> list[float]:
    """Return the numbers of an attribute, which may be text; none if it has others."""
    try:
        found = np.ravel(np.asarray(value)).astype(float).tolist()
    except (TypeError, ValueError):
        return []
    return [number for number in found if not np.isnan(number)]
