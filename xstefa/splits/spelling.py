"""Holdouts as text, as Python spells them: for a terminal."""

from __future__ import annotations

import ast
from typing import Any

from xstefa.arguments import check_fields
from xstefa.errors import OptionError
from xstefa.splits.holdout import PUB, PUR, Both, Holdout, OneFold, holdout_kinds


def holdout_from(text: str) -> Holdout:
    """Read a holdout such as ``RandomGroups(5)``, ``BlocksOfSpace(degrees=5).fold(0)`` or ``PUB``.

    Two may be joined by ``&``. What `repr` says of a holdout is read, too; nothing else is.

    Raises
    ------
    OptionError
        If it is none, or does not take these arguments.
    """
    try:
        found = _made(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        found = str(error)
    except (RecursionError, MemoryError):
        found = "too deep"
    if isinstance(found, Holdout):
        return found
    raise OptionError(
        "no holdout is spelled so",
        variable="holdout",
        found=repr(text) + (f" ({found})" if isinstance(found, str) else ""),
        expected=f"PUB, PUR, or one of {', '.join(holdout_kinds())} with its arguments",
        fix="'RandomGroups(5)', 'BlocksOfSpace(degrees=5)', or one fold: 'RandomGroups(5).fold(0)'",
    )


def _made(node: ast.expr) -> Any:
    kinds: dict[str, Any] = holdout_kinds()
    match node:
        case ast.Name("PUB" | "PUR" as name):
            return {"PUB": PUB, "PUR": PUR}[name]
        case ast.BinOp(left, ast.BitAnd(), right):
            return _checked(Both(_made(left), _made(right)))
        case ast.Call(ast.Name(name), given, named) if name in kinds:
            how = {str(each.arg): _made(each.value) for each in named}
            return _checked(kinds[name](*map(_made, given), **how))
        case ast.Call(ast.Attribute(holdout, "fold"), [number], []):
            return _checked(OneFold(_made(holdout), _made(number)))
        case _:
            return _literal(node)


def _checked(holdout: Holdout) -> Holdout:
    check_fields(holdout)
    return holdout


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:  # whose text has the address of the node
        raise ValueError(f"{ast.unparse(node)!r} is no value") from None
