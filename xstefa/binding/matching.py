"""Matching: which variable is which token, worked out from metadata alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.binding.binding import Binding
from xstefa.binding.derive import DAY_OF_YEAR, DERIVATIONS, LATITUDE
from xstefa.binding.explain import check_rename, misfits, missing, quantities_along
from xstefa.binding.facts import Facts, describe
from xstefa.binding.geometry import find_coordinate, grid_crs, horizontal_dims, latitude_of
from xstefa.binding.layout import Layout, make_layout, merged_maps
from xstefa.binding.places import find_places
from xstefa.binding.plain import in_memory, plain, values_of
from xstefa.binding.rules import Match, Rules, best, is_named
from xstefa.binding.sources import Coordinate, Derived, Direct, Source, TokenSource
from xstefa.binding.table import TokenRow, TokenTable
from xstefa.binding.time_axis import day_of_year, find_time
from xstefa.binding.vectors import check_vector
from xstefa.errors import AmbiguousMatchError, LayoutError, XstefaError
from xstefa.schema import Needs, Schema, Variable


@checked
def bind(
    ds: xr.Dataset,
    schema: Schema,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Needs | None = None,
    strict: bool = False,
) -> Binding:
    """Match a dataset to a schema, and refuse what cannot work. Reads no data.

    Parameters
    ----------
    ds : xarray.Dataset
    schema : Schema
    rename : mapping of str to str, optional
        ``{dataset variable: token}``: overrules all other rules.
    needs : tuple of tuple of str, optional
        Groups of forcings, of each of which the dataset has to have one; by default each that the
        schema requires.
    strict : bool
        Refuse optional tokens that are in doubt, which else count as not known.

    Returns
    -------
    Binding

    Raises
    ------
    XstefaError
        The problem of the dataset (`MissingTokenError`, `UnitsError`, `AmbiguousMatchError`,
        `LayoutError`, `CalendarError`, ...), or `BindingErrors` with all of them.
    """
    return plan(ds, schema, rename=rename, needs=needs).require(strict=strict)


def plan(
    ds: xr.Dataset,
    schema: Schema,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Needs | None = None,
) -> Binding:
    """Match a dataset to a schema as `bind` does, and collect what is wrong with it.

    Returns
    -------
    Binding
        With `problems` instead of exceptions for anything wrong with the dataset.

    Raises
    ------
    MissingTokenError, SchemaError
        If `rename` names a variable or token that does not exist.
    """
    ds = plain(ds)
    needs = schema.needs if needs is None else needs
    required = (*needs, *((variable.name,) for variable in schema.attributes if variable.required))
    renamed = check_rename(ds, schema, rename)
    problems: list[XstefaError] = []
    time: str | None = None
    try:
        time = find_time(ds)
    except LayoutError as error:
        problems.append(error)
    facts = describe(ds, time=time)
    rules = Rules(schema=schema, names=facts.keys(), renamed=renamed)
    usable = usable_of(facts, rules)

    layout: Layout | None = None
    anchor: Facts | None = None
    if time is not None:
        anchor = anchor_of(usable, rules, problems)
        try:
            layout = make_layout(ds, None if anchor is None else anchor.name, time, rename=renamed)
        except LayoutError as error:
            problems.append(error)
    dims = None if anchor is None else anchor.dims
    problems += misfits(facts, schema, renamed, dims)
    maps = merged_maps(
        ds,
        dims or (),
        series=[fact.name for fact in usable if fact.has_time],
        statics=[fact.name for fact in usable if not fact.has_time],
    )
    problems += [maps] if maps is not None else []

    resolver = Resolver(
        ds=ds,
        time=time,
        rules=rules,
        needed={name for group in required for name in group},
        facts=[fact for fact in usable if dims is None or set(fact.dims) <= set(dims)],
        vectors=usable,
        dims=dims or (),
        coordinates=_coordinates(ds, anchor, time),
    )
    sources = {
        variable.name: source
        for variable in schema.tokens
        if (source := resolver.token(variable)) is not None
    }
    used = {name for source in sources.values() for name in source.variables}
    taken = {token: ", ".join(source.variables) for token, source in sources.items()}
    unused = {
        name: rules.unused(fact, dims=dims, taken=taken)
        for name, fact in facts.items()
        if name not in used and name in ds.data_vars
    }
    # What keeps no token from being found that is needed does not stop a prediction.
    lacking = [group for group in required if sources.keys().isdisjoint(group)]
    complete = not lacking
    doubts = tuple(resolver.errors.values()) if complete else ()
    problems += () if complete else resolver.errors.values()
    rows = tuple(row_of(v, sources, resolver.notes, required) for v in schema.tokens)
    labels = None if complete else quantities_along(ds, schema)
    problems += [] if labels is None else [labels]
    for group in lacking:
        wanted = [schema[name] for name in group]
        # Without a time axis nothing is a series: the axis is the problem, not its series.
        hidden = (
            maps is not None
            or labels is not None
            or (time is None and any(is_named(fact, v) for v in wanted for fact in usable))
        )
        if resolver.notes.keys().isdisjoint(group) and not hidden:
            problems.append(missing(wanted, unused, facts.values(), dims, rules))
    table = TokenTable(
        schema=schema.name,
        rows=rows,
        unused=unused,
        layout="" if layout is None else str(layout),
        problems=tuple(map(str, problems)),
        doubts=tuple(map(str, doubts)),
    )
    return Binding(
        dataset=ds,
        schema=schema,
        needs=needs,
        table=table,
        problems=tuple(problems),
        doubts=doubts,
        sources=sources,
        troubled=resolver.errors,
        _layout=layout,
    )


def usable_of(facts: Mapping[str, Facts], rules: Rules) -> list[Facts]:
    """Return the variables that may be tokens.

    A dataset may have thousands of variables; few are called anything that a token is.
    """
    schema, renamed = rules.schema, rules.renamed
    leaking = {name for target in schema.targets for name in target.leaking} - set(renamed)
    return [
        fact
        for name, fact in facts.items()
        if name not in leaking and (name in renamed or fact.words & schema.words)
    ]


def _coordinates(
    ds: xr.Dataset, anchor: Facts | None, time: str | None
) -> dict[str, Coordinate | XstefaError]:
    """Recipes of what formulas take from coordinates, or what keeps it from them.

    Latitude is the dataset's own, else that of its map projection, whose coordinate reference
    system is text (WKT), which hashes and travels without surprises, or that of cells and shapes.
    """
    if anchor is None or time is None:
        return {}
    found: dict[str, Coordinate | XstefaError] = {
        DAY_OF_YEAR: Coordinate(realise=partial(day_of_year, time=time))
    }
    if (name := find_coordinate(ds, "latitude", anchor.dims)) is not None:
        read = partial(_float32, name=name)
        found[LATITUDE] = Coordinate(realise=read, inputs=(name,))
    elif (axes := horizontal_dims(ds, anchor.dims)) and (crs := grid_crs(ds, ds[anchor.name])):
        read = partial(latitude_of, crs=crs.to_wkt(), y=axes[0], x=axes[1])
        found[LATITUDE] = Coordinate(realise=read, inputs=axes)
    else:
        try:
            if (places := find_places(ds, anchor.dims)) is not None:
                found[LATITUDE] = Coordinate(realise=places.latitude, inputs=(places.name,))
        except XstefaError as error:
            found[LATITUDE] = error
    return found


def _float32(ds: xr.Dataset, name: str) -> xr.DataArray:
    return ds[name].astype(np.float32)


def anchor_of(facts: list[Facts], rules: Rules, problems: list[XstefaError]) -> Facts | None:
    """Return the variable that says what the sites are: the first forcing there is."""
    for variable in rules.schema.forcings:
        matches = rules.candidates(facts, variable)
        if not matches:
            continue
        strongest = min(matches, key=lambda match: match.rank)
        try:
            best(variable.name, matches)
        except AmbiguousMatchError as error:
            rivals = [match for match in matches if match.rank == strongest.rank]
            # Rivals on the same dimensions are the resolver's to report.
            if len({match.variable.dims for match in rivals}) > 1:
                problems.append(error)
        return strongest.variable
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Resolver:
    """Finds the recipe of each token of one dataset, and collects problems.

    Parameters
    ----------
    needed : set of str
        Tokens that a model may need.
    facts : list of Facts
        Variables on the sites of the forcings.
    vectors : list of Facts
        Those, and variables with more dimensions.
    dims : tuple of str
        Dimensions of the forcings.
    coordinates : mapping of str to Coordinate
        What formulas take from them, or why they cannot.
    """

    ds: xr.Dataset
    time: str | None
    rules: Rules
    needed: set[str]
    facts: list[Facts]
    vectors: list[Facts]
    dims: tuple[str, ...]
    coordinates: Mapping[str, Coordinate | XstefaError]
    errors: dict[str, XstefaError] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    _done: dict[str, TokenSource | None] = field(default_factory=dict)

    @cached_property
    def tokens(self) -> set[str]:
        """Names of all tokens."""
        return {variable.name for variable in self.rules.schema.tokens}

    def token(self, variable: Variable) -> TokenSource | None:
        """Return the recipe of a token or ingredient, or None if the dataset lacks it."""
        name = variable.name
        if name not in self._done:
            self._done[name] = None  # a formula that needs its own result finds nothing
            try:
                self._done[name] = self._direct(variable) or self._derived(variable)
            except XstefaError as error:
                self.errors[name] = error
                self.notes[name] = str(error)
        return self._done[name]

    def _direct(self, variable: Variable) -> Direct | None:
        match = best(variable.name, self.rules.candidates(self._facts(variable), variable))
        match = match or self._repeated(variable)
        if match is None:
            return None
        if variable.length > 1:
            check_vector(self.ds, match.variable, variable, along=self.dims)
        found = Direct.of(match, variable, needed=variable.name in self.needed)
        if variable.name not in self.tokens:
            return found
        return replace(found, otherwise=self._derived(variable, of_tokens=True))

    def _facts(self, variable: Variable) -> list[Facts]:
        return self.facts if variable.length == 1 else self.vectors

    def _repeated(self, variable: Variable) -> Match | None:
        """Match an attribute that has a time axis, as `xarray.open_mfdataset` gives it one.

        The only values that matching reads: three days of it, all of them if they are in memory.
        """
        time = self.time
        if variable.kind != "static" or time is None:
            return None
        facts = self._facts(variable)
        series = [replace(f, has_time=False, repeated=time) for f in facts if f.has_time]
        match = best(variable.name, self.rules.candidates(series, variable))
        if match is None:
            return None
        name = match.variable.name
        array = self.ds[name]
        days = np.arange(array.sizes[time])
        if not in_memory(self.ds, [name]):
            days = days[[0, len(days) // 2, -1]]
        values = values_of(array.isel({time: days}).transpose(time, ...), name)
        same = (values == values[0]) | ((values != values) & (values[0] != values[0]))
        if same.all():
            return match
        raise LayoutError(
            f"a series that is called like the site attribute {variable.name}",
            variable=name,
            found="values that change along time",
            expected="one value a site",
            fix=f"ds[{name!r}] = ds[{name!r}].mean({time!r}, keep_attrs=True)   # or another name, "
            "if it is something else",
        )

    def _derived(self, variable: Variable, *, of_tokens: bool = False) -> Derived | None:
        """Derive a token; `of_tokens` alone, because a gap is no reason to read other variables."""
        schema, broken = self.rules.schema, None
        read = self.tokens | {LATITUDE, DAY_OF_YEAR}
        for derivation in DERIVATIONS:
            if derivation.token != variable.name or (of_tokens and {*derivation.parts} - read):
                continue
            parts: list[Source] = []
            for name in derivation.parts:
                known = self.token(schema[name]) if name in schema else self.coordinates.get(name)
                if isinstance(known, XstefaError) and not of_tokens:
                    raise known
                if known is None or isinstance(known, XstefaError):
                    broken = broken or (name if name in self.notes else None)
                    break
                parts.append(known)
            else:
                return Derived(derivation=derivation, parts=tuple(parts))
        if broken is not None and not of_tokens:
            # The part's own problem is reported; a second complaint would only hide it.
            self.notes[variable.name] = f"not derived, because of the problem with {broken}"
        return None


def row_of(
    variable: Variable,
    sources: Mapping[str, TokenSource],
    notes: Mapping[str, str],
    required: Needs,
) -> TokenRow:
    """Return the line of the token table of a variable."""
    source = sources.get(variable.name)
    # Of a group from which something was found, nothing else has to be.
    groups = [
        group
        for group in required
        if variable.name in group and sources.keys().isdisjoint({*group} - {variable.name})
    ]
    return TokenRow(
        token=variable.name,
        kind=variable.kind,
        units=variable.units,
        variables=() if source is None else source.variables,
        rule="" if source is None else source.rule,
        units_found=source.conversion.found if isinstance(source, Direct) else "",
        required=bool(groups),
        one_of=groups[0] if groups else (),
        group=variable.group,
        note=notes.get(variable.name, ""),
        advice=_advice(variable),
    )


def _advice(variable: Variable) -> str:
    """Say how a dataset can provide a token."""
    ways = []
    for name in variable.standard_names[:2]:
        method = f" (time: {name.cell_method})" if name.cell_method else ""
        ways.append(f"standard_name {name.name}{method}")
    known = list(dict.fromkeys(alias.name for alias in variable.aliases))[:4]
    if known:
        ways.append(f"a name like {', '.join(known)}")
    ways += [
        f"derived from {' and '.join(derivation.parts)}"
        for derivation in DERIVATIONS
        if derivation.token == variable.name
    ]
    if variable.kind == "static":
        ways.append("a map: ds.stefa.attach(map)")
    ways.append(f"rename={{'<variable>': {variable.name!r}}}")
    return f"in units like {variable.units}: {'; '.join(ways)}"
