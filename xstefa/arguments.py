"""What functions say of their arguments, in annotations and docstrings; and whether it is true."""

from __future__ import annotations

import builtins
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import cache, wraps
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from xstefa import typed
from xstefa.errors import OptionError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")


class _Names(dict[str, Any]):
    """Names of a module; those that only a type checker imports say nothing."""

    def __missing__(self, name: str) -> Any:
        return Any


@cache
def hints(function: Callable[..., object]) -> dict[str, Any]:
    """Return the annotations of a function's parameters, resolved as far as they can be."""
    names = _Names(vars(builtins) | vars(sys.modules[function.__module__]))
    return {
        name: eval(text, {}, names) if isinstance(text, str) else text
        for name, text in function.__annotations__.items()
        if name != "return"
    }


def described(function: Callable[..., object]) -> dict[str, str]:
    """Return the first sentence that a numpydoc docstring says of each parameter."""
    text = (inspect.getdoc(function) or "").partition("Parameters\n----------\n")[2]
    found = re.findall(r"^(\w[\w, ]*)(?: :.*)?\n((?:    .*\n?|\n(?=    ))*)", text, re.MULTILINE)
    return {
        name: " ".join(body.split()).partition(". ")[0].rstrip(".").replace("`", "")
        for names, body in found
        for name in names.split(", ")
    }


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function compare its arguments with its annotations before it runs.

    A call raises `OptionError`, with the name of the argument, what was found and what is expected.
    Python's own `TypeError` stays for arguments that are missing or too many.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)
        known = hints(function)
        for name, value in given.items():
            default, rule = signature.parameters[name].default, known.get(name, Any)
            fix = next(
                (other for other in known.keys() - given if _meant(value, known[other])), None
            )
            _check(name, value, rule, default, fix=fix and f"{fix}=<this {type(value).__name__}>")
        return function(*args, **kwargs)

    return call


def check_names(kind: type, given: Iterable[str]) -> None:
    """Compare keywords with the fields of a dataclass.

    Raises
    ------
    OptionError
        If it has no field of a name.
    """
    known = [item.name for item in fields(kind)]
    for name in given:
        if name not in known:
            raise OptionError(
                variable=name,
                found="a keyword that is not known",
                expected="one of " + ", ".join(known),
                fix=did_you_mean(name, known),
            )


def check_fields(settings: Any) -> None:
    """Compare the fields of a dataclass with their annotations.

    Raises
    ------
    OptionError
        With the name of the field, what was found and what is expected.
    """
    rules = get_type_hints(type(settings), include_extras=True)
    for item in fields(settings):
        default = inspect.Parameter.empty if item.default is MISSING else item.default
        _check(item.name, getattr(settings, item.name), rules[item.name], default)


def _meant(value: object, annotation: Any) -> bool:
    """Whether an argument could be this one: of a kind that few are."""
    return (
        type(value).__module__ != "builtins"
        and annotation is not Any
        and typed.fits(value, annotation)
    )


def _check(
    name: str, value: object, annotation: Any, default: object, *, fix: str | None = None
) -> None:
    """Raise OptionError if a value is not what an annotation says."""
    if not typed.fits(value, annotation):
        raise OptionError(
            variable=name,
            found=typed.shown(value),
            expected=words(annotation),
            fix=fix or _fix(name, annotation, default),
        )


def _fix(name: str, annotation: Any, default: object) -> str:
    """Say what can be given instead."""
    if default is None:
        return f"leave {name} out"
    if default is not inspect.Parameter.empty:
        return f"{name}={default!r}, or leave it out"
    if "Dataset" in words(annotation):
        return f"{name}=xarray.open_dataset(path)"
    return f"{name}=<{words(annotation)}>"


def words(annotation: Any) -> str:
    """Write an annotation as it stands in documentation."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return typed.described(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(map(words, parts))
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, parts))
    if annotation is ...:
        return "..."
    if any(get_origin(part) is Annotated for part in parts):
        return f"{get_origin(annotation).__name__}[{', '.join(map(words, parts))}]"
    if parts or not isinstance(annotation, type):
        return re.sub(r"\b\w+\.(?=\w)", "", str(annotation))  # without modules
    if inspect.isabstract(annotation):
        kinds: list[type] = annotation.__subclasses__()
        return f"{annotation.__name__} ({', '.join(kind.__name__ for kind in kinds)})"
    return "None" if annotation is type(None) else annotation.__name__
