"""Exact area-weighted means of one rectangular grid over the cells of another.

Both grids have axes in the same coordinates. A mean over a cell is an integral of a piecewise
constant field: a difference of its running integral at the two edges, first along x, then along y.
Nothing has to be regular: Gaussian latitudes, gaps between cells and refinement work the same.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.prepare.cells import Cells

__all__ = ["area_mean"]

Floats = NDArray[np.float64]

_ROWS = 512  # of the source that are in memory at once


def area_mean(
    array: xr.DataArray, *, y: Cells, x: Cells, over_y: Cells, over_x: Cells, sphere: bool
) -> NDArray[np.float32]:
    """Mean of `array` over each cell of another grid, weighted by area; NaN does not count.

    Parameters
    ----------
    array : DataArray (y, x)
        May be lazy: rows are read block by block.
    y, x : Cells
        Of `array`; neighbours touch.
    over_y, over_x : Cells
        Of the result.
    sphere : bool
        Whether y is a latitude, so that area goes with its sine.

    Returns
    -------
    float32 array (over_y, over_x)
        NaN where nothing is known.
    """
    height, width = len(over_y.low), len(over_x.low)
    total, known = np.zeros((2, height, width))
    to_area = _sine if sphere else np.asarray
    order = slice(None) if y.ascending else slice(None, None, -1)
    low, high = y.low[order], y.high[order]
    array = array[order]
    # Only rows that some cell of the result touches are read.
    touched = np.flatnonzero((high > over_y.low.min()) & (low < over_y.high.max()))
    for start in range(touched[0] if touched.size else 0, touched[-1] + 1 if touched.size else 0,
                       _ROWS):  # fmt: skip
        rows = slice(start, min(start + _ROWS, touched[-1] + 1))
        values = np.asarray(array[rows].values, dtype=np.float64)
        present = np.isfinite(values)
        edges = to_area(np.append(low[rows], high[rows][-1]))
        low_y, high_y = to_area(over_y.low), to_area(over_y.high)
        for field, result in ((np.where(present, values, 0.0), total), (present * 1.0, known)):
            across = _integrals_x(field, x, over_x)
            result += _integrals(across.T, edges, low_y, high_y).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known > 0, total / known, np.nan).astype(np.float32)


def _sine(latitude: Floats) -> Floats:
    return np.sin(np.deg2rad(latitude))


def _integrals_x(field: Floats, x: Cells, over: Cells) -> Floats:
    """Integrals of (row, x) over the cells `over`, periodic where x is: (row, cell)."""
    if not x.ascending:
        field, x = field[:, ::-1], Cells(low=x.low[::-1], high=x.high[::-1], period=x.period)
    edges = np.append(x.low, x.high[-1])
    if x.period is None:
        return _integrals(field, edges, over.low, over.high)
    # Cells of the result are moved into the period that begins at the source's first edge; what
    # reaches beyond its end continues at its beginning.
    low = edges[0] + (over.low - edges[0]) % x.period
    high = low + (over.high - over.low)
    end = edges[0] + x.period
    inside = _integrals(field, edges, low, np.minimum(high, end))
    beyond = np.maximum(high, end) - x.period
    return inside + _integrals(field, edges, np.full_like(beyond, edges[0]), beyond)


def _integrals(field: Floats, edges: Floats, low: Floats, high: Floats) -> Floats:
    """Integrals of a piecewise constant field (row, n) over intervals; 0 outside of `edges`."""
    running = np.zeros((field.shape[0], field.shape[1] + 1))
    np.cumsum(field * np.diff(edges), axis=1, out=running[:, 1:])

    def at(point: Floats) -> Floats:
        point = np.clip(point, edges[0], edges[-1])
        cell = np.clip(np.searchsorted(edges, point, side="right") - 1, 0, len(edges) - 2)
        share = (point - edges[cell]) / (edges[cell + 1] - edges[cell])
        return running[:, cell] + share * (running[:, cell + 1] - running[:, cell])

    return at(high) - at(low)
