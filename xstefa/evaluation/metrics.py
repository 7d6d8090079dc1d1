"""Scores of predictions against observations, one number a site.

The metrics of appendix E of the StefaLand paper (arXiv:2509.17942). Each function takes a predicted
and an observed `xarray.DataArray` and reduces one dimension, by default ``time``; every other
dimension (site, latitude, quantile, ...) is kept. Where both state units and these differ, the
prediction is converted to those of the observations. Days on which either is missing are left out
of both. A score that is not defined (no pairs, constant or zero observations where the
formula divides by them) is NaN, never infinite. Dask arrays stay lazy; sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.days import find_time
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


def _pairs(
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
    try:
        pred, obs = xr.align(pred, obs, join="exact", copy=False)
    except ValueError as error:
        raise LayoutError(
            "Prediction and observation have different labels, so their values do not pair up.",
            variable=str(pred.name),
            found=str(error),
            expected="the same coordinates in both",
            fix='keep what they share: pred, obs = xr.align(pred, obs, join="inner")',
        ) from error
    found, used = pred.attrs.get("units"), obs.attrs.get("units")
    pred, obs = pred.astype(np.float64), obs.astype(np.float64)
    if found is not None and used is not None and found != used:
        to_observed = conversion(found, used, variable=str(pred.name))
        pred = pred * to_observed.scale + to_observed.offset
    both = pred.notnull() & obs.notnull()
    return pred.where(both), obs.where(both), dim


def _named(score: xr.DataArray, name: str, long_name: str, units: str) -> xr.DataArray:
    """Give a score its name and CF attributes."""
    score = score.rename(name)
    score.attrs = {"long_name": long_name, "units": units}
    return score


def _varies(array: xr.DataArray, dim: str) -> xr.DataArray:
    """Whether there are two different values. A variance of rounding error would not say."""
    return array.max(dim) > array.min(dim)


def _correlation(pred: xr.DataArray, obs: xr.DataArray, dim: str) -> xr.DataArray:
    """Pearson's r of paired arrays, NaN where either is constant."""
    pred_anomaly, obs_anomaly = pred - pred.mean(dim), obs - obs.mean(dim)
    covariance = (pred_anomaly * obs_anomaly).mean(dim)
    spread = ((pred_anomaly**2).mean(dim) * (obs_anomaly**2).mean(dim)) ** 0.5
    defined = _varies(pred, dim) & _varies(obs, dim) & (spread > 0)
    return (covariance / spread.where(defined)).clip(-1, 1)


def nse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Nash-Sutcliffe efficiency.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, dimensionless, at most 1 (perfect); 0 is as good as the observed mean. NaN
        where the observations are constant.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.

    Notes
    -----
    :math:`1 - \sum (p - o)^2 / \sum (o - \bar o)^2` [1]_.

    References
    ----------
    .. [1] Nash and Sutcliffe 1970, doi:10.1016/0022-1694(70)90255-6
    """
    pred, obs, dim = _pairs(pred, obs, dim)
    error = ((pred - obs) ** 2).mean(dim)
    variance = ((obs - obs.mean(dim)) ** 2).mean(dim)
    score = 1 - error / variance.where(_varies(obs, dim) & (variance > 0))
    return _named(score, "nse", "Nash-Sutcliffe efficiency", "1")


def kge(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Kling-Gupta efficiency, 2009 form.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, dimensionless, at most 1 (perfect); the observed mean as a prediction would
        be 1 - sqrt(2). NaN where either is constant or the observed mean is zero.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.

    Notes
    -----
    :math:`1 - \sqrt{(r - 1)^2 + (\sigma_p / \sigma_o - 1)^2 + (\bar p / \bar o - 1)^2}` with
    Pearson's r [1]_.

    References
    ----------
    .. [1] Gupta et al. 2009, doi:10.1016/j.jhydrol.2009.08.003
    """
    pred, obs, dim = _pairs(pred, obs, dim)
    obs_mean, obs_std = obs.mean(dim), obs.std(dim)
    variability = pred.std(dim) / obs_std.where(obs_std > 0)
    bias = pred.mean(dim) / obs_mean.where(obs_mean != 0)
    squares = (_correlation(pred, obs, dim) - 1) ** 2 + (variability - 1) ** 2 + (bias - 1) ** 2
    return _named(1 - squares**0.5, "kge", "Kling-Gupta efficiency (2009)", "1")


def correlation(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Pearson correlation.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, from -1 to 1. NaN where either is constant.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.
    """
    pred, obs, dim = _pairs(pred, obs, dim)
    return _named(_correlation(pred, obs, dim), "correlation", "Pearson correlation", "1")


def rmse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Root mean squared error.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, in the units of the observations, 0 is perfect.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.
    """
    units = obs.attrs.get("units", "")
    pred, obs, dim = _pairs(pred, obs, dim)
    return _named(((pred - obs) ** 2).mean(dim) ** 0.5, "rmse", "root mean squared error", units)


def ubrmse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Unbiased root mean squared error: that of the anomalies from each one's own mean.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, in the units of the observations, 0 is perfect up to a constant bias.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.

    References
    ----------
    .. [1] Entekhabi et al. 2010, doi:10.1175/2010JHM1223.1
    """
    units = obs.attrs.get("units", "")
    pred, obs, dim = _pairs(pred, obs, dim)
    error = pred - obs
    score = ((error - error.mean(dim)) ** 2).mean(dim) ** 0.5
    return _named(score, "ubrmse", "unbiased root mean squared error", units)


def mae(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Mean absolute error.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, in the units of the observations, 0 is perfect.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.
    """
    units = obs.attrs.get("units", "")
    pred, obs, dim = _pairs(pred, obs, dim)
    return _named(abs(pred - obs).mean(dim), "mae", "mean absolute error", units)


def pbias(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Percent bias of the total.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, in percent, 0 is perfect, positive is too much. NaN where the observed total
        is zero.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.

    Notes
    -----
    :math:`100 \sum (p - o) / \sum o` [1]_, with the sign of the error, the opposite of the sign in
    some of the literature.

    References
    ----------
    .. [1] Yapo et al. 1996, doi:10.1016/0022-1694(95)02918-4
    """
    pred, obs, dim = _pairs(pred, obs, dim)
    observed = obs.mean(dim)
    score = 100 * (pred - obs).mean(dim) / observed.where(observed != 0)
    return _named(score, "pbias", "percent bias", "%")


def fhv(
    pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None, fraction: float = 0.02
) -> xr.DataArray:
    r"""Percent bias of the high-flow volume: the highest 2 % of the flow duration curve.

    Predictions and observations are sorted separately, so timing does not matter.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.
    fraction : float
        Share of the days that counts as high.

    Returns
    -------
    xarray.DataArray
        Without `dim`, in percent, 0 is perfect. NaN where the observed volume is zero, or with so
        few pairs that no day falls in the share.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.

    References
    ----------
    .. [1] Yilmaz et al. 2008, doi:10.1029/2007WR006716, eq. A3
    """

    def volume_bias(pred: NDArray[np.float64], obs: NDArray[np.float64]) -> NDArray[np.float64]:
        return _segment_bias(pred, obs, fraction=fraction, high=True)

    score = _by_curve(volume_bias, pred, obs, dim)
    return _named(score, "fhv", f"percent bias of the highest {fraction:.3g} of flows", "%")


def flv(
    pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None, fraction: float = 0.3
) -> xr.DataArray:
    r"""Percent bias of the low-flow volume: the lowest 30 % of the flow duration curve.

    Predictions and observations are sorted separately, so timing does not matter.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.
    fraction : float
        Share of the days that counts as low.

    Returns
    -------
    xarray.DataArray
        Without `dim`, in percent, 0 is perfect. NaN where the observed volume is zero (streams that
        run dry), or with so few pairs that no day falls in the share.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.

    Notes
    -----
    The volume itself, as in the StefaLand paper and its predecessors, not the logarithms of Yilmaz
    et al. 2008 (doi:10.1029/2007WR006716, eq. A4), which have no value at zero flow.
    """

    def volume_bias(pred: NDArray[np.float64], obs: NDArray[np.float64]) -> NDArray[np.float64]:
        return _segment_bias(pred, obs, fraction=fraction, high=False)

    score = _by_curve(volume_bias, pred, obs, dim)
    return _named(score, "flv", f"percent bias of the lowest {fraction:.3g} of flows", "%")


def fdc_rmse(pred: xr.DataArray, obs: xr.DataArray, *, dim: str | None = None) -> xr.DataArray:
    r"""Root mean squared error between flow duration curves at 100 exceedance percentiles.

    Parameters
    ----------
    pred, obs : xarray.DataArray
        Predicted and observed values, on the same labels along `dim`.
    dim : str, optional
        Dimension to score over; by default the one that counts the days.

    Returns
    -------
    xarray.DataArray
        Without `dim`, in the units of the observations, 0 where both have the same distribution.

    Raises
    ------
    LayoutError
        If `dim` is missing from either or their labels differ.
    UnitsError
        If one's units cannot be converted to the other's.

    Notes
    -----
    Of n paired days sorted from high to low, percentile k = 0, 1, ..., 99 is the value of rank
    floor(k n / 100): no interpolation.
    """
    units = obs.attrs.get("units", "")
    score = _by_curve(_curve_rmse, pred, obs, dim)
    return _named(score, "fdc_rmse", "root mean squared error of the flow duration curve", units)


def _by_curve(
    function: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    pred: xr.DataArray,
    obs: xr.DataArray,
    dim: str | None,
) -> xr.DataArray:
    """Apply `function` to both series sorted ascending along the last axis, missing values last."""
    pred, obs, dim = _pairs(pred, obs, dim)

    def curves(pred: NDArray[np.float64], obs: NDArray[np.float64]) -> NDArray[np.float64]:
        # np.sort puts NaN last; _pairs made the NaNs of both the same in number.
        return function(np.sort(pred, axis=-1), np.sort(obs, axis=-1))

    return xr.apply_ufunc(
        curves,
        # Sorting needs the whole series in one block.
        *(array.chunk({dim: -1}) if array.chunks else array for array in (pred, obs)),
        input_core_dims=[[dim], [dim]],
        dask="parallelized",
        output_dtypes=[np.float64],
    )


def _segment_bias(
    pred: NDArray[np.float64], obs: NDArray[np.float64], *, fraction: float, high: bool
) -> NDArray[np.float64]:
    """Percent bias of one end of ascending curves: (..., time) to (...)."""
    count = (~np.isnan(obs)).sum(axis=-1, keepdims=True)
    share = np.rint(fraction * count)
    rank = np.arange(obs.shape[-1])
    inside = (rank >= count - share) & (rank < count) if high else rank < share
    observed = np.where(inside, obs, 0.0).sum(axis=-1)
    error = np.where(inside, pred - obs, 0.0).sum(axis=-1)
    return 100 * error / np.where(observed != 0, observed, np.nan)


def _curve_rmse(pred: NDArray[np.float64], obs: NDArray[np.float64]) -> NDArray[np.float64]:
    """RMSE of ascending curves at the percentiles: (..., time) to (...)."""
    count = (~np.isnan(obs)).sum(axis=-1, keepdims=True)
    rank = np.arange(PERCENTILES) * count // PERCENTILES
    # With no pairs the index points at a missing value, and the score is missing as it should.
    index = np.maximum(count - 1 - rank, 0)
    error = np.take_along_axis(pred, index, axis=-1) - np.take_along_axis(obs, index, axis=-1)
    return np.sqrt((error**2).mean(axis=-1))
