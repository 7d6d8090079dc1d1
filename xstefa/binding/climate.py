"""Is the climate of a record that of its units? What no range can see: inches labelled mm d-1.

A site's own attributes say most. Without them there are bounds that hold all over the world. For
rain that is not its mean, which is small in a desert, but the mean weighted by itself: how much it
rains on the days that bring the rain, 5 to 60 mm everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xstefa.binding.layout import Layout
from xstefa.binding.sources import Direct, TokenSource
from xstefa.binding.units import conversion
from xstefa.errors import UnitsError

__all__ = ["Unlikely", "unlikely"]

_YEAR = 365
_DAYS = 1000
_LEAST = 300  # values that say what a climate is

# Attributes and records of one site differ by as much: other years, products and definitions.
_APART, _PET_APART = 2.5, 3.0

_RAIN = (3.5, 80.0)
_DESERT_RAIN, _DESERT = (1.0, 80.0), 0.1  # where the mean is less, mm d-1
_RADIATION = (60.0, 350.0)
_TEMPERATURE = (-35.0, 33.0)
_EVAPORATION = (0.015, 0.4)  # mm d-1 for each degree of the mean temperature above -17.8 degC

_UNITS = {
    "mm d-1": ("m d-1", "inch d-1", "cm d-1", "mm h-1", "kg m-2 s-1", "0.1 mm d-1"),
    "W m-2": ("MJ m-2 d-1", "kJ m-2 d-1", "kWh m-2 d-1"),
    "degC": ("degF",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Unlikely:
    """A variable whose values are unlikely to be in its units.

    Parameters
    ----------
    variable, token, units : str
    found, expected : str
        Of which quantity.
    likely : tuple of str
        Units in which it would fit.
    """

    variable: str
    token: str
    units: str
    found: str
    expected: str
    likely: tuple[str, ...]

    @property
    def text(self) -> str:
        """The same for all parts of a record."""
        fix = f"ds[{self.variable!r}].attrs['units'] = "
        return f"{self.variable!r} is unlikely to be {self.token} in {self.units}. " + (
            f"The values look like {' or '.join(self.likely)}: {fix}{self.likely[0]!r}"
            if self.likely
            else "Check its units, and whether its values are of days"
        )

    def __str__(self) -> str:
        return f"{self.text}   # found {self.found}; expected {self.expected}"


def unlikely(
    ds: xr.Dataset, sources: Mapping[str, TokenSource], *, layout: Layout
) -> list[Unlikely]:
    """Compare long-term means with the attributes of the sites and with the world's climates.

    Reads up to 1000 days, evenly spread, of up to 64 sites along each dimension; finds nothing in
    less than a year.
    """
    days = ds.sizes[layout.time]
    if days < _YEAR:
        return []
    part = ds.isel(layout.spread(ds, days=_DAYS))
    return list(_compare(_Climate(part, sources, layout)))


class _Climate:
    """Long-term means of the tokens at each site; the values behind them are made once."""

    def __init__(
        self, part: xr.Dataset, sources: Mapping[str, TokenSource], layout: Layout
    ) -> None:
        self.sources = sources
        self._part = part
        self._layout = layout
        self._values: dict[str, xr.DataArray | None] = {}

    def values(self, token: str) -> xr.DataArray | None:
        """Values of a token, None if there are too few."""
        if token not in self._values:
            self._values[token] = self._read(token)
        return self._values[token]

    def _read(self, token: str) -> xr.DataArray | None:
        if token not in self.sources:
            return None
        array = self.sources[token].realise(self._part, self._layout).reset_coords(drop=True)
        series = self._layout.time in array.dims
        return array if not series or int(array.notnull().sum()) >= _LEAST else None

    def mean(self, token: str) -> xr.DataArray | None:
        """Mean at each site."""
        array = self.values(token)
        time = self._layout.time
        return array if array is None or time not in array.dims else array.mean(time)

    def weighted(self, token: str) -> xr.DataArray | None:
        """Mean weighted by itself."""
        array = self.values(token)
        time = self._layout.time
        return None if array is None else (array**2).sum(time) / array.sum(time)


def _compare(climate: _Climate) -> Iterator[Unlikely]:
    rain, pet = climate.mean("precipitation"), climate.mean("potential_evapotranspiration")
    p_mean, pet_mean, aridity = map(climate.mean, ("p_mean", "pet_mean", "aridity"))
    for token, mean, own, apart in (
        ("precipitation", rain, p_mean, _APART),
        ("potential_evapotranspiration", pet, pet_mean, _PET_APART),
    ):
        expected = own
        if own is None and aridity is not None:
            if token == "precipitation":
                expected = None if pet_mean is None else pet_mean / aridity
            else:
                expected = None if p_mean is None else p_mean * aridity
        if mean is None or expected is None:
            continue
        ratio, usual = _middle(mean / expected), _middle(expected)
        if ratio is not None and usual is not None:
            what = f"about {usual:.3g} mm d-1, as the attributes of its sites say"
            low, high = usual / apart, usual * apart
            yield from _judge(climate, token, ratio * usual, low, high, "a mean of", what)

    amount, typical = climate.weighted("precipitation"), _middle(rain)
    if amount is not None and typical is not None:
        low, high = _DESERT_RAIN if typical < _DESERT else _RAIN
        what = f"{low:g} to {high:g} mm, as anywhere"
        name = "a typical day of rain of"
        yield from _judge(climate, "precipitation", _middle(amount), low, high, name, what)
    warm = climate.mean("temperature_mean")
    if pet is not None and warm is not None:
        above = (warm + 17.8).clip(min=8.0)
        low, high = (float(_middle(above) or 1.0) * each for each in _EVAPORATION)
        what = f"{low:.2g} to {high:.2g} mm d-1 at its temperature"
        yield from _judge(
            climate, "potential_evapotranspiration", _middle(pet), low, high, "a mean of", what
        )
    for token, (low, high) in (("shortwave_down", _RADIATION), ("temperature_mean", _TEMPERATURE)):
        what = f"{low:g} to {high:g}, as anywhere"
        mean = climate.mean(token)
        yield from _judge(climate, token, _middle(mean), low, high, "a mean of", what)


def _middle(array: xr.DataArray | None) -> float | None:
    """Median over the sites."""
    if array is None:
        return None
    known = array.values[np.isfinite(array.values)]
    return float(np.median(known)) if known.size else None


def _judge(
    climate: _Climate,
    token: str,
    found: float | None,
    low: float,
    high: float,
    what: str,
    expected: str,
) -> Iterator[Unlikely]:
    source = climate.sources.get(token)
    if found is None or low <= found <= high or not isinstance(source, Direct):
        return
    used, wanted, name = source.conversion, source.wanted, source.match.variable.name
    centre, fitting = 0.5 * (low + high) if low < 0 else np.sqrt(low * high), []
    for units in _UNITS.get(wanted.units, ()):
        try:
            other = conversion(
                units,
                wanted.units,
                variable=name,
                time_method=source.match.time_method,
                interval=86400,
            )
        except UnitsError:
            continue
        raw = (found - used.offset) / used.scale
        if low <= (then := other.scale * raw + other.offset) <= high:
            fitting.append((abs(np.log(then / centre)) if low > 0 else 0.0, units))
    yield Unlikely(
        variable=name,
        token=token,
        units=used.found or used.used,
        found=f"{what} {found:.3g} {wanted.units}",
        expected=expected,
        likely=tuple(units for _, units in sorted(fitting)[:2]),
    )
