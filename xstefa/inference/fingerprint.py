"""What a lazy result is made of, told in words that are the same in any process.

Dask names an array after the tasks that make it, and the name of a file that is open is another in
every process. So the settings of a pass are known by their token, its input by a few values read at
fixed places, and what is done to its answer afterwards by the names of the steps. Steps that are
not of this package have arguments that nobody sees: there, and where the input costs too much to
look at, only blocks that are computed again can tell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast
from uuid import uuid4

import dask.array as da
from dask.base import compute_as_if_collection
from dask.highlevelgraph import HighLevelGraph
from dask.utils import key_split

from xstefa.inference.graph import job_key_of, sample_block
from xstefa.inference.job import Job

# The names of a pass over a dataset and of what takes its answer apart: settings, then dask's own.
_PASS = re.compile(r"stefa-([0-9a-f]{32})-[0-9a-f]{32}")
_TAKEN = re.compile(r"each-([0-9a-f]{32})-[0-9a-f]{32}")

# Places of the input that are looked at, and tasks of dask that they may cost.
PLACES = 8
TASKS = 2000

_PRIMES = (2, 3, 5, 7, 11, 13)

# Machines differ by rounding where dask computes the input.
TOLERANCE = 1e-5


def identify(arrays: Mapping[str, da.Array]) -> dict[str, dict[str, Any]]:
    """Say what dask arrays are computed from.

    Parameters
    ----------
    arrays : mapping of str to dask Array

    Returns
    -------
    dict of str to dict
        For each array, in the types of JSON: ``settings`` of the passes behind it, the ``steps``
        that are not of this package, and ``samples``, for each pass the values of its input.
    """
    samples: dict[str, Any] = {}
    found = {}
    for name, array in arrays.items():
        settings, steps, passes = [], [], []
        for layer in _layers(array):
            if matched := _PASS.fullmatch(layer):
                passes.append((matched[1], layer))
            elif taken := _TAKEN.fullmatch(layer):
                settings.append(taken[1])
            else:
                steps.append(key_split(layer))
        for _, layer in passes:
            if layer not in samples:
                samples[layer] = _sample(array, layer)
        behind = sorted(((token, samples[layer]) for token, layer in passes), key=str)
        found[name] = {
            "settings": sorted(settings) + [token for token, _ in behind],
            "steps": sorted(steps),
            "samples": [sample for _, sample in behind],
        }
    return found


def is_certain(identity: Mapping[str, Any]) -> bool:
    """Whether an identity alone tells a result from another."""
    return bool(identity["samples"]) and not identity["steps"] and None not in identity["samples"]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say what differs between two identities, if anything does."""
    for key, words in (("settings", "settings"), ("steps", "what was done to the prediction")):
        if before[key] != now[key]:
            return words
    for old, new in zip(before["samples"], now["samples"], strict=True):
        for name, values in (old or {}).items():
            for there, here in zip(values, (new or {}).get(name, values), strict=True):
                if not math.isclose(float(there), float(here), rel_tol=TOLERANCE) and (
                    there != here
                ):
                    return f"{name!r} is {there} there, {here} now"
    return None


def _layers(array: da.Array) -> Iterator[str]:
    """Yield the layers of an array's graph down to the passes, in a fixed order."""
    dependencies = array.dask.dependencies
    left, seen = [array.name], set()
    while left:
        layer = left.pop()
        if layer in seen:
            continue
        seen.add(layer)
        yield layer
        if not _PASS.fullmatch(layer):
            left.extend(sorted(dependencies.get(layer, ())))


def _sample(array: Any, layer: str) -> dict[str, list[str]] | None:
    """Read values of the input of a pass, or None if that takes too much."""
    job = cast(
        "Job", compute_as_if_collection(da.Array, array.dask, job_key_of(layer), scheduler="sync")
    )
    sizes = dict(job.dataset.sizes)
    for each in job.operands:
        sizes |= {dim: sum(chunks) for dim, chunks in zip(each.dims, each.chunks, strict=True)}
    if not all(sizes.values()):
        return {}
    name = f"sample-{uuid4().hex}"
    tasks: dict[Any, Any] = {}
    for number in range(PLACES):
        region = _place(number, sizes)
        keys = [each.keys(region) for each in job.operands]
        tasks[(name, number)] = (sample_block, job_key_of(layer), region, keys)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[array])
    if len(graph.cull(set(tasks)).to_dict()) > TASKS:
        return None
    found = compute_as_if_collection(da.Array, graph, list(tasks))
    return {
        variable: [f"{value:.9g}" for place in found for value in place[variable]]
        for variable in found[0]
    }


def _place(number: int, sizes: Mapping[Any, int]) -> dict[str, slice]:
    """Return one of a row of places that come near everything, in each dimension by itself."""
    place = {}
    for (dim, size), prime in zip(sorted(sizes.items()), _PRIMES, strict=False):
        index = int(size * math.fmod((number + 0.5) * math.sqrt(prime), 1))
        place[str(dim)] = slice(index, index + 1)
    return place
