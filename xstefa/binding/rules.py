"""Which variable of a dataset is which token, and by which rule.

Ranks, best first: the caller's `rename`; CF standard name with the token's time cell method; CF
standard name of a variable that states no method; alias. A variable that contradicts a token
(another method, another standard name, a mean over part of the day) never matches it. Two
variables at the best rank are an error, not a choice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from xstefa.binding.facts import DAYLIGHT, Facts
from xstefa.binding.units import same_kind
from xstefa.errors import AmbiguousMatchError
from xstefa.schema import Schema, Target, Variable

_EXTREMES = frozenset({"maximum", "minimum", "maximum_absolute_value", "range", "median"})


class Rank(IntEnum):
    """How strong a match is; lower is stronger."""

    RENAME = 0
    NAME_AND_METHOD = 1
    NAME = 2
    ALIAS = 3
    TWIN = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """One variable that fits one token.

    Parameters
    ----------
    variable : Facts
    rank : Rank
    rule : str
        For the token table, e.g. ``"standard_name, time: maximum"``.
    units, method : str, optional
        Units and time cell method from the alias, used where the variable states none.
    """

    variable: Facts
    rank: Rank
    rule: str
    units: str | None = None
    method: str | None = None

    @property
    def stated_units(self) -> str | None:
        """Units: the variable's own, else those that its source documents."""
        return self.units if self.variable.units is None else self.variable.units

    @property
    def time_method(self) -> str | None:
        """Time cell method: the variable's own, else the one that its source documents."""
        return self.variable.method or self.method


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The rules of a schema for the variables of one dataset.

    Parameters
    ----------
    schema : Schema
    names : collection of str
        Names of all variables of the dataset, by which aliases tell their source.
    renamed : mapping of str to str
        ``{dataset variable: token}``.
    """

    schema: Schema
    names: Collection[str]
    renamed: Mapping[str, str]

    def candidates(self, facts: Iterable[Facts], wanted: Variable) -> list[Match]:
        """All variables that could be a token or ingredient; a rename alone if there is one."""
        facts = list(facts)
        for fact in facts:
            if self.renamed.get(fact.name) == wanted.name:
                return [Match(variable=fact, rank=Rank.RENAME, rule="rename")]
        found = [self._match(fact, wanted) for fact in facts if fact.name not in self.renamed]
        return [match for match in found if match is not None]

    def _match(self, variable: Facts, wanted: Variable) -> Match | None:
        """Match a variable by the standard names and aliases of `wanted`, if it can be that."""
        if not variable.numeric or variable.has_time != (wanted.kind == "forcing"):
            return None
        if self._contradiction(variable, wanted) is not None:
            return None
        alias = self._by_alias(variable, wanted)
        found = self._by_standard_name(variable, wanted) or alias
        if found is not None and alias is not None:
            # What the source documents holds for its name, whatever else tells what it is.
            found = replace(found, units=alias.units, method=alias.method)
        return found

    def _contradiction(self, variable: Facts, wanted: Variable) -> str | None:
        """Why `variable` cannot be `wanted` whatever it is called, or None."""
        if wanted.kind == "forcing":
            if wanted.daylight and variable.partial != DAYLIGHT:
                return "not said to cover daylight hours only"
            if not wanted.daylight and variable.partial is not None:
                return variable.partial
        about = f"{variable.text} {variable.comment}".lower()
        for words in wanted.unless:
            if words in about:
                return f"{words!r} among its words"
        methods = _methods(wanted)
        allowed = methods | ({"mean", "sum"} if not methods & _EXTREMES else set())
        if variable.method is not None and variable.method not in allowed:
            return f"time: {variable.method}"
        name = variable.standard_name
        if name is not None and name not in _standard_names(wanted):
            # A long-term mean may have the standard name of the series that it is of.
            others: list[Variable | Target] = list(self.schema.targets)
            others += [v for v in self._variables if v.kind == wanted.kind]
            if any(name in _standard_names(other) for other in others):
                return f"standard_name {name!r}"
        return None

    @property
    def _variables(self) -> tuple[Variable, ...]:
        return (*self.schema.tokens, *self.schema.ingredients)

    def _siblings(self, wanted: Variable) -> list[Variable]:
        """Other tokens of the same kind and standard name, e.g. the extremes of a mean."""
        return [
            other
            for other in self._variables
            if other.name != wanted.name
            and other.kind == wanted.kind
            and _standard_names(wanted) & _standard_names(other)
        ]

    def _is_sibling(self, variable: Facts, wanted: Variable) -> bool:
        """Whether the name of `variable` belongs to a sibling, as ``tasmax`` does."""
        aliases = (alias for other in self._siblings(wanted) for alias in other.aliases)
        return any(alias.name == variable.called for alias in aliases)

    def _by_standard_name(self, variable: Facts, wanted: Variable) -> Match | None:
        names = [name for name in wanted.standard_names if name.name == variable.standard_name]
        methods = {name.cell_method for name in names}
        if variable.method is not None and variable.method in methods:
            rule = f"standard_name, time: {variable.method}"
            return Match(variable=variable, rank=Rank.NAME_AND_METHOD, rule=rule)
        if variable.method is None:
            fits = bool(methods & {None, "mean", "sum"}) and not self._is_sibling(variable, wanted)
        else:
            fits = None in methods
        return Match(variable=variable, rank=Rank.NAME, rule="standard_name") if fits else None

    def _by_alias(self, variable: Facts, wanted: Variable) -> Match | None:
        claims = [
            claim
            for claim in self.schema.claims(variable.called, self.names)
            if variable.has_time == (claim[0].kind == "forcing")
            and (claim[0].name == wanted.name or self._contradiction(variable, claim[0]) is None)
        ]
        if len({owner.name for owner, _, _ in claims}) > 1:
            # Its source tells whose name it is, or else its units; otherwise the first has it.
            units = variable.units
            fitting = [c for c in claims if units is not None and same_kind(units, c[0].units)]
            first = next(iter([c for c in claims if c[2]] or fitting or claims))[0]
            claims = [claim for claim in claims if claim[0] is first]
        own = [(alias, proven) for owner, alias, proven in claims if owner.name == wanted.name]
        if not own:
            return None
        alias = min(own, key=lambda claim: not claim[1])[0]
        documented = {(a.units, a.method) for a, proven in own if proven and (a.units or a.method)}
        # Two sources at once do not tell which of their units holds.
        told = len(documented) < 2
        return Match(
            variable=variable,
            rank=Rank.TWIN if alias.twin else Rank.ALIAS,
            rule=f"alias ({alias.source})",
            units=alias.units if told else None,
            method=alias.method if told else None,
        )

    def near_miss(
        self, variable: Facts, wanted: Variable, dims: tuple[str, ...] | None
    ) -> str | None:
        """Why `variable`, which is named like `wanted`, is not it; None if named otherwise."""
        if not is_named(variable, wanted) or self._is_sibling(variable, wanted):
            return None
        contradiction = self._contradiction(variable, wanted)
        methods = {method for other in self._siblings(wanted) for method in _methods(other)}
        if contradiction is not None and variable.method in methods:
            return None  # a daily maximum is not a failed daily mean
        return misfit(variable, wanted, dims) or contradiction

    def unused(
        self, variable: Facts, *, dims: tuple[str, ...] | None, taken: Mapping[str, str]
    ) -> str:
        """Say in a few words why `variable` is not used, where tokens are `taken` from others."""
        names = (variable.name, variable.called, variable.standard_name or "")
        told = [target for name in names for target in self.schema.telling.get(name, ())]
        for target in told:
            if variable.name in target.leaking:
                return f"computed from {target.name}"
            if match_target([variable], target):
                return f"target {target.name}"
            if variable.other and match_target([replace(variable, text="")], target):
                return f"not {target.name}: {variable.other}"
        if dims is not None and not set(variable.dims) <= set(dims):
            return f"on {', '.join(variable.dims)}: not the sites of the forcings"
        if not variable.numeric:
            return "not a quantity"
        if not variable.words & self.schema.words:
            return "no token"
        for wanted in self.schema.others:
            if self._match(variable, wanted):
                return wanted.long_name
        for wanted in self._variables:
            if self._match(variable, wanted):
                if wanted.name in taken:
                    return f"{wanted.name} taken from {taken[wanted.name]}"
                return f"{wanted.name} not needed, or has a problem"
        for wanted in self._variables:
            fits = variable.has_time == (wanted.kind == "forcing") and not wanted.daylight
            if fits and is_named(variable, wanted):
                reason = self._contradiction(variable, wanted)
                if reason is not None:
                    return f"not {wanted.name}: {reason}"
        return "no token"


def match_target(facts: Iterable[Facts], target: Target) -> list[Match]:
    """All variables that are observations of `target`."""
    matches = []
    for variable in facts:
        classes = variable.labels and target.kind == "class"
        if not (variable.numeric or classes) or variable.other is not None:
            continue
        if variable.has_time == target.static:
            continue
        if variable.method in _EXTREMES:
            continue
        if variable.standard_name in _standard_names(target):
            matches.append(Match(variable=variable, rank=Rank.NAME, rule="standard_name"))
        elif variable.standard_name is None:
            matches += [
                Match(
                    variable=variable,
                    rank=Rank.ALIAS,
                    rule=f"alias ({alias.source})",
                    units=alias.units,
                    method=alias.method,
                )
                for alias in target.aliases
                if alias.name == variable.called
            ]
    return matches


def best(token: str, matches: list[Match]) -> Match | None:
    """Return the strongest of `matches`, or None; AmbiguousMatchError if two are equally strong."""
    if not matches:
        return None
    rank = min(match.rank for match in matches)
    strongest = [match for match in matches if match.rank == rank]
    if len(strongest) == 1:
        return strongest[0]
    names = [match.variable.name for match in strongest]
    raise AmbiguousMatchError(
        "several variables fit this token equally well",
        variable=token,
        found=" and ".join(f"{match.variable.name!r} by {match.rule}" for match in strongest),
        expected="one variable",
        fix=f"rename={{{names[0]!r}: {token!r}}}, or drop the others: ds.drop_vars({names[1:]!r})",
    )


def _methods(wanted: Variable) -> set[str]:
    return {name.cell_method for name in wanted.standard_names if name.cell_method is not None}


def _standard_names(wanted: Variable | Target) -> set[str]:
    return {name.name for name in wanted.standard_names}


def is_named(variable: Facts, wanted: Variable) -> bool:
    """Whether the name or standard name of `variable` is one of `wanted`'s."""
    aliases = {alias.name for alias in wanted.aliases}
    return variable.called in aliases or variable.standard_name in _standard_names(wanted)


def misfit(variable: Facts, wanted: Variable, dims: tuple[str, ...] | None) -> str | None:
    """Why `variable` cannot be `wanted` for its values, and for `dims` of the forcings; or None."""
    if not variable.numeric:
        return "text, flags or dates, not numbers"
    if variable.has_time and wanted.kind == "static":
        return "varies in time"
    if not variable.has_time and wanted.kind == "forcing":
        return "does not vary in time"
    if dims is not None and not set(variable.dims) <= set(dims) and wanted.length == 1:
        return f"on ({', '.join(variable.dims)}): not the sites of the forcings"
    return None
