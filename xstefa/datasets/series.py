"""Archives with one file a site: their sites and days, and series that are read when used."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

# With `chunks={}` a task reads this many files: enough to be worth a task, small in memory.
SITES_A_CHUNK = 32

Series: TypeAlias = tuple[NDArray[np.datetime64], NDArray[np.float32]]
"""Days and values of one site."""

NOTHING: Series = (np.empty(0, "M8[D]"), np.empty(0, np.float32))

_PLACES = {"latitude": "degrees_north", "longitude": "degrees_east"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Archive:
    """The sites and days of an archive.

    Parameters
    ----------
    dims : (str, str)
        Of sites and of days.
    names : tuple of str
        Of the sites.
    first : datetime64[D]
    count : int
        Days from the first of all files to the last.
    """

    dims: tuple[str, str]
    names: tuple[str, ...]
    first: np.datetime64
    count: int

    @classmethod
    def of(
        cls,
        dims: tuple[str, str],
        names: Iterable[str],
        ends: Iterable[tuple[np.datetime64, np.datetime64]],
    ) -> Archive:
        """Span the first and last days of all files."""
        begins, lasts = zip(*ends, strict=True)
        count = int((max(lasts) - min(begins)).astype(int)) + 1
        return cls(dims=dims, names=tuple(names), first=min(begins), count=count)

    def series(self, read: Callable[[int], Series], attrs: Mapping[str, str]) -> xr.Variable:
        """Make a variable (site, day) that reads the file of a site when its values are asked for.

        Parameters
        ----------
        read : callable
            The whole series of a site, by its position; picklable.
        attrs : mapping
        """
        data = indexing.LazilyIndexedArray(_Values(archive=self, read=read))
        chunks = dict(zip(self.dims, (SITES_A_CHUNK, self.count), strict=True))
        return xr.Variable(self.dims, data, attrs, {"preferred_chunks": chunks})

    def attribute(self, values: NDArray[Any], attrs: Mapping[str, str]) -> xr.Variable:
        """Make a variable (site,), chunked as the series are."""
        if values.dtype.kind in "iuf":
            values = values.astype(np.float32)
        else:
            values = pd.Series(values).astype(object).fillna("").to_numpy().astype(str)
        site = self.dims[0]
        return xr.Variable(site, values, attrs, {"preferred_chunks": {site: SITES_A_CHUNK}})

    def dataset(
        self,
        variables: Mapping[str, xr.Variable],
        *,
        site: str,
        day: str,
        attrs: Mapping[str, str],
        drop: str | Iterable[str] | None,
    ) -> xr.Dataset:
        """Put everything together; the variables ``gauge_lat`` and ``gauge_lon`` say where it is.

        Parameters
        ----------
        variables : mapping of str to Variable
        site, day : str
            What the labels of both dimensions are, in words.
        attrs : mapping
        drop : str or iterable of str, optional
            Variables to leave out.
        """
        sites, days = self.dims
        found = dict(variables)
        index = pd.date_range(self.first, periods=self.count)
        coords = {
            sites: xr.Variable(
                sites, np.array(self.names), {"long_name": site, "cf_role": "timeseries_id"}
            ),
            days: xr.Variable(
                days, index, {"standard_name": "time", "long_name": day, "axis": "T"}
            ),
        }
        for name, units in _PLACES.items():
            if (place := found.pop(f"gauge_{name[:3]}", None)) is not None:
                said = {"standard_name": name, "units": units, "long_name": f"gauge {name}"}
                values = place.values.astype(float)
                coords[name[:3]] = xr.Variable(sites, values, said, place.encoding)
        dropped = {drop} if isinstance(drop, str) else {*(drop or ())}
        return xr.Dataset(found, coords, attrs).drop_vars(dropped, errors="ignore")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Values(BackendArray):
    """What xarray reads from when values are asked for."""

    archive: Archive
    read: Callable[[int], Series]

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.archive.names), self.archive.count

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float32]:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: tuple[int | slice | NDArray[np.int64], ...]) -> NDArray[np.float32]:
        sites, days = key
        chosen = np.arange(self.shape[0])[sites]
        if chosen.ndim == 0:
            return self._site(int(chosen))[days]
        series = [self._site(int(site))[days] for site in chosen]
        width = np.arange(self.shape[1])[days].shape
        return np.stack(series) if series else np.empty((0, *width), np.float32)

    def _site(self, site: int) -> NDArray[np.float32]:
        """Put a series on the days of all sites, NaN where it has none."""
        days, values = self.read(site)
        places = (days.astype("M8[D]") - self.archive.first).astype(np.int64)
        inside = (places >= 0) & (places < self.archive.count)
        result = np.full(self.archive.count, np.nan, np.float32)
        result[places[inside]] = values[inside]
        return result


@cache
def metadata(archive: str) -> dict[str, dict[str, Any]]:
    """Read what the variables of an archive are, from the TOML file of its name."""
    return tomllib.loads(
        resources.files(__package__).joinpath(f"{archive}.toml").read_text("utf-8")
    )


def ends_of(path: Path, *, head: int) -> tuple[bytes, bytes]:
    """Return the first and the last line of a text file, after `head` lines, and of no other."""
    with path.open("rb") as file:
        first = [file.readline() for _ in range(head + 1)][-1]
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 4000))
        return first, file.read().strip().splitlines()[-1]
