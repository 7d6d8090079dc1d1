"""The caller's word: ``rename={variable of the dataset: token}``."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from xstefa.binding.match import Facts, misfit
from xstefa.errors import LayoutError, MissingTokenError, OptionError, SchemaError, XstefaError
from xstefa.schema import Schema

__all__ = ["check_rename", "misfits"]


def check_rename(
    ds: xr.Dataset, schema: Schema, rename: Mapping[str, str] | None
) -> dict[str, str]:
    """Return `rename` as a dictionary; raise if it names what does not exist.

    Raises
    ------
    OptionError, MissingTokenError, SchemaError
    """
    if not isinstance(rename, Mapping | None):
        raise OptionError(
            "rename is a mapping from variables of the dataset to tokens",
            variable="rename",
            found=repr(rename),
            expected="a dictionary",
            fix="rename={'<your variable>': 'precipitation'}",
        )
    tokens = ", ".join(v.name for v in (*schema.tokens, *schema.ingredients))
    owners: dict[str, str] = {}
    for name, token in (rename or {}).items():
        if name not in ds.variables:
            backwards = name in schema and isinstance(token, str) and token in ds.variables
            raise MissingTokenError(
                "rename names a variable that the dataset does not have",
                variable=str(name),
                found=f"{token!r}, which it has, as the token" if backwards else f"{name!r}",
                expected=f"one of {', '.join(map(str, ds.data_vars))}",
                fix=f"rename={{{token!r}: {name!r}}}"
                if backwards
                else "rename={variable of the dataset: token}",
            )
        if not isinstance(token, str) or token not in schema:
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
