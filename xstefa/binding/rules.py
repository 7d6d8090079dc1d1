"""Which variable of a dataset is which token, and by which rule.

Ranks, best first: the caller's `rename`; CF standard name with the token's time cell method; CF
standard name of a variable that states no method; alias. A variable that contradicts a token
(another method, another standard name, a mean over part of the day) never matches it. Two
variables at the best rank are an error, not a choice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

import xarray as xr

from xstefa.binding.packing import Storage
from xstefa.binding.units import is_units, same_kind
from xstefa.errors import AmbiguousMatchError, UnitsError
from xstefa.schema import Schema, Target, Variable

__all__ = ["Facts", "Match", "Rank", "Rules", "best", "check_methods", "describe", "match_target"]

_EXTREMES = frozenset({"maximum", "minimum", "maximum_absolute_value", "range", "median"})
_CELL_METHOD = re.compile(r"((?:\w+:\s*)+)(\w+)(\s+within\s+days)?")
_COLUMN = re.compile(r"(\w+) ?\(([^()]+)\)")
# Coordinates along time that aggregation made and a selection may have dropped since.
_OF_THE_CALENDAR = frozenset({"date", "day", "day_of_month", "day_of_year", "doy", "hour"})
# CDO's and NCO's operators that make days, scale what they made, or join what others made.
_OPERATORS = re.compile(r"\b(day(?:sum|mean|avg|max|min)|mulc|divc|a?expr|ncap2?|merge)\b")

# What a variable may say of itself that makes it another quantity than the day's value.
_PARTIAL = (
    (re.compile(r"\bday[ -]?light|\bday[ -]?time", re.IGNORECASE), "daylight hours only"),
    (re.compile(r"\bnight[ -]?time", re.IGNORECASE), "night only"),
    (re.compile(r"\bclimatolog", re.IGNORECASE), "a climatology, not the day's value"),
    (re.compile(r"anomal", re.IGNORECASE), "an anomaly, not the value"),
    (re.compile(r"uncertaint|standard[ _](?:deviation|error)", re.IGNORECASE), "an uncertainty"),
)
_DAYLIGHT = _PARTIAL[0][1]
# gridMET, E-OBS and others call both extremes air_temperature, and say which in words.
_EXTREME = re.compile(r"\b(max|min)(?:imum)?\b", re.IGNORECASE)
_OF_A_DAY = re.compile(r"temperature|humidity|\bdaily max|\bdaily min", re.IGNORECASE)
_MEAN = re.compile(r"\b(?:mean|average)\b", re.IGNORECASE)

# What words make an observation another quantity than the target it is named like.
_OTHER = re.compile(
    r"\b(?:(?:degree|percent(?:age)?|%) (?:of )?saturation|saturation (?:degree|ratio)|relative "
    r"(?:soil )?(?:moisture|wetness|saturation)|soil wetness|anomal\w+|index|percentiles?|"
    r"(?:normali[sz]|standardi[sz])ed|root[ -]?zone|deficit|uncertaint\w+|layer [2-9])\b",
    re.IGNORECASE,
)


class Rank(IntEnum):
    """How strong a match is; lower is stronger."""

    RENAME = 0
    NAME_AND_METHOD = 1
    NAME = 2
    ALIAS = 3
    TWIN = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What matching looks at in one variable: metadata only.

    `called` is its name without the units that it may hold, ``tmax`` of ``tmax(C)``;
    `repeated` is the time dimension of a static attribute that is the same on all days;
    `text` and `comment` are what it says of itself in words;
    `method` is its time cell method; `doubt` are its cell methods where two methods along time
    contradict each other, so that the last does not say what the values are; `added_up` means that
    the history of the file says that days were summed, which nothing else accounts for; `storage`
    is how its numbers are stored.
    """

    name: str
    called: str
    dims: tuple[str, ...]
    standard_name: str | None
    method: str | None
    doubt: str | None
    partial: str | None
    units: str | None
    numeric: bool
    has_time: bool
    storage: Storage
    text: str = ""
    comment: str = ""
    repeated: str | None = None
    added_up: bool = False

    @property
    def words(self) -> set[str | None]:
        """What it is called: its name and its standard name."""
        return {self.called, self.standard_name}

    @property
    def other(self) -> str | None:
        """What its words make it, other than an observation of the target it is named like."""
        found = _OTHER.search(f"{self.name} {self.text}")
        return None if found is None else found[0]


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


def describe(ds: xr.Dataset, *, time: str | None) -> dict[str, Facts]:
    """Collect the facts of all variables of `ds` that could be tokens."""
    skipped = _service_variables(ds)
    # CDO leaves cell methods and units as they were; each file tells what was done in its history.
    added_up = set(_OPERATORS.findall(str(ds.attrs.get("history", "")))) == {"daysum"}
    along = {"time", str(time), *_OF_THE_CALENDAR}
    along |= {str(name) for name, variable in ds.variables.items() if variable.dims == (time,)}
    facts = {}
    for key, variable in ds.variables.items():
        name = str(key)
        if name in skipped:
            continue
        attrs = variable.attrs
        cell_methods = str(attrs.get("cell_methods", ""))
        words = f"{attrs.get('long_name', '')} {attrs.get('description', '')}"
        comment = f"{attrs.get('comment', '')}"
        called, units = _split_name(name) if name[-1:] == ")" else (name, None)
        units = attrs.get("units", units)
        has_time = time is not None and time in variable.dims
        methods = _time_methods(cell_methods, along)
        facts[name] = Facts(
            name=name,
            called=called,
            dims=tuple(str(dim) for dim in variable.dims),
            standard_name=_optional(attrs.get("standard_name")),
            method=methods[-1] if methods else _extreme(words) if has_time else None,
            doubt=cell_methods if has_time and _contradict(methods) else None,
            partial=_partial(f"{cell_methods} {words} {attrs.get('standard_name', '')}"),
            units="s" if variable.dtype.kind == "m" else _optional(units),
            numeric=variable.dtype.kind in "fiumb" and "flag_meanings" not in attrs,
            has_time=has_time,
            storage=Storage.of(variable, name),
            text=words,
            comment=comment,
            added_up=added_up and has_time,
        )
    if added_up and any(fact.method == "sum" for fact in facts.values()):
        return {name: replace(fact, added_up=False) for name, fact in facts.items()}
    return facts


def _service_variables(ds: xr.Dataset) -> set[str]:
    """Names that are never tokens: indexes, horizontal coordinates, bounds, grid mappings."""
    names = {str(dim) for dim in ds.dims}
    for key, variable in ds.variables.items():
        attrs = {**variable.encoding, **variable.attrs}
        if attrs.get("standard_name") in ("latitude", "longitude", "time"):
            names.add(str(key))
        if "grid_mapping_name" in attrs or "crs_wkt" in attrs:
            names.add(str(key))
        for link in ("bounds", "climatology"):
            if link in attrs:
                names.add(str(attrs[link]))
    return names


def _split_name(name: str) -> tuple[str, str | None]:
    """Return the name of a column and the units in it, if it holds any: ``tmax(C)``."""
    column = _COLUMN.fullmatch(name)
    return (column[1], column[2]) if column and is_units(column[2]) else (name, None)


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


def _time_methods(cell_methods: str, along: Collection[str]) -> list[str]:
    """Return the methods along time as they were applied (CF 7.3), the last made the value.

    Where there is one "within days" it alone: the mean over days of daily maxima is about maxima.
    """
    # Comments in parentheses may hold words followed by colons ("interval: 1 hour").
    entries = _CELL_METHOD.findall(re.sub(r"\([^)]*\)", " ", cell_methods))
    methods = []
    for names, verb, within_days in entries:
        if not set(re.findall(r"\w+", names)).isdisjoint(along):
            if within_days:
                return [str(verb)]
            methods.append(str(verb))
    return methods


def _extreme(words: str) -> str | None:
    """Return which extreme of the day some words are about, if it is one."""
    found = {match.lower() for match in _EXTREME.findall(words)}
    if len(found) != 1 or _MEAN.search(words) or not _OF_A_DAY.search(words):
        return None
    return {"max": "maximum", "min": "minimum"}[found.pop()]


def _contradict(methods: list[str]) -> bool:
    """Whether a method was applied to what another left; states and means may become anything."""
    return any(
        later != earlier and (later == "sum" or earlier not in ("point", "mean"))
        for earlier, later in pairwise(methods)
    )


def check_methods(variable: Facts) -> None:
    """Raise UnitsError where the cell methods do not say what the values of a day are."""
    if variable.doubt is None:
        return
    raise UnitsError(
        "two methods along time, of which the second does not follow from the first",
        variable=variable.name,
        found=f"cell_methods {variable.doubt!r}",
        expected="the one method that made the value of each step",
        fix=f"ds[{variable.name!r}].attrs['cell_methods'] = 'time: {variable.method}'   # or what "
        "the values are: mean, sum, maximum, minimum",
    )


def _partial(text: str) -> str | None:
    hits = [reason for pattern, reason in _PARTIAL if pattern.search(text)]
    # "daytime and nighttime" is the whole day again.
    if "night only" in hits and _DAYLIGHT in hits:
        hits = [hit for hit in hits if hit not in ("night only", _DAYLIGHT)]
    return hits[0] if hits else None


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
            if wanted.daylight and variable.partial != _DAYLIGHT:
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
        for target in self.schema.targets:
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
        if not variable.numeric or not variable.has_time or variable.other is not None:
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
    if dims is not None and not set(variable.dims) <= set(dims):
        return f"on ({', '.join(variable.dims)}): not the sites of the forcings"
    return None
