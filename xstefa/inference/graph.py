"""A prediction as a dask graph: one task reads, runs and returns a block."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.binding.climate import unlikely
from xstefa.binding.plain import values_of
from xstefa.binding.reading import Reading
from xstefa.binding.sources import TokenSource
from xstefa.binding.value_checks import doubt, doubt_part, value_problems
from xstefa.errors import MissingTokenError, XstefaWarning, raise_problems, warn
from xstefa.inference.engine import Answer, Before, EngineKey, get_engine
from xstefa.inference.extrapolation import look_at_block
from xstefa.inference.file_reads import Chunked, read_inside, storage_chunks
from xstefa.inference.job import Job
from xstefa.inference.state import FinalState, Past, split
from xstefa.inference.tiling import BLOCK_BYTES, Blocks, Stored, advice, plan_blocks
from xstefa.model.architecture import ROWS
from xstefa.windows import YEAR, Days, Floats, WindowPolicy


class ChunksWarning(XstefaWarning):
    """The chunks of the input make a prediction slow, or large in memory."""


# Share of a forcing's values in a block that may lie outside what is possible. A block can be one
# odd corner of a map; a wrong label moves nearly all values.
STRAY = 0.5

# An in-memory input is cut into this many blocks a core, so that all cores have work to the end.
BLOCKS_PER_CORE = 4

PAST = "state of the days before"  # what a job goes on from, among its variables


def plan_job(
    binding: Binding,
    *,
    key: EngineKey,
    answer: Answer,
    answered: slice,
    past: Past | None = None,
) -> da.Array:
    """Plan a pass over a dataset; reads no data and loads no weights.

    Parameters
    ----------
    binding : Binding
        Tokens that the model never learned to read are left out.
    key : EngineKey
    answer : Answer
    answered : slice
        Steps of the record to answer for.
    past : Past, optional
        Of the days before the record.

    Returns
    -------
    dask.array.Array of float32
        Dimensions ``layout.dims`` (without time if the answer is not daily), and last one of
        ``width + 1`` values: those of the answer, and the coverage.
    """
    dataset, layout = binding.dataset, binding.layout
    spec = key.model.spec
    sources = {name: s for name, s in binding.sources.items() if name in spec.tokens}
    if not any(name in spec.schema.forcing_names for name in sources):
        raise MissingTokenError(
            "the dataset has no forcing that this model can read",
            variable=key.model.name,
            expected="some of "
            + ", ".join(name for name in spec.schema.forcing_names if name in spec.tokens),
        )
    needed = {name: dataset[name].variable for s in sources.values() for name in s.inputs}
    read: dict[str, xr.Variable] = {}
    computed: dict[str, Any] = {}
    at_once = not is_lazy(needed.values())
    if past is not None:
        needed[PAST] = past.values.compute() if at_once else past.values
    for name, variable in needed.items():
        chunked = variable.chunks is not None
        lazy = read_inside(variable) if chunked else variable
        if at_once or isinstance(variable, xr.IndexVariable):
            # What runs at once is read here, by one thread: the file libraries are not safe in
            # several, and a file that is closed by garbage collection asks for no lock. A level of
            # a stacked dimension would bring its index, and the other levels, along.
            lazy = xr.Variable(variable.dims, values_of(variable, name), variable.attrs)
        if lazy is None:
            computed[name] = variable.data
        else:
            read[name] = lazy
    coordinates = {layout.time: dataset[layout.time].variable}
    job = Job(
        key=key,
        answer=answer,
        sources=sources,
        layout=replace(layout, coords=xr.Coordinates()),
        dataset=xr.Dataset(coordinates | read),
        operands=tuple(
            Chunked(
                name=name,
                array=array.name,
                dims=tuple(map(str, needed[name].dims)),
                chunks=array.chunks,
            )
            for name, array in computed.items()
        ),
        checked=at_once,
        past_days=0 if past is None else past.days,
    )
    reach = cache(partial(_reach, policy=spec.windows, record=layout.days))
    blocks = _cut(dataset, job, answered, reach, past)
    name = f"stefa-{_token(needed, job, blocks, answered)}"
    job_key = job_key_of(name)
    values = answer.width(spec) + 1
    kept = tuple(d for d in layout.dims if answer.daily or d != layout.time)
    graph: dict[Any, Any] = {job_key: job}
    for number, region in blocks:
        index = tuple(i for i, dim in zip(number, layout.dims, strict=True) if dim in kept)
        days = region[layout.time]
        days = slice(days.start + answered.start, days.stop + answered.start)
        region = region | {layout.time: days}
        reading = region | {layout.time: slice(*reach(days.start, days.stop))}
        graph[(name, *index, 0)] = (
            run_block,
            job_key,
            tuple(region.values()),
            [each.keys(reading) for each in job.operands],
        )
    chunks = (
        *(c for c, dim in zip(blocks.chunks, layout.dims, strict=True) if dim in kept),
        (values,),
    )
    return da.Array(
        HighLevelGraph.from_collections(name, graph, dependencies=list(computed.values())),
        name,
        chunks=chunks,
        meta=np.empty((0,) * len(chunks), dtype=np.float32),
    )


def job_key_of(name: str) -> str:
    """Return where the graph of a pass keeps its `Job`, given the name of its dask array."""
    return f"{name}-job"


def _token(needed: Mapping[str, xr.Variable], job: Job, blocks: Blocks, answered: slice) -> str:
    """Name a prediction after all that determines it: settings, then input.

    The first part is the same in any process. The second is dask's name of the input, which need
    not be.
    """
    if job.checked:
        return uuid4().hex  # runs at once; hashing the data would only take time
    settings = tokenize(
        job.key,
        job.answer,
        _token_of_sources(tuple(job.sources.items())),
        job.layout.days,
        job.layout.dims,
        [(name, v.dims, v.shape) for name, v in needed.items()],
        blocks.chunks,
        answered,
    )
    return f"{settings}-{tokenize(settings, [_name(v) for v in needed.values()])}"


@lru_cache
def _token_of_sources(sources: tuple[tuple[str, TokenSource], ...]) -> str:
    return tokenize(sources)  # takes 7 ms: forecasts of many initial dates ask for it at each


def _name(variable: xr.Variable) -> object:
    """Return what identifies the values of a variable, without reading a file."""
    data = variable.data if variable.chunks is not None else variable.chunk().data
    return data.name if isinstance(data, da.Array) else data


def is_lazy(arrays: Iterable[xr.DataArray | xr.Variable]) -> bool:
    """Whether any of some arrays is a dask array."""
    return any(array.chunks is not None for array in arrays)


def run_block(job: Job, region: tuple[slice, ...], chunks: list[object]) -> Floats:
    """Read a block, run it, and give it the shape of the output.

    Parameters
    ----------
    job : Job
    region : tuple of slice
        Which part of the output, in the order of its dimensions.
    chunks : list
        For each of the job's operands the chunks that the block touches.
    """
    layout, spec = job.layout, job.key.model.spec
    record = layout.days
    out = dict(zip(layout.dims, region, strict=True))
    days = out[layout.time]
    reach = slice(*_reach(days.start, days.stop, policy=spec.windows, record=record))
    reading = out | {layout.time: reach}

    sites = layout.site_dims
    shape = tuple(out[d].stop - out[d].start for d in sites)
    part = job.part(reading, chunks)
    before = _before(part, job, dict(zip(sites, shape, strict=True)))
    left = None if before is None else np.any(before.known, axis=(1, 2))
    forcing, static, present = read_block(job, part.drop_vars(PAST, errors="ignore"), reading, left)
    look_at_block(job, forcing, static)
    if before is not None:
        before = _begun(before.take(present), job, static)
    values, coverage = job.answer.ask(
        get_engine(job.key),
        forcing,
        static,
        days=record[reach],
        record=record,
        out=record[days],
        before=before,
    )
    result = np.full((present.size, *values.shape[1:-1], values.shape[-1] + 1), np.nan, np.float32)
    result[..., -1] = 0
    result[present, ..., :-1], result[present, ..., -1] = values, coverage
    daily = (layout.time,) if job.answer.daily else ()
    order = [(*sites, *daily).index(d) for d in layout.dims if d in (*sites, *daily)]
    result = result.reshape(*shape, *result.shape[1:])
    return np.ascontiguousarray(result.transpose(*order, -1))


def _before(part: xr.Dataset, job: Job, sites: Mapping[str, int]) -> Before | None:
    """Return what the days before have left of the sites of a block, of these sizes."""
    if PAST not in part.variables:
        return None
    variable = part.variables[PAST]
    variable = variable.transpose(*[dim for dim in sites if dim in variable.dims], ...)
    values = np.asarray(variable.values).reshape(-1, variable.shape[-1])
    unknown = np.isnan(values[:, -1])
    if unknown.any():
        values = np.where(unknown[:, None], np.float32(0), values)
    kept = [size if dim in variable.dims else 1 for dim, size in sites.items()]
    places = np.broadcast_to(np.arange(len(values)).reshape(kept), list(sites.values()))
    parts = split(values, job.key.model.spec, job.past_days)
    return Before(parts=parts, places=places.ravel(), unknown=unknown)


def _begun(before: Before, job: Job, static: Floats) -> Before:
    """Give sites whose data begin now what days without any have left them, as in one record."""
    born = np.flatnonzero(before.unknown[before.places])
    if not born.size:
        return before
    spec, days = job.key.model.spec, np.arange(job.past_days)
    places, first = np.unique(before.places[born], return_index=True)
    nothing = np.full((len(places), len(days), len(spec.schema.forcings)), np.nan, np.float32)
    states, _ = get_engine(job.key).answer(
        FinalState.of(spec), nothing, static[born[first]], days=days, record=days, out=days
    )
    for name, part in split(states, spec, job.past_days).items():
        before.parts[name][places] = part
    return before


def sample_block(
    job: Job, region: Mapping[str, slice], chunks: list[object]
) -> dict[str, list[float]]:
    """Read the values of all variables in a region, as they are; see `Job.part`."""
    part = job.part(region, chunks).drop_vars(job.layout.time)
    return {str(name): part.variables[name].values.ravel().tolist() for name in part.variables}


def _reach(start: int, stop: int, *, policy: WindowPolicy, record: Days) -> tuple[int, int]:
    """Return the steps of the record that must be read to answer for some of its steps."""
    _, first, last = policy.needed(record[start:stop], record)
    begin, end = np.searchsorted(record, [first, last + 1])
    return int(begin), int(end)


def read_block(
    job: Job,
    part: xr.Dataset,
    region: Mapping[str, slice],
    left: NDArray[np.bool_] | None = None,
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Read the tokens of a block.

    Parameters
    ----------
    job : Job
    part : Dataset
    region : mapping of str to slice
        Which part of the dataset it is.
    left : ndarray of bool, shape (site,), optional
        Where a state of the days before is known.

    Returns
    -------
    forcing : ndarray, shape (present site, day, C)
    static : ndarray, shape (present site, S)
    present : ndarray of bool, shape (site,)
        Sites that can have an answer: sea and other sites without data are left out before they
        are copied, and where a whole block is without, the rest of it is not even read.
    """
    spec, layout = job.key.model.spec, job.layout
    tokens = Reading(
        part,
        job.sources,
        schema=spec.schema,
        layout=layout,
        sizes={dim: part.stop - part.start for dim, part in region.items()},
        keep=not job.checked,
    )
    names = [name for name in spec.schema.forcing_names if name in job.sources]
    needs = spec.needs if job.answer.needs_required else ()
    groups = [[name for name in group if name in names] for group in needs] or [names]
    present = tokens.present(groups)
    if left is not None:
        present |= left
    if needs and not job.checked:
        doubt_part(
            {
                " or ".join(group): np.any([np.isfinite(tokens.series(n)) for n in group], axis=0)
                for group in groups
            }
        )
    forcing, static = tokens.forcings(present), tokens.statics(present)
    if not job.checked and present.any():
        read = [job.sources[name] for name in names]
        raise_problems(value_problems(tokens.block, read, layout=layout, tolerated=STRAY))
        for each in unlikely(tokens.block, job.sources, layout=layout):
            doubt(each.text)
    return forcing, static, present


def _cut(
    dataset: xr.Dataset,
    job: Job,
    answered: slice,
    reach: Callable[[int, int], tuple[int, int]],
    past: Past | None,
) -> Blocks:
    """Choose the blocks, and warn if the chunks of the input make them slow or large."""
    spec, layout = job.key.model.spec, job.layout
    computed = {each.name: each for each in job.operands}
    forcings = {
        name: dataset[name].variable
        for token in spec.schema.forcing_names
        if token in job.sources
        for name in job.sources[token].inputs
        if layout.time in dataset[name].dims
    }
    first, last = reach(answered.start, answered.stop)
    sizes = {dim: dataset.sizes[dim] for dim in layout.dims} | {layout.time: last - first}
    width = job.answer.width(spec) + 1
    if not job.answer.daily:
        width = -(-width // sizes[layout.time])
    if past is not None:  # members of an ensemble share theirs
        shared = math.prod(n for dim, n in sizes.items() if dim not in past.dims)
        width += -(-past.values.shape[-1] // shared)
    values = len(forcings) + math.ceil(1.25 * len(spec.schema.forcings)) + 2 * width
    block_bytes = BLOCK_BYTES
    if not is_lazy(dataset[n] for n in forcings):
        shared = 4 * values * math.prod(sizes.values()) // (BLOCKS_PER_CORE * (os.cpu_count() or 1))
        worthwhile = 4 * values * min(spec.windows.longest, max(last - first, YEAR)) * ROWS
        block_bytes = min(BLOCK_BYTES, max(shared, worthwhile))
    stored = [
        Stored(
            pieces=dict(zip(each.dims, map(max, each.chunks), strict=True))
            if (each := computed.get(name))
            else storage_chunks(variable),
            computed=name in computed,
            itemsize=variable.dtype.itemsize,
        )
        for name, variable in forcings.items()
    ]
    widest = sorted(forcings.values(), key=lambda v: (v.chunks is not None, v.ndim))
    tiles = {dim: sizes[dim] for dim in layout.site_dims}
    for variable in widest:
        tiles |= {
            str(dim): max(sizes_) for dim, sizes_ in variable.chunksizes.items() if dim in tiles
        }
    blocks = plan_blocks(
        sizes,
        stored,
        time=layout.time,
        tiles=tiles,
        policy=spec.windows,
        values=values,
        whole_record=not job.answer.daily,
        block_bytes=block_bytes,
    )
    if text := advice(blocks):
        warn(ChunksWarning(text))
    return replace(blocks, sizes=sizes | {layout.time: answered.stop - answered.start})
