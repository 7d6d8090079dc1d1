"""Predictions to disk, a block at a time, so that nothing done is lost or done again.

Plain Zarr: each block is a chunk, and each chunk ends in a checksum. A block is written if its
chunk is there and whole. One that was interrupted, lost or damaged is written again, over whatever
is left of it. No two blocks share a chunk, so that no writer undoes another's work. A journal in
the same store says what it is to hold. All this needs of a store is that what was written can be
listed and read, which folders and object stores both give.

Icechunk makes commits atomic, which blocks that are independent and accounted for one by one do not
need. One commit at the end loses everything when the writer dies before it, and one for each block
would serialise the workers on the branch. It is for those whose readers must never see a store that
is being written: to Icechunk all this is one transaction.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import threading
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, cast
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.array.core import slices_from_chunks
from dask.base import compute, compute_as_if_collection, get_scheduler
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from xstefa.arguments import checked
from xstefa.cf import as_cf, describing
from xstefa.errors import StoreError, XstefaError, did_you_mean
from xstefa.inference import fingerprint
from xstefa.inference.journal import (
    JOURNAL,
    Location,
    changes,
    damaged,
    describe,
    other_prediction,
    read_journal,
    sealed,
)
from xstefa.inference.writer_lock import claimed
from xstefa.progress import counting, progress
from xstefa.typed import Count

Number: TypeAlias = tuple[int, ...]
"""Of a block, along each dimension."""

# The checksum comes last and covers all bytes of a chunk, in shards too: whoever reads a damaged
# one gets an error. Beside zstd it costs nothing that can be measured, and unlike zstd's own it
# leaves out no bit.
_COMPRESSORS = (ZstdCodec(), Crc32cCodec())

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# Share of the largest value by which processors of several kinds may differ.
ROUNDING = 1e-4

# Coordinates up to this size are written, and compared, as a whole.
_WHOLE_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class _Call:
    """A store during one call. It is known by its token, because stores need not have a hash."""

    location: Location = field(compare=False)
    token: str = field(default_factory=lambda: uuid4().hex)


@checked
def to_zarr(
    obj: xr.DataArray | xr.Dataset,
    store: str | os.PathLike[str] | Store,
    *,
    pieces: Mapping[str, Count] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Compute a lazy prediction block by block and stream it into a Zarr store.

    It runs on the threads of this process, or on the cluster of the connected client, which must
    see the same path; with a progress bar, if the option `progress` says so. Killed at any moment,
    it goes on where it was with ``resume=True``; the finished store is the same to the byte as that
    of an undisturbed run.

    Parameters
    ----------
    obj : DataArray or Dataset
        For instance a prediction, or a Dataset of its mean, quantiles and coverage, which then
        share one pass over the input.
    store : path-like or zarr Store
        Folder, or URL that zarr understands. Or a store of Zarr's, for instance that of a writable
        Icechunk session, which is yours to commit when the call has returned.
    pieces : mapping of str to int, optional
        Dimension to the length of what readers get at a time, ``{"time": 365}``. A block that is
        written is then a shard of Zarr, which holds many of these pieces; by default it is one.
    resume : bool
        Go on with a store that an interrupted call began: only the blocks that are missing or
        damaged are computed. A store that does not exist is begun, a finished one looked through.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    StoreError
        If the store exists and neither `resume` nor `overwrite` is given; if it was begun with
        another model, schema, input or cut into blocks, or changed since, naming what differs; if
        its metadata are damaged; if another process is writing it; if nothing can be written, or
        replaced, there; or if there is no room left.

    Notes
    -----
    Every chunk carries a checksum (crc32c), and reading a damaged one is an error.

    To resume is to show that the prediction is the same: model, schema, precision and version;
    settings; names, dimensions, shapes and coordinates; and values of the input at a few places.
    Where that leaves a doubt, because arithmetic was done on the prediction, up to three of the
    blocks that are there are computed again and compared.

    While it writes, ``<store>.writer`` says which process does. What a killed one leaves of it does
    not stand in the way.

    A power failure can lose what a file system had not yet put on the disk: it is written again.
    """
    if resume and overwrite:
        raise StoreError(
            "resume=True goes on with a store, overwrite=True replaces it",
            variable=str(store),
            fix="give one of them",
        )
    location = _location(store)
    dataset = as_cf(obj)
    if JOURNAL in dataset.variables:
        raise StoreError(
            "the store keeps its journal under this name",
            variable=JOURNAL,
            fix=f"obj = obj.rename({JOURNAL}='...')",
        )
    dataset = _regular(dataset, pieces or {})
    # A store that is no place is known to this process only.
    alone: AbstractContextManager[None] = nullcontext()
    try:
        with claimed(location) if isinstance(location, str) else alone:
            _stream(dataset, location, resume=resume, overwrite=overwrite)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreError(
                "there is no room left",
                variable=str(store),
                found=str(error),
                fix="make room, then call again with resume=True: what is written stays",
            ) from error
        if not _is_about(error, location):
            raise
        raise StoreError(
            "nothing can be written there",
            variable=str(store),
            found=str(error),
            fix="choose a path below a folder that you may write to",
        ) from error


def _is_about(error: OSError, location: Location) -> bool:
    """Whether an error is about a store or a folder that it is in, and not about the input."""
    name = str(error.filename or "")
    return (
        bool(name)
        and isinstance(location, str)
        and (name.startswith(location) or location.startswith(name))
    )


def _location(store: str | os.PathLike[str] | Store) -> Location:
    """Return an absolute path, a URL, or a store of Zarr's that has neither."""
    if isinstance(store, Store):
        if store.read_only:
            raise StoreError(
                "the store can only be read",
                variable=str(store),
                fix="open it for writing; for Icechunk, repo.writable_session('main').store",
            )
        if not store.supports_deletes:
            raise StoreError(
                "nothing in this store can be replaced, so that it cannot be gone on with",
                variable=str(store),
                fix="give a folder, and make an archive of it when the call has returned",
            )
        if _client() is not None:
            try:
                pickle.dumps(store)
            except Exception as error:  # stores have each their own
                raise StoreError(
                    "the workers of the cluster cannot write to this store",
                    variable=str(store),
                    found=f"{type(error).__name__}: {error}",
                    fix="with dask.config.set(scheduler='threads'): xstefa.to_zarr(obj, store)",
                ) from error
        return str(store.root) if isinstance(store, LocalStore) else store
    place = os.fspath(store)
    return place if "://" in place else os.path.abspath(place)


def _client() -> Any:
    """Return the client of the cluster that computes here, or None."""
    return getattr(get_scheduler(cls=da.Array), "__self__", None)


def _stream(dataset: xr.Dataset, location: Location, *, resume: bool, overwrite: bool) -> None:
    """Write what is missing of a store, which may be all."""
    frame, arrays = MemoryStore(), _lazy(dataset)
    plan = _plan(dataset, location, frame)
    begun = None if overwrite else read_journal(location, plan, resume=resume)
    if begun is None:
        group = zarr.open_group(location, mode="w", zarr_format=3)
        group.create_group(JOURNAL, attributes=sealed({"plan": plan, "state": "writing"}))
    elif isinstance(location, str) and "://" not in location:
        for leftover in Path(location).rglob("*.partial"):
            leftover.unlink()  # files that zarr was writing when it was killed
    _restore(dataset, location, plan["variables"], frame)
    written = {} if begun is None else _intact(arrays, location)
    _check_doubtful(plan["content"], arrays, location, written)
    missing = {
        name: [number for number in _regions(array) if number not in written.get(name, ())]
        for name, array in arrays.items()
    }
    if any(missing.values()):
        _note(location, state="writing")
        _write_missing(arrays, location, missing)
    _finish(arrays, location)


def _regular(dataset: xr.Dataset, pieces: Mapping[str, int]) -> xr.Dataset:
    """Give every lazy variable equal chunks, as Zarr wants, and no stale encoding."""
    regular = dataset.copy()
    if unknown := [dim for dim in pieces if dim not in dataset.dims]:
        raise StoreError(
            "pieces have lengths along dimensions",
            variable=unknown[0],
            found="no such dimension",
            expected=f"some of {', '.join(map(str, dataset.dims))}",
            fix=did_you_mean(unknown[0], map(str, dataset.dims)) or f"leave {unknown[0]!r} out",
        )
    for name, variable in dataset.variables.items():
        whole = name in dataset.coords and variable.nbytes <= _WHOLE_BYTES
        if variable.dtype.kind not in "fiub" or (whole and variable.chunks is not None):
            # Dates and text have to be encoded as a whole.
            changed = variable.compute()
            if variable.dtype.kind == "U":
                # Zarr has no settled form for text of fixed length.
                changed = changed.astype(object)
        elif variable.chunks is None:
            changed = variable.copy(deep=False)
        else:
            even = {
                dim: chunks[0]
                if len(set(chunks[:-1])) <= 1 and chunks[-1] <= chunks[0]
                else max(chunks)
                for dim, chunks in variable.chunksizes.items()
            }
            changed = variable.chunk(even)
        # Chunks, filters and fill values of the input's own store do not fit the output's.
        changed.encoding = {
            key: value
            for key, value in variable.encoding.items()
            if key == "grid_mapping" or (key == "_FillValue" and value is None)
        }
        changed.encoding["compressors"] = _COMPRESSORS
        if changed.chunks is not None:
            blocks = {str(dim): sizes for dim, sizes in changed.chunksizes.items()}
            whole_pieces = {dim: _filled(dim, sizes, pieces) for dim, sizes in blocks.items()}
            changed.encoding["chunks"] = tuple(length for _, length in whole_pieces.values())
            if variable.size and not pieces.keys().isdisjoint(blocks):
                changed.encoding["shards"] = tuple(shard for shard, _ in whole_pieces.values())
        regular[name] = changed
    regular.encoding = {}
    return regular


def _filled(dim: str, sizes: tuple[int, ...], pieces: Mapping[str, int]) -> tuple[int, int]:
    """Return the length of shards along a dimension, and that of the pieces that fill them.

    Raises
    ------
    StoreError
        If they do not: a block has to be a shard, which is written by one task.
    """
    block = sizes[0]
    length = min(pieces.get(dim, block), block)
    shard = -(-block // max(length, 1)) * length  # there may be no sites
    if shard != block and len(sizes) > 1:
        fitting = [n for n in range(1, block + 1) if block % n == 0]
        near = min(fitting, key=lambda n: abs(n - length))
        raise StoreError(
            "pieces do not fill the blocks that are written",
            variable=dim,
            found=f"pieces of {length}, and blocks of {block}",
            expected=f"a divisor of {block}",
            fix=f"pieces={{{dim!r}: {near}}}",
        )
    return shard, length


def _lazy(dataset: xr.Dataset) -> dict[str, Any]:
    return {
        str(name): variable.data
        for name, variable in dataset.variables.items()
        if variable.chunks is not None
    }


def _plan(dataset: xr.Dataset, location: Location, frame: MemoryStore) -> dict[str, Any]:
    """Describe what the store is to hold, so that another plan can be told apart.

    What xarray would write to an empty store, `frame`, is in the words of a store, whatever the
    coordinates were in memory.
    """
    arrays = _lazy(dataset)
    with describing(str(location)):
        _write_frame(dataset, frame)
    plan = {
        "variables": describe(frame, list(map(str, dataset.variables)), streamed=arrays),
        "content": fingerprint.identify(arrays),
    }
    return cast("dict[str, Any]", json.loads(json.dumps(plan, sort_keys=True)))


def _write_frame(dataset: xr.Dataset, location: Location) -> None:
    """Write metadata and what is in memory; blocks that are there stay."""
    dataset.to_zarr(location, mode="a", compute=False, consolidated=False, zarr_format=3)


def _note(location: Location, **changes: object) -> None:
    """Change the journal, if it does not say so already."""
    journal = zarr.open_group(location, mode="r+", path=JOURNAL, use_consolidated=False)
    before = dict(journal.attrs)
    if (after := sealed(before | changes)) != before:
        journal.attrs.put(after)


def _regions(array: da.Array) -> dict[Number, tuple[slice, ...]]:
    """Return the number and the region of each block that is not empty."""
    numbers = np.ndindex(array.numblocks)
    regions = zip(numbers, slices_from_chunks(array.chunks), strict=True)
    return {n: region for n, region in regions if all(s.stop > s.start for s in region)}


def _restore(
    dataset: xr.Dataset, location: Location, plan: Mapping[str, Any], frame: MemoryStore
) -> None:
    """Write metadata, and what is in memory, as far as they are missing.

    What is not there or cannot be read is written, and so are attributes that say nothing about the
    numbers. What can be read and differs was changed by somebody, and is refused.
    """
    arrays = _lazy(dataset)
    there = describe(location, plan, streamed=arrays)
    lost = [name for name in plan if None in there.get(name, {"": None}).values()]
    kept = [name for name in plan if name not in lost]
    if found := list(changes({n: there[n] for n in kept}, {n: plan[n] for n in kept})):
        raise StoreError(
            "the store was changed since it was begun",
            variable=str(location),
            found="; ".join(found),
            expected="what its journal says: the same metadata and coordinates",
            fix="restore what was changed, or delete the zarr.json of that variable: it is written "
            "anew; or overwrite=True",
        )
    if lost:
        group = zarr.open_group(location, mode="a", zarr_format=3, use_consolidated=False)
        for name in set(lost) - set(arrays):
            del group[name]
        try:
            _write_frame(dataset, location)
        except (OSError, XstefaError):
            raise
        except Exception as error:  # zarr's, of metadata that say neither group nor array
            raise damaged(location, lost[0], error) from error
    for path in ("", *plan):
        part = zarr.open(location, mode="r+", path=path, use_consolidated=False)
        part.attrs.put(dict(zarr.open(frame, mode="r", path=path).attrs))


def _listed(call: _Call, name: str, numbers: Iterable[Number]) -> list[Number]:
    """Return the blocks of which there is a chunk, whole or not."""
    array = _open(call, name)
    prefix = f"{array.path}/"

    async def listed() -> set[str]:
        return {key async for key in array.store.list_prefix(prefix)}

    keys = sync(listed())
    return [n for n in numbers if prefix + array.metadata.encode_chunk_key(n) in keys]


def _intact(arrays: Mapping[str, da.Array], location: Location) -> dict[str, set[Number]]:
    """Return the blocks that are in a store, and whole."""
    call = _Call(location)
    tasks: dict[tuple[Any, ...], Any] = {
        (f"look-{call.token}", name, *number): (_look, (call, name), regions[number])
        for name, array in arrays.items()
        for regions in [_regions(array)]
        for number in _listed(call, name, regions)
    }
    looks = compute_as_if_collection(da.Array, tasks, list(tasks)) if tasks else []
    intact: dict[str, set[Number]] = {name: set() for name in arrays}
    for (_, name, *number), whole in zip(tasks, looks, strict=True):
        if whole:
            intact[name].add(tuple(number))
    return intact


def _look(place: tuple[_Call, str], region: tuple[slice, ...]) -> bool:
    """Whether a block can be read."""
    try:
        _open(*place)[region]
    except OSError:
        raise
    except Exception:  # each codec has its own for bytes that it cannot read
        return False
    return True


def _check_doubtful(
    content: Mapping[str, Any],
    arrays: Mapping[str, da.Array],
    location: Location,
    written: Mapping[str, set[Number]],
) -> None:
    """Compute a few blocks again, of variables that their identity does not tell from others."""
    call = _Call(location)
    now, there = {}, {}
    for name, array in arrays.items():
        if fingerprint.is_certain(content[name]):
            continue
        regions, done = _regions(array), sorted(written.get(name, ()))
        for number in {done[i] for i in (0, len(done) // 2, -1)} if done else ():
            now[name, number] = array.blocks[number] if number else array
            there[name, number] = np.asarray(_open(call, name)[regions[number]])
    (computed,) = compute(now)
    for (name, number), block in computed.items():
        before = there[name, number]
        scale = np.nanmax(np.abs(before), initial=0, where=np.isfinite(before))
        if not np.allclose(block, before, rtol=0, atol=ROUNDING * scale, equal_nan=True):
            raise other_prediction(
                location,
                [
                    f"the input or a setting that {name!r} was predicted with (its block {number} "
                    "comes out otherwise)"
                ],
            )


def _write_missing(
    arrays: Mapping[str, Any], location: Location, missing: Mapping[str, list[Number]]
) -> None:
    """Compute and write blocks."""
    call = _Call(location)
    name = f"to-zarr-{call.token}"
    graph: dict[Any, Any] = {
        (name, variable, *number): (
            _write_block,
            (call, variable),
            regions[number],
            (array.name, *number),
        )
        for variable, array in arrays.items()
        for regions in [_regions(array)]
        for number in missing[variable]
    }
    layers = HighLevelGraph.from_collections(name, graph, dependencies=list(arrays.values()))
    bar = progress(f"writing {os.path.basename(str(location))}", total=len(graph), unit="blocks")
    client = _client()
    with bar:
        if client is None:
            with counting(bar, name):
                compute_as_if_collection(da.Array, layers, list(graph))
            return
        from distributed import as_completed

        optimised = da.Array.__dask_optimize__(layers, list(graph))
        futures = client.get(optimised, list(graph), sync=False)
        for _ in as_completed(futures, with_results=True):  # type: ignore[no-untyped-call]
            bar.update()


def _write_block(place: tuple[_Call, str], region: tuple[slice, ...], block: NDArray[Any]) -> None:
    _open(*place)[region] = block


_opening = threading.Lock()


@lru_cache(maxsize=64)
def _open(call: _Call, path: str) -> Any:
    """Open an array, once a process and call: another call may replace the store."""
    # A block without values is a chunk too, or it could not be told from one that is missing.
    with _opening, zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_group(call.location, mode="r+", use_consolidated=False)[path]


def _finish(arrays: Mapping[str, da.Array], location: Location) -> None:
    """Declare the store complete."""
    call = _Call(location)
    planned = {name: _regions(array) for name, array in arrays.items()}
    if missing := sum(len(r) - len(_listed(call, name, r)) for name, r in planned.items()):
        raise StoreError(
            "blocks that were written are not there",
            variable=str(location),
            found=f"{missing} blocks without a chunk",
            expected="workers that write to the same store",
            fix="a path that is the same folder on all machines, or a URL",
        )
    _note(location, state="complete")
    if not getattr(_open(call, JOURNAL).store, "supports_consolidated_metadata", True):
        return
    with warnings.catch_warnings():
        # Readers other than Zarr's own may not know it, and then read the metadata one by one.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(location)
