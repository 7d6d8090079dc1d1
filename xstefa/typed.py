"""Type annotations as rules: does a value fit one, and frozen dataclasses from JSON or TOML."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import lru_cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from xstefa.errors import XstefaError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """What an annotation asks for beyond a type: ``Annotated[float, Rule(...)]``."""

    text: str
    holds: Callable[[Any], bool]


# Finite, and above 0, in the single precision in which networks compute.
Finite = Annotated[float, Rule("a finite number", lambda x: abs(x) < 1e38)]
Positive = Annotated[float, Rule("a finite number above 0", lambda x: 1e-37 < x < 1e38)]
Share = Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Count = Annotated[int, Rule("a whole number above 0", lambda n: n > 0)]
Natural = Annotated[int, Rule("a whole number, 0 or more", lambda n: n >= 0)]
Name = Annotated[str, Rule("text that is not empty", bool)]

_WORDS = {
    str: "text",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    type(None): "nothing (null)",
}


def fits(value: object, annotation: Any) -> bool:
    """Whether a value is what a type annotation says, its items included.

    Whole numbers pass for `float`, numpy's numbers for Python's, but neither booleans for numbers
    nor one text for a collection of texts. What cannot be told without using the value up or
    calling it, the items of an iterator or the arguments of a function, passes.

    Parameters
    ----------
    value : object
    annotation : type or special form
        Resolved, as `typing.get_type_hints` returns it.
    """
    origin, parts = _parts(annotation)
    if annotation is None:
        return value is None
    if origin is Annotated:
        rules = (rule for rule in annotation.__metadata__ if isinstance(rule, Rule))
        return fits(value, parts[0]) and all(rule.holds(value) for rule in rules)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple and isinstance(value, tuple):
        if parts[1:] == (...,):
            return all(fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(fits, value, parts))
    if origin is None:
        numbers = {float: Real, int: Integral}
        if annotation in numbers:
            return isinstance(value, numbers[annotation]) and not isinstance(value, bool)
        try:
            return not isinstance(annotation, type) or isinstance(value, annotation)
        except TypeError:  # a protocol, a typed dict: only a type checker can tell
            return True
    if not isinstance(value, origin):
        return False
    if _is_table(origin) and isinstance(value, Mapping):
        return all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if origin.__module__ in ("builtins", "collections.abc") and issubclass(origin, Collection):
        return not isinstance(value, str | bytes) and all(fits(item, parts[0]) for item in value)
    return True


def build(
    cls: type[T], content: object, where: str = "", *, error: type[XstefaError], fix: str
) -> T:
    """Make a dataclass of parsed JSON or TOML that fits its annotations.

    Lists become tuples, tables dataclasses or mappings. A dataclass with a `from_dict` is made by
    that; a field with the metadata ``{"key": name}`` has another name in the text.

    Parameters
    ----------
    cls : type
        A dataclass, or one with `from_dict`.
    content : object
        Parsed text.
    where : str
        What it is a part of, for messages.
    error : type of XstefaError
    fix : str
        What to do about content that does not fit.

    Raises
    ------
    XstefaError
        Of the type `error`, naming the field, if one is unknown, missing, or of a value that its
        annotation or the class refuses.
    """

    def refuse(message: str, key: object, found: str, expected: str) -> XstefaError:
        path = ".".join(str(part) for part in (where, key) if part)
        return error(message, variable=path, found=found, expected=expected, fix=fix)

    if not isinstance(content, Mapping):
        raise refuse("not a table", "", shown(content), f"the fields of {cls.__name__}")
    known = {_key(field): field for field in fields(cls) if field.init}  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            raise error(
                f"{cls.__name__} has no such field",
                variable=f"{where}.{key}" if where else str(key),
                found=shown(key),
                expected=f"one of {', '.join(known)}",
                fix=did_you_mean(key, known) or fix,
            )
    values = {}
    for key, field in known.items():
        annotation = _hints(cls)[field.name]  # type: ignore[arg-type]
        if key in content:
            path = f"{where}.{key}" if where else key
            values[field.name] = _read(content[key], annotation, path, error, fix)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise refuse("this field is missing", key, "nothing", described(annotation))
    try:
        return cls(**values)
    except ValueError as problem:
        if not isinstance(problem, XstefaError):
            raise refuse(str(problem), "", shown(content), "values that go together") from problem
        message = problem.message or "not what this field holds"
        texts = problem.found or "", problem.expected or ""
        raise refuse(message, problem.variable, *texts) from problem


LATER = {"later": True}
"""Metadata of fields that came later: `plain` leaves them out where they hold their default, so
that what was written before has the same text, and the same hash."""


def plain(value: object) -> Any:
    """Return a dataclass as `build` reads it: dictionaries, lists, text and numbers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        content = {f: getattr(value, f.name) for f in fields(value) if f.init}
        return {
            _key(f): plain(held)
            for f, held in content.items()
            if not ("later" in f.metadata and held == f.default)
        }
    return value


def described(annotation: Any) -> str:
    """Say in words what an annotation asks for."""
    origin, parts = _parts(annotation)
    if origin is Annotated:
        return " and ".join(rule.text for rule in annotation.__metadata__)
    if origin in (Union, UnionType):
        return " or ".join(map(described, parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin is tuple and parts[1:] != (...,):
        return f"an array of {len(parts)}: " + ", ".join(map(described, parts))
    if _is_table(origin):
        return f"a table of {described(parts[1])} each"
    if origin is not None:
        return f"an array of {described(parts[0])} each"
    return _WORDS.get(annotation, f"the fields of {getattr(annotation, '__name__', annotation)}")


def _read(value: object, annotation: Any, where: str, error: type[XstefaError], fix: str) -> object:
    """Return a parsed value as what an annotation says, or raise."""

    def inner(item: object, kind: Any, place: str = "") -> object:
        return _read(item, kind, where + place, error, fix)

    origin, parts = _parts(annotation)
    if origin is Annotated:
        found = inner(value, parts[0])
        if fits(found, annotation):
            return found
    elif origin in (Union, UnionType) and value is not None:
        return inner(value, next(part for part in parts if part is not type(None)))
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = [parts[0]] * len(value) if parts[1:] == (...,) else parts
        if len(kinds) == len(value):
            items = enumerate(zip(value, kinds, strict=True))
            return tuple(inner(item, kind, f"[{i}]") for i, (item, kind) in items)
    elif _is_table(origin) and isinstance(value, Mapping):
        return {key: inner(item, parts[1], f".{key}") for key, item in value.items()}
    elif hasattr(annotation, "from_dict") and isinstance(value, Mapping):
        try:
            return annotation.from_dict(value)
        except XstefaError as problem:
            path = ".".join(part for part in (where, problem.variable) if part)
            texts = {"found": problem.found, "expected": problem.expected, "fix": fix}
            raise error(problem.message, variable=path, **texts) from problem
    elif is_dataclass(annotation):
        return build(annotation, value, where, error=error, fix=fix)  # type: ignore[arg-type]
    elif fits(value, annotation):
        return float(value) if annotation is float else value  # type: ignore[arg-type]
    raise error(
        "not what this field holds",
        variable=where,
        found=shown(value),
        expected=described(annotation),
        fix=fix,
    )


@lru_cache(maxsize=1024)
def _parts(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return origin and arguments of an annotation."""
    return get_origin(annotation), get_args(annotation)


def _key(field: Field[Any]) -> str:
    """Return the name of a field in text: its own, or the one that its metadata gives."""
    key: str = field.metadata.get("key", field.name)
    return key


def _is_table(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


@lru_cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def shown(value: object) -> str:
    """Say what a value is, short and without computing it."""
    if not isinstance(value, str | int | float | list | tuple | dict | set | type(None)):
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
