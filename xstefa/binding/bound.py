"""Binding: a dataset seen as tokens, made on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import xarray as xr

from xstefa.binding.inspection import value_problems
from xstefa.binding.layout import Layout
from xstefa.binding.observed import observed
from xstefa.binding.plain import plain
from xstefa.binding.planning import Plan, plan
from xstefa.binding.table import TokenTable
from xstefa.errors import raise_problems
from xstefa.schema import Needs, Schema

__all__ = ["Binding", "bind"]


class _OnDemand(Mapping[str, xr.DataArray]):
    """Arrays made when they are first asked for, so that binding reads nothing."""

    def __init__(self, names: tuple[str, ...], make: Callable[[str], xr.DataArray]) -> None:
        self._names = names
        self._make = make
        self._made: dict[str, xr.DataArray] = {}

    def __getitem__(self, name: str) -> xr.DataArray:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

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
    needs : tuple of tuple of str
        Groups of forcings, of each of which the dataset has one.
    table : TokenTable
    layout : Layout
    forcing : mapping of str to DataArray
        Daily tokens in canonical units: float32 over the time and site dimensions (or a subset),
        in the order of ``layout.dims``, NaN where missing. Dask arrays stay lazy; any other array
        is converted, and read if need be, when the token is taken out for the first time.
    static : mapping of str to DataArray
        Site attributes in canonical units: float32 over the site dimensions (or a subset).
    """

    schema: Schema
    needs: Needs
    table: TokenTable
    layout: Layout
    forcing: Mapping[str, xr.DataArray]
    static: Mapping[str, xr.DataArray]
    _dataset: xr.Dataset = field(repr=False)
    _plan: Plan = field(repr=False)

    @property
    def template(self) -> xr.DataArray:
        """The first forcing, which says what the sites are."""
        return next(iter(self.forcing.values()))

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
        return observed(
            self._dataset, self.schema.target(target), layout=self.layout, static=self.static
        )

    def check_ranges(self, *, days: int = 16) -> None:
        """Raise if the values cannot be in the units that they are labelled with. Reads data.

        Parameters
        ----------
        days : int
            Number of days, evenly spread over the record, that are read of each series, at no
            more than 64 places along each dimension.

        Raises
        ------
        RangeError, BindingErrors
            If more than 1 % of the values of a variable are outside what is physically possible,
            or one is far outside.
        """
        sources = self._plan.sources.values()
        raise_problems(value_problems(self._dataset, sources, layout=self.layout, days=days))


def bind(
    ds: xr.Dataset,
    schema: Schema,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Needs | None = None,
    strict: bool = False,
) -> Binding:
    """See a dataset as tokens: `plan`, refuse what cannot work, offer the arrays.

    Reads no data.

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
    ds = plain(ds)
    understood = plan(ds, schema, rename=rename, needs=needs)
    layout = understood.settle(strict=strict)
    sources = understood.sources

    def make(token: str) -> xr.DataArray:
        variable = schema[token]
        array = sources[token].realise(ds, layout)
        array = array.transpose(*[dim for dim in layout.dims if dim in array.dims]).rename(token)
        array.attrs = {"units": variable.units, "long_name": variable.long_name}
        return array

    return Binding(
        schema=schema,
        needs=understood.needs,
        table=understood.table,
        layout=layout,
        forcing=_OnDemand(tuple(name for name in schema.forcing_names if name in sources), make),
        static=_OnDemand(tuple(name for name in schema.static_names if name in sources), make),
        _dataset=ds,
        _plan=understood,
    )
