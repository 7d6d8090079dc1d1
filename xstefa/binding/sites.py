"""Matching of sites by their attributes: what static targets are predicted from.

A dataset needs no time axis, and no forcing. Where there are forcings the sites are theirs, else
those of the attribute with the most dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from xstefa.binding.binding import Binding, is_vertical
from xstefa.binding.explain import check_rename
from xstefa.binding.facts import Facts, describe
from xstefa.binding.geometry import output_coordinates, support
from xstefa.binding.layout import Layout
from xstefa.binding.matching import Resolver, anchor_of, row_of, usable_of
from xstefa.binding.plain import plain
from xstefa.binding.rules import Rules
from xstefa.binding.table import TokenTable
from xstefa.binding.time_axis import find_time
from xstefa.errors import LayoutError, MissingTokenError, XstefaError
from xstefa.schema import Schema


def plan_sites(
    ds: xr.Dataset,
    schema: Schema,
    *,
    rename: Mapping[str, str] | None = None,
    tokens: Collection[str] | None = None,
) -> Binding:
    """Match the attributes of sites to a schema; as `plan` does it for series. Reads no data.

    Parameters
    ----------
    ds, schema, rename
        As for `bind`.
    tokens : collection of str, optional
        Those that a model reads; by default all.

    Returns
    -------
    Binding
        Its layout has no time; its problems are that nothing was found, its doubts what keeps
        single attributes from being used.
    """
    ds = plain(ds)
    renamed = check_rename(ds, schema, rename)
    time = _time_of(ds)
    facts = describe(ds, time=time)
    rules = Rules(schema=schema, names=facts.keys(), renamed=renamed)
    usable = [
        fact
        for fact in usable_of(facts, rules)
        if not any(is_vertical(ds, dim) for dim in fact.dims if dim != time)
    ]
    problems: list[XstefaError] = []
    anchor = None if time is None else anchor_of(usable, rules, problems)
    if anchor is None:
        anchor = _widest(ds, usable, rules)
    dims = () if anchor is None else tuple(dim for dim in anchor.dims if dim != time)
    resolver = Resolver(
        ds=ds,
        time=time,
        rules=rules,
        needed=set(),
        facts=[fact for fact in usable if {*fact.dims} - {time} <= {*dims}],
        vectors=usable,
        dims=dims,
        coordinates={},
    )
    sources = {
        variable.name: source
        for variable in schema.attributes
        if (tokens is None or variable.name in tokens)
        and (source := resolver.token(variable)) is not None
    }
    if not sources:
        problems.append(
            MissingTokenError(
                "there is no attribute of the sites that a model reads",
                variable="attributes",
                found=f"variables {', '.join(map(str, ds.data_vars))}"[:120],
                expected=f"some of {', '.join(tokens or schema.static_names)}",
                fix=f"rename={{'<your variable>': {schema.static_names[0]!r}}}, or a map: "
                "ds.stefa.attach(map)",
            )
        )
    used = {name for source in sources.values() for name in source.variables}
    taken = {token: ", ".join(source.variables) for token, source in sources.items()}
    unused = {
        name: rules.unused(fact, dims=dims, taken=taken)
        for name, fact in facts.items()
        if name not in used and name in ds.data_vars
    }
    layout = None if anchor is None else _layout(ds, anchor, time)
    table = TokenTable(
        schema=schema.name,
        rows=tuple(row_of(v, sources, resolver.notes, ()) for v in schema.attributes),
        unused=unused,
        layout="" if layout is None else str(layout),
        problems=tuple(map(str, problems)),
        doubts=tuple(map(str, resolver.errors.values())),
    )
    return Binding(
        dataset=ds,
        schema=schema,
        needs=(),
        table=table,
        problems=tuple(problems),
        doubts=tuple(resolver.errors.values()),
        sources=sources,
        troubled=resolver.errors,
        _layout=layout,
    )


def _time_of(ds: xr.Dataset) -> str | None:
    """Return the time dimension, if there is one: its days do not matter here."""
    try:
        return find_time(ds)
    except LayoutError:
        return None


def _widest(ds: xr.Dataset, usable: list[Facts], rules: Rules) -> Facts | None:
    """Return the attribute with the most dimensions, the first of several.

    Vectors count where there is nothing else: without that dimension which has their length.
    """
    numbers, vectors = [], []
    parts = (each for each in rules.schema.ingredients if each.kind == "static")
    for variable in (*rules.schema.attributes, *parts):
        for match in rules.candidates(usable, variable):
            fact = match.variable
            own = [dim for dim in fact.dims if ds.sizes[dim] == variable.length]
            if variable.length == 1:
                numbers.append(fact)
            elif len(own) == 1:
                vectors.append(replace(fact, dims=tuple(d for d in fact.dims if d not in own)))
    found = numbers or vectors
    return max(found, key=lambda fact: len(fact.dims), default=None)


def _layout(ds: xr.Dataset, anchor: Facts, time: str | None) -> Layout:
    array = ds[anchor.name]
    away = {dim: 0 for dim in array.dims if dim == time or dim not in anchor.dims}
    array = array.isel(away, drop=True)
    coords, grid_mapping, place = output_coordinates(ds, array)
    dims = tuple(str(dim) for dim in array.dims)
    return Layout(
        time="",
        site_dims=tuple(str(dim) for dim in ds.dims if dim in dims),
        dims=dims,
        days=np.array([], dtype=np.int64),
        support=support(ds, dims),
        coords=coords,
        grid_mapping=grid_mapping,
        grid_mapping_in=place,
    )
