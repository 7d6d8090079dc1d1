"""Scores of what a hydrograph is like: peaks, floods, flow signatures, wet and dry years.

Functions of a prediction and observations as in `xstefa.evaluation.metrics`, one number a site. A
score of a signature is that of the prediction less that of the observations, both of the days on
which both are known: 0 is perfect. Signatures are those of CAMELS (Addor et al. 2017,
doi:10.5194/hess-21-5293-2017, table 3). Dates count in their own calendar. Water years begin on 1
October and count with 350 known days (as in GSIM, Gudmundsson et al. 2018,
doi:10.5194/essd-10-787-2018); with too little data, less than a year of days or so many years as a
score says, it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.time_axis import day_numbers, find_time
from xstefa.binding.units import conversion
from xstefa.errors import LayoutError
from xstefa.evaluation.metrics import Floats, metric, ratio

__all__ = [
    "annual_nse",
    "baseflow_index",
    "flood_2",
    "flood_5",
    "flood_10",
    "hfd_mean",
    "high_q_dur",
    "high_q_freq",
    "low_q_dur",
    "low_q_freq",
    "missed_peaks",
    "peak_timing",
    "runoff_ratio",
    "slope_fdc",
]

LEAST_DAYS = 365
"""Known days of a site that has signatures."""

YEAR_DAYS, LEAST_YEARS = 350, 5
"""Known days of a water year that counts, and such years of a site that has floods."""

_signatures: dict[str, Callable[..., xr.DataArray]] = {}
SIGNATURES: Mapping[str, Callable[..., xr.DataArray]] = MappingProxyType(_signatures)
"""The scores by name."""

Years = NDArray[np.int64]
"""Of each day: the number of its water year, and days since that began, shape (2, day)."""

Score = Callable[[Floats, Floats, Years], float]
"""Of one site: predictions and observations, both NaN where one is not known; no day lacks."""

Signature = Callable[[Floats, Years], float]


def _score(long_name: str, units: str) -> Callable[[Score], Callable[..., xr.DataArray]]:
    """Make a metric of what is computed site by site."""

    def made(function: Score) -> Callable[..., xr.DataArray]:
        def score(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
            assert dim is not None
            return _by_site(function, pred, obs, dim)

        score.__name__, score.__doc__ = function.__name__, function.__doc__
        return metric(long_name, units, into=_signatures)(score)

    return made


def _signature(long_name: str, units: str) -> Callable[[Signature], Callable[..., xr.DataArray]]:
    """Make a metric of a signature: that of the prediction less that of the observations."""

    def made(function: Signature) -> Callable[..., xr.DataArray]:
        def error(pred: Floats, obs: Floats, years: Years) -> float:
            if np.isfinite(obs).sum() < LEAST_DAYS:
                return np.nan
            return function(pred, years) - function(obs, years)

        error.__name__, error.__doc__ = function.__name__, function.__doc__
        return _score(f"error of the {long_name}", units)(error)

    return made


@_score("mean error in the time of peaks", "days")
def peak_timing(pred: Floats, obs: Floats, years: Years) -> float:
    """Mean number of days that predicted peaks are off, as NeuralHydrology has it; 0 is perfect.

    Peaks are observed maxima at least 100 days apart, with a prominence of a standard deviation;
    if the day is no maximum of the prediction, its highest value of the three days before and after
    counts (Kratzert et al. 2021, doi:10.5194/hess-25-2685-2021, appendix B). Peaks with unknown
    days among these do not count.
    """
    pred, obs, around = _peaks(pred, obs, window=3, distance=100, prominence=np.std)
    near = pred[around]
    at = near[:, 3] > np.maximum(near[:, 2], near[:, 4])
    return _mean(np.where(at, 0, abs(near.argmax(axis=1) - 3)))


@_score("share of peaks missed", "1")
def missed_peaks(pred: Floats, obs: Floats, years: Years) -> float:
    """Share of the observed peaks without a predicted one within a day, as NeuralHydrology has it.

    0 is perfect. Peaks are maxima at least 30 days apart that reach the series' own 80th
    percentile. Peaks next to unknown days do not count.
    """
    from scipy.signal import find_peaks

    pred, obs, around = _peaks(pred, obs, window=1, distance=30, height=_upper)
    predicted = np.zeros(pred.size, dtype=bool)
    if around.size:
        predicted[find_peaks(pred, distance=30, height=_upper(pred))[0]] = True
    return _mean(np.asarray(~predicted[around].any(axis=1)))


def _upper(values: Floats) -> float:
    return float(np.percentile(values, 80))


def _peaks(
    pred: Floats, obs: Floats, *, window: int, distance: int, **least: Callable[[Floats], float]
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the known days of both, and of these the ones around each observed peak."""
    from scipy.signal import find_peaks

    days = np.flatnonzero(np.isfinite(obs))
    pred, obs = pred[days], obs[days]
    peaks = np.empty(0, dtype=np.int64)
    if obs.size:
        limits = {name: limit(obs) for name, limit in least.items()}
        peaks = find_peaks(obs, distance=distance, **limits)[0]
    peaks = peaks[(peaks >= window) & (peaks + window < days.size)]
    peaks = peaks[days[peaks + window] - days[peaks - window] == 2 * window]
    return pred, obs, peaks[:, None] + np.arange(-window, window + 1)


def _flood(period: int) -> Callable[..., xr.DataArray]:
    def flood(pred: Floats, obs: Floats, years: Years) -> float:
        highest = [[np.nanmax(q[days]) for days in _whole(obs, years)] for q in (pred, obs)]
        if len(highest[0]) < max(period, LEAST_YEARS):
            return np.nan
        found, true = np.quantile(highest, 1 - 1 / period, axis=1, method="weibull")
        return float(100 * (found - true) / true) if true else np.nan

    flood.__name__, flood.__doc__ = (
        f"flood_{period}",
        f"""Percent error of the daily flow that the highest of a year exceeds every {period} years.

        Both series have their own: the quantile of the highest flows of water years, by the
        plotting positions of Weibull (rank / (years + 1)). 0 is perfect, negative too low. Of at
        least {max(period, LEAST_YEARS)} years.
        """,
    )
    return _score(f"percent error of the flood of {period} years", "%")(flood)


flood_2, flood_5, flood_10 = map(_flood, (2, 5, 10))


@_score("Nash-Sutcliffe efficiency of the means of water years", "1")
def annual_nse(pred: Floats, obs: Floats, years: Years) -> float:
    """Nash-Sutcliffe efficiency of the means of water years, which tells wet years from dry ones.

    At most 1 (perfect); 0 is as good as the same mean in all years. Of 5 water years or more.
    """
    whole = list(_whole(obs, years))
    found, true = (np.array([np.nanmean(q[days]) for days in whole]) for q in (pred, obs))
    if true.size < LEAST_YEARS or np.ptp(true) == 0:
        return np.nan
    return float(1 - ((found - true) ** 2).mean() / true.var())


@_signature("baseflow index", "1")
def baseflow_index(flow: Floats, years: Years) -> float:
    """Error of the share of the flow that is baseflow.

    By the digital filter of Lyne and Hollick as Ladson et al. (2013, doi:10.7158/W12-028.2013.17.1)
    standardised it: parameter 0.925, three passes, 30 days mirrored at both ends; here of each
    stretch of at least 60 known days, a year in all.
    """
    from scipy.signal import lfilter

    kept, mirrored = 0.925, 30
    edges = np.flatnonzero(np.diff(np.isfinite(flow), prepend=False, append=False))
    total, slow, days = 0.0, 0.0, 0
    for first, end in edges.reshape(-1, 2):
        if end - first < 2 * mirrored:
            continue
        base = np.pad(flow[first:end], mirrored, mode="reflect")
        for step in (1, -1, 1):
            base, gain = base[::step], (1 + kept) / 2
            quick, _ = lfilter([gain, -gain], [1, -kept], base, zi=[-gain * base[0]])
            base = (base - np.maximum(quick, 0))[::step]
        total, slow = total + flow[first:end].sum(), slow + base[mirrored:-mirrored].sum()
        days += end - first
    return slow / total if days >= LEAST_DAYS and total > 0 else np.nan


@_signature("slope of the flow duration curve", "1")
def slope_fdc(flow: Floats, years: Years) -> float:
    """Error of the slope of the flow duration curve, steeper is positive.

    Of the logarithms of the flows exceeded on 33 and 66 % of the days, divided by 0.33 (Sawicz et
    al. 2011, doi:10.5194/hess-15-2895-2011). NaN for streams that are dry on a third of the days.
    """
    low, high = np.quantile(flow[np.isfinite(flow)], [1 - 0.66, 1 - 0.33])
    return float(np.log(high / low) / 0.33) if low > 0 else np.nan


@_signature("frequency of high flows", "days a year")
def high_q_freq(flow: Floats, years: Years) -> float:
    """Error of the number of days a year of more than nine times the series' own median flow."""
    return _frequency(_high(flow), flow)


@_signature("duration of high flows", "days")
def high_q_dur(flow: Floats, years: Years) -> float:
    """Error of the mean length of spells of high flow, see `high_q_freq`; 0 where there are none.

    A spell ends at an unknown day.
    """
    return _duration(_high(flow))


@_signature("frequency of low flows", "days a year")
def low_q_freq(flow: Floats, years: Years) -> float:
    """Error of the number of days a year of less than a fifth of the series' own mean flow."""
    return _frequency(_low(flow), flow)


@_signature("duration of low flows", "days")
def low_q_dur(flow: Floats, years: Years) -> float:
    """Error of the mean length of spells of low flow, see `low_q_freq` and `high_q_dur`."""
    return _duration(_low(flow))


def _high(flow: Floats) -> NDArray[np.bool_]:
    return flow > 9 * np.nanmedian(flow)


def _low(flow: Floats) -> NDArray[np.bool_]:
    return flow < 0.2 * np.nanmean(flow)


def _frequency(days: NDArray[np.bool_], flow: Floats) -> float:
    return float(365.25 * days.sum() / np.isfinite(flow).sum())


def _duration(days: NDArray[np.bool_]) -> float:
    begins = days & np.diff(days, prepend=False)
    return float(days.sum() / max(begins.sum(), 1))


@_score("error of the mean half-flow date", "days")
def hfd_mean(pred: Floats, obs: Floats, years: Years) -> float:
    """Error of the mean day on which half of the flow of a water year has passed; late is positive.

    Days on which either is not known count as without flow in both. Years that are dry in either do
    not count.
    """
    found = []
    for days in _whole(obs, years):
        passed = [np.nancumsum(q[days]) for q in (pred, obs)]
        if all(each[-1] > 0 for each in passed):
            half = [years[1, days][np.argmax(each >= each[-1] / 2)] for each in passed]
            found.append(half[0] - half[1])
    return _mean(np.array(found))


@metric("error of the runoff ratio", "1", into=_signatures)
def runoff_ratio(
    pred: xr.DataArray,
    obs: xr.DataArray,
    *,
    dim: str | None = None,
    precipitation: xr.DataArray,
) -> xr.DataArray:
    """Error of the share of the precipitation that runs off, of the days on which all are known."""
    rain = precipitation.astype(np.float64)
    found, used = rain.attrs.get("units"), obs.attrs.get("units")
    if found is not None and used is not None and found != used:
        to_flow = conversion(found, used, variable="precipitation")
        rain = rain * to_flow.scale + to_flow.offset
    known = rain.notnull() & obs.notnull()
    error = ratio((pred - obs).where(known).mean(dim), rain.where(known).mean(dim))
    return error.where(known.sum(dim) >= LEAST_DAYS)


def _by_site(function: Score, pred: xr.DataArray, obs: xr.DataArray, dim: str) -> xr.DataArray:
    """Apply a function to both series of each site, NaN on the days that are not on the axis."""
    days, years = water_years(obs, dim)

    def each(*series: Floats) -> float:
        whole = np.full((2, years.shape[1]), np.nan)
        whole[:, days] = series
        return function(whole[0], whole[1], years)

    return xr.apply_ufunc(
        each,
        *(array.chunk({dim: -1}) if array.chunks else array for array in (pred, obs)),
        input_core_dims=[[dim], [dim]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
    )


def water_years(series: xr.DataArray, dim: str) -> tuple[NDArray[np.int64], Years]:
    """Return the place of each day in an unbroken record, and the water years of that.

    Raises
    ------
    LayoutError
        If `dim` does not count days, one after another.
    """
    find_time(xr.Dataset(coords={dim: series[dim]} if dim in series.coords else {}))
    days, calendar = day_numbers(series[dim])
    if (np.diff(days) < 1).any():
        raise LayoutError(
            "hydrographs are read day by day",
            variable=dim,
            found="several values a day, or days that are not in order",
            expected="one value a day",
            fix=f"pred, obs = (each.resample({dim}='1D').mean() for each in (pred, obs))",
        )
    if not days.size:
        return days, np.empty((2, 0), dtype=np.int64)
    numbers = np.arange(days[0], days[-1] + 1)
    begin = [
        cftime.datetime(year, 10, 1, calendar=calendar)
        for year in range(int(series[dim].dt.year.min()) - 1, int(series[dim].dt.year.max()) + 1)
    ]
    since = cftime.date2num(begin, "days since 1970-01-01", calendar=calendar)
    year = np.searchsorted(since, numbers, side="right") - 1
    return days - days[0], np.array([year, numbers - since[year]])


def _whole(obs: Floats, years: Years) -> Iterator[NDArray[np.int64]]:
    """Yield the days of each water year that counts."""
    for year in np.unique(years[0]):
        days = np.flatnonzero(years[0] == year)
        if np.isfinite(obs[days]).sum() >= YEAR_DAYS:
            yield days


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean()) if values.size else np.nan
