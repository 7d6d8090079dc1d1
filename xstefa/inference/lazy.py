"""A prediction as a dask graph: one task reads, runs and returns a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import dask.array as da
import numpy as np
import xarray as xr

from xstefa.binding import Layout
from xstefa.inference.engine import EngineKey, get_engine
from xstefa.inference.windows import Days, Floats

BLOCK_BYTES = 256 * 2**20


def predict_lazily(
    forcing: Mapping[str, xr.DataArray],
    static: Mapping[str, xr.DataArray],
    *,
    layout: Layout,
    key: EngineKey,
    block_bytes: int = BLOCK_BYTES,
) -> da.Array:
    """Plan a prediction; reads no data and loads no weights.

    Parameters
    ----------
    forcing, static : mapping of token name to DataArray
        As bound: canonical units, NaN where missing, absent tokens left out. In memory or chunked.
    layout : Layout
    key : EngineKey
    block_bytes : int
        Memory that the input of one task may take.

    Returns
    -------
    dask.array.Array of float32
        Dimensions ``layout.dims``.
    """
    schema = key.model.schema
    sites = layout.site_dims
    known = key.model.spec.tokens
    forcings = {name: array for name, array in forcing.items() if name in known}
    statics = {name: array for name, array in static.items() if name in known}
    template = _widest(forcings, layout)
    tiles = _tiles(template, layout, tokens=len(schema.forcings), block_bytes=block_bytes)

    def prepared(array: xr.DataArray, *, days: slice | None) -> tuple[da.Array, tuple[str, ...]]:
        dims = tuple(d for d in (*sites, layout.time) if d in array.dims)
        array = array.transpose(*dims)
        if days is not None:
            array = array.isel({layout.time: days})
        chunks = {i: tiles[d] if d in tiles else -1 for i, d in enumerate(dims)}
        data = array.data
        if isinstance(data, da.Array):
            return data.rechunk(chunks), dims
        return da.from_array(data, chunks=chunks, inline_array=True), dims

    static_arrays = {name: prepared(array, days=None) for name, array in statics.items()}
    blocks = []
    for out, read in _time_blocks(layout.days, template, layout, key, tiles, block_bytes):
        arrays = {
            name: prepared(array, days=read if layout.time in array.dims else None)
            for name, array in forcings.items()
        }
        operands = [*arrays.values(), *static_arrays.values()]
        blocks.append(
            da.blockwise(
                partial(
                    _predict_block,
                    forcings=tuple(arrays),
                    statics=tuple(static_arrays),
                    dims=tuple(dims for _, dims in operands),
                    sites=sites,
                    time=layout.time,
                    key=key,
                    days=layout.days[read],
                    record=layout.days,
                    out=layout.days[out],
                ),
                (*sites, "out"),
                *(part for array, dims in operands for part in (array, dims)),
                new_axes={"out": out.stop - out.start},
                concatenate=True,
                align_arrays=False,
                meta=np.empty((0,) * (len(sites) + 1), dtype=np.float32),
                dtype=np.float32,
                name=None,
            )
        )
    result = da.concatenate(blocks, axis=-1)
    order = [(*sites, layout.time).index(d) for d in layout.dims]
    return result.transpose(order)


def _predict_block(
    *blocks: Floats,
    forcings: Sequence[str],
    statics: Sequence[str],
    dims: Sequence[tuple[str, ...]],
    sites: tuple[str, ...],
    time: str,
    key: EngineKey,
    days: Days,
    record: Days,
    out: Days,
) -> Floats:
    """Stack a block's variables into (site, day, variable), run it, and give its shape back."""
    schema = key.model.schema
    shape = tuple(
        next(b.shape[d.index(s)] for b, d in zip(blocks, dims, strict=True) if s in d)
        for s in sites
    )

    def aligned(block: Floats, block_dims: tuple[str, ...], target: tuple[str, ...]) -> Floats:
        expand = tuple(slice(None) if d in block_dims else None for d in target)
        return block[expand]

    count = int(np.prod(shape, dtype=int))
    forcing = np.full((*shape, len(days), len(schema.forcings)), np.nan, dtype=np.float32)
    static = np.full((*shape, len(schema.statics)), np.nan, dtype=np.float32)
    split = len(forcings)
    for name, block, block_dims in zip(forcings, blocks[:split], dims[:split], strict=True):
        column = schema.forcing_names.index(name)
        forcing[..., column] = aligned(block, block_dims, (*sites, time))
    for name, block, block_dims in zip(statics, blocks[split:], dims[split:], strict=True):
        column = schema.static_names.index(name)
        static[..., column] = aligned(block, block_dims, sites)
    result = get_engine(key).predict(
        forcing.reshape(count, *forcing.shape[-2:]),
        static.reshape(count, -1),
        days=days,
        record=record,
        out=out,
    )
    return result.reshape(*shape, len(out))


def _widest(forcings: Mapping[str, xr.DataArray], layout: Layout) -> xr.DataArray:
    """Return the forcing with the most dimensions, whose chunks the others follow."""
    return max(forcings.values(), key=lambda a: (a.ndim, a.chunks is not None))


def _tiles(
    template: xr.DataArray, layout: Layout, *, tokens: int, block_bytes: int
) -> dict[str, tuple[int, ...] | int]:
    """Return the chunks of the site dimensions: the input's own, cut where a block is too large."""
    # At least two windows of days are read whatever the time chunks.
    budget = max(1, block_bytes // (4 * tokens * 2 * 365))
    tiles: dict[str, tuple[int, ...] | int] = {}
    for dim in reversed([d for d in layout.site_dims if d in template.dims]):
        chunks = template.chunksizes.get(dim, (template.sizes[dim],))
        largest = max(chunks)
        if largest <= budget:
            tiles[dim] = tuple(chunks)
            budget //= largest
        else:
            tiles[dim] = budget
            budget = 1
    return tiles


def _time_blocks(
    record: Days,
    template: xr.DataArray,
    layout: Layout,
    key: EngineKey,
    tiles: Mapping[str, tuple[int, ...] | int],
    block_bytes: int,
) -> list[tuple[slice, slice]]:
    """Cut the record into blocks of whole windows; return (days answered, days read) of each."""
    policy = key.model.spec.windows
    cells = int(np.prod([t if isinstance(t, int) else max(t) for t in tiles.values()], dtype=int))
    affordable = block_bytes // (4 * len(key.model.schema.forcings) * cells)
    windows = max(1, (affordable - policy.length) // policy.stride)
    first, last = policy.over(record)[0], policy.over(record)[-1]
    cuts = [k * policy.stride for k in range(first, last + 1, windows)] + [int(record[-1]) + 1]
    edges = np.searchsorted(record, cuts)
    blocks = []
    for begin, end in pairwise(edges.tolist()):
        if begin == end:
            continue
        _, read_first, read_last = policy.needed(record[begin:end], record)
        read = np.searchsorted(record, [read_first, read_last + 1])
        blocks.append((slice(begin, end), slice(int(read[0]), int(read[1]))))
    return blocks
