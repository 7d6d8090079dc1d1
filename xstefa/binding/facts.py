"""What a variable says of itself: metadata only."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise

import xarray as xr

from xstefa.binding.packing import Storage
from xstefa.binding.units import is_units
from xstefa.errors import UnitsError

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
DAYLIGHT = _PARTIAL[0][1]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What matching looks at in one variable: metadata only.

    `called` is its name without the units that it may hold, ``tmax`` of ``tmax(C)``;
    `repeated` is the time dimension of a static attribute that is the same on all days;
    `text` and `comment` are what it says of itself in words;
    `method` is its time cell method; `doubt` are its cell methods where two methods along time
    contradict each other, so that the last does not say what the values are; `added_up` means that
    the history of the file says that days were summed, which nothing else accounts for; `storage`
    is how its numbers are stored; `labels` means that these are flags, and no quantity.
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
    labels: bool = False

    @property
    def words(self) -> set[str | None]:
        """What it is called: its name and its standard name."""
        return {self.called, self.standard_name}

    @property
    def other(self) -> str | None:
        """What its words make it, other than an observation of the target it is named like."""
        found = _OTHER.search(f"{self.name} {self.text}")
        return None if found is None else found[0]


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
            labels="flag_meanings" in attrs,
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
    if "night only" in hits and DAYLIGHT in hits:
        hits = [hit for hit in hits if hit not in ("night only", DAYLIGHT)]
    return hits[0] if hits else None
