"""Exact area-weighted means of one rectangular grid over the cells of another.

Both grids have axes in the same coordinates, so that the area that two cells share is a product of
what they share along y and along x. Nothing has to be regular: Gaussian latitudes, gaps between
cells and refinement work the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.prepare.cells import Cells

Floats = NDArray[np.float64]

_ROWS = 512  # of the source that are in memory at once


def area_mean(
    array: xr.DataArray, *, y: Cells, x: Cells, over_y: Cells, over_x: Cells, sphere: bool
) -> NDArray[np.float32]:
    """Mean of `array` over each cell of another grid, weighted by area; NaN does not count.

    Parameters
    ----------
    array : DataArray (y, x), or (band, y, x)
        May be lazy: rows are read block by block, of those that some cell of the result touches.
    y, x : Cells
        Of `array`; gaps between them are not known.
    over_y, over_x : Cells
        Of the result.
    sphere : bool
        Whether y is a latitude, so that area goes with its sine.

    Returns
    -------
    float32 array (over_y, over_x), or (band, over_y, over_x)
        NaN where nothing is known.
    """
    bands = array.shape[:-2]
    total, known = np.zeros((2, *bands, len(over_y.low), len(over_x.low)))
    at_once = max(1, _ROWS // math.prod(bands))
    measure = _sine if sphere else np.asarray
    touched = np.flatnonzero((y.high > over_y.low.min()) & (y.low < over_y.high.max()))
    for start in range(0, touched.size, at_once):
        part = touched[start : start + at_once]
        rows = slice(part[0], part[-1] + 1)
        along_y = Cells(low=y.low[rows], high=y.high[rows])
        block = np.asarray(array[..., rows, :].values, dtype=np.float64)
        for band in np.ndindex(bands):
            present = np.isfinite(values := block[band])
            for field, result in ((np.where(present, values, 0.0), total), (present * 1.0, known)):
                across = _sums(field, x, over_x, np.asarray)
                result[band] += _sums(across.T, along_y, over_y, measure).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known > 0, total / known, np.nan).astype(np.float32)


def _sine(latitude: Floats) -> Floats:
    return np.sin(np.deg2rad(latitude))


def _sums(field: Floats, cells: Cells, over: Cells, measure: Callable[[Floats], Floats]) -> Floats:
    """Sum a field (row, cell) over other cells, weighted by what they share: (row, over)."""
    order = np.argsort(cells.low)
    low, high = cells.low[order], cells.high[order]
    away = [np.zeros_like(over.low)]
    if cells.period is not None:
        # Cells of the result are moved into the period that begins with the first cell; what
        # reaches beyond its end continues at its beginning.
        away = [np.floor((over.low - low[0]) / cells.period) * cells.period]
        away += [away[0] + cells.period]
    result = np.zeros((len(field), len(over.low)))
    for by in away:
        begin, end = over.low - by, over.high - by
        first = np.searchsorted(high, begin, side="right")
        count = np.searchsorted(low, end, side="left") - first
        some = np.flatnonzero(count > 0)
        if not some.size:
            continue
        count = count[some]
        starts = np.cumsum(count) - count
        cell = np.arange(count.sum()) + np.repeat(first[some] - starts, count)
        into = np.repeat(some, count)
        ends = np.minimum(high[cell], end[into]), np.maximum(low[cell], begin[into])
        shared = measure(ends[0]) - measure(ends[1])
        result[:, some] += np.add.reduceat(field[:, order[cell]] * shared, starts, axis=1)
    return result
