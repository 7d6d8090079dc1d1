"""What was observed lately: predictions are moved towards it, less and less as time goes on.

The error of a prediction outlasts the day. So the last one known, and the mean of those of a month,
are added to what follows, transformed so that errors are alike. How much of them stays falls with
the days since, and with the change that the model itself predicts; and, at each site, follows from
how much of earlier errors stayed there. No weather is needed, and no model is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.binding.time_axis import day_numbers
from xstefa.errors import MissingTokenError
from xstefa.windows import Days, Floats, unbroken

Array = NDArray[np.float64]

DAY = "day of the observations"
MONTH = 30
"""Days over which errors are averaged."""
FARTHEST = 90
"""Days after an observation beyond which it changes nothing."""
PRIOR = 100
"""Earlier days for which what holds elsewhere counts, where a site tells how much stays."""
MOST = 1.3
"""Most that a site's own share may be of that elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fading:
    """How much of an error stays, of one kind of target.

    ``f(y) + b exp(-k / memory - rise max(d, 0) - fall max(-d, 0)) (e + k / (k + half) (m - e))``
    ``k`` days after the last observation, where ``d`` is how far the prediction has moved since,
    ``e`` the error then, ``m`` the mean of those of the month up to it, and ``b`` the site's own;
    all after ``f``.

    Attributes
    ----------
    forward, back : callable
        ``f``, and its inverse.
    memory, half : float
        Days.
    rise, fall : float
    """

    forward: Callable[[Array], Array]
    back: Callable[[Array], Array]
    memory: float
    rise: float
    fall: float
    half: float

    def update(self, days: int, error: Array, mean: Array, moved: Array) -> Array:
        """Return what is added so many days after an observation, but for the site's own share."""
        stays = -days / self.memory - self.rise * moved.clip(0) - self.fall * (-moved).clip(0)
        return np.exp(stays) * (error + days / (days + self.half) * (mean - error))


_ROOT = 0.05  # mm d-1 added before a root, so that errors of empty rivers stay small
_EDGE = 0.01  # how near a logit comes to 0 and 1

FADING: Mapping[str, Fading] = {
    # Fitted at 90 basins of validation in the United States; either half of them gives the same
    # within a fifth.
    "streamflow": Fading(
        forward=lambda y: 2 * np.sqrt(y.clip(0) + _ROOT),
        back=lambda z: np.maximum((z.clip(0) / 2) ** 2 - _ROOT, 0),
        memory=80.0,
        rise=0.32,
        fall=0.55,
        half=5.0,
    ),
    # Between what 35 cells and 5 towers of validation say.
    "soil_moisture": Fading(
        forward=lambda y: np.log(y.clip(_EDGE, 1 - _EDGE) / (1 - y.clip(_EDGE, 1 - _EDGE))),
        back=lambda z: 1 / (1 + np.exp(-z)),
        memory=100.0,
        rise=0.4,
        fall=0.3,
        half=3.0,
    ),
}


def updated(
    ahead: Floats,
    simulated: Floats,
    observed: Floats,
    *,
    starts: Days,
    fading: Fading,
    leads: Days | None = None,
) -> Floats:
    """Move predictions towards what was observed before them.

    Parameters
    ----------
    ahead : ndarray, shape (..., start, lead)
        Predictions of the days from each start on.
    simulated, observed : ndarray, shape (..., day)
        Predictions and observations of one time axis, NaN where missing; axes before the last as
        those of `ahead`, or of length 1.
    starts : ndarray of int64, shape (start,)
        Number of the day on which `ahead` begins: observations before it are known.
    fading : Fading
    leads : ndarray of int64, shape (lead,), optional
        Days from each start to those of `ahead`; by default one after another.

    Returns
    -------
    ndarray of float32, shape (..., start, lead)
        `ahead` to the bit where nothing was observed in the `FARTHEST` days before.
    """
    level = fading.forward(simulated.astype(np.float64))
    error = fading.forward(observed.astype(np.float64)) - level
    known = np.isfinite(error)
    place = np.arange(error.shape[-1])
    latest = np.maximum.accumulate(np.where(known, place, -1), axis=-1)
    latest = np.concatenate([np.full_like(latest[..., :1], -1), latest], axis=-1)[..., starts]
    leads = np.arange(ahead.shape[-1]) if leads is None else leads
    days = starts[:, None] + leads - latest[..., None]
    days = np.where(latest[..., None] < 0, 0, days)
    then = latest.clip(0)
    mean = _mean_of_month(error, known)

    def at(values: Array) -> Array:
        """Return values on the day of the latest observation, shape (..., start, 1)."""
        return np.take_along_axis(values, then, axis=-1)[..., None]

    moved = fading.forward(ahead.astype(np.float64)) - at(level)
    found = ahead.astype(np.float32, copy=True)
    for gap in np.unique(days[(days > 0) & (days <= FARTHEST)]):
        own = _own_share(int(gap), simulated, level, error, mean, fading)
        change = at(own) * fading.update(int(gap), at(error), at(mean), moved)
        here = (days == gap) & np.isfinite(change)
        found[here] = fading.back(at(level) + moved + change)[here]
    return found


def _mean_of_month(error: Array, known: NDArray[np.bool_]) -> Array:
    """Return the mean of the errors known in the month up to each day."""

    def recent(values: Array) -> Array:
        total = np.cumsum(values, axis=-1)
        total[..., MONTH:] -= total[..., :-MONTH].copy()
        return total

    count = recent(known.astype(np.float64))
    return recent(np.where(known, error, 0)) / np.where(count > 0, count, np.nan)


def _own_share(
    gap: int, simulated: Floats, level: Array, error: Array, mean: Array, fading: Fading
) -> Array:
    """Return how much of an update was right at the site so far, shape (..., day).

    The slope of the errors on what would have been added, over all days up to each; days of much
    water weigh more.
    """
    added = np.full_like(error, np.nan)
    if gap < error.shape[-1]:
        moved = level[..., gap:] - level[..., :-gap]
        added[..., gap:] = fading.update(gap, error[..., :-gap], mean[..., :-gap], moved)
    pairs = np.isfinite(added) & np.isfinite(error)
    weight = np.where(pairs, simulated.clip(0) + 0.1, 0)
    both = np.cumsum(np.where(pairs, weight * added * error, 0), axis=-1)
    square = np.cumsum(np.where(pairs, weight * added**2, 0), axis=-1)
    prior = PRIOR * square / np.cumsum(pairs, axis=-1).clip(1)
    share = (both + prior) / np.where(square > 0, square + prior, 1)
    return np.where(square > 0, share.clip(0, MOST), 1.0)


def move_towards(
    predicted: xr.DataArray,
    simulated: xr.DataArray,
    binding: Binding,
    target: str,
    *,
    after: tuple[str, ...] = (),
) -> xr.DataArray:
    """Return predictions that know what was observed before them; lazy if they are.

    Parameters
    ----------
    predicted : DataArray
        Of days on the time axis of the observations, each of which knows those before; or, in
        another frame, of days after them.
    simulated : DataArray
        Of the days of the observations.
    binding : Binding
        Of the dataset with the observations.
    target : str
        One of `FADING`.
    after : tuple of str
        If `predicted` is of later days: their dimension, and before it that of initial dates, if
        there are several.

    Raises
    ------
    MissingTokenError
        If the dataset has no observations of the target.
    """
    observed, layout = binding.observed(target), binding.layout
    if observed is None:
        raise MissingTokenError(
            "there are no observations of the target",
            variable=target,
            found=", ".join(map(str, binding.dataset.data_vars)),
            expected=f"a variable of {target}",
            fix=f"observed=<DataArray of {target} by site and day>",
        )
    time, days = layout.time, layout.days
    fading = FADING[target]
    core = list(after) or [time]
    if after:
        valid = predicted["valid_time" if "valid_time" in predicted.coords else after[-1]]
        begins = valid.isel({after[-1]: slice(1)} if len(after) == 1 else {after[-1]: 0})
        starts = day_numbers(begins)[0] - days[0]
        leads = day_numbers(valid if len(after) == 1 else valid.isel({after[0]: 0}))[0]
        leads -= leads[0]
    else:
        starts, leads = days - days[0], None

    def of_sites(ahead: Floats, simulated: Floats, observed: Floats) -> Floats:
        series = np.broadcast_arrays(simulated, observed)
        sites, shape = series[0].shape[:-1], ahead.shape
        whole = [unbroken(each.reshape(-1, each.shape[-1]), days)[0] for each in series]
        if not after:  # each day is the first of its own
            ahead = ahead[..., None]
        elif len(after) == 1:
            ahead = ahead[..., None, :]
        found = updated(
            ahead,
            *(each.reshape(*sites, -1) for each in whole),
            starts=starts,
            fading=fading,
            leads=leads,
        )
        return found.reshape(shape)

    def in_one(array: xr.DataArray, dims: list[str]) -> xr.DataArray:
        return array if array.chunks is None else array.chunk(dict.fromkeys(dims, -1))

    found = xr.apply_ufunc(
        of_sites,
        in_one(predicted, core),
        *(
            in_one(each, [time]).drop_vars([*each.coords]).rename({time: DAY}).variable
            for each in (simulated, observed)
        ),
        input_core_dims=[core, [DAY], [DAY]],
        output_core_dims=[core],
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    found = found.transpose(*predicted.dims)
    found.attrs = predicted.attrs | {"comment": "moved towards what was observed before each day"}
    found.encoding = predicted.encoding
    return found
