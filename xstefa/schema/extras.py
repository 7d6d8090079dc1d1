"""Tokens that a user adds: site attributes beside those that an encoder was pretrained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeAlias, TypeVar

from xstefa.errors import SchemaError, did_you_mean
from xstefa.schema.schema import found_by_name, parsed
from xstefa.schema.variables import Target, Variable
from xstefa.typed import build

Token: TypeAlias = Variable | str | Path
Tokens: TypeAlias = Token | Sequence[Token]
Targets: TypeAlias = Target | str | Path | Sequence[Target | str | Path]

T = TypeVar("T")

_FIX = "write it as an entry [[{}]] of xstefa/schema/stefaland.toml"


def load_tokens(tokens: Tokens) -> tuple[Variable, ...]:
    """Return tokens from descriptions, by the names of known embeddings, or from TOML files.

    Parameters
    ----------
    tokens : Variable, str, Path, or sequence of these
        Text is the path of a TOML file with entries ``[[static]]`` if it ends so; else the name of
        an embedding in ``xstefa/schema/extra``, such as ``"alphaearth"``.

    Returns
    -------
    tuple of Variable

    Raises
    ------
    SchemaError
        If there is no such file or name, or its content is malformed.
    """
    several = [tokens] if isinstance(tokens, Variable | str | Path) else tokens
    return tuple(token for each in several for token in _loaded(each))


def load_targets(targets: Targets) -> list[str | Target]:
    """Return targets, in place of each TOML file those that it describes.

    What is described here is found by its own name, too, beside its aliases.

    Parameters
    ----------
    targets : str, Path, Target, or sequence of these
        Text is the path of a TOML file with entries ``[[target]]`` if it ends so; else a name,
        which stays as it is.

    Raises
    ------
    SchemaError
        If there is no such file, or its content is malformed.
    """
    several = [targets] if isinstance(targets, Target | str | Path) else targets
    found: list[str | Target] = []
    for each in several:
        if isinstance(each, Path) or (isinstance(each, str) and each.endswith(".toml")):
            found += map(found_by_name, _entries(Path(each), "target", Target, {}))
        else:
            found.append(found_by_name(each) if isinstance(each, Target) else each)
    return found


def _loaded(token: Token) -> tuple[Variable, ...]:
    if isinstance(token, Variable):
        return (token,)
    if isinstance(token, Path) or token.endswith(".toml"):
        return _read(Path(token))
    folder = resources.files(__package__).joinpath("extra")
    known = {v.name: v for file in folder.iterdir() for v in _read(file)}
    if token not in known:
        raise SchemaError(
            "no such token",
            variable=token,
            found=repr(token),
            expected=f"one of {', '.join(known)}, the path of a .toml file, or a Variable",
            fix=did_you_mean(token, known) or "describe it in a TOML file: tokens='my_tokens.toml'",
        )
    return (known[token],)


def _read(file: Traversable) -> tuple[Variable, ...]:
    """Read the entries ``[[static]]`` of a file, which may have targets beside them."""
    return tuple(_entries(file, "static", Variable, {"kind": "static"}))


def _entries(file: Traversable, section: str, cls: type[T], given: Mapping[str, str]) -> list[T]:
    """Read the entries of a section of a file of tokens and targets."""
    if not file.is_file():
        raise SchemaError(
            "no such file",
            variable=str(file),
            found="nothing there",
            expected=f"a TOML file with entries [[{section}]]",
            fix="correct the path",
        )
    content = parsed(file)
    entries = content.pop(section, [])
    for beside in ("static", "target"):
        content.pop(beside, None)
    if content or not isinstance(entries, list) or not entries:
        raise SchemaError(
            f"a file of {'tokens' if section == 'static' else 'targets'} has such entries",
            variable=str(file),
            found=", ".join(content) or "none",
            expected=f"[[{section}]], and beside it at most [[static]] and [[target]]",
            fix=_FIX.format(section),
        )
    return [
        build(
            cls,
            {**given, **entry} if isinstance(entry, dict) else entry,
            f"{section}[{i}]",
            error=SchemaError,
            fix=_FIX.format(section),
        )
        for i, entry in enumerate(entries)
    ]
