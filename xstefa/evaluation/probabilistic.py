"""Scores of predictive quantiles against observations, one number a site.

Each takes an `xarray.DataArray` of quantiles, which have the dimension ``quantile`` of
`StefaAccessor.predict`, and an observed one, and reduces time, of static targets sites. What is
missing in either does not count; dask arrays stay lazy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from xstefa.errors import LayoutError, OptionError
from xstefa.evaluation.metrics import paired

LEVELS = tuple(level / 20 for level in range(1, 20, 2))
"""Levels of the quantiles that `evaluate` asks for: the middles of ten equal parts."""

INTERVAL = 0.9
"""Probability of the interval whose `coverage` and `sharpness` is scored."""


def crps(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Continuous ranked probability score, in units of the observations; 0 is perfect.

    Twice the mean pinball loss over the levels, which are to be the middles of equal parts
    (Gneiting and Raftery 2007, doi:10.1198/016214506000001437). Of a prediction without spread it
    is the mean absolute error.

    Raises
    ------
    OptionError
        If the levels are others.
    """
    pred, obs, dim = _paired(pred, obs, dim)
    levels = np.sort(pred["quantile"].values)
    if not np.allclose(levels, (np.arange(levels.size) + 0.5) / levels.size, atol=1e-6):
        raise OptionError(
            variable="quantiles",
            found=f"levels {levels.tolist()}",
            expected="the middles of equal parts",
            fix=f"quantiles={list(LEVELS)}",
        )
    excess = obs - pred
    pinball = xr.where(excess < 0, pred["quantile"] - 1, pred["quantile"]) * excess
    return _scored(
        2 * pinball.mean(dim).mean("quantile"), "continuous ranked probability score", obs
    )


def coverage(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Share of the observations within the interval of 90 %, its attribute ``nominal``."""
    pred, obs, dim = _paired(pred, obs, dim)
    lower, upper = _ends(pred)
    known = obs.isel(quantile=0, drop=True).notnull()
    inside = ((obs >= lower) & (obs <= upper)).any("quantile")
    name = f"share of observations within the {100 * INTERVAL:.0f} % interval"
    found = _scored(inside.where(known).mean(dim), name)
    return found.assign_attrs(nominal=INTERVAL)


def sharpness(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Mean width of the interval of 90 %, in units of the observations."""
    pred, obs, dim = _paired(pred, obs, dim)
    lower, upper = _ends(pred)
    return _scored(
        (upper - lower).mean(dim), f"mean width of the {100 * INTERVAL:.0f} % interval", obs
    )


def pit(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Share of the observations below each quantile: that of its level, if levels hold.

    It is the distribution of the probability integral transform, at the levels. An observation
    equal to a quantile counts half.
    """
    pred, obs, dim = _paired(pred, obs, dim)
    below = (obs < pred) + 0.5 * (obs == pred)
    found = below.where(obs.notnull()).mean(dim).transpose("quantile", ...)
    return _scored(found, "share of observations below the quantile")


PROBABILISTIC: Mapping[str, Callable[..., xr.DataArray]] = {
    score.__name__: score for score in (crps, coverage, sharpness, pit)
}
"""The scores of quantiles by name."""


def _paired(
    pred: xr.DataArray, obs: xr.DataArray, dim: str | None
) -> tuple[xr.DataArray, xr.DataArray, str]:
    """Return both as `paired` does.

    Raises
    ------
    LayoutError
        If there are no quantiles.
    """
    if "quantile" not in pred.dims or "quantile" not in pred.coords:
        raise LayoutError(
            "these scores are of quantiles",
            variable=str(pred.name),
            found=f"dimensions {pred.dims}",
            expected="a dimension 'quantile' with the levels",
            fix=f"predicted = ds.stefa.predict(model, quantiles={list(LEVELS)})",
        )
    return paired(pred, obs, dim)


def _ends(pred: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return both ends of the interval.

    Raises
    ------
    OptionError
        If they are not among the quantiles.
    """
    levels = [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]
    try:
        ends = pred.sel(quantile=levels, method="nearest", tolerance=1e-6)
    except KeyError as error:
        raise OptionError(
            variable="quantiles",
            found=f"levels {pred['quantile'].values.tolist()}",
            expected="both ends of the interval among them",
            fix=f"quantiles={[round(level, 3) for level in levels]}",
        ) from error
    return ends.isel(quantile=0, drop=True), ends.isel(quantile=1, drop=True)


def _scored(values: xr.DataArray, long_name: str, obs: xr.DataArray | None = None) -> xr.DataArray:
    values.attrs = {
        "long_name": long_name,
        "units": "1" if obs is None else obs.attrs.get("units", ""),
    }
    return values
