"""Scores of predictions against observations, one number a site.

The metrics of appendix E of the StefaLand paper (arXiv:2509.17942). Each function takes a predicted
and an observed `xarray.DataArray` and reduces one dimension, by default ``time``; every other
dimension (site, latitude, quantile, ...) is kept. Where both state units and these differ, the
prediction is converted to those of the observations. Days on which either is missing are left out
of both. A score that is not defined (no pairs, constant or zero observations where the
formula divides by them) is NaN, never infinite. Dask arrays stay lazy; sums are in float64.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.time_axis import find_time
from xstefa.binding.units import conversion
from xstefa.errors import LayoutError

__all__ = [
    "correlation",
    "fdc_rmse",
    "fhv",
    "flv",
    "kge",
    "mae",
    "nse",
    "pbias",
    "rmse",
    "ubrmse",
]

PERCENTILES = 100
"""Points of the flow duration curve compared by `fdc_rmse`."""

Formula = TypeVar("Formula", bound=Callable[..., xr.DataArray])
Floats = NDArray[np.float64]

_metrics: dict[str, Callable[..., xr.DataArray]] = {}
METRICS: Mapping[str, Callable[..., xr.DataArray]] = MappingProxyType(_metrics)
"""The metrics of appendix E by name."""

_SECTIONS = """

Parameters
----------
pred, obs : xarray.DataArray
    Predicted and observed values, on the same labels along `dim`.
dim : str, optional
    Dimension to score over; by default the one that counts the days.
{options}
Returns
-------
xarray.DataArray
    Without `dim`, in units of {units}.

Raises
------
LayoutError
    If `dim` is missing from either or their labels differ.
UnitsError
    If one's units cannot be converted to the other's.
"""
_OPTIONS = {
    "fraction": """fraction : float
    Share of the days that counts.
""",
    "precipitation": """precipitation : xarray.DataArray
    On the same labels.
""",
}


def metric(
    long_name: str,
    units: str | None = None,
    *,
    into: dict[str, Callable[..., xr.DataArray]] = _metrics,
) -> Callable[[Formula], Formula]:
    """Make a metric of a formula for paired arrays; without `units` it has the observations'."""

    def made(formula: Formula) -> Formula:
        signature, name = inspect.signature(formula), formula.__name__

        @functools.wraps(formula)
        def score(
            pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None, **options: Any
        ) -> xr.DataArray:
            used = obs.attrs.get("units", "") if units is None else units
            pred, obs, dim = paired(pred, obs, dim)
            call = signature.bind(pred, obs, dim=dim, **options)
            call.apply_defaults()
            found = formula(*call.args, **call.kwargs).rename(name)
            found.attrs = {"long_name": long_name.format(**call.arguments), "units": used}
            return found

        options = "".join(_OPTIONS.get(name, "") for name in signature.parameters)
        sections = _SECTIONS.format(options=options, units=units or "the observations")
        score.__doc__ = inspect.cleandoc(formula.__doc__ or "") + sections
        into[name] = score
        return cast(Formula, score)

    return made


def check_labels(*arrays: xr.DataArray) -> None:
    """Refuse predictions and observations whose values do not pair up.

    Raises
    ------
    LayoutError
        If their labels differ.
    """
    try:
        xr.align(*arrays, join="exact", copy=False)
    except ValueError as error:
        raise LayoutError(
            "predictions and observations have different labels, so their values do not pair up",
            variable=str(arrays[0].name),
            found=str(error),
            expected="the same coordinates in all",
            fix='keep what they share: pred, obs = xr.align(pred, obs, join="inner")',
        ) from error


def paired(
    pred: xr.DataArray, obs: xr.DataArray, dim: str | None
) -> tuple[xr.DataArray, xr.DataArray, str]:
    """Both arrays in float64, same labels and units, missing where either is; and `dim`."""
    if dim is None:
        dim = "time" if "time" in pred.dims else find_time(pred.to_dataset(name="prediction"))
    for role, array in (("prediction", pred), ("observation", obs)):
        if dim not in array.dims:
            raise LayoutError(
                f"The {role} has no dimension to score over.",
                variable=str(array.name),
                found=f"dimensions {array.dims}",
                expected=f"{dim!r}",
                fix='give the dimension to reduce: dim="..."',
            )
    check_labels(pred, obs)
    found, used = pred.attrs.get("units"), obs.attrs.get("units")
    pred, obs = pred.astype(np.float64), obs.astype(np.float64)
    if found is not None and used is not None and found != used:
        to_observed = conversion(found, used, variable=str(pred.name))
        pred = pred * to_observed.scale + to_observed.offset
    both = pred.notnull() & obs.notnull()
    return pred.where(both), obs.where(both), dim


def _varying(array: xr.DataArray, dim: str | None) -> xr.DataArray:
    """Missing where it is constant: rounding would leave it a variance."""
    return array.where(array.max(dim) > array.min(dim))


def ratio(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    """Missing where it would be divided by zero."""
    return part / whole.where(whole != 0)


@metric("Nash-Sutcliffe efficiency", "1")
def nse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Nash-Sutcliffe efficiency (1970, doi:10.1016/0022-1694(70)90255-6).

    :math:`1 - \sum (p - o)^2 / \sum (o - \bar o)^2`: at most 1 (perfect); 0 is as good as the
    observed mean. NaN where the observations are constant.
    """
    return 1 - ratio(((pred - obs) ** 2).mean(dim), _varying(obs, dim).var(dim))


@metric("Kling-Gupta efficiency (2009)", "1")
def kge(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Kling-Gupta efficiency, 2009 form (Gupta et al., doi:10.1016/j.jhydrol.2009.08.003).

    :math:`1 - \sqrt{(r - 1)^2 + (\sigma_p / \sigma_o - 1)^2 + (\bar p / \bar o - 1)^2}` with
    Pearson's r: at most 1 (perfect); the observed mean as a prediction would be 1 - sqrt(2). NaN
    where either is constant or the observed mean is zero.
    """
    parts = (
        _pearson(pred, obs, dim),
        ratio(pred.std(dim), obs.std(dim)),
        ratio(pred.mean(dim), obs.mean(dim)),
    )
    return 1 - sum((part - 1) ** 2 for part in parts) ** 0.5


@metric("Pearson correlation", "1")
def correlation(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Pearson correlation, from -1 to 1. NaN where either is constant."""
    return _pearson(pred, obs, dim)


def _pearson(pred: xr.DataArray, obs: xr.DataArray, dim: str | None) -> xr.DataArray:
    return xr.corr(_varying(pred, dim), _varying(obs, dim), dim).clip(-1, 1)


@metric("root mean squared error")
def rmse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Root mean squared error; 0 is perfect."""
    return ((pred - obs) ** 2).mean(dim) ** 0.5


@metric("unbiased root mean squared error")
def ubrmse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Root mean squared error of the anomalies from each one's own mean.

    0 is perfect up to a constant bias (Entekhabi et al. 2010, doi:10.1175/2010JHM1223.1).
    """
    return (pred - obs).std(dim)


@metric("mean absolute error")
def mae(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Mean absolute error; 0 is perfect."""
    return abs(pred - obs).mean(dim)


@metric("percent bias", "%")
def pbias(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Percent bias of the total (Yapo et al. 1996, doi:10.1016/0022-1694(95)02918-4).

    :math:`100 \sum (p - o) / \sum o`: 0 is perfect, positive is too much, the opposite of the sign
    in some of the literature. NaN where the observed total is zero.
    """
    return 100 * ratio((pred - obs).mean(dim), obs.mean(dim))


@metric("percent bias of the highest {fraction:.3g} of flows", "%")
def fhv(
    pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None, fraction: float = 0.02
) -> xr.DataArray:
    """Percent bias of the high-flow volume: the highest 2 % of the flow duration curve.

    Predictions and observations are sorted separately, so timing does not matter (Yilmaz et al.
    2008, doi:10.1029/2007WR006716, eq. A3). 0 is perfect. NaN where the observed volume is zero, or
    with so few pairs that no day falls in the share.
    """
    return _by_curve(_segment_bias, pred, obs, dim, fraction=fraction, high=True)


@metric("percent bias of the lowest {fraction:.3g} of flows", "%")
def flv(
    pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None, fraction: float = 0.3
) -> xr.DataArray:
    """Percent bias of the low-flow volume: the lowest 30 % of the flow duration curve.

    As `fhv`, also NaN for streams that run dry. The volume itself, as in the StefaLand paper and
    its predecessors, not the logarithms of Yilmaz et al. 2008 (eq. A4), which have no value at zero
    flow.
    """
    return _by_curve(_segment_bias, pred, obs, dim, fraction=fraction, high=False)


@metric("root mean squared error of the flow duration curve")
def fdc_rmse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    """Root mean squared error between flow duration curves at 100 exceedance percentiles.

    0 where both have the same distribution. Of n paired days sorted from high to low, percentile
    k = 0, 1, ..., 99 is the value of rank floor(k n / 100): no interpolation.
    """
    return _by_curve(_curve_rmse, pred, obs, dim)


def _by_curve(
    function: Callable[..., Floats],
    pred: xr.DataArray,
    obs: xr.DataArray,
    dim: str | None,
    **options: object,
) -> xr.DataArray:
    """Apply `function` to both series sorted ascending along the last axis, missing values last."""

    def curves(*series: Floats) -> Floats:
        # np.sort puts NaN last; `paired` made the NaNs of both the same in number.
        return function(*(np.sort(values, axis=-1) for values in series), **options)

    return xr.apply_ufunc(
        curves,
        # Sorting needs the whole series in one block.
        *(array.chunk({dim: -1}) if array.chunks else array for array in (pred, obs)),
        input_core_dims=[[dim], [dim]],
        dask="parallelized",
        output_dtypes=[np.float64],
    )


def _segment_bias(pred: Floats, obs: Floats, *, fraction: float, high: bool) -> Floats:
    """Percent bias of one end of ascending curves: (..., time) to (...)."""
    count = (~np.isnan(obs)).sum(axis=-1, keepdims=True)
    share = np.rint(fraction * count)
    rank = np.arange(obs.shape[-1])
    inside = (rank >= count - share) & (rank < count) if high else rank < share
    observed = np.where(inside, obs, 0.0).sum(axis=-1)
    error = np.where(inside, pred - obs, 0.0).sum(axis=-1)
    return 100 * error / np.where(observed != 0, observed, np.nan)


def _curve_rmse(pred: Floats, obs: Floats) -> Floats:
    """RMSE of ascending curves at the percentiles: (..., time) to (...)."""
    count = (~np.isnan(obs)).sum(axis=-1, keepdims=True)
    rank = np.arange(PERCENTILES) * count // PERCENTILES
    # With no pairs the index points at a missing value, and the score is missing as it should.
    index = np.maximum(count - 1 - rank, 0)
    error = np.take_along_axis(pred, index, axis=-1) - np.take_along_axis(obs, index, axis=-1)
    return np.sqrt((error**2).mean(axis=-1))
