"""From one series after another on a single dimension (CF 9.3) to sites and days."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.binding.plain import noted, values_of
from xstefa.binding.time_axis import Link, dates_along, ragged_links
from xstefa.errors import CalendarError, LayoutError


@checked
def from_ragged(ds: xr.Dataset) -> xr.Dataset:
    """Give the series of a CF ragged array one time axis.

    Contiguous ragged arrays count the observations of each site (``sample_dimension``), indexed
    ones say of each observation which site it is of (``instance_dimension``).

    Returns
    -------
    Dataset
        Over sites and all times that any of them has, in ascending order: NaN where a site has
        no observation. Values, attributes and sites stay as they are; lazy where the dataset is,
        but for the times and the counts or indices.

    Raises
    ------
    LayoutError
        If the dataset is no ragged array, or the counts or indices do not fit it.
    CalendarError
        If the times of a site are missing, out of order or twice there.
    """
    link = _only_link(ds)
    times = dates_along(ds, link.samples)
    if times is None:
        raise LayoutError(
            "the observations of the ragged array have no dates",
            variable=link.samples,
            found=f"no datetime64 or cftime values along {link.samples!r}",
            expected="a variable of dates along it",
            fix="ds = xr.decode_cf(ds)",
        )
    sites, count = _sites(ds, link)
    axis, steps = _steps(ds, times, sites, link)
    places = np.full((count, axis.size), -1)
    places[sites, steps] = np.arange(sites.size)
    where = xr.DataArray(places, dims=(link.sites, times))
    flat = ds.drop_vars([link.name, times])
    inner = flat.drop_vars([n for n, v in flat.variables.items() if link.samples not in v.dims])
    series = inner.reset_coords().isel({link.samples: where}).where(where >= 0)
    result = flat.drop_dims(link.samples).merge(series).set_coords(list(inner.coords))
    result = result.assign_coords({times: (times, axis, ds[times].attrs)})
    kind = "contiguous" if link.contiguous else "indexed"
    result.attrs["history"] = noted(ds, f"xstefa: one time axis for a {kind} ragged array")
    return result


def _only_link(ds: xr.Dataset) -> Link:
    links = ragged_links(ds)
    if len(links) != 1:
        raise LayoutError(
            "several variables say how the series follow one another"
            if links
            else "this is no ragged array",
            variable=", ".join(link.name for link in links) or "ds",
            found=f"{len(links)} variables with sample_dimension or instance_dimension, and "
            "values along what they name",
            expected="one variable (profiles, which have two, are no daily series)",
            fix="ds = ds.isel(...) of one level, without the inner variable"
            if links
            else "predict without it; if series do follow one another, say how: "
            "ds['row_size'].attrs['sample_dimension'] = 'obs'",
        )
    return links[0]


def _whole(ds: xr.Dataset, link: Link, *, what: str, fix: str) -> NDArray[np.int64]:
    """Return counts or indices; LayoutError if they are no numbers from 0."""
    values: NDArray[Any] = values_of(ds[link.name], link.name)
    if values.dtype.kind not in "iuf" or not np.all((values >= 0) & (values % 1 == 0)):
        raise LayoutError(
            f"{what} that cannot be",
            variable=link.name,
            found=f"{values.dtype}, e.g. {values[~((values >= 0) & (values % 1 == 0))][:3]}"
            if values.dtype.kind in "iuf"
            else str(values.dtype),
            expected="whole numbers from 0",
            fix=fix,
        )
    return values.astype(np.int64)


def _sites(ds: xr.Dataset, link: Link) -> tuple[NDArray[np.int64], int]:
    """Return the position of the site of each observation, and how many sites there are."""
    size = ds.sizes[link.samples]
    if link.contiguous:
        missing = f"ds[{link.name!r}] = ds[{link.name!r}].fillna(0)   # if they are missing"
        counts = _whole(ds, link, what="counts", fix=missing)
        if counts.sum() != size:
            raise LayoutError(
                "the counts do not add up to the observations",
                variable=link.name,
                found=f"{counts.sum()} counted, {size} along {link.samples!r}",
                expected="the number of observations of each site, in the order of the sites",
                fix="select sites before anything else is cut, or open the whole file",
            )
        return np.repeat(np.arange(counts.size), counts), counts.size
    known = f"ds = ds.isel({link.samples}=ds[{link.name!r}].values >= 0)"
    index = _whole(ds, link, what="indices", fix=f"{known}   # leaves out what is of no site")
    least = int(index.max(initial=-1)) + 1
    count = ds.sizes.get(link.sites, least)
    if least > count:
        raise LayoutError(
            "indices beyond the sites",
            variable=link.name,
            found=f"index {least - 1}, and {count} along {link.sites!r}",
            expected="positions along it, from 0 (CF 9.3.4)",
            fix=f"ds[{link.name!r}] = ds[{link.name!r}] - 1   # if they count from 1",
        )
    return index, count


def _steps(
    ds: xr.Dataset, times: str, sites: NDArray[np.int64], link: Link
) -> tuple[pd.Index, NDArray[np.int64]]:
    """Return all times in order, and the position of that of each observation."""
    stamps = pd.Index(values_of(ds[times], times))
    if stamps.hasnans:
        raise CalendarError(
            "observations without a date",
            variable=times,
            found=f"{int(stamps.isna().sum())} missing dates",
            expected="a date of each observation",
            fix=f"ds = ds.isel({link.samples}=ds[{times!r}].notnull().values)"
            if not link.contiguous
            else "make the ragged array anew, without the observations that have none",
        )
    axis = stamps.unique().sort_values()
    steps = axis.get_indexer(stamps)
    order = np.argsort(sites, kind="stable")
    wrong = (np.diff(steps[order]) <= 0) & (np.diff(sites[order]) == 0)
    if wrong.any():
        at = int(np.argmax(wrong))
        later, earlier = order[at + 1], order[at]
        twice = steps[later] == steps[earlier]
        raise CalendarError(
            "a site has two observations of one time" if twice else "the times of a site fall",
            variable=times,
            found=f"{stamps[later]} after {stamps[earlier]} at site {sites[later]}",
            expected=f"ascending times within each site, as {link.name!r} tells them apart",
            fix=f"the counts {link.name!r} belong to other observations: open the whole file"
            if link.contiguous
            else f"ds = ds.drop_duplicates(...) of one site, or correct {link.name!r}"
            if twice
            else f"ds = ds.isel({link.samples}=ds[{times!r}].values.argsort(kind='stable'))",
        )
    return axis, steps
