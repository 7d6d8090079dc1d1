"""Series in one file per site, as one lazy variable over sites and days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

__all__ = ["SITES_A_CHUNK", "Read", "lazy_series", "on_days", "site_values"]

# With `chunks={}` a task reads this many files: enough to be worth a task, small in memory.
SITES_A_CHUNK = 32

Read: TypeAlias = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Series(BackendArray):
    """What xarray reads from when values are asked for.

    Parameters
    ----------
    read : callable
        The whole series of a site, by its position; picklable.
    sites, days : int
    """

    read: Read
    sites: int
    days: int

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        return self.sites, self.days

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float32]:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: tuple[int | slice | NDArray[np.int64], ...]) -> NDArray[np.float32]:
        sites, days = key
        chosen = np.arange(self.sites)[sites]
        if chosen.ndim == 0:
            return self.read(int(chosen))[days]
        series = [self.read(int(site))[days] for site in chosen]
        width = np.arange(self.days)[days].shape
        return np.stack(series) if series else np.empty((0, *width), np.float32)


def lazy_series(
    read: Read, *, dims: tuple[str, str], sites: int, days: int, attrs: dict[str, str]
) -> xr.Variable:
    """Make a variable (site, day) that reads the file of a site when its values are asked for."""
    data = indexing.LazilyIndexedArray(_Series(read=read, sites=sites, days=days))
    encoding = {"preferred_chunks": {dims[0]: SITES_A_CHUNK, dims[1]: days}}
    return xr.Variable(dims, data, attrs, encoding)


def site_values(dim: str, values: NDArray[np.generic], attrs: dict[str, str]) -> xr.Variable:
    """Make a variable (site,), chunked as the series are."""
    return xr.Variable(dim, values, attrs, {"preferred_chunks": {dim: SITES_A_CHUNK}})


def on_days(
    values: NDArray[np.float32], days: NDArray[np.datetime64], *, first: np.datetime64, count: int
) -> NDArray[np.float32]:
    """Put a series on the days of all sites, NaN where it has none."""
    places = (days.astype("datetime64[D]") - first.astype("datetime64[D]")).astype(np.int64)
    inside = (places >= 0) & (places < count)
    result = np.full(count, np.nan, np.float32)
    result[places[inside]] = values[inside]
    return result
