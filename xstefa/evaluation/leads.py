"""Forecasts scored by lead time, beside persistence and the climatology of the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from xstefa.binding.forecasts import Forecast
from xstefa.binding.time_axis import find_time
from xstefa.errors import LayoutError
from xstefa.evaluation.report import compare

LATEST = 30
"""Days for which the latest observation persists."""
SEASON = 15
"""Days, around a day of the year, whose mean in other years is its climatology."""


def compare_by_lead(
    predictions: Mapping[str, xr.DataArray],
    observed: xr.DataArray,
    *,
    scores: str | Sequence[str] | None = None,
) -> xr.Dataset:
    """Score forecasts over their initial dates, for each lead time and site.

    Two references join them. Persistence is the latest observation before the initial date, of the
    30 days before it. Climatology is the mean observed within a week of that day of the year, in
    all years but its own.

    Parameters
    ----------
    predictions : mapping of str to DataArray
        By name, with initial dates and lead times, as `predict` returns them of forecasts; of an
        ensemble take the mean.
    observed : DataArray
        With one time axis, daily, on the same sites.
    scores : str or sequence of str, optional
        Names of `METRICS`; by default all. Biases of segments of the flow duration curve need
        hundreds of initial dates.

    Returns
    -------
    Dataset
        As of `compare`: along ``model``, lead times and sites, on the dates that all have.

    Raises
    ------
    LayoutError
        If a prediction has no dimension of initial dates and one of lead times.
    """
    found = dict(predictions)
    forecast = _forecast(next(iter(found.values())))
    valid = forecast.dataset.coords["valid_time"]
    time = find_time(observed.to_dataset(name="observed"))
    day = {time: valid.dt.floor("D")}
    series = observed.assign_coords({time: observed[time].dt.floor("D")})
    series = series.resample({time: "1D"}).asfreq()  # a place for each day

    def of(values: xr.DataArray, days: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """Return values of the time axis on the days of the forecast, NaN where it ends."""
        return values.reindex({time: np.unique(next(iter(days.values())))}).sel(days)

    truth = of(series, day)
    begins = day[time].isel({forecast.lead: 0}, drop=True)
    before = begins.copy(data=begins.to_index() - pd.Timedelta(1, "D"))
    latest = series.ffill(time, limit=LATEST)
    found["persistence"] = of(latest, {time: before}).broadcast_like(truth)
    found["climatology"] = of(_climatology(series, time), day)
    for name, array in found.items():
        if {*array.dims} != {*truth.dims}:
            raise LayoutError(
                "a forecast is scored on the sites that were observed",
                variable=name,
                found=f"dimensions {', '.join(map(str, array.dims))}",
                expected=f"{', '.join(map(str, truth.dims))}; of an ensemble the mean of its "
                "members",
                fix="prediction = prediction.mean('number', keep_attrs=True)",
            )
    units = observed.attrs.get("units", "")
    truth, *others = (
        array.drop_vars(set(array.coords) - set(array.dims))
        .transpose(*truth.dims)
        .assign_attrs(
            units=predictions[name].attrs.get("units", units) if name in predictions else units
        )
        for name, array in {"": truth, **found}.items()
    )
    return compare(dict(zip(found, others, strict=True)), truth, scores=scores, dim=forecast.init)


def _forecast(predicted: xr.DataArray) -> Forecast:
    forecast = Forecast.of(predicted.to_dataset(name="predicted"))
    if forecast is None or not forecast.several:
        raise LayoutError(
            "a forecast is scored over its initial dates",
            variable=str(predicted.name),
            found=f"dimensions {', '.join(map(str, predicted.dims))}",
            expected="initial dates and lead times as dimensions",
            fix="forecast.stefa.predict(..., history=analysis), of a forecast with several dates",
        )
    return forecast


def _climatology(observed: xr.DataArray, time: str) -> xr.DataArray:
    """Return the mean of the season in the other years, by day."""
    half = SEASON // 2
    smooth = observed.rolling({time: 2 * half + 1}, center=True, min_periods=1).mean()
    days = smooth.groupby(smooth[time].dt.dayofyear)
    total, count = days.sum(), days.count()
    day = smooth[time].dt.dayofyear
    own = smooth.notnull()
    others = count.sel(dayofyear=day) - own
    mean = (total.sel(dayofyear=day) - smooth.fillna(0)) / others.where(others > 0)
    return mean.drop_vars("dayofyear")
