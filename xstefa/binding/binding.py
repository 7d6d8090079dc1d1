"""A dataset matched to a schema: what it has, what is wrong with it, its tokens made on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import xarray as xr

from xstefa.binding.climate import unlikely
from xstefa.binding.facts import describe
from xstefa.binding.geometry import horizontal_axes
from xstefa.binding.layout import Layout
from xstefa.binding.plain import in_memory
from xstefa.binding.reading import Reading
from xstefa.binding.rules import Match, best, match_target
from xstefa.binding.sources import Direct, TokenSource
from xstefa.binding.table import TokenTable
from xstefa.binding.time_axis import day_numbers
from xstefa.binding.units import Conversion, same_kind
from xstefa.binding.value_checks import notes_of, token_values, value_problems, without_extremes
from xstefa.errors import LayoutError, UnitsError, XstefaError, XstefaWarning, raise_problems, warn
from xstefa.model.ranges import Ranges
from xstefa.schema import Needs, Schema, Target

_DISCHARGE = Target(
    name="discharge",
    units="m3 s-1",
    long_name="discharge",
    cell_methods="time: mean",
    valid_range=(0.0, 1e6),
)

DEPTH = "depth"
"""Dimension of the values of a static target that has several."""

_MEMBERS = {"number", "member", "ensemble", "ensemble_member", "realization"}


def _realization(ds: xr.Dataset, dim: str) -> bool:
    return dim in ds.coords and ds[dim].attrs.get("standard_name") == "realization"


class TokenWarning(XstefaWarning):
    """Variables that could be optional tokens are in doubt, and count as not known.

    Parameters
    ----------
    doubts : sequence of XstefaError
        Kept as `.doubts`.
    """

    def __init__(self, doubts: Sequence[XstefaError]) -> None:
        self.doubts = tuple(doubts)
        super().__init__(*map(str, doubts))

    def __str__(self) -> str:
        lines = "".join(f"\n  {doubt}" for doubt in self.doubts)
        return f"taken as not known, unless strict=True refuses it:{lines}"


class _OnDemand(Mapping[str, xr.DataArray]):
    """Arrays made when they are first asked for, so that binding reads nothing."""

    def __init__(self, names: tuple[str, ...], make: Callable[[str], xr.DataArray]) -> None:
        self._names, self._make = names, cache(make)

    def __getitem__(self, name: str) -> xr.DataArray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Binding:
    """A dataset matched to a schema; nothing of it has been read.

    Parameters
    ----------
    dataset : Dataset
        With plain arrays, and text where CF says text.
    schema : Schema
    needs : tuple of tuple of str
        Groups of forcings, of each of which the dataset has to have one.
    table : TokenTable
    problems : tuple of XstefaError
        What would stop a prediction; empty if all is well.
    doubts : tuple of XstefaError
        What keeps tokens from being used that are not needed: they count as not known.
    sources : mapping of str to TokenSource
        The recipe of each token that the dataset has.
    troubled : mapping of str to XstefaError
        What keeps a token from being used.
    """

    dataset: xr.Dataset
    schema: Schema
    needs: Needs
    table: TokenTable
    problems: tuple[XstefaError, ...]
    doubts: tuple[XstefaError, ...]
    sources: Mapping[str, TokenSource]
    troubled: Mapping[str, XstefaError]
    _layout: Layout | None

    def __repr__(self) -> str:
        return repr(self.table)

    @property
    def layout(self) -> Layout:
        """The sites and days; where there are none, the problems of the dataset are raised."""
        if self._layout is None:
            raise_problems(self.problems)
            raise LayoutError(
                "no forcing to read the layout from",
                expected="at least one daily series that is a token of the schema",
            )
        return self._layout

    @property
    def place_dims(self) -> tuple[str, ...]:
        """Those dimensions of the sites that are axes of a map, or along which attributes lie.

        The others are members of an ensemble; as are those that are called so, since whoever
        joins members repeats the attributes.
        """
        ds, known = self.dataset, self.schema.attributes
        tokens = [self.sources[each.name] for each in known if each.name in self.sources]
        along = {dim for token in tokens for name in token.inputs for dim in ds[name].dims}
        along -= {dim for dim in along if dim in _MEMBERS or _realization(ds, str(dim))}
        return tuple(d for d in self.layout.site_dims if d in along or horizontal_axes(ds, d))

    def require(self, *, strict: bool = False) -> Binding:
        """Raise what stops a prediction, warn of what it goes on without; return the binding.

        Parameters
        ----------
        strict : bool
            Raise both.

        Raises
        ------
        XstefaError
            The problem of the dataset, or `BindingErrors` with all of them.
        """
        raise_problems((*self.problems, *self.doubts) if strict else self.problems)
        if self.doubts:
            warn(TokenWarning(self.doubts))
        return self

    def during(self, steps: slice) -> Binding:
        """Return the same matches, of some steps."""
        part = self.dataset.isel({self.layout.time: steps})
        return replace(self, dataset=part, _layout=self.layout.during(steps))

    def on(self, dataset: xr.Dataset) -> Binding:
        """Return the same matches in a dataset that has other days, and is else like this one."""
        layout = self.layout
        days, _ = day_numbers(dataset[layout.time])
        steps = layout.coords.to_dataset().drop_dims(layout.time)
        coords = steps.assign_coords({layout.time: dataset[layout.time].variable}).coords
        return replace(self, dataset=dataset, _layout=replace(layout, days=days, coords=coords))

    @cached_property
    def forcing(self) -> Mapping[str, xr.DataArray]:
        """Daily tokens, see `token`."""
        return self._on_demand(self.schema.forcing_names)

    @cached_property
    def static(self) -> Mapping[str, xr.DataArray]:
        """Site attributes, see `token`."""
        return self._on_demand(tuple(variable.name for variable in self.schema.attributes))

    def _on_demand(self, names: tuple[str, ...]) -> Mapping[str, xr.DataArray]:
        return _OnDemand(tuple(name for name in names if name in self.sources), self.token)

    def token(self, name: str) -> xr.DataArray:
        """Return a token in canonical units.

        Returns
        -------
        DataArray
            float32 over the time and site dimensions (or a subset), in the order of
            ``layout.dims``, NaN where missing; that of a vector comes last. Dask arrays stay lazy;
            any other array is converted, and read if need be.
        """
        variable = self.schema[name]
        array = self._in_order(self.sources[name].realise(self.dataset)).rename(name)
        array.attrs = {"units": variable.units, "long_name": variable.long_name}
        return array

    def _in_order(self, array: xr.DataArray) -> xr.DataArray:
        return array.transpose(*[dim for dim in self.layout.dims if dim in array.dims], ...)

    @property
    def chunks(self) -> Mapping[str, tuple[int, ...]]:
        """Those of the first forcing that has some, by dimension; none in memory and files."""
        names = (
            n
            for t in self.schema.forcing_names
            if t in self.sources
            for n in self.sources[t].inputs
        )
        sizes = (self.dataset[name].chunksizes for name in names)
        return {str(dim): each for dim, each in next(filter(None, sizes), {}).items()}

    def read(self, region: Mapping[str, slice] | None = None) -> Reading:
        """Return the tokens of a part of the dataset, to be read.

        Parameters
        ----------
        region : mapping of str to slice, optional
            Of dimensions; by default all of it.
        """
        ds, layout = self.dataset, self.layout
        names = [layout.time] if layout.time else []
        names += [name for each in self.sources.values() for name in each.inputs]
        variables = {name: ds.variables[name] for name in dict.fromkeys(names)}
        # Without its index, which would bring the other levels of a stacked dimension along.
        variables |= {
            name: xr.Variable(variable.dims, variable.values, variable.attrs)
            for name, variable in variables.items()
            if isinstance(variable, xr.IndexVariable)
        }
        part = {dim: (region or {}).get(dim, slice(None)) for dim in layout.dims}
        return Reading(
            xr.Dataset(variables).isel(part, missing_dims="ignore"),
            self.sources,
            schema=self.schema,
            layout=layout,
            sizes={dim: len(range(ds.sizes[dim])[index]) for dim, index in part.items()},
            keep=False,
        )

    def observed(self, target: str) -> xr.DataArray | None:
        """Observations of `target` in its canonical units, if the dataset has them.

        Parameters
        ----------
        target : str
            Name of a target of the schema. Of several depths the shallowest is taken, or those that
            the target has; discharge [m3 s-1] is divided by the catchment area.

        Returns
        -------
        xarray.DataArray or None
            float32 over the time and site dimensions, and last `DEPTH` if the target has depths;
            None if there is no such variable on the sites of the forcings.

        Raises
        ------
        UnitsError
            If units are missing, or discharge comes without a catchment area.
        AmbiguousMatchError
            If several variables could be meant.

        Warns
        -----
        XstefaWarning
            If the variable says that it is a prediction.
        """
        ds, wanted, dims = self.dataset, self.schema.target(target), {*self.layout.dims}
        match = best(
            target,
            [
                match
                for match in match_target(describe(ds, time=self.layout.time).values(), wanted)
                if all(is_vertical(ds, dim) for dim in {*match.variable.dims} - dims)
            ],
        )
        if match is None:
            return None
        ds = ds[[match.variable.name]]
        if "model_hash" in (attrs := ds[name := match.variable.name].attrs):
            warn(
                XstefaWarning(
                    f"{name!r} is taken for an observation, and its attributes say that "
                    f"{attrs.get('model_name', 'a model')} predicted it: scores would compare "
                    "models with each other. Fix: keep predictions under another name, "
                    f"ds['predicted'] = ...; or if it was observed, del ds[{name!r}]"
                    ".attrs['model_hash']"
                )
            )
        for dim in {*match.variable.dims} - dims:
            if wanted.depths:
                ds = _at_depths(ds, dim, wanted)
            else:
                ds = ds.isel({dim: _shallowest(ds, dim)}, drop=True)
        units = match.stated_units
        if wanted.units == "mm d-1" and units is not None and same_kind(units, "m3 s-1"):
            array = self._per_area(ds, match, wanted)
        else:
            array = Direct.of(match, wanted).realise(ds)
        array = self._in_order(array).rename(target)
        array.attrs = {"units": wanted.units, "long_name": wanted.long_name}
        return array

    def _per_area(self, ds: xr.Dataset, match: Match, wanted: Target) -> xr.DataArray:
        """Return discharge as a depth of water per day."""
        if "catchment_area" not in self.static:
            raise UnitsError(
                "discharge needs the catchment area to become a depth of water per day",
                variable=match.variable.name,
                found=f"units {match.stated_units!r} and no catchment_area",
                expected="streamflow in mm d-1, or the area of each catchment",
                fix="ds['catchment_area'] = (<site dimension>, <areas>, {'units': 'km2'})",
            )
        # Over a large area a mark of missing values would be a small number: both are looked at.
        discharge = Direct.of(match, _DISCHARGE).realise(ds)
        # m3 s-1 over km2: 86400 s d-1 × 1000 mm m-1 / 1e6 m2 km-2
        depth = discharge * np.float32(86.4) / self.static["catchment_area"].reset_coords(drop=True)
        same = Conversion(found=wanted.units, used=wanted.units)
        return Direct(wanted=wanted, match=match, conversion=same).within_limits(depth)

    def check_ranges(self) -> None:
        """Raise if the values cannot be in the units that they are labelled with. Reads data.

        16 days are read of each series, spread over the record, at no more than 64 places along
        each dimension.

        Raises
        ------
        RangeError, BindingErrors
            If more than 1 % of the values of a variable are outside what is physically possible,
            or one is far outside.
        """
        sources = self.sources.values()
        raise_problems(value_problems(self.dataset, sources, layout=self.layout))

    @property
    def at_hand(self) -> bool:
        """Whether the values of all tokens are in memory, so that looking at some costs nothing."""
        return all(in_memory(self.dataset, each.variables) for each in self.sources.values())

    def look(self, ranges: Ranges | None = None) -> TokenTable:
        """Return the table with coverage, ranges and problems of the values. Reads data.

        Of a large dataset 16 days are looked at, spread over the record, and 64 places along each
        dimension.

        Parameters
        ----------
        ranges : mapping of str to Range, optional
            What a model was trained on, by token.
        """
        if (layout := self._layout) is None:
            return self.table
        ds, sources = self.dataset, self.sources
        picks = layout.spread(ds)
        part = ds.isel(picks)
        problems = value_problems(part, sources.values(), layout=layout)
        wrong = {problem.variable for problem in problems}
        whole = ds if self.at_hand else part
        climate = [] if problems else unlikely(whole, sources, layout=layout)
        rows = []
        for row in self.table.rows:
            if (source := sources.get(row.token)) is not None:
                values = token_values(source, part)
                known = values[np.isfinite(values)]
                notes = notes_of(source, part)
                trained = (ranges or {}).get(row.token) if row.kind == "static" else None
                if trained is not None and (beyond := int(trained.excludes(values).sum())):
                    limits = f"{trained.low:.4g} to {trained.high:.4g}"
                    notes.append(f"{beyond} of {values.size} outside training ({limits})")
                notes += [each.text for each in climate if each.token == row.token]
                row = replace(
                    row,
                    known=float(np.isfinite(values).mean()),
                    low=float(known.min()) if known.size else None,
                    high=float(known.max()) if known.size else None,
                    wrong=bool(wrong & set(row.variables)),
                    rule="; ".join([row.rule, *notes]),
                )
            rows.append(row)
        names = {layout.time: "days"} | {dim: dim for dim in layout.site_dims if dim in picks}
        return replace(
            self.table,
            rows=tuple(rows),
            problems=(*self.table.problems, *map(str, problems)),
            doubts=(*self.table.doubts, *without_extremes(sources, part)),
            looked_at=", ".join(f"{picks[d].size} of {ds.sizes[d]} {n}" for d, n in names.items()),
        )


def is_vertical(ds: xr.Dataset, dim: str) -> bool:
    """Whether a dimension is one of depths, heights or layers."""
    attrs = ds[dim].attrs if dim in ds.coords else {}
    known = attrs.get("axis") == "Z" or attrs.get("standard_name") == "depth" or "positive" in attrs
    return known or any(word in dim.lower() for word in ("layer", "depth", "lev"))


def _at_depths(ds: xr.Dataset, dim: str, target: Target) -> xr.Dataset:
    """Return the levels at the depths of a target, along `DEPTH`."""
    known = np.asarray(ds[dim].values, dtype=float) if dim in ds.coords else np.array([])
    near = np.isclose(known[:, None], np.asarray(target.depths), rtol=1e-3, atol=1e-3)
    if not near.any(axis=0).all():
        raise LayoutError(
            f"depths of {target.name} that are not in the dataset",
            variable=dim,
            found=f"{known.tolist()} m" if known.size else "levels without depths",
            expected=f"{list(target.depths)} m",
            fix=f"ds.interp({dim}=[...]), or a target of other depths",
        )
    part = ds.isel({dim: near.argmax(axis=0)}).drop_vars(dim)
    return part if dim == DEPTH else part.rename_dims({dim: DEPTH})


def _shallowest(ds: xr.Dataset, dim: str) -> int:
    """Index of the shallowest level: the smallest depth, or the first where there are none."""
    if dim not in ds.coords:
        return 0
    return int(np.argmin(np.abs(np.asarray(ds[dim].values, dtype=float))))
