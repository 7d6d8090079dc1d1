"""Checks of values: whether they can be, are known, and meet where tokens are needed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.derive import without_range
from xstefa.binding.layout import Layout
from xstefa.binding.plain import values_of
from xstefa.binding.sources import TOLERATED, Direct, TokenSource, leaves
from xstefa.errors import MissingTokenError, RangeError, XstefaWarning, warn
from xstefa.schema import Needs, Variable

_HARDLY = 0.05  # as a share of the values that any needed token has
_YEAR = 365
_SITES = 4  # fewer, where one is known and another not, may be those along a coast
_DRY = 1e-3  # mm d-1; less is less than gauges, maps and models write, but for noise around zero


class ValuesWarning(XstefaWarning):
    """Values can be, but are unlikely to be what they are said to be."""


def doubt(text: str) -> None:
    """Warn of values, in the name of whoever called xstefa."""
    warn(ValuesWarning(text))


def value_problems(
    ds: xr.Dataset,
    sources: Iterable[TokenSource],
    *,
    layout: Layout,
    tolerated: float = TOLERATED,
    every: bool = False,
) -> list[RangeError]:
    """Return a problem for each variable whose values cannot be in its units. Reads 16 days.

    Parameters
    ----------
    tolerated : float
        Share of a variable's values that may lie outside what is physically possible, as long as
        no single one is far off.
    every : bool
        Whether to look at all values for those that are far off.
    """
    ends = {leaf.name: leaf for source in sources for leaf in leaves(source)}
    part = ds[[*{name for leaf in ends.values() for name in leaf.inputs}]]
    part = part.isel(layout.spread(part))

    def problem(leaf: Direct) -> RangeError | None:
        try:
            values_of(leaf.realise(ds if every else part), leaf.name)
            return leaf.problem(values_of(leaf.read(part), leaf.name), tolerated)
        except RangeError as error:
            return error

    return [found for leaf in ends.values() if (found := problem(leaf)) is not None]


def check_known(
    ds: xr.Dataset, sources: Mapping[str, TokenSource], needs: Needs, *, layout: Layout
) -> None:
    """Look whether the tokens that a model needs are known, and on the same days. Reads them.

    Parameters
    ----------
    sources : mapping of str to TokenSource
    needs : tuple of tuple of str
        Groups of forcings, of each of which one is enough.

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
    groups = {" or ".join(group): [name for name in group if name in sources] for group in needs}
    arrays = {
        name: sources[name].realise(ds).reset_coords(drop=True)
        for name in dict.fromkeys(chain.from_iterable(groups.values()))
    }
    if not arrays:
        return
    found = dict(zip(arrays, xr.broadcast(*(a.notnull() for a in arrays.values())), strict=True))
    known = [np.logical_or.reduce([found[n].values for n in group]) for group in groups.values()]
    names = " and ".join(groups)
    together, some = (int(f.reduce(known).sum()) for f in (np.logical_and, np.logical_or))
    counts = [int(each.sum()) for each in known]
    told = ", ".join(f"{name} {count}" for name, count in zip(groups, counts, strict=True))
    if some and not together:
        pairs = zip(groups.values(), counts, strict=True)
        empty = [name for group, count in pairs if not count for name in group]
        raise MissingTokenError(
            "no value is known" if empty else "there is no day on which all are known at one site",
            variable=", ".join(v for name in empty for v in sources[name].variables) or names,
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
    rain = arrays.get("precipitation")
    if rain is None or layout.days.size < _YEAR or not rain.notnull().any():
        return
    if (least := float(rain.min())) > _DRY:
        (name, *_) = sources["precipitation"].variables
        doubt(
            f"{name!r} has no dry day: the least of {int(rain.notnull().sum())} known values is "
            f"{least:.3g} mm d-1. If zeros were read as missing (a _FillValue of 0): "
            f"ds[{name!r}] = ds[{name!r}].fillna(0)"
        )


def doubt_gaps(token: Variable, names: Iterable[str]) -> None:
    """Warn of vectors of which a part is not known."""
    doubt(
        f"{token.name} (from {', '.join(map(repr, names))}) has gaps at some sites: NaN among its "
        f"{token.length} numbers. There the whole vector counts as not known."
    )


def doubt_part(known: Mapping[str, NDArray[np.bool_]]) -> None:
    """Warn where the tokens that are needed do not meet in a part of the data.

    Parameters
    ----------
    known : mapping of str to ndarray, shape (site, day)
        Of each group of tokens, of which one is enough: where one is known.
    """
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


def without_extremes(sources: Mapping[str, TokenSource], part: xr.Dataset) -> list[str]:
    """Say that the extremes of temperature are none, where most of them are not."""
    both = [sources.get(f"temperature_{end}") for end in ("max", "min")]
    found = [source for source in both if source is not None]
    if len(found) < 2:
        return []
    share = without_range(*(token_values(source, part) for source in found)).mean()
    if share < 0.5:
        return []
    first, second = (source.variables[0] for source in found)
    return [
        f"{first!r} and {second!r}: the same, on {100 * share:.0f} % of the days. Taken for the "
        f"mean, and for no extremes. Fix: ds.drop_vars({second!r}).stefa.predict(..., "
        f"rename={{{first!r}: 'temperature_mean'}}) says the same"
    ]


def token_values(source: TokenSource, part: xr.Dataset) -> NDArray[Any]:
    """Return the values of a token; of a variable that cannot be as they are, else NaN."""
    name = ", ".join(source.variables)
    try:
        return values_of(source.realise(part), name)
    except RangeError:
        if isinstance(source, Direct):
            return values_of(source.read(part), name)
        return np.array(np.nan)


def notes_of(source: TokenSource, part: xr.Dataset) -> list[str]:
    """Say what becomes of values of a variable that are a little outside its range, or missing."""
    if not isinstance(source, Direct):
        return []
    values = values_of(source.read(part), source.name)
    low, high = source.wanted.valid_range
    notes = []
    if ((values < low) | (values > high)).any():
        notes.append(f"what is a little outside of {low:g} to {high:g} counts as the edge")
    if source.otherwise is not None and np.isnan(values).any():
        notes.append(f"where missing {source.otherwise.rule}")
    return notes


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
