"""Observations of a target that come beside the dataset."""

from __future__ import annotations

import xarray as xr

from xstefa.errors import LayoutError
from xstefa.schema import Target


def with_observed(dataset: xr.Dataset, observed: xr.DataArray, target: Target) -> xr.Dataset:
    """Return the dataset with observations of a target, by a name that it is known by.

    Raises
    ------
    LayoutError
        If a dimension or label of theirs is not in the dataset.
    """
    for dim in observed.dims:
        if dim not in dataset.dims:
            lost = f"a dimension {dim!r}, which the dataset does not have"
        elif dim not in observed.indexes or dim not in dataset.indexes:
            continue
        else:
            there = observed.indexes[dim].isin(dataset.indexes[dim])
            if there.all():
                continue
            lost = f"{(~there).sum()} of {there.size} labels of {dim!r} that the dataset does not "
            lost += f"have, the first {observed.indexes[dim][~there][0]!r}"
        raise LayoutError(
            "observations have to pair up with the sites and days of the dataset",
            variable="observed",
            found=lost,
            expected="labels of the dataset",
            fix="ds, observed = xr.align(ds, observed, join='inner')",
        )
    names = [alias.name for alias in target.aliases if alias.units is None]
    attrs = {k: v for k, v in observed.attrs.items() if k != "standard_name"}
    if not names:
        attrs["standard_name"] = target.standard_names[0].name
    return dataset.assign(
        {next(iter(names), target.name): observed.drop_attrs().assign_attrs(attrs)}
    )
