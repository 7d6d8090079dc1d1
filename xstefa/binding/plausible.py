"""Values that can be, and are unlikely to be what they are said to be: hollow, or never dry."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.layout import Layout
from xstefa.binding.sources import TokenSource
from xstefa.errors import MissingTokenError, XstefaWarning
from xstefa.schema import Schema

__all__ = ["ValuesWarning", "check_known", "doubt", "doubt_part"]

_HARDLY = 0.05  # as a share of the values that any required token has
_YEAR = 365
_SITES = 4  # fewer, where one is known and another not, may be those along a coast
_DRY = 1e-3  # mm d-1; less is less than gauges, maps and models write, but for noise around zero


class ValuesWarning(XstefaWarning):
    """Values can be, but are unlikely to be what they are said to be."""


def doubt(text: str) -> None:
    """Warn of values, in the name of whoever called xstefa."""
    warnings.warn(text, ValuesWarning, stacklevel=6)


def check_known(
    ds: xr.Dataset, sources: Mapping[str, TokenSource], schema: Schema, *, layout: Layout
) -> None:
    """Look whether the tokens that a schema requires are known, and on the same days. Reads them.

    Parameters
    ----------
    ds : Dataset
    sources : mapping of str to TokenSource
    schema : Schema
    layout : Layout

    Raises
    ------
    MissingTokenError
        If there is no day at any site on which all are known, though one is.

    Warns
    -----
    ValuesWarning
        If there are less than 5 % of the days on which one is known, nothing is known at all, or
        no day is dry.
    """
    found = {
        name: source.realise(ds, layout).reset_coords(drop=True)
        for name, source in sources.items()
        if name in schema.forcing_names and schema[name].required
    }
    if not found:
        return
    names = " and ".join(found)
    known = [each.values for each in xr.broadcast(*(array.notnull() for array in found.values()))]
    together, some = (int(f.reduce(known).sum()) for f in (np.logical_and, np.logical_or))
    counts = [int(each.sum()) for each in known]
    told = ", ".join(f"{name} {count}" for name, count in zip(found, counts, strict=True))
    if some and not together:
        empty = [name for name, count in zip(found, counts, strict=True) if not count]
        raise MissingTokenError(
            "no value is known" if empty else "there is no day on which all are known at one site",
            variable=", ".join(sources[empty[0]].variables) if empty else names,
            found=f"known values (of a site and day): {told}",
            expected=f"{names} on the same days at the same sites",
            fix=_meeting(ds, layout),
        )
    if known[0].size and not some:
        doubt(f"Nothing is known of {names}: there is no prediction.")
    elif together < _HARDLY * some:
        doubt(
            f"{names} are known together on {together} of the {some} days (of all sites) on which "
            f"one is ({told}), so that there is little to predict from. If datasets were merged "
            "whose coordinates or days differ, xr.merge(..., join='exact') says so."
        )
    rain = found.get("precipitation")
    if rain is None or layout.days.size < _YEAR or not rain.notnull().any():
        return
    if (least := float(rain.min())) > _DRY:
        (name, *_) = sources["precipitation"].variables
        doubt(
            f"{name!r} has no dry day: the least of {int(rain.notnull().sum())} known values is "
            f"{least:.3g} mm d-1. If zeros were read as missing (a _FillValue of 0): "
            f"ds[{name!r}] = ds[{name!r}].fillna(0)"
        )


def doubt_part(values: Mapping[str, NDArray[np.float32]]) -> None:
    """Warn where the tokens that are required do not meet in a part of the data.

    Parameters
    ----------
    values : mapping of str to ndarray, shape (site, day)
        NaN where missing.
    """
    known = {name: np.isfinite(series) for name, series in values.items()}
    if np.logical_and.reduce([*known.values()]).any():
        return
    names = " and ".join(known)
    sites = {name: each.any(axis=1) for name, each in known.items()}
    many = [each.sum() >= max(1, min(_SITES, each.size)) for each in sites.values()]
    empty = [name for name, each in sites.items() if not each.any()]
    if np.logical_and.reduce([*sites.values()]).any():
        doubt(f"In a part of the data {names} are known on different days only.")
    elif empty and any(many):
        doubt(
            f"In a part of the data nothing is known of {' and '.join(empty)}, though of other "
            "tokens that are needed: there is no prediction."
        )
    elif all(many):
        doubt(f"In a part of the data {names} are known at different sites only.")


def _meeting(ds: xr.Dataset, layout: Layout) -> str:
    """Say how series that have no day in common come together."""
    near = [
        dim
        for dim in layout.site_dims
        if dim in ds.coords
        and ds[dim].dtype.kind == "f"
        and np.unique(ds[dim].values.astype(np.float32)).size < ds.sizes[dim]
    ]
    if not near:
        return (
            "print(ds.stefa.tokens(check=True)) says how much is known of each; what was merged "
            "needs equal coordinates and days: xr.merge(..., join='exact')"
        )
    axes = ", ".join(f"{dim}=ds[{dim!r}].astype('f4')" for dim in near)
    first = "".join(f".groupby({dim!r}).first()" for dim in near)
    return f"ds = ds.assign_coords({axes}){first}   # coordinates that differ by rounding"
