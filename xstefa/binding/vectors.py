"""Tokens that are vectors: the dimension along which a variable holds their numbers."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import xarray as xr

from xstefa.binding.facts import Facts
from xstefa.binding.geometry import horizontal_dims
from xstefa.errors import LayoutError
from xstefa.schema import Variable

_BY_NUMBER = "ds = ds.sortby(ds['{dim}'].str.extract(r'(\\d+)$', dim=None).astype(int))"


def check_vector(ds: xr.Dataset, fact: Facts, wanted: Variable, *, along: Collection[str]) -> None:
    """Refuse a variable that is no vector of the token's length at each site.

    Parameters
    ----------
    along : collection of str
        Dimensions of the forcings: that of the vector is the one that is not among them, whatever
        it is called.

    Raises
    ------
    LayoutError
    """
    own = [dim for dim in fact.dims if dim not in (*along, fact.repeated)]
    sizes = {dim: ds.sizes[dim] for dim in own}
    if list(sizes.values()) == [wanted.length]:
        _check_order(ds, fact, own[0])
        return
    if not along and wanted.length in sizes.values():
        return  # without any forcing nobody knows which dimensions are the sites
    if horizontal_dims(ds, tuple(own)) is not None:
        fix = f"bring the map to the sites first: ds.stefa.attach(<the map {fact.name!r}>)"
    elif len(own) > 1:
        *_, spare = sorted(own, key=lambda dim: sizes[dim] != wanted.length)
        fix = f"ds[{fact.name!r}] = ds[{fact.name!r}].isel({spare}=0)   # or another, or a mean"
    elif own:
        size = sizes[own[0]]
        fix = f"say so if it is another: Variable(name='{wanted.name}_{size}', length={size}, ...)"
    else:
        fix = f"ds[{wanted.name!r}] = ds[[<its variables>]].to_dataarray('feature', name=...)"
    raise LayoutError(
        f"not a vector as {wanted.name} is",
        variable=fact.name,
        found=" and ".join(f"{size} along {dim!r}" for dim, size in sizes.items())
        or "one number at each site",
        expected=f"{wanted.length} numbers at each site, along one dimension",
        fix=fix,
    )


def _check_order(ds: xr.Dataset, fact: Facts, dim: str) -> None:
    """Refuse numbers whose labels are not in order: by position they would be others.

    Raises
    ------
    LayoutError
    """
    if dim not in ds.indexes:
        return
    ends = [re.search(r"\d+$", str(label)) for label in ds.indexes[dim]]
    places = [int(end[0]) for end in ends if end]
    if len(places) == len(ends) and places != sorted(places):
        # As text, 'A10' comes before 'A2'.
        labels = ds.indexes[dim]
        sorts = labels.dtype.kind in "iuf" or [*labels[np.argsort(places)]] == sorted(labels)
        raise LayoutError(
            "the numbers of a vector are read in the order in which they stand",
            variable=fact.name,
            found=f"labels {', '.join(map(str, ds.indexes[dim][:3]))}, ... along {dim!r}",
            expected="labels in order",
            fix=f"ds = ds.sortby({dim!r})" if sorts else _BY_NUMBER.format(dim=dim),
        )
