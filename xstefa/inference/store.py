"""Predictions to disk, a block at a time, so that nothing done is lost or done again.

Plain Zarr, and a journal in the same store: for every block that is written one byte, stored after
the block itself. A block that was interrupted has no entry, and is written again over whatever it
left. Zarr replaces files in one step, and no two blocks share a chunk, so half a chunk is never
read and no writer undoes another's work. All this needs of a store is that what was written first
can be read first, which folders and object stores both give.

Icechunk, the alternative, makes commits atomic. A commit is not needed for blocks that are known to
be independent and are accounted for one by one; one commit at the end would lose everything when
the writer dies before it, and one for each block would serialise the workers on the branch. And its
stores can only be read with it. Its own use is another: versions of a store that readers see while
it is being rewritten. Commit the finished store to Icechunk if readers need that.
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import accumulate, product
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import compute_as_if_collection, get_scheduler, tokenize
from dask.callbacks import Callback
from dask.highlevelgraph import HighLevelGraph
from tqdm import tqdm
from zarr.codecs import Crc32cCodec, ZstdCodec

from xstefa.cf import as_cf, describing
from xstefa.errors import StoreError
from xstefa.options import get_options

__all__ = ["to_zarr"]

# Beside the variables, where xarray does not look: what the store is to hold, and which of it is
# written.
_JOURNAL = "_xstefa"

# The checksum comes last and covers all bytes of a chunk, in shards too: whoever reads a damaged
# one gets an error. Beside zstd it costs nothing that can be measured, and unlike zstd's own it
# leaves out no bit.
_COMPRESSORS = (ZstdCodec(), Crc32cCodec())

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# What says where the numbers come from, in the words of an error message.
_ORIGIN = {
    "model_name": "the model",
    "model_hash": "the model's content",
    "model_schema": "the schema",
    "model_precision": "the precision",
    "xstefa_version": "the version of xstefa",
}


def to_zarr(
    obj: xr.DataArray | xr.Dataset,
    store: str | os.PathLike[str],
    *,
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
    store : path-like
        Folder, or URL that zarr understands.
    resume : bool
        Go on with a store that an interrupted call began: only the blocks that are missing are
        computed. A store that does not exist is begun, a finished one left as it is.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    StoreError
        If the store exists and neither `resume` nor `overwrite` is given; if it was begun with
        another model, schema, input or cut into blocks, naming what differs; or if there is no
        room left.

    Notes
    -----
    An entry in the journal says that the block was handed to the file system or object store. A
    power failure can lose what a file system had not yet put on the disk, entries and blocks alike.
    Two calls must not write to one store at the same time.
    """
    if resume and overwrite:
        raise StoreError(
            "resume=True goes on with a store, overwrite=True replaces it",
            variable=str(store),
            fix="give one of them",
        )
    location = os.fspath(store)
    if "://" not in location:
        location = os.path.abspath(location)
    dataset = as_cf(obj)
    if _JOURNAL in dataset.variables:
        raise StoreError(
            "the store keeps its journal under this name",
            variable=_JOURNAL,
            fix=f"obj = obj.rename({_JOURNAL}='...')",
        )
    dataset = _regular(dataset)
    plan = _plan(dataset)
    try:
        state = "new" if overwrite else _state(location, plan, resume=resume)
        if state == "complete":
            _finish(location)
            return
        if state == "new":
            group = zarr.open_group(location, mode="w")
            group.create_group(_JOURNAL, attributes={"plan": plan, "state": "preparing"})
            state = "preparing"
        elif "://" not in location:
            for leftover in Path(location).rglob("*.partial"):
                leftover.unlink()  # files that zarr was writing when it was killed
        if state == "preparing":
            _prepare(dataset, location)
        _write_missing(dataset, location)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StoreError(
            "there is no room left",
            variable=str(store),
            found=str(error),
            fix="make room, then call again with resume=True: what is written stays",
        ) from error
    _finish(location)


def _regular(dataset: xr.Dataset) -> xr.Dataset:
    """Give every lazy variable equal chunks, as Zarr wants, and no stale encoding."""
    regular = dataset.copy()
    for name, variable in dataset.variables.items():
        if variable.dtype.kind not in "fiub":
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
            changed.encoding["chunks"] = tuple(sizes[0] for sizes in changed.chunks)
        regular[name] = changed
    regular.encoding = {}
    return regular


def _lazy(dataset: xr.Dataset) -> dict[str, Any]:
    return {
        str(name): variable.data
        for name, variable in dataset.variables.items()
        if variable.chunks is not None
    }


def _plan(dataset: xr.Dataset) -> dict[str, Any]:
    """Describe what the store is to hold, so that another plan can be told apart."""
    variables = {}
    for name, variable in dataset.variables.items():
        lazy = variable.chunks is not None
        variables[str(name)] = {
            "dims": [str(dim) for dim in variable.dims],
            "shape": list(variable.shape),
            "dtype": str(variable.dtype),
            "chunks": [sizes[0] for sizes in variable.chunks] if variable.chunks else None,
            "origin": {k: str(variable.attrs[k]) for k in _ORIGIN if k in variable.attrs},
            # Named by dask after all that determines it: input, model and settings.
            "content": variable.data.name if lazy else tokenize(variable.values),
        }
    # In one order: that in which a store lists its variables is left to chance.
    plan: dict[str, Any] = json.loads(json.dumps(variables, sort_keys=True))
    return plan


def _state(location: str, plan: Mapping[str, Any], *, resume: bool) -> str:
    """Return "new", "preparing", "writing" or "complete", or refuse the store."""
    try:
        group = zarr.open_group(location, mode="r", use_consolidated=False)
    except FileNotFoundError:  # zarr's GroupNotFoundError, which is new in 3.1, is one
        if "://" not in location and os.path.exists(location) and not _is_empty(location):
            raise StoreError(
                "there is something else than a Zarr store",
                variable=location,
                fix="choose another path",
            ) from None
        return "new"
    begun = dict(group[_JOURNAL].attrs) if _JOURNAL in group else {}
    if not begun and not list(group.members()) and not group.attrs:
        return "new"  # the writer died before it could say what it was about to write
    if not resume:
        raise StoreError(
            "the store exists",
            variable=location,
            found=f"a store that is {begun.get('state', 'not of xstefa.to_zarr')}",
            expected="a path where there is nothing yet",
            fix="resume=True to go on with it, overwrite=True to replace it, or another path",
        )
    if not begun:
        raise StoreError(
            "the store was not written by xstefa.to_zarr, so what it lacks is not known",
            variable=location,
            fix="overwrite=True to replace it, or choose another path",
        )
    if differences := list(_differences(cast("Mapping[str, Any]", begun["plan"]), plan)):
        raise StoreError(
            "the store was begun with another prediction",
            variable=location,
            found="; ".join(differences),
            expected="the same model, input, settings and blocks as in the interrupted call",
            fix="repeat the call as it was, or use overwrite=True or another path",
        )
    return str(begun["state"])


def _is_empty(location: str) -> bool:
    return os.path.isdir(location) and not os.listdir(location)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what differs between two plans, the cause rather than its consequences."""
    if set(before) != set(now):
        yield f"variables {', '.join(sorted(before))} there, {', '.join(sorted(now))} now"
        return
    causes = dict.fromkeys(
        f"{words} ({there} there, {here} now)"
        for name, old in before.items()
        for key, words in _ORIGIN.items()
        if (there := old["origin"].get(key)) != (here := now[name]["origin"].get(key))
    )
    yield from causes
    if causes:
        return
    # Coordinates first: data differs with them.
    for name, old in sorted(before.items(), key=lambda item: len(item[1]["dims"])):
        new = now[name]
        for key in ("dims", "shape", "dtype", "chunks"):
            if old[key] != new[key]:
                yield f"{key} of {name!r} ({old[key]} there, {new[key]} now)"
                return
        if old["content"] != new["content"]:
            if old["chunks"] is None:
                yield f"the values of {name!r}"
            else:
                yield f"the input or a setting that {name!r} was predicted with"


def _prepare(dataset: xr.Dataset, location: str) -> None:
    """Write metadata, what is in memory, and the empty journal. Can be repeated."""
    with describing(location):
        dataset.to_zarr(location, mode="a", compute=False, consolidated=False)
    journal = zarr.open_group(location, mode="r+", path=_JOURNAL)
    for name, array in _lazy(dataset).items():
        journal.create_array(
            name,
            shape=array.numblocks,
            chunks=(1,) * array.ndim,
            dtype="uint8",
            fill_value=0,
            compressors=None,
            overwrite=True,
        )
    journal.attrs.update({"state": "writing"})


def _write_missing(dataset: xr.Dataset, location: str) -> None:
    """Compute and write all blocks that have no entry in the journal."""
    name = f"to-zarr-{uuid4().hex}"
    journal = zarr.open_group(location, mode="r", path=_JOURNAL)
    graph: dict[Any, Any] = {}
    arrays = _lazy(dataset)
    for variable, array in arrays.items():
        edges = [[0, *accumulate(sizes)] for sizes in array.chunks]
        written = np.asarray(journal[variable][...])  # type: ignore[index]
        for number in product(*map(range, array.numblocks)):
            if written[number]:
                continue
            region = tuple(slice(e[i], e[i + 1]) for e, i in zip(edges, number, strict=True))
            graph[(name, variable, *number)] = (
                _write_block,
                (name, location, variable),
                region,
                list(number),
                (array.name, *number),
            )
    if not graph:
        return
    layers = HighLevelGraph.from_collections(name, graph, dependencies=list(arrays.values()))
    bar = tqdm(
        total=len(graph),
        desc=f"writing {os.path.basename(location)}",
        unit="block",
        disable=not get_options().show_progress(),
    )
    client = getattr(get_scheduler(cls=da.Array), "__self__", None)
    with bar:
        if client is None:

            def count(key: Any, *_: object) -> None:
                if key[0] == name:
                    bar.update()

            with Callback(posttask=count):
                compute_as_if_collection(da.Array, layers, list(graph))
            return
        from distributed import as_completed

        optimised = da.Array.__dask_optimize__(layers, list(graph))
        futures = client.get(optimised, list(graph), sync=False)
        for _ in as_completed(futures, with_results=True):  # type: ignore[no-untyped-call]
            bar.update()


def _write_block(
    place: tuple[str, str, str],
    region: tuple[slice, ...],
    number: list[int],
    block: np.ndarray[Any, Any],
) -> None:
    """Write a block, then its entry in the journal."""
    target, journal = _open(*place)
    target[region] = block
    journal[tuple(number)] = 1


@lru_cache(maxsize=64)
def _open(call: str, location: str, variable: str) -> tuple[Any, Any]:
    """Open a variable and its journal, once a process and call: another may replace the store."""
    group = zarr.open_group(location, mode="r+", use_consolidated=False)
    return group[variable], group[f"{_JOURNAL}/{variable}"]


def _finish(location: str) -> None:
    """Declare the store complete; of the journal only the plan stays."""
    journal = zarr.open_group(location, mode="r+", path=_JOURNAL, use_consolidated=False)
    journal.attrs.update({"state": "complete"})
    for name in list(journal.array_keys()):
        del journal[name]
    with warnings.catch_warnings():
        # Readers other than Zarr's own may not know it, and then read the metadata one by one.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(location)
