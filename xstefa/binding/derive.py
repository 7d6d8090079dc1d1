"""Tokens computed from other variables by published formulas.

Each kernel is a plain function of NumPy arrays that broadcast; `DERIVATIONS` says which token it
makes, from which parts, and how the token table names it. Kernels stay in float32, so Python
scalars only. Bounds are part of a formula where daily means can break them, and are stated.

Sources
-------
FAO-56: Allen et al. (1998), Crop evapotranspiration, FAO Irrigation and Drainage Paper 56.
Hargreaves & Samani (1985), Applied Engineering in Agriculture 1(2), 96-99.
Oudin et al. (2005), Journal of Hydrology 303, 290-306.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAY_OF_YEAR", "DERIVATIONS", "LATITUDE", "Derivation", "hide_false_extremes"]

Array: TypeAlias = NDArray[np.floating]

LATITUDE = "latitude"
DAY_OF_YEAR = "day of year"

_EPSILON = 0.622  # ratio of the gas constants of dry air and water vapour


@dataclass(frozen=True, kw_only=True, slots=True)
class Derivation:
    """One way to compute a token.

    Parameters
    ----------
    token : str
        What it makes.
    parts : tuple of str
        Tokens, ingredients, ``"latitude"`` [degree] or ``"day of year"`` [1..366], in the order
        of the arguments of `kernel`, each in its canonical units.
    kernel : callable
        Elementwise function of float32 arrays.
    rule : str
        How the token table describes it.
    """

    token: str
    parts: tuple[str, ...]
    kernel: Callable[..., Array]
    rule: str


def saturation_vapour_pressure(temperature: Array) -> Array:
    """Saturation vapour pressure [hPa] of `temperature` [degC] (FAO-56 eq. 11)."""
    return 6.108 * np.exp(17.27 * temperature / (temperature + 237.3))


def standard_pressure(elevation: Array) -> Array:
    """Air pressure [hPa] at `elevation` [m] (FAO-56 eq. 7)."""
    return 1013.0 * ((293.0 - 0.0065 * elevation) / 293.0) ** 5.26


def humidity_from_vapour_pressure(vapour_pressure: Array, temperature: Array) -> Array:
    """Relative humidity [%], bounded to 0..100 (FAO-56 eq. 10)."""
    return np.clip(100.0 * vapour_pressure / saturation_vapour_pressure(temperature), 0.0, 100.0)


def humidity_from_deficit(vpd: Array, temperature: Array) -> Array:
    """Relative humidity [%], bounded to 0..100 (FAO-56 eq. 10)."""
    return np.clip(100.0 * (1.0 - vpd / saturation_vapour_pressure(temperature)), 0.0, 100.0)


def humidity_from_dewpoint(dewpoint: Array, temperature: Array) -> Array:
    """Relative humidity [%], bounded to 0..100 (FAO-56 eq. 14)."""
    return humidity_from_vapour_pressure(saturation_vapour_pressure(dewpoint), temperature)


def humidity_from_specific(specific: Array, temperature: Array, pressure: Array) -> Array:
    """Relative humidity [%], bounded to 0..100; vapour pressure is q p / (0.622 + 0.378 q)."""
    vapour_pressure = specific * pressure / (_EPSILON + (1.0 - _EPSILON) * specific)
    return humidity_from_vapour_pressure(vapour_pressure, temperature)


def _humidity_from_specific_at(specific: Array, temperature: Array, elevation: Array) -> Array:
    return humidity_from_specific(specific, temperature, standard_pressure(elevation))


def _humidity_from_specific_at_sea_level(specific: Array, temperature: Array) -> Array:
    return humidity_from_specific(specific, temperature, np.full_like(specific, 1013.25))


def midrange(maximum: Array, minimum: Array) -> Array:
    """Daily mean as (maximum + minimum) / 2 (FAO-56 eq. 9 for temperature)."""
    return 0.5 * (maximum + minimum)


def daily_shortwave(daylight_mean: Array, day_length: Array) -> Array:
    """24 h mean [W m-2] of a daylight mean [W m-2] lasting `day_length` [s]."""
    return daylight_mean * (day_length / 86400.0)


def speed(eastward: Array, northward: Array) -> Array:
    """Magnitude of the mean wind vector [m s-1]: at most the mean speed."""
    return np.hypot(eastward, northward)


def tangent(angle: Array) -> Array:
    """Slope [m m-1] of an angle [degree]."""
    return np.tan(np.deg2rad(angle))


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


def hargreaves(maximum: Array, minimum: Array, latitude: Array, day: Array) -> Array:
    """Potential evapotranspiration [mm d-1], at least 0 (Hargreaves-Samani 1985; FAO-56 eq. 52).

    A day without a range of temperature, which the formula takes for one without evaporation, has
    the value of `oudin`: CAMELS-US's Maurer and NLDAS files hold the mean as both extremes.
    """
    evaporable = 0.408 * extraterrestrial_radiation(latitude, day)
    mean = midrange(maximum, minimum)
    swing = np.sqrt(np.maximum(maximum - minimum, 0.0))
    found = np.maximum(0.0023 * evaporable * (mean + 17.8) * swing, 0.0)
    return np.where(without_range(maximum, minimum), oudin(mean, latitude, day), found)


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


def oudin(temperature: Array, latitude: Array, day: Array) -> Array:
    """Potential evapotranspiration [mm d-1], at least 0 (Oudin et al. 2005)."""
    evaporable = 0.408 * extraterrestrial_radiation(latitude, day)
    return np.maximum(evaporable * (temperature + 5.0) / 100.0, 0.0)


# In order of preference within a token.
DERIVATIONS: tuple[Derivation, ...] = (
    Derivation(
        token="temperature_mean",
        parts=("temperature_max", "temperature_min"),
        kernel=midrange,
        rule="(maximum + minimum) / 2",
    ),
    Derivation(
        token="shortwave_down",
        parts=("shortwave_down_daylight", "day_length"),
        kernel=daily_shortwave,
        rule="daylight mean × day length",
    ),
    Derivation(
        token="relative_humidity",
        parts=("vapour_pressure", "temperature_mean"),
        kernel=humidity_from_vapour_pressure,
        rule="from vapour pressure (FAO-56), within 0..100",
    ),
    Derivation(
        token="relative_humidity",
        parts=("vpd", "temperature_mean"),
        kernel=humidity_from_deficit,
        rule="from vapour pressure deficit (FAO-56), within 0..100",
    ),
    Derivation(
        token="relative_humidity",
        parts=("dewpoint", "temperature_mean"),
        kernel=humidity_from_dewpoint,
        rule="from dew point (FAO-56), within 0..100",
    ),
    Derivation(
        token="relative_humidity",
        parts=("specific_humidity", "temperature_mean", "surface_pressure"),
        kernel=humidity_from_specific,
        rule="from specific humidity and pressure (FAO-56), within 0..100",
    ),
    Derivation(
        token="relative_humidity",
        parts=("specific_humidity", "temperature_mean", "elevation"),
        kernel=_humidity_from_specific_at,
        rule="from specific humidity, standard pressure at elevation (FAO-56), within 0..100",
    ),
    Derivation(
        token="relative_humidity",
        parts=("specific_humidity", "temperature_mean"),
        kernel=_humidity_from_specific_at_sea_level,
        rule="from specific humidity at 1013.25 hPa (FAO-56), within 0..100",
    ),
    Derivation(
        token="relative_humidity",
        parts=("relative_humidity_max", "relative_humidity_min"),
        kernel=midrange,
        rule="(maximum + minimum) / 2",
    ),
    Derivation(
        token="potential_evapotranspiration",
        parts=("temperature_max", "temperature_min", LATITUDE, DAY_OF_YEAR),
        kernel=hargreaves,
        rule="Hargreaves-Samani 1985",
    ),
    Derivation(
        token="potential_evapotranspiration",
        parts=("temperature_mean", LATITUDE, DAY_OF_YEAR),
        kernel=oudin,
        rule="Oudin et al. 2005",
    ),
    Derivation(
        token="wind_speed",
        parts=("eastward_wind", "northward_wind"),
        kernel=speed,
        rule="speed of the mean wind vector",
    ),
    Derivation(token="slope", parts=("slope_angle",), kernel=tangent, rule="tangent of the angle"),
)
