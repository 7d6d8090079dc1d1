"""What a store is to hold and what it holds, in words that can be compared.

The journal is a group beside the variables, where xarray does not look. Its attributes are the plan
of the store, how far it is (writing, complete), and their own checksum.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store

from xstefa.errors import StoreError
from xstefa.inference import fingerprint

# A path, a URL, or a store that has neither.
Location: TypeAlias = str | Store

JOURNAL = "_xstefa"

# What says where the numbers come from, in the words of an error message.
_ORIGIN = {
    "model_name": "the model",
    "model_hash": "the model's content",
    "model_schema": "the schema",
    "model_precision": "the precision",
    "xstefa_version": "the version of xstefa",
}

# Attributes without which the numbers mean something else.
_DECODING = (
    "units",
    "calendar",
    "scale_factor",
    "add_offset",
    "_FillValue",
    "missing_value",
    "_Unsigned",
    "dtype",
)

# What else decides how numbers are read and written.
_FORM = ("dims", "shape", "dtype", "chunks", "codecs", "fill_value")


def _checksum(values: NDArray[Any]) -> int:
    if values.dtype.kind in "fiub":
        return zlib.crc32(np.ascontiguousarray(values).tobytes())
    return zlib.crc32("\0".join(map(str, values.ravel().tolist())).encode())


def describe(
    location: Location, names: Collection[str], *, streamed: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Describe variables of a store: all that decides what their numbers mean.

    Parameters
    ----------
    location : str or Store
    names : collection of str
        Those that are not there are left out.
    streamed : collection of str
        Those written block by block, whose values are not read. Of the others ``values`` is the
        checksum, or None if they cannot be read.

    Raises
    ------
    StoreError
        If metadata are damaged.
    """
    group = open_part(location)
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(names):
        array = None if group is None else open_part(location, name)
        if not isinstance(array, zarr.Array):
            continue
        attributes = dict(array.attrs)
        found[name] = {
            "dims": list(array.metadata.dimension_names or ()),  # type: ignore[union-attr]
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "chunks": list(array.shards or array.chunks),
            "codecs": _plain([codec.to_dict() for codec in array.metadata.codecs]),  # type: ignore[union-attr]
            "fill_value": str(array.fill_value),
            "attributes": {
                key: attributes[key] for key in (*_ORIGIN, *_DECODING) if key in attributes
            },
        }
        if name not in streamed:
            try:
                found[name]["values"] = _checksum(np.asarray(array[...]))
            except OSError:
                raise
            except Exception:  # each codec has its own for bytes that it cannot read
                found[name]["values"] = None
    return found


def _plain(content: object) -> object:
    """Return it as JSON gives it back: codecs of shards have tuples of others in them."""
    return json.loads(json.dumps(content))


def open_part(location: Location, path: str = "") -> zarr.Group | zarr.Array[Any] | None:
    """Open a group or array of a store to be read, or return None if there is nothing.

    Raises
    ------
    StoreError
        If its metadata are damaged.
    """
    try:
        return zarr.open(location, mode="r", path=path, use_consolidated=False)
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception as error:  # JSON, its fields and their types have each their own
        raise damaged(location, path, error) from error


def damaged(location: Location, path: str, error: object) -> StoreError:
    """Say of which group or array of a store the metadata are damaged."""
    again = (
        "overwrite=True to write the store anew"
        if path == JOURNAL
        else "delete the file and call again with resume=True: it is written anew"
    )
    return StoreError(
        "metadata of the store are damaged",
        variable="/".join(filter(None, [str(location), path, "zarr.json"])),
        found=f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, Exception)
        else str(error),
        fix=f"restore the file from a copy, or {again}",
    )


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Add the checksum of the attributes of a journal, or replace it."""
    bare = {key: value for key, value in attributes.items() if key != "checksum"}
    return bare | {"checksum": zlib.crc32(json.dumps(bare, sort_keys=True).encode())}


def read_journal(
    location: Location, plan: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Return the attributes of the journal, or None if there is no store yet.

    Raises
    ------
    StoreError
        If the store is not to be gone on with, or not by this plan.
    """
    journal = open_part(location, JOURNAL)
    if journal is None:
        group = open_part(location)
        if group is None:
            if isinstance(location, str) and "://" not in location and _is_occupied(location):
                raise StoreError(
                    "there is something else than a Zarr store",
                    variable=location,
                    fix="choose another path",
                )
            return None
        if isinstance(group, zarr.Group) and not group.attrs and not any(group.members()):
            return None  # the writer died before it could say what it was about to write
    begun: dict[str, Any] = {} if journal is None else dict(journal.attrs)
    if not resume:
        raise StoreError(
            "the store exists",
            variable=str(location),
            found=f"a store that is {begun.get('state', 'not of xstefa.to_zarr')}",
            expected="a path where there is nothing yet",
            fix="resume=True to go on with it, overwrite=True to replace it, or another path",
        )
    if not {"plan", "state"} <= set(begun):
        raise StoreError(
            "the store was not written by xstefa.to_zarr, so what it lacks is not known",
            variable=str(location),
            found=f"no journal in {JOURNAL}/zarr.json",
            fix="overwrite=True to replace it, or choose another path",
        )
    if begun != sealed(begun):
        raise damaged(location, JOURNAL, "attributes that are not those of their checksum")
    if isinstance(open_part(location), zarr.Array):
        raise damaged(location, "", "an array")
    before = begun["plan"]
    found = list(changes(before["variables"], plan["variables"]))
    if not found:
        found = [
            f"the input or a setting that {name!r} was predicted with ({difference})"
            for name, content in plan["content"].items()
            if (difference := fingerprint.differences(before["content"][name], content))
        ]
    if found:
        raise other_prediction(location, found)
    return begun


def other_prediction(location: Location, found: Collection[str]) -> StoreError:
    """Refuse to go on with a store, saying what differs."""
    return StoreError(
        "the store was begun with another prediction",
        variable=str(location),
        found="; ".join(found),
        expected="the same model, input, settings and blocks as in the interrupted call",
        fix="repeat the call as it was, or use overwrite=True or another path",
    )


def _is_occupied(location: str) -> bool:
    return os.path.exists(location) and not (os.path.isdir(location) and not os.listdir(location))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what differs between two descriptions, the cause rather than its consequences."""
    if set(before) != set(now):
        yield f"variables {', '.join(sorted(before))} there, {', '.join(sorted(now))} now"
        return
    causes = dict.fromkeys(
        f"{words} ({there} there, {here} now)"
        for name, old in before.items()
        for key, words in _ORIGIN.items()
        if (there := old["attributes"].get(key)) != (here := now[name]["attributes"].get(key))
    )
    yield from causes
    if causes:
        return
    # Coordinates first: data differs with them.
    for name, old in sorted(before.items(), key=lambda item: ("values" not in item[1], item[0])):
        new = now[name]
        for key in _FORM:
            if old[key] != new[key]:
                yield f"{key} of {name!r} ({old[key]} there, {new[key]} now)"
                return
        for key in sorted(set(old["attributes"]) | set(new["attributes"])):
            there, here = old["attributes"].get(key), new["attributes"].get(key)
            if there != here:
                yield f"{key} of {name!r} ({there} there, {here} now)"
        if old.get("values") != new.get("values"):
            yield f"the values of {name!r}"
