"""From any dataset to model tokens.

`plan` looks at metadata only and says what it understood; `bind` is `plan` plus the decision
that it is good enough. Neither reads data: a `Binding` converts and derives a token when it is
asked for it, lazily where the input is a dask array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import xarray as xr

from xstefa.binding.derive import DAY_OF_YEAR, DERIVATIONS, LATITUDE, Derivation
from xstefa.binding.layout import Layout, day_of_year, find_latitude, find_time, make_layout
from xstefa.binding.match import (
    Facts,
    Match,
    Rank,
    best,
    describe,
    explain_unused,
    match_target,
    match_variable,
)
from xstefa.binding.table import TokenRow, TokenTable
from xstefa.binding.units import Conversion, conversion, same_kind
from xstefa.errors import (
    LayoutError,
    MissingTokenError,
    SchemaError,
    UnitsError,
    XstefaError,
    raise_problems,
)
from xstefa.schema import Schema, Target, Variable

__all__ = ["Binding", "Layout", "Plan", "TokenRow", "TokenTable", "bind", "plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Direct:
    """A token that is a variable of the dataset, up to units."""

    match: Match
    conversion: Conversion

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        return self.conversion(ds[self.match.variable.name])

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.match.variable.name,)

    @property
    def rule(self) -> str:
        note = self.conversion.note
        return self.match.rule if note is None else f"{self.match.rule}; {note}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Latitude:
    """The latitude of the sites, a part of formulas."""

    name: str
    variables: tuple[str, ...] = ()

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        return ds[self.name].astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class _DayOfYear:
    """The day of the year, a part of formulas."""

    variables: tuple[str, ...] = ()

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        return day_of_year(ds, layout.time)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Derived:
    """A token computed from others."""

    derivation: Derivation
    parts: tuple[_Source, ...]

    def realise(self, ds: xr.Dataset, layout: Layout) -> xr.DataArray:
        return xr.apply_ufunc(
            self.derivation.kernel,
            *(part.realise(ds, layout).reset_coords(drop=True) for part in self.parts),
            dask="parallelized",
            output_dtypes=[np.float32],
        )

    @property
    def variables(self) -> tuple[str, ...]:
        # Each variable once, in order of first use.
        return tuple(dict.fromkeys(name for part in self.parts for name in part.variables))

    @property
    def rule(self) -> str:
        return f"derived: {self.derivation.rule}"


_Source: TypeAlias = _Direct | _Latitude | _DayOfYear | _Derived


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What was understood of a dataset; no data has been read.

    Parameters
    ----------
    schema : Schema
    table : TokenTable
    layout : Layout or None
        None if the dataset has no usable time axis or no forcing.
    problems : tuple of XstefaError
        What would stop `bind`; empty if all is well.
    """

    schema: Schema
    table: TokenTable
    layout: Layout | None
    problems: tuple[XstefaError, ...]
    _sources: Mapping[str, _Direct | _Derived]


class _OnDemand(Mapping[str, xr.DataArray]):
    """Arrays made when they are asked for, so that binding reads nothing."""

    def __init__(self, names: tuple[str, ...], make: Callable[[str], xr.DataArray]) -> None:
        self._names = names
        self._make = make

    def __getitem__(self, name: str) -> xr.DataArray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<tokens {', '.join(self._names)}>"


@dataclass(frozen=True, kw_only=True, eq=False)
class Binding:
    """A dataset seen as tokens of a schema.

    Parameters
    ----------
    schema : Schema
    table : TokenTable
    layout : Layout
    forcing : mapping of str to DataArray
        Daily tokens in canonical units: float32 over the time and site dimensions (or a subset),
        NaN where missing. Dask arrays stay lazy; anything else is converted when taken out.
    static : mapping of str to DataArray
        Site attributes in canonical units: float32 over the site dimensions (or a subset).
    """

    schema: Schema
    table: TokenTable
    layout: Layout
    forcing: Mapping[str, xr.DataArray]
    static: Mapping[str, xr.DataArray]
    _observe: Callable[[str], xr.DataArray | None]

    def observed(self, target: str) -> xr.DataArray | None:
        """Observations of `target` in its canonical units, if the dataset has them.

        Parameters
        ----------
        target : str
            Name of a target of the schema. Of several depths the shallowest is taken; discharge
            [m3 s-1] is divided by the catchment area.

        Returns
        -------
        xarray.DataArray or None
            float32 over the time and site dimensions, or None if there is no such variable on
            the sites of the forcings.

        Raises
        ------
        UnitsError
            If units are missing, or discharge comes without a catchment area.
        AmbiguousMatchError
            If several variables could be meant.
        """
        return self._observe(target)


def plan(
    ds: xr.Dataset, schema: Schema, *, rename: Mapping[str, str] | None = None
) -> Plan:
    """Work out which variables are which tokens, from metadata alone.

    Parameters
    ----------
    ds : xarray.Dataset
    schema : Schema
    rename : mapping of str to str, optional
        ``{dataset variable: token}``: overrules all other rules.

    Returns
    -------
    Plan
        With `problems` instead of exceptions for anything wrong with the dataset.

    Raises
    ------
    MissingTokenError, SchemaError
        If `rename` names a variable or token that does not exist.
    """
    renamed = _check_rename(ds, schema, rename or {})
    problems: list[XstefaError] = []
    time: str | None = None
    try:
        time = find_time(ds)
    except LayoutError as error:
        problems.append(error)
    facts = describe(ds, time=time)

    leaking = {name for target in schema.targets for name in target.leaking}
    usable = [
        fact for name, fact in facts.items() if name not in leaking or name in renamed
    ]
    anchor = _anchor(usable, schema, renamed)
    layout: Layout | None = None
    dims: tuple[str, ...] | None = None
    if anchor is not None and time is not None:
        dims = anchor.dims
        usable = [fact for fact in usable if set(fact.dims) <= set(dims)]
        try:
            layout = make_layout(ds, anchor.name, time)
        except LayoutError as error:
            problems.append(error)

    resolver = _Resolver(
        schema=schema,
        facts=usable,
        renamed=renamed,
        latitude=None if dims is None else find_latitude(ds, dims),
        problems=problems,
    )
    sources = {
        variable.name: source
        for variable in schema.tokens
        if (source := resolver.token(variable)) is not None
    }
    rows = tuple(_row(variable, sources, resolver.notes) for variable in schema.tokens)
    used = {name for source in sources.values() for name in source.variables}
    taken = {token: ", ".join(source.variables) for token, source in sources.items()}
    unused = {
        name: explain_unused(fact, schema=schema, dims=dims, taken=taken)
        for name, fact in facts.items()
        if name not in used and name in ds.data_vars
    }
    return Plan(
        schema=schema,
        table=TokenTable(schema=schema.name, rows=rows, unused=unused),
        layout=layout,
        problems=tuple(problems),
        _sources=sources,
    )


def bind(
    ds: xr.Dataset, schema: Schema, *, rename: Mapping[str, str] | None = None
) -> Binding:
    """See a dataset as tokens: `plan`, refuse what cannot work, offer the arrays.

    Reads no data.

    Parameters
    ----------
    ds : xarray.Dataset
    schema : Schema
    rename : mapping of str to str, optional
        ``{dataset variable: token}``: overrules all other rules.

    Returns
    -------
    Binding

    Raises
    ------
    XstefaError
        The problem of the dataset (`MissingTokenError`, `UnitsError`, `AmbiguousMatchError`,
        `LayoutError`, `CalendarError`, ...), or `BindingErrors` with all of them.
    """
    understood = plan(ds, schema, rename=rename)
    problems = list(understood.problems)
    for variable in schema.tokens:
        row = understood.table[variable.name]
        if variable.required and not row.matched and not row.note:
            problems.append(_missing(variable, understood.table))
    raise_problems(problems)
    layout = understood.layout
    if layout is None:  # every cause of this is among the problems
        raise LayoutError("no forcing variable to read the layout from")
    sources = understood._sources

    def make(token: str) -> xr.DataArray:
        variable = schema[token]
        array = sources[token].realise(ds, layout)
        order = [dim for dim in layout.dims if dim in array.dims]
        array = array.transpose(*order).rename(token)
        array.attrs = {"units": variable.units, "long_name": variable.long_name}
        return array

    def observe(target: str) -> xr.DataArray | None:
        return _observed(ds, schema, schema.target(target), layout, make)

    present = understood.table.matched
    return Binding(
        schema=schema,
        table=understood.table,
        layout=layout,
        forcing=_OnDemand(tuple(v.name for v in schema.forcings if v.name in present), make),
        static=_OnDemand(tuple(v.name for v in schema.statics if v.name in present), make),
        _observe=observe,
    )


def _check_rename(
    ds: xr.Dataset, schema: Schema, rename: Mapping[str, str]
) -> dict[str, str]:
    for name, token in rename.items():
        if name not in ds.variables:
            raise MissingTokenError(
                "rename names a variable that the dataset does not have",
                variable=name,
                expected=f"one of {', '.join(map(str, ds.data_vars))}",
                fix="rename={variable of the dataset: token}",
            )
        if token not in schema:
            raise SchemaError(
                "rename names a token that the schema does not have",
                variable=str(token),
                expected=f"one of {', '.join(v.name for v in schema.tokens + schema.ingredients)}",
                fix="rename={variable of the dataset: token}",
            )
    doubled = [token for token in rename.values() if list(rename.values()).count(token) > 1]
    if doubled:
        raise SchemaError("rename gives two variables to one token", variable=doubled[0])
    return dict(rename)


def _anchor(facts: list[Facts], schema: Schema, renamed: Mapping[str, str]) -> Facts | None:
    """Return the variable that says what the sites are: the first forcing there is."""
    for variable in schema.forcings:
        for fact in facts:
            if renamed.get(fact.name) == variable.name and fact.has_time:
                return fact
        free = [fact for fact in facts if fact.name not in renamed]
        matches = match_variable(free, variable, schema)
        if matches:
            return min(matches, key=lambda match: match.rank).variable
    return None


class _Resolver:
    """Finds the source of each token of one dataset, collecting problems."""

    def __init__(
        self,
        *,
        schema: Schema,
        facts: list[Facts],
        renamed: Mapping[str, str],
        latitude: object,
        problems: list[XstefaError],
    ) -> None:
        self._schema = schema
        self._facts = facts
        self._renamed = renamed
        self._latitude = latitude
        self._problems = problems
        self.notes: dict[str, str] = {}
        self._done: dict[str, _Direct | _Derived | None] = {}

    def token(self, variable: Variable) -> _Direct | _Derived | None:
        """Return the source of a token or ingredient, or None if the dataset lacks it."""
        name = variable.name
        if name not in self._done:
            self._done[name] = None  # a derivation that needs its own result finds nothing
            try:
                self._done[name] = self._direct(variable) or self._derived(variable)
            except XstefaError as error:
                self._problems.append(error)
                self.notes[name] = str(error)
        return self._done[name]

    def _direct(self, variable: Variable) -> _Direct | None:
        renamed = [f for f in self._facts if self._renamed.get(f.name) == variable.name]
        if renamed:
            match: Match | None = Match(variable=renamed[0], rank=Rank.RENAME, rule="rename")
        else:
            free = [fact for fact in self._facts if fact.name not in self._renamed]
            match = best(variable.name, match_variable(free, variable, self._schema))
        if match is None:
            return None
        return _Direct(match=match, conversion=_convert(match, variable))

    def _derived(self, variable: Variable) -> _Derived | None:
        for derivation in DERIVATIONS:
            if derivation.token != variable.name:
                continue
            parts: list[_Source] = []
            for part in derivation.parts:
                source = self._part(part)
                if source is None:
                    break
                parts.append(source)
            else:
                return _Derived(derivation=derivation, parts=tuple(parts))
        return None

    def _part(self, name: str) -> _Source | None:
        if name == DAY_OF_YEAR:
            return _DayOfYear()
        if name == LATITUDE:
            return None if self._latitude is None else _Latitude(name=str(self._latitude))
        return self.token(self._schema[name])


def _convert(match: Match, wanted: Variable | Target) -> Conversion:
    name = match.variable.name
    units = match.variable.units if match.variable.units is not None else match.units
    if units is None and wanted.units == "1" and tuple(wanted.valid_range) != (0.0, 1.0):
        return Conversion(found="", used="1", note="no units: a pure number (CF 3.1)")
    if units is None:
        readings = "a fraction 0..1 or a percentage" if wanted.units in ("1", "%") else "any units"
        raise UnitsError(
            "the variable has no units, and xstefa does not guess",
            variable=name,
            found=f"no units attribute on what matches {wanted.name!r}; it could be {readings}",
            expected=f"units convertible to {wanted.units!r}",
            fix=f"ds[{name!r}].attrs['units'] = {wanted.units!r}   # or what they really are",
        )
    return conversion(units, wanted.units, variable=name, time_method=match.variable.method)


def _row(
    variable: Variable, sources: Mapping[str, _Direct | _Derived], notes: Mapping[str, str]
) -> TokenRow:
    source = sources.get(variable.name)
    return TokenRow(
        token=variable.name,
        kind=variable.kind,
        units=variable.units,
        variables=() if source is None else source.variables,
        rule="" if source is None else source.rule,
        units_found=source.conversion.found if isinstance(source, _Direct) else "",
        required=variable.required,
        group=variable.group,
        note=notes.get(variable.name, ""),
    )


def _missing(variable: Variable, table: TokenTable) -> MissingTokenError:
    names = ", ".join(sorted({name.name for name in variable.standard_names}))
    free = [name for name, reason in table.unused.items() if reason == "no token"]
    return MissingTokenError(
        "the model needs this token and no variable matches it",
        variable=variable.name,
        found=f"no match among {', '.join(free[:12]) or 'the variables'}",
        expected=f"standard_name {names}, or a known name",
        fix=f"rename={{'<your variable>': {variable.name!r}}}",
    )


def _observed(
    ds: xr.Dataset,
    schema: Schema,
    target: Target,
    layout: Layout,
    make: Callable[[str], xr.DataArray],
) -> xr.DataArray | None:
    facts = describe(ds, time=layout.time)
    matches = []
    for match in match_target(facts.values(), target):
        extra = set(match.variable.dims) - set(layout.dims)
        if all(_is_vertical(ds, dim) for dim in extra):
            matches.append(match)
    match = best(target.name, matches)
    if match is None:
        return None
    array = ds[match.variable.name]
    for dim in set(match.variable.dims) - set(layout.dims):
        array = array.isel({dim: _shallowest(ds, dim)}, drop=True)
    units = match.variable.units if match.variable.units is not None else match.units
    if units is not None and same_kind(units, "m3 s-1") and target.units == "mm d-1":
        array = _specific_discharge(array, units, match, schema, make)
    else:
        array = _convert(match, target)(array)
    array = array.transpose(*[dim for dim in layout.dims if dim in array.dims])
    array = array.rename(target.name)
    array.attrs = {"units": target.units, "long_name": target.long_name}
    return array


def _specific_discharge(
    array: xr.DataArray,
    units: str,
    match: Match,
    schema: Schema,
    make: Callable[[str], xr.DataArray],
) -> xr.DataArray:
    name = match.variable.name
    discharge = conversion(units, "m3 s-1", variable=name)(array)
    try:
        area = make("catchment_area")
    except KeyError:
        raise UnitsError(
            "discharge needs the catchment area to become a depth of water per day",
            variable=name,
            found=f"units {units!r} and no catchment_area",
            expected="streamflow in mm d-1, or a catchment area",
            fix="ds['catchment_area'] = (site_dim, area, {'units': 'km2'})",
        ) from None
    # m3 s-1 over km2: 86400 s d-1 × 1000 mm m-1 / 1e6 m2 km-2
    return discharge * np.float32(86.4) / area.reset_coords(drop=True)


def _is_vertical(ds: xr.Dataset, dim: str) -> bool:
    attrs = ds[dim].attrs if dim in ds.coords else {}
    known = attrs.get("axis") == "Z" or attrs.get("standard_name") == "depth" or "positive" in attrs
    return known or any(word in dim.lower() for word in ("layer", "depth", "lev"))


def _shallowest(ds: xr.Dataset, dim: str) -> int:
    """Index of the shallowest level: the smallest depth, or the first where there are none."""
    if dim not in ds.coords:
        return 0
    levels = np.abs(np.asarray(ds[dim].values, dtype=float))
    return int(np.argmin(levels))
