"""The numbers of a dataset as a network reads them: some sites and days, as dense arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.derive import hide_false_extremes
from xstefa.binding.layout import Layout
from xstefa.binding.plain import values_of
from xstefa.binding.sources import TokenSource
from xstefa.binding.value_checks import doubt_gaps
from xstefa.schema import Schema
from xstefa.windows import Floats


class Reading:
    """The tokens of a part of a dataset; each variable is read once, when it is first asked for.

    Parameters
    ----------
    block : Dataset
        The part, with the variables that the sources read.
    sources : mapping of str to TokenSource
        The recipe of each token that is there.
    schema : Schema
    layout : Layout
        Of the whole; says which dimensions are sites, and which is time.
    sizes : mapping of str to int
        Of the part, along all dimensions of the layout.
    keep : bool
        Whether variables stay in `block` when all tokens that are made of them have been read.
    """

    def __init__(
        self,
        block: xr.Dataset,
        sources: Mapping[str, TokenSource],
        *,
        schema: Schema,
        layout: Layout,
        sizes: Mapping[str, int],
        keep: bool,
    ) -> None:
        self.block, self.sources = block, sources
        self._schema, self._layout, self._sizes, self._keep = schema, layout, sizes, keep
        self._read = set(block.dims)
        self._series: dict[str, Floats] = {}
        self._uses = Counter(name for source in sources.values() for name in source.inputs)

    def series(self, token: str) -> Floats:
        """Return a forcing in canonical units, shape (site, day); it is kept for `forcings`."""
        if token not in self._series:
            self._series[token] = self.dense(self._realised(token))
        return self._series[token]

    def present(self, groups: Iterable[Sequence[str]]) -> NDArray[np.bool_]:
        """Return at which sites one forcing of each group is known on some day, shape (site,)."""
        found = [np.any([_known(self.series(name)) for name in names], axis=0) for names in groups]
        return np.all(found, axis=0)

    def forcings(self, sites: NDArray[np.bool_] | None = None) -> Floats:
        """Return the forcings of all or some sites, shape (site, day, C), NaN where missing.

        For no site nothing is read.
        """
        names = self._schema.forcing_names
        kept = slice(None) if sites is None else sites
        days = self._sizes[self._layout.time]
        found = np.full((self._count(sites), days, len(names)), np.nan, dtype=np.float32)
        for i, name in enumerate(names):
            if name in self.sources and len(found):
                found[..., i] = self.series(name)[kept]
                del self._series[name]
        hide_false_extremes(found, names)
        return found

    def statics(self, sites: NDArray[np.bool_] | None = None) -> Floats:
        """Return the attributes of all or some sites, shape (site, S), NaN where missing.

        Columns are those of `Schema.site_columns`. A vector with gaps is not known at all.
        """
        kept = slice(None) if sites is None else sites
        shape = self._count(sites), len(self._schema.site_columns)
        found, begin = np.full(shape, np.nan, dtype=np.float32), 0
        for variable in self._schema.attributes:
            columns = slice(begin, begin := begin + variable.length)
            if variable.name not in self.sources or not len(found):
                continue
            values = self.dense(self._realised(variable.name), daily=False)[kept]
            found[:, columns] = values.reshape(len(found), variable.length)
            gaps = np.isnan(found[:, columns])
            if (broken := gaps.any(axis=1) & ~gaps.all(axis=1)).any():
                found[broken, columns] = np.nan
                doubt_gaps(variable, self.sources[variable.name].variables)
        return found

    def dense(self, array: xr.DataArray, *, daily: bool = True) -> Floats:
        """Return an array of these sites and days, shape (site, day), or (site,) if not daily.

        The numbers of a vector follow along a last axis.
        """
        dims = (*self._layout.site_dims, *([self._layout.time] if daily else []))
        own = [dim for dim in dims if dim in array.dims]
        rest = [dim for dim in array.dims if dim not in own]
        data = np.asarray(array.transpose(*own, *rest).data, dtype=np.float32)
        data = data[tuple(slice(None) if dim in own else None for dim in dims)]
        sizes = [self._sizes[dim] for dim in dims] + [array.sizes[dim] for dim in rest]
        whole = np.broadcast_to(data, sizes)
        return whole.reshape(self._count(), *whole.shape[len(self._layout.site_dims) :])

    def _count(self, sites: NDArray[np.bool_] | None = None) -> int:
        if sites is not None:
            return int(sites.sum())
        return int(np.prod([self._sizes[dim] for dim in self._layout.site_dims]))

    def _realised(self, token: str) -> xr.DataArray:
        """Make a token of the variables in memory.

        These are in one order of dimensions: some functions of arrays round differently in another
        memory layout, and how a block lies in memory is an accident of chunks.
        """
        layout, inputs = self._layout, self.sources[token].inputs
        fresh = [name for name in inputs if name not in self._read]
        self._read.update(fresh)
        values = {}
        for name in fresh:
            variable = self.block.variables[name]
            dims = [d for d in (*layout.site_dims, layout.time) if d in variable.dims]
            variable = variable.transpose(*dims, ...)
            data = np.asarray(values_of(variable, name), order="C")
            values[name] = xr.Variable(variable.dims, data, variable.attrs)
        self.block = self.block.assign(values)
        found = self.sources[token].realise(self.block)
        self._uses.subtract(inputs)
        if not self._keep:
            done = [name for name in inputs if not self._uses[name] and name not in self.block.dims]
            self.block = self.block.drop_vars(done)
        return found


def _known(series: Floats) -> NDArray[np.bool_]:
    """Whether a site (row) has any known value; a few days tell for most."""
    days = series.shape[1]
    known = np.asarray(np.isfinite(series[:, [0, days // 2, days - 1]]).any(axis=1))
    known[~known] = np.isfinite(series[~known]).any(axis=1)
    return known
