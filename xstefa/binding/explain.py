"""What is wrong with a dataset, and what to type: for tokens not found, and renames that fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import xarray as xr

from xstefa.binding.derive import DAY_OF_YEAR, DERIVATIONS
from xstefa.binding.facts import Facts
from xstefa.binding.geometry import axis_of
from xstefa.binding.rules import Rules, misfit
from xstefa.errors import LayoutError, MissingTokenError, SchemaError, XstefaError
from xstefa.schema import Schema, Variable


def quantities_along(ds: xr.Dataset, schema: Schema) -> LayoutError | None:
    """Return the problem of a dataset that has its quantities along a dimension."""
    for dim in map(str, ds.dims):
        if dim not in ds.coords or ds[dim].dtype.kind not in "UOST":
            continue
        labels = [str(label) for label in ds[dim].values.tolist()]
        known = [label for label in labels if label in schema.words]
        holders = [str(name) for name, variable in ds.data_vars.items() if dim in variable.dims]
        if not known or not holders:
            continue
        one = f"ds[{holders[0]!r}].to_dataset({dim!r})"
        if len(holders) > 1:
            one = f"ds[{holders}].to_array('site').to_dataset({dim!r})"
        rest = [name for name in map(str, ds.data_vars) if name not in holders]
        return LayoutError(
            "the quantities are labels of a dimension, not variables",
            variable=dim,
            found=f"{', '.join(known[:6])} along {dim!r} of "
            f"{', '.join(holders[:4])}{', ...' if holders[4:] else ''}",
            expected="a variable for each quantity, with its units",
            fix=f"ds = xr.merge([ds[{rest}], {one}])" if rest else f"ds = {one}",
        )
    return None


def _same_dims(fact: Facts, dims: tuple[str, ...], extra: list[str]) -> str:
    """Say how a forcing comes to have the dimensions of the others; never by one site or day."""
    lacking = [dim for dim in dims if dim not in fact.dims]
    if not lacking and not any(axis_of(dim, {}) for dim in extra):
        return f"ds = ds.isel({extra[0]}=0, drop=True)   # or another; {extra[0]!r} is one too many"
    if len(lacking) == len(extra):
        return (
            f"ds = xr.merge([ds.drop_dims({extra}), ds.drop_dims({lacking})"
            f".rename({dict(zip(extra, lacking, strict=True))})])   # if {extra} are the same as "
            f"{lacking}; else ds[[{fact.name!r}]].interp(...) for points, "
            "ds.stefa.aggregate(polygons) for basins"
        )
    return (
        f"bring {fact.name!r} to the sites of the others first: ds[[{fact.name!r}]].interp(...) "
        "for points, ds.stefa.aggregate(polygons) for basins"
    )


def missing(
    wanted: Sequence[Variable],
    unused: Mapping[str, str],
    facts: Iterable[Facts],
    dims: tuple[str, ...] | None,
    rules: Rules,
) -> MissingTokenError:
    """Return the problem of a dataset that has none of the tokens `wanted`.

    Parameters
    ----------
    unused : mapping of str to str
        Variables that are not used, and why.
    dims : tuple of str, optional
        Dimensions of the forcings.
    """
    names = [variable.name for variable in wanted]
    needs = "this token" if len(names) == 1 else "one of these tokens"
    ways = [derivation.parts for derivation in DERIVATIONS if derivation.token in names]
    parts = [rules.schema[part] for way in ways for part in way if part in rules.schema]
    for variable, fact in product((*wanted, *parts), facts):
        reason = rules.near_miss(fact, variable, dims)
        if reason is None:
            continue
        extra = [dim for dim in fact.dims if dims is not None and dim not in dims]
        if not fact.numeric:
            fix = f"ds[{fact.name!r}] = ds[{fact.name!r}].astype(float)"
        elif extra:
            fix = _same_dims(fact, dims or (), extra)
        else:
            fix = (
                f"if it is {variable.name} after all, correct its attributes or say so: "
                f"rename={{{fact.name!r}: {variable.name!r}}}"
            )
        return MissingTokenError(
            f"the model needs {needs}; the variable that comes closest cannot be it",
            variable=" or ".join(names),
            found=f"{fact.name!r}: {reason}",
            expected=f"daily numbers on ({', '.join(dims)})" if dims else "daily numbers",
            fix=fix,
        )
    standard = dict.fromkeys(name.name for v in wanted for name in v.standard_names)
    free = [name for name, reason in unused.items() if reason == "no token"]
    # Look-alikes of which the schema says how they become what is wanted.
    ways_of_others = {
        other.long_name: [name for name, reason in unused.items() if reason == other.long_name]
        for other in rules.schema.others
        if any(f"ds[{name!r}] =" in other.long_name for name in names)
    }
    known = "".join(
        f"; {' and '.join(each)}: {way}" for way, each in ways_of_others.items() if each
    )
    formulas = [" and ".join(part for part in way if part != DAY_OF_YEAR) for way in ways]
    return MissingTokenError(
        f"the model needs {needs} and no variable matches it",
        variable=" or ".join(names),
        found=(f"no match among {', '.join(free[:12])}" if free else "no unmatched variable")
        + known,
        expected=f"standard_name {' or '.join(standard)}, or a name that xstefa knows"
        + (f"; or, to compute it, {', or '.join(formulas)}" if formulas else ""),
        fix=f"rename={{'<your variable>': {names[0]!r}}}"
        + "".join(f", or {{...: {name!r}}}" for name in names[1:]),
    )


def check_rename(
    ds: xr.Dataset, schema: Schema, rename: Mapping[str, str] | None
) -> dict[str, str]:
    """Return `rename` as a dictionary; raise if it names what does not exist.

    Raises
    ------
    MissingTokenError, SchemaError
    """
    tokens = ", ".join(v.name for v in (*schema.tokens, *schema.ingredients))
    owners: dict[str, str] = {}
    for name, token in (rename or {}).items():
        if name not in ds.variables:
            backwards = name in schema and token in ds.variables
            raise MissingTokenError(
                "rename names a variable that the dataset does not have",
                variable=str(name),
                found=f"{token!r}, which it has, as the token" if backwards else f"{name!r}",
                expected=f"one of {', '.join(map(str, ds.data_vars))}",
                fix=f"rename={{{token!r}: {name!r}}}"
                if backwards
                else "rename={variable of the dataset: token}",
            )
        if token not in schema:
            raise SchemaError(
                "rename names a token that the schema does not have",
                variable=str(token),
                found=f"rename={{{name!r}: {token!r}}}",
                expected=f"one of {tokens}",
                fix="rename={variable of the dataset: token}",
            )
        if token in owners:
            raise SchemaError(
                "rename gives two variables to one token",
                variable=token,
                found=f"{owners[token]!r} and {name!r}",
                expected="one variable",
                fix=f"rename={{{name!r}: {token!r}}}",
            )
        owners[token] = name
    return dict(rename or {})


def misfits(
    facts: Mapping[str, Facts],
    schema: Schema,
    renamed: Mapping[str, str],
    dims: tuple[str, ...] | None,
) -> list[XstefaError]:
    """Return a problem for each renamed variable that cannot be what it is renamed to."""
    problems: list[XstefaError] = []
    for name, token in renamed.items():
        fact = facts.get(name)
        reason = None if fact is None else misfit(fact, schema[token], dims)
        if fact is None or reason is not None:
            problems.append(
                LayoutError(
                    f"rename makes it {token}, which it cannot be",
                    variable=name,
                    found=reason or "a coordinate or a grid mapping",
                    expected=f"numbers on ({', '.join(dims or ())}), "
                    f"{'with' if schema[token].kind == 'forcing' else 'without'} time",
                    fix=f"name another variable, or leave {name!r} out of rename=",
                )
            )
    return problems
