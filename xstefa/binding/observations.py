"""Observations of a target that come beside the dataset."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import xarray as xr

from xstefa.binding.matching import plan
from xstefa.errors import LayoutError
from xstefa.schema import Schema, Target


def with_observed(
    dataset: xr.Dataset,
    observed: xr.DataArray,
    target: Target,
    *,
    schema: Schema,
    rename: Mapping[str, str] | None = None,
    called: str = "ds",
) -> xr.Dataset:
    """Return the dataset with observations of a target, by a name that it is known by.

    Parameters
    ----------
    dataset : Dataset
    observed : DataArray
    target : Target
    schema : Schema
    rename : mapping of str to str, optional
    called : str
        What the dataset is called, for an error.

    Raises
    ------
    LayoutError
        If a dimension or label of theirs is not in the dataset, or the other way round.
    """
    places = plan(dataset, schema, rename=rename).place_dims
    # Who has one value of text is of one of several sites.
    named = {dim for dim in observed.coords if observed[dim].dtype.kind in "OUT"}
    for dim in map(str, dict.fromkeys((*observed.dims, *dataset.dims))):
        if lost := _lost(dataset, observed, dim, needed=dim in {*places, *named}, called=called):
            raise LayoutError(
                "observations have to pair up with the sites and days of the dataset",
                variable="observed",
                found=lost[0],
                expected="labels of the dataset",
                fix=lost[1],
            )
    names = [alias.name for alias in target.aliases if alias.units is None]
    attrs = {k: v for k, v in observed.attrs.items() if k != "standard_name"}
    if not names:
        attrs["standard_name"] = target.standard_names[0].name
    return dataset.assign(
        {next(iter(names), target.name): observed.drop_attrs().assign_attrs(attrs)}
    )


def _lost(
    dataset: xr.Dataset, observed: xr.DataArray, dim: str, *, needed: bool, called: str
) -> tuple[str, str] | None:
    """Return what does not pair up along a dimension, and what helps."""
    if dim not in observed.dims:
        fix = f"observed = observed.expand_dims({dim}={called}[{dim!r}].values[:1])   # or another"
        return (f"no dimension {dim!r}", fix) if needed else None
    if dim not in dataset.dims:
        found = f"a dimension {dim!r}, which the dataset does not have"
        return found, f"observed = observed.isel({dim}=0, drop=True)   # or another, or their mean"
    mine, other = observed.indexes.get(dim), dataset.indexes.get(dim)
    if mine is None or other is None:
        if observed.sizes[dim] == dataset.sizes[dim]:
            return None
        found = f"{observed.sizes[dim]} along {dim!r}, and {dataset.sizes[dim]} in the dataset"
        return found, f"observed = observed.assign_coords({dim}=<labels of the dataset>)"
    if not mine.is_unique:
        found = f"{mine.duplicated().sum()} label of {dim!r} more than once"
        return found, f"observed = observed.drop_duplicates({dim!r})"
    there = mine.isin(other)
    if there.all():
        return None
    found = f"{(~there).sum()} of {there.size} labels of {dim!r} that the dataset does not have, "
    found += f"the first {mine[~there][0]!r}"
    fix = f"observed = observed.reindex({dim}={called}[{dim!r}])"
    if isinstance(mine, pd.DatetimeIndex) and isinstance(other, pd.DatetimeIndex):
        hour = other[0] - other[0].floor("D")
        if not there.any() and (mine.floor("D") + hour).isin(other).any():
            fix = f"observed = observed.assign_coords({dim}=observed[{dim!r}].dt.floor('D')"
            fix += f" + np.timedelta64({hour.value // 10**9}, 's'))"
    return found, fix
