"""A schema: the tokens and targets that a model knows, from a TOML file and back."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from xstefa.errors import SchemaError, did_you_mean
from xstefa.schema.variables import Alias, Kind, Needs, Target, Variable
from xstefa.typed import LATER, build, plain

Described = TypeVar("Described", Variable, Target)

__all__ = ["Schema", "load_schema"]

_KINDS: dict[str, Kind] = {
    "forcing": "forcing", "static": "static", "ingredient": "forcing", "other": "forcing",
    "extra": "static",
}  # fmt: skip
"""Kind of the variables of a section that do not say it."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The tokens and targets that a model knows.

    Parameters
    ----------
    name, version : str
    forcings, statics : tuple of Variable
        In the order in which models stack them.
    ingredients : tuple of Variable
        Variables that are not tokens but from which tokens are derived.
    others : tuple of Variable
        Quantities that are nothing to a model, so that their names are taken for nothing else.
    targets : tuple of Target
    sources : mapping of str to tuple of str
        Names of variables by which the data of a source are known.
    extras : tuple of Variable
        Site attributes beside those that an encoder was pretrained on: heads alone read them. They
        may be vectors.
    """

    name: str
    version: str
    forcings: tuple[Variable, ...] = field(metadata={"key": "forcing"})
    statics: tuple[Variable, ...] = field(default=(), metadata={"key": "static"})
    ingredients: tuple[Variable, ...] = field(default=(), metadata={"key": "ingredient"})
    others: tuple[Variable, ...] = field(default=(), metadata={"key": "other"})
    targets: tuple[Target, ...] = field(default=(), metadata={"key": "target"})
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    extras: tuple[Variable, ...] = field(default=(), metadata={"key": "extra", **LATER})
    _index: dict[str, Variable] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        index: dict[str, Variable] = {}
        for variable in (*self.tokens, *self.ingredients):
            if variable.name in index:
                raise SchemaError(
                    "the schema lists this token twice",
                    variable=variable.name,
                    found="two entries of this name",
                    expected="names that are unique among tokens and ingredients",
                    fix="rename or remove one of them in the TOML file",
                )
            index[variable.name] = variable
        for variable in (*self.forcings, *self.statics, *self.ingredients, *self.extras):
            extra = variable in self.extras
            if extra and variable.kind != "static":
                raise SchemaError(
                    "a token beside those of the encoder is an attribute of the site",
                    variable=variable.name,
                    found=f"kind {variable.kind!r}",
                    expected="kind 'static'",
                    fix="average it over time first, or pretrain with it",
                )
            if not extra and variable.length != 1:
                raise SchemaError(
                    "an encoder reads single numbers",
                    variable=variable.name,
                    found=f"a vector of {variable.length} numbers",
                    expected="vectors among the extras, which heads read",
                    fix="give it to fine-tuning: finetune(..., tokens=...)",
                )
        for target in self.targets:
            for part in self.parts_of(target):
                if (part.static, part.depths) != (target.static, target.depths):
                    raise SchemaError(
                        "the parts of a composition belong together",
                        variable=part.name,
                        found=f"depths {part.depths}, static {part.static}",
                        expected=f"depths {target.depths}, as of {target.name!r}",
                        fix="give all parts the same depths",
                    )
        object.__setattr__(self, "_index", index)

    def __getitem__(self, token: str) -> Variable:
        try:
            return self._index[token]
        except KeyError:
            raise SchemaError(
                f"schema {self.name!r} has no such token",
                variable=token,
                found=repr(token),
                expected=f"one of {', '.join(self._index)}",
                fix=did_you_mean(token, self._index)
                or "its .forcing_names and .static_names are the tokens it has",
            ) from None

    def __contains__(self, token: object) -> bool:
        return token in self._index

    @property
    def tokens(self) -> tuple[Variable, ...]:
        """Forcings, then attributes."""
        return self.forcings + self.attributes

    @property
    def attributes(self) -> tuple[Variable, ...]:
        """All that is known of sites: statics, then extras."""
        return self.statics + self.extras

    @property
    def forcing_names(self) -> tuple[str, ...]:
        """Names of the forcing tokens, in the order a network reads them."""
        return tuple(variable.name for variable in self.forcings)

    @property
    def static_names(self) -> tuple[str, ...]:
        """Names of the static tokens, in the order an encoder reads them."""
        return tuple(variable.name for variable in self.statics)

    @cached_property
    def site_columns(self) -> Mapping[str, Variable]:
        """Columns of the table of attributes, in the order a network reads them."""
        return {name: variable for variable in self.attributes for name in variable.columns}

    @property
    def needs(self) -> Needs:
        """What a model needs that does not say it: each required forcing."""
        return tuple((variable.name,) for variable in self.forcings if variable.required)

    def allows(self, needs: Needs, tokens: Collection[str]) -> bool:
        """Whether a model that reads `tokens` can need this."""
        known = set(self.forcing_names).intersection(tokens)
        return all(group and known.issuperset(group) for group in needs)

    def columns(self, needs: Needs) -> list[list[int]]:
        """Return where the forcings of each group stand among all."""
        return [[self.forcing_names.index(name) for name in group] for group in needs]

    def target(self, name: str) -> Target:
        """Return the target called `name`; SchemaError if there is none."""
        for target in self.targets:
            if isinstance(name, str) and target.name == name:
                return target
        raise SchemaError(
            f"schema {self.name!r} has no such target",
            variable=str(name),
            found=repr(name),
            expected=f"one of {', '.join(target.name for target in self.targets)}",
            fix=did_you_mean(name, [target.name for target in self.targets])
            or "add it to the targets of the schema, or ask for one it has",
        )

    def parts_of(self, target: Target) -> tuple[Target, ...]:
        """Return all parts of the composition that a target is one of, else the target alone."""
        if target.composition is None:
            return (target,)
        return tuple(each for each in self.targets if each.composition == target.composition)

    def expanded(self, names: Iterable[str]) -> list[str]:
        """Return names of targets, with the parts in place of the name of a composition."""
        wholes: dict[str | None, list[str]] = {}
        for target in self.targets:
            wholes.setdefault(target.composition, []).append(target.name)
        return [part for name in names for part in (wholes.get(name) if name else None) or [name]]

    def with_targets(self, *targets: Target) -> Schema:
        """Return the schema with some targets in place of those of their names."""
        new = {target.name for target in targets}
        return replace(self, targets=(*(t for t in self.targets if t.name not in new), *targets))

    def current(self) -> Schema:
        """Return the installed schema of this name, if a model of this one reads it the same.

        A model carries the schema of its training day. What came later, new sources and their
        names, is of use to it as long as the numbers mean the same: equal tokens in equal order,
        in equal units and with equal transforms. Otherwise, or if no such schema is installed, the
        schema itself is returned. Its own targets stay, and learn the names known today.
        """
        if not resources.files(__package__).joinpath(f"{self.name}.toml").is_file():
            return self
        installed = load_schema(self.name)
        if _numbers(installed) != _numbers(self):
            return self
        targets = {known.name: known for known in installed.targets}
        for target in self.targets:
            targets[target.name] = _known_today(target, targets.get(target.name, target))
        return replace(installed, targets=tuple(targets.values()), extras=self.extras)

    def with_extras(self, tokens: Iterable[Variable]) -> Schema:
        """Return the schema with further site attributes, for heads to read.

        They are known by their own names, too.

        Raises
        ------
        SchemaError
            If another token has such a name, or one is no site attribute.
        """
        named = map(found_by_name, tokens)
        new = tuple(token for token in named if token not in self.extras)
        return replace(self, extras=(*self.extras, *new))

    def claims(self, name: str, beside: Collection[str]) -> list[tuple[Variable, Alias, bool]]:
        """Whatever a variable of this name may be, beside the others of its dataset.

        Parameters
        ----------
        name : str
        beside : collection of str
            Names of all variables of the dataset.

        Returns
        -------
        list of (Variable, Alias, bool)
            First what is no token; true if the dataset tells that it comes from that source.
        """
        found = []
        for variable, alias in self._by_alias.get(name, ()):
            if alias.beside is not None and alias.beside not in beside:
                continue
            signs = [self.sources.get(source, ()) for source in alias.source.split(", ")]
            shown = alias.signed and any(sign in beside for names in signs for sign in names)
            if alias.signed and not shown:
                alias = replace(alias, units=None, method=None)
            proven = shown or alias.beside is not None
            found.append((variable, alias, proven))
        return found

    @cached_property
    def _by_alias(self) -> dict[str, list[tuple[Variable, Alias]]]:
        names: dict[str, list[tuple[Variable, Alias]]] = {}
        for variable in (*self.others, *self.tokens, *self.ingredients):
            for alias in variable.aliases:
                names.setdefault(alias.name, []).append((variable, alias))
        return names

    @cached_property
    def telling(self) -> Mapping[str, tuple[Target, ...]]:
        """Targets by the names of what observes them or is computed from them."""
        found: dict[str, tuple[Target, ...]] = {}
        for target in self.targets:
            observed = [alias.name for alias in target.aliases]
            observed += [name.name for name in target.standard_names]
            for name in dict.fromkeys((*observed, *target.leaking)):
                found[name] = (*found.get(name, ()), target)
        return found

    @cached_property
    def words(self) -> frozenset[str]:
        """All aliases and standard names of tokens, ingredients and others."""
        variables = (*self.tokens, *self.ingredients, *self.others)
        aliases = {alias.name for variable in variables for alias in variable.aliases}
        return frozenset(aliases | {n.name for v in variables for n in v.standard_names})

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the canonical content."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON-able content; `from_dict` reads it back."""
        content: dict[str, object] = plain(self)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Schema:
        """Build a schema from `to_dict` output or parsed TOML; SchemaError says what is wrong."""
        sections = dict(content)
        for section, kind in _KINDS.items():
            if isinstance(entries := sections.get(section), list):
                sections[section] = [
                    {"kind": kind, **entry} if isinstance(entry, dict) else entry
                    for entry in entries
                ]
        fix = "write it as in xstefa/schema/stefaland.toml"
        return build(cls, sections, error=SchemaError, fix=fix)


def load_schema(name_or_path: str | Path | Schema = "stefaland") -> Schema:
    """Load a schema that comes with xstefa by name, or any TOML file by path.

    Parameters
    ----------
    name_or_path : str, Path or Schema
        A bundled name such as ``"stefaland"``, or the path of a ``.toml`` file; a schema is
        returned as it is.

    Returns
    -------
    Schema

    Raises
    ------
    SchemaError
        If there is no such schema, or its content is malformed.
    """
    if isinstance(name_or_path, Schema):
        return name_or_path
    if not isinstance(name_or_path, str | Path):
        raise SchemaError(
            "a schema is known by its name or path",
            variable="schema",
            found=repr(name_or_path),
            expected="text or a path",
            fix="xstefa.load_schema('stefaland')",
        )
    if isinstance(name_or_path, str) and not name_or_path.endswith(".toml"):
        source = resources.files(__package__).joinpath(f"{name_or_path}.toml")
    else:
        source = Path(name_or_path)
    if not source.is_file():
        bundled = sorted(
            entry.name.removesuffix(".toml")
            for entry in resources.files(__package__).iterdir()
            if entry.name.endswith(".toml")
        )
        raise SchemaError(
            "no such schema",
            variable=str(name_or_path),
            found="neither a bundled schema nor a file",
            expected=f"one of {', '.join(bundled)}, or the path of a .toml file",
            fix=f"xstefa.load_schema({bundled[0]!r})",
        )
    return Schema.from_dict(parsed(source))


def parsed(source: Traversable) -> dict[str, Any]:
    """Read a TOML file; SchemaError if it is none."""
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(
            "not valid TOML",
            variable=str(source),
            found=str(error),
            expected="a TOML file with the sections of a schema",
            fix="start from a copy of xstefa/schema/stefaland.toml",
        ) from error


def _numbers(schema: Schema) -> list[tuple[str, ...]]:
    """Return what the numbers that a model reads depend on."""
    tokens = schema.forcings + schema.statics
    return [(v.name, v.kind, v.units, v.transform) for v in tokens]


def found_by_name(described: Described) -> Described:
    """Return a token or target of a user's, with its own name among the names it is found by."""
    if any(alias.name == described.name for alias in described.aliases):
        return described
    alias = Alias(name=described.name, source="its own name")
    return replace(described, aliases=(*described.aliases, alias))


def _known_today(target: Target, installed: Target) -> Target:
    """Return a model's target with the names of the installed one, if the units are equal."""
    if installed.units != target.units:
        return target
    return replace(
        target,
        standard_names=tuple(dict.fromkeys(installed.standard_names + target.standard_names)),
        aliases=tuple(dict.fromkeys(installed.aliases + target.aliases)),
        leaking=tuple(dict.fromkeys(installed.leaking + target.leaking)),
        hidden=tuple(dict.fromkeys(installed.hidden + target.hidden)),
    )
