"""Where the numbers of a dataset come from: read in the task that needs them, or dask chunks.

A variable opened from a file with ``chunks=`` is a dask array whose tasks do nothing but read. Here
such an array is seen through: the prediction's own tasks read just their piece, so that reading and
running are one task however the file is chunked. An array that dask computes is left to dask.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, product
from typing import Any, Self

import dask.array as da
import numpy as np
import xarray as xr
from dask.local import get_sync


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunked:
    """A variable that dask computes; tasks receive the chunks that they overlap.

    Attributes
    ----------
    name : str
    array : str
        Name of the dask array.
    dims : tuple of str
    chunks : tuple of tuple of int
    """

    name: str
    array: str
    dims: tuple[str, ...]
    chunks: tuple[tuple[int, ...], ...]

    def overlapping(self, region: Mapping[str, slice]) -> tuple[range, ...]:
        """Return the numbers of the chunks along each dimension that a region touches."""
        found = []
        for dim, sizes in zip(self.dims, self.chunks, strict=True):
            edges = _edges(sizes)
            part = region.get(dim, slice(0, edges[-1]))
            first = bisect_right(edges, part.start, hi=len(edges) - 1) - 1
            last = bisect_left(edges, part.stop)
            found.append(range(first, max(last, first + 1)))  # one even of nothing
        return tuple(found)

    def keys(self, region: Mapping[str, slice]) -> object:
        """Return the keys of those chunks, as nested lists."""
        touched = self.overlapping(region)
        found: list[Any] = [(self.array, *index) for index in product(*touched)]
        for numbers in reversed(touched):
            found = [found[i : i + len(numbers)] for i in range(0, len(found), len(numbers))]
        return found[0]

    def cut(self, chunks: object, region: Mapping[str, slice]) -> xr.Variable:
        """Join the computed chunks of `keys` and cut the region out of them."""
        data = _join(chunks, axis=0, ndim=len(self.dims))
        index = []
        for dim, sizes, overlap in zip(
            self.dims, self.chunks, self.overlapping(region), strict=True
        ):
            offset = sum(sizes[: overlap.start])
            part = region.get(dim, slice(0, sum(sizes)))
            index.append(slice(part.start - offset, part.stop - offset))
        return xr.Variable(self.dims, np.asarray(data)[tuple(index)])


@cache
def _edges(sizes: tuple[int, ...]) -> list[int]:
    """Return where chunks begin, and where the last one ends."""
    return [0, *accumulate(sizes)]


def _join(chunks: object, *, axis: int, ndim: int) -> np.ndarray:
    if axis == ndim or not isinstance(chunks, list):
        return np.asarray(chunks)
    parts = [_join(chunk, axis=axis + 1, ndim=ndim) for chunk in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


class _Index:
    """Stands for an array and remembers which part of it was asked for.

    Taking the place of the file in a graph of slices, it comes out as the selection that they
    make. Anything but slicing by integers and slices fails.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, axes: tuple[range | int, ...]) -> None:
        self.axes = axes

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes if isinstance(axis, range))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __array_function__(self, *_: object) -> object:
        return NotImplemented

    def __getitem__(self, index: object) -> Self:
        steps: list[Any] = list(index) if isinstance(index, tuple) else [index]
        if not all(isinstance(step, slice | int | np.integer) for step in steps):
            raise TypeError("only slices can be followed")
        steps.reverse()
        return type(self)(
            tuple(
                axis[steps.pop()] if isinstance(axis, range) and steps else axis
                for axis in self.axes
            )
        )


def read_inside(variable: xr.Variable) -> xr.Variable | None:
    """See through a dask array to the file it reads.

    Parameters
    ----------
    variable : Variable
        Holding a dask array.

    Returns
    -------
    Variable or None
        The same values, read when they are indexed. None if the array is not simply read from a
        file, which includes data that somebody rechunked: whoever asks dask to do that gets it.
    """
    array = variable.data
    source, names = _source(array)
    if source is None:
        return None
    whole = _Index(tuple(range(size) for size in source.shape))
    # One row of chunks along each axis tells what the axis selects.
    wanted: Any = [
        [(array.name, *(i if a == axis else 0 for a in range(array.ndim))) for i in range(count)]
        for axis, count in enumerate(array.numblocks)
    ] or [[(array.name,)]]
    graph = dict(array.dask.cull({key for keys in wanted for key in keys}))
    if not all(_layer_of(key) in names for key in graph):
        return None
    graph[f"original-{names[-1]}"] = whole
    try:
        found = get_sync(graph, wanted)
        axes = _joined(found, whole)
    except Exception:  # whatever a graph of another making raises: it is not ours to see through
        return None
    if axes is None:
        return None
    lazy = xr.Variable([f"axis_{i}" for i in range(len(axes))], source)
    lazy = lazy.isel(
        {
            f"axis_{i}": axis
            if isinstance(axis, int)
            else slice(axis.start, None if axis.stop < 0 else axis.stop, axis.step)
            for i, axis in enumerate(axes)
        }
    )
    if lazy.shape != variable.shape or lazy.dtype != variable.dtype:
        return None
    lazy.dims = variable.dims
    lazy.attrs, lazy.encoding = variable.attrs, variable.encoding
    return lazy


def _source(array: da.Array) -> tuple[Any, list[str]]:
    """Find the file behind an array of slices; return it and the names of the layers passed."""
    layers, dependencies = array.dask.layers, array.dask.dependencies
    name, names = array.name, []
    while name in layers:
        names.append(name)
        original = f"original-{name}"
        if original in layers:
            adapter = dict(layers[original]).get(original)
            adapter = getattr(adapter, "value", adapter)  # dask wraps literals since 2024.12
            source = getattr(adapter, "array", None)
            return source if hasattr(source, "get_duck_array") else None, names
        if not name.startswith("getitem-") or len(dependencies[name]) != 1:
            break
        (name,) = dependencies[name]
    return None, names


def _layer_of(key: Hashable) -> str:
    name = str(key[0] if isinstance(key, tuple) else key)
    return name.removeprefix("original-")


def _joined(found: Sequence[Sequence[_Index]], whole: _Index) -> tuple[range | int, ...] | None:
    """Return the one selection that the pieces along each axis make, or None if there is none."""
    axes: list[range | int] = list(found[0][0].axes)
    kept = [i for i, axis in enumerate(axes) if isinstance(axis, range)]
    for position, pieces in zip(kept, found, strict=False):
        numbers = np.concatenate([np.asarray(p.axes[position]) for p in pieces])
        step = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
        joined = range(int(numbers[0]), int(numbers[0]) + step * len(numbers), step)
        if not np.array_equal(numbers, np.asarray(joined)):
            return None
        axes[position] = joined
    return tuple(axes) if len(axes) == len(whole.axes) else None


def storage_chunks(variable: xr.Variable) -> dict[str, int]:
    """Return the size of the largest pieces in which a variable is read, by dimension.

    A file in one piece without compression can be read anywhere, and is in pieces of 1.
    """
    encoding = variable.encoding
    chunks = encoding.get("preferred_chunks")
    if not isinstance(chunks, Mapping) or not chunks:
        grids = (encoding.get(key) for key in ("shards", "chunks", "chunksizes"))
        alike = (g for g in grids if isinstance(g, tuple | list) and len(g) == variable.ndim)
        chunks = dict(zip(variable.dims, next(alike, ()), strict=False))
    return {str(d): _largest(chunks.get(d, 1)) for d in variable.dims}


def _largest(size: object) -> int:
    # Chunks of a rectilinear grid are each of a size of their own.
    sizes = size if isinstance(size, tuple | list) else (size,)
    return max((int(n) for n in sizes if isinstance(n, int | np.integer) and n > 0), default=1)
