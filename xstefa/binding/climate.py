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

_READ = {
    "precipitation", "potential_evapotranspiration", "temperature_mean", "shortwave_down",
    "p_mean", "pet_mean", "aridity",
}  # fmt: skip

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
    token : str
    text : str
        The same for all parts of a record.
    values : str
        What was found and expected.
    """

    token: str
    text: str
    values: str

    def __str__(self) -> str:
        return f"{self.text}   # {self.values}"


def unlikely(
    ds: xr.Dataset, sources: Mapping[str, TokenSource], *, layout: Layout
) -> list[Unlikely]:
    """Compare long-term means with the attributes of the sites and with the world's climates.

    Reads up to 1000 days, evenly spread, of up to 64 sites along each dimension; finds nothing in
    less than a year.
    """
    time = layout.time
    if ds.sizes[time] < _YEAR:
        return []
    part = ds.isel(layout.spread(ds, days=_DAYS))
    means: dict[str, xr.DataArray] = {}
    for token in _READ & sources.keys():
        array = sources[token].realise(part).reset_coords(drop=True)
        if time not in array.dims:
            means[token] = array
        elif int(array.notnull().sum()) >= _LEAST:
            means[token] = array.mean(time)
            if token == "precipitation":
                means["heavy"] = (array**2).sum(time) / array.sum(time)
    return [
        Unlikely(token=token, text=_text(source, found, limits), values=values)
        for token, what, found, limits, expected in _expectations(means)
        if isinstance(source := sources[token], Direct) and not limits[0] <= found <= limits[1]
        for values in [f"found {what} of {found:.3g} {source.wanted.units}; expected {expected}"]
    ]


def _expectations(
    means: Mapping[str, xr.DataArray],
) -> Iterator[tuple[str, str, float, tuple[float, float], str]]:
    """Yield token, what of it, how much it is, the limits, and what is expected in words."""
    rain, pet, warm = (
        means.get(token)
        for token in ("precipitation", "potential_evapotranspiration", "temperature_mean")
    )
    p_mean, pet_mean, aridity = map(means.get, ("p_mean", "pet_mean", "aridity"))
    if aridity is not None:
        if p_mean is None and pet_mean is not None:
            p_mean = pet_mean / aridity
        elif pet_mean is None and p_mean is not None:
            pet_mean = p_mean * aridity
    for token, mean, own, apart in (
        ("precipitation", rain, p_mean, _APART),
        ("potential_evapotranspiration", pet, pet_mean, _PET_APART),
    ):
        if mean is None or own is None:
            continue
        ratio, usual = _middle(mean / own), _middle(own)
        if ratio is not None and usual is not None:
            expected = f"about {usual:.3g} mm d-1, as the attributes of its sites say"
            yield token, "a mean", ratio * usual, (usual / apart, usual * apart), expected
    amount, typical = _middle(means.get("heavy")), _middle(rain)
    if amount is not None and typical is not None:
        low, high = _DESERT_RAIN if typical < _DESERT else _RAIN
        expected = f"{low:g} to {high:g} mm, as anywhere"
        yield "precipitation", "a typical day of rain", amount, (low, high), expected
    lost = _middle(pet)
    if lost is not None and warm is not None:
        above = _middle((warm + 17.8).clip(min=8.0)) or 1.0
        low, high = (float(above * each) for each in _EVAPORATION)
        expected = f"{low:.2g} to {high:.2g} mm d-1 at its temperature"
        yield "potential_evapotranspiration", "a mean", lost, (low, high), expected
    for token, (low, high) in (("shortwave_down", _RADIATION), ("temperature_mean", _TEMPERATURE)):
        if (found := _middle(means.get(token))) is not None:
            yield token, "a mean", found, (low, high), f"{low:g} to {high:g}, as anywhere"


def _middle(array: xr.DataArray | None) -> float | None:
    """Median over the sites."""
    if array is None:
        return None
    known = array.values[np.isfinite(array.values)]
    return float(np.median(known)) if known.size else None


def _text(source: Direct, found: float, limits: tuple[float, float]) -> str:
    (low, high), name = limits, source.name
    centre, fitting = 0.5 * (low + high) if low < 0 else np.sqrt(low * high), []
    for units in _UNITS.get(source.wanted.units, ()):
        then = source.as_if(units, found)
        if then is not None and low <= then <= high:
            fitting.append((abs(np.log(then / centre)) if low > 0 else 0.0, units))
    likely = [units for _, units in sorted(fitting)[:2]]
    label = source.conversion.found or source.conversion.used
    return f"{name!r} is unlikely to be {source.wanted.name} in {label}. " + (
        f"The values look like {' or '.join(likely)}: ds[{name!r}].attrs['units'] = {likely[0]!r}"
        if likely
        else "Check its units, and whether its values are of days"
    )
