"""Tokens computed from other variables by published formulas.

Each kernel is a plain function of NumPy arrays that broadcast. Its arguments are named after what
it takes: tokens and ingredients, each in its canonical units, ``latitude`` [degrees north] and
``day_of_year`` [1..366]. `_makes` above it says what it makes, and how the token table names it.
Kernels stay in float32, so Python scalars only. Bounds are part of a formula where daily means can
break them, and are stated.

Sources
-------
FAO-56: Allen et al. (1998), Crop evapotranspiration, FAO Irrigation and Drainage Paper 56.
Hargreaves & Samani (1985), Applied Engineering in Agriculture 1(2), 96-99.
Oudin et al. (2005), Journal of Hydrology 303, 290-306.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating]
Kernel: TypeAlias = Callable[..., Array]

LATITUDE = "latitude"
DAY_OF_YEAR = "day_of_year"

_EPSILON = 0.622  # ratio of the gas constants of dry air and water vapour


@dataclass(frozen=True, slots=True)
class Derivation:
    """One way to compute a token, elementwise, from what the kernel takes."""

    token: str
    parts: tuple[str, ...]
    kernel: Kernel
    rule: str


DERIVATIONS: list[Derivation] = []
"""In order of preference within a token, which is the order of this file."""


def _makes(token: str, rule: str) -> Callable[[Kernel], Kernel]:
    """Add a kernel to `DERIVATIONS`."""

    def register(kernel: Kernel) -> Kernel:
        parts = tuple(inspect.signature(kernel).parameters)
        DERIVATIONS.append(Derivation(token, parts, kernel, rule))
        return kernel

    return register


def saturation_vapour_pressure(temperature: Array) -> Array:
    """Saturation vapour pressure [hPa] of `temperature` [degC] (FAO-56 eq. 11)."""
    return 6.108 * np.exp(17.27 * temperature / (temperature + 237.3))


def standard_pressure(elevation: Array) -> Array:
    """Air pressure [hPa] at `elevation` [m] (FAO-56 eq. 7)."""
    return 1013.0 * ((293.0 - 0.0065 * elevation) / 293.0) ** 5.26


@_makes("relative_humidity", "from vapour pressure (FAO-56), within 0..100")
def humidity_from_vapour_pressure(vapour_pressure: Array, temperature_mean: Array) -> Array:
    """Relative humidity [%], bounded to 0..100 (FAO-56 eq. 10)."""
    saturated = saturation_vapour_pressure(temperature_mean)
    return np.clip(100.0 * vapour_pressure / saturated, 0.0, 100.0)


@_makes("relative_humidity", "from vapour pressure deficit (FAO-56), within 0..100")
def humidity_from_deficit(vpd: Array, temperature_mean: Array) -> Array:
    """Relative humidity [%], bounded to 0..100 (FAO-56 eq. 10)."""
    return np.clip(100.0 * (1.0 - vpd / saturation_vapour_pressure(temperature_mean)), 0.0, 100.0)


@_makes("relative_humidity", "from dew point (FAO-56), within 0..100")
def humidity_from_dewpoint(dewpoint: Array, temperature_mean: Array) -> Array:
    """Relative humidity [%], bounded to 0..100 (FAO-56 eq. 14)."""
    return humidity_from_vapour_pressure(saturation_vapour_pressure(dewpoint), temperature_mean)


@_makes("relative_humidity", "from specific humidity and pressure (FAO-56), within 0..100")
def humidity_from_specific(
    specific_humidity: Array, temperature_mean: Array, surface_pressure: Array
) -> Array:
    """Relative humidity [%], bounded to 0..100; vapour pressure is q p / (0.622 + 0.378 q)."""
    share = _EPSILON + (1.0 - _EPSILON) * specific_humidity
    vapour_pressure = specific_humidity * surface_pressure / share
    return humidity_from_vapour_pressure(vapour_pressure, temperature_mean)


@_makes(
    "relative_humidity",
    "from specific humidity, standard pressure at elevation (FAO-56), within 0..100",
)
def _humidity_from_specific_at(
    specific_humidity: Array, temperature_mean: Array, elevation: Array
) -> Array:
    return humidity_from_specific(specific_humidity, temperature_mean, standard_pressure(elevation))


@_makes("relative_humidity", "from specific humidity at 1013.25 hPa (FAO-56), within 0..100")
def _humidity_from_specific_at_sea_level(
    specific_humidity: Array, temperature_mean: Array
) -> Array:
    pressure = np.full_like(specific_humidity, 1013.25)
    return humidity_from_specific(specific_humidity, temperature_mean, pressure)


@_makes("relative_humidity", "(maximum + minimum) / 2")
def mean_humidity(relative_humidity_max: Array, relative_humidity_min: Array) -> Array:
    """Relative humidity [%] as the middle of its extremes."""
    return 0.5 * (relative_humidity_max + relative_humidity_min)


@_makes("temperature_mean", "(maximum + minimum) / 2")
def mean_temperature(temperature_max: Array, temperature_min: Array) -> Array:
    """Daily mean [degC] as the middle of the extremes (FAO-56 eq. 9)."""
    return 0.5 * (temperature_max + temperature_min)


@_makes("shortwave_down", "daylight mean × day length")
def daily_shortwave(shortwave_down_daylight: Array, day_length: Array) -> Array:
    """24 h mean [W m-2] of a daylight mean [W m-2] lasting `day_length` [s]."""
    return shortwave_down_daylight * (day_length / 86400.0)


@_makes("wind_speed", "speed of the mean wind vector")
def speed(eastward_wind: Array, northward_wind: Array) -> Array:
    """Magnitude of the mean wind vector [m s-1]: at most the mean speed."""
    return np.hypot(eastward_wind, northward_wind)


@_makes("slope", "tangent of the angle")
def tangent(slope_angle: Array) -> Array:
    """Slope [m m-1] of an angle [degree]."""
    return np.tan(np.deg2rad(slope_angle))


def extraterrestrial_radiation(latitude: Array, day: Array) -> Array:
    """Daily extraterrestrial radiation [MJ m-2 d-1] (FAO-56 eq. 21-25).

    Parameters
    ----------
    latitude : array
        Degrees north.
    day : array
        Day of the year, 1..366; broadcast against `latitude`.
    """
    phi = np.deg2rad(latitude)
    angle = 2.0 * np.pi / 365.0 * day
    distance = 1.0 + 0.033 * np.cos(angle)
    declination = 0.409 * np.sin(angle - 1.39)
    # Beyond the polar circles the sun does not set (or rise): the sunset angle is pi (or 0).
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(declination), -1.0, 1.0))
    height = sunset * np.sin(phi) * np.sin(declination)
    height = height + np.cos(phi) * np.cos(declination) * np.sin(sunset)
    return np.maximum(24.0 * 60.0 / np.pi * 0.0820 * distance * height, 0.0)


@_makes("potential_evapotranspiration", "Hargreaves-Samani 1985")
def hargreaves(
    temperature_max: Array, temperature_min: Array, latitude: Array, day_of_year: Array
) -> Array:
    """Potential evapotranspiration [mm d-1], at least 0 (Hargreaves-Samani 1985; FAO-56 eq. 52).

    A day without a range of temperature, which the formula takes for one without evaporation, has
    the value of `oudin`: CAMELS-US's Maurer and NLDAS files hold the mean as both extremes.
    """
    evaporable = 0.408 * extraterrestrial_radiation(latitude, day_of_year)
    mean = mean_temperature(temperature_max, temperature_min)
    swing = np.sqrt(np.maximum(temperature_max - temperature_min, 0.0))
    found = np.maximum(0.0023 * evaporable * (mean + 17.8) * swing, 0.0)
    alike = without_range(temperature_max, temperature_min)
    return np.where(alike, oudin(mean, latitude, day_of_year), found)


@_makes("potential_evapotranspiration", "Oudin et al. 2005")
def oudin(temperature_mean: Array, latitude: Array, day_of_year: Array) -> Array:
    """Potential evapotranspiration [mm d-1], at least 0 (Oudin et al. 2005)."""
    evaporable = 0.408 * extraterrestrial_radiation(latitude, day_of_year)
    return np.maximum(evaporable * (temperature_mean + 5.0) / 100.0, 0.0)


def without_range(maximum: Array, minimum: Array) -> NDArray[np.bool_]:
    """Return where the extremes of a day are none: the same, or the wrong way round."""
    return np.asarray(maximum <= minimum)


def hide_false_extremes(forcing: NDArray[np.float32], names: Sequence[str]) -> None:
    """Make the extremes of temperature not known where they are none, in place.

    Parameters
    ----------
    forcing : ndarray of float32, shape (..., C)
    names : sequence of str, length C
        The tokens.
    """
    if {"temperature_max", "temperature_min"} <= set(names):
        both = [names.index("temperature_max"), names.index("temperature_min")]
        wrong = without_range(forcing[..., both[0]], forcing[..., both[1]])
        for column in both:
            forcing[..., column][wrong] = np.nan
