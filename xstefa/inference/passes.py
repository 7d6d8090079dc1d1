"""What all passes of a model over a dataset share: understanding it, running, labeling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from xstefa.binding import Layout, plan
from xstefa.binding.inspection import value_problems
from xstefa.binding.plain import in_memory, plain
from xstefa.binding.sources import TokenSource
from xstefa.errors import LayoutError, ModelError, raise_problems
from xstefa.inference.answers import Answer
from xstefa.inference.engine import EngineKey
from xstefa.inference.lazy import is_lazy, plan_job
from xstefa.inference.windows import Floats
from xstefa.model.checkpoint import Model
from xstefa.options import resolve_options
from xstefa.progress import counting, progress
from xstefa.schema import Schema


@dataclass(frozen=True, kw_only=True, eq=False)
class Understood:
    """A dataset in which every token was found that it has to have."""

    dataset: xr.Dataset
    sources: Mapping[str, TokenSource]
    layout: Layout

    def token(self, name: str) -> xr.DataArray:
        """Return a token of the dataset in canonical units, in the dataset's own order."""
        array = self.sources[name].realise(self.dataset, self.layout)
        return array.transpose(*[dim for dim in self.layout.dims if dim in array.dims])

    def frame(self, *, daily: bool = True) -> xr.DataArray:
        """Return an array without memory that has the dimensions and coordinates of a result."""
        shape = tuple(self.dataset.sizes[dim] for dim in self.layout.dims)
        frame = self.layout.wrap(np.broadcast_to(np.float32(0), shape), name="frame")
        return frame if daily else frame.isel({self.layout.time: 0}, drop=True)


def understand(
    dataset: xr.Dataset, schema: Schema, *, rename: Mapping[str, str] | None
) -> Understood:
    """Match a dataset to a schema; raise all that is wrong."""
    dataset = plain(dataset)
    understood = plan(dataset, schema, rename=rename)
    raise_problems(understood.problems)
    if understood.layout is None:
        raise LayoutError(
            "no forcing to read the layout from",
            expected="at least one daily series that is a token of the schema",
        )
    return Understood(dataset=dataset, sources=understood.sources, layout=understood.layout)


def make_key(
    model: Model, *, device: str | None, precision: str | None, batch_size: int | None
) -> EngineKey:
    """Return what runs a model, with the options in force.

    Raises
    ------
    ModelError
        If the model does not know how its inputs are scaled.
    """
    if str(model.spec.provenance.get("scaler", "")).startswith("identity"):
        raise ModelError(
            "the mean and standard deviation of the variables are not known",
            variable=model.name,
            found="a model imported without a scaler",
            expected="a scaler, without which datasets cannot be read in their units",
            fix="xstefa.import_published(path, scaler=...)",
        )
    options = resolve_options(device=device, precision=precision, batch_size=batch_size)
    return EngineKey(
        model=model,
        device=options.device,
        precision=options.precision or "fp32",
        batch_size=options.batch_size,
    )


def run(understood: Understood, key: EngineKey, answer: Answer) -> da.Array | Floats:
    """Run a pass: lazily if what it reads is chunked, else here and now.

    Returns
    -------
    dask or NumPy array of float32
        As `plan_job` says: the last axis holds the values of the answer, and the coverage.

    Raises
    ------
    RangeError, BindingErrors
        If values that are in memory cannot be in the units they are labelled with.
    """
    dataset, sources = understood.dataset, understood.sources
    block = plan_job(dataset, sources, layout=understood.layout, key=key, answer=answer)
    at_once = not is_lazy(dataset[n] for s in sources.values() for n in s.variables)
    # What is at hand can be checked as a whole; each block checks what it reads.
    read = [
        source
        for token, source in sources.items()
        if token in key.model.spec.tokens
        and (at_once or all(in_memory(dataset[n].variable) for n in source.variables))
    ]
    raise_problems(value_problems(dataset, read, layout=understood.layout, every=True))
    if at_once:
        # In-memory input runs here and now, whatever cluster is connected.
        bar = progress("predicting", total=math.prod(block.numblocks), unit="blocks")
        with bar, counting(bar, block.name):
            return block.compute(scheduler="threads")
    return block


def each_block(
    function: Callable[[Floats], Floats], block: da.Array | Floats, before: tuple[int, ...] = ()
) -> da.Array | Floats:
    """Apply a function that takes away the last axis of a block, and may add one before all."""
    if isinstance(block, np.ndarray):
        return function(block)
    return da.map_blocks(
        function,
        block,
        chunks=(*((n,) for n in before), *block.chunks[:-1]),
        drop_axis=block.ndim - 1,
        new_axis=list(range(len(before))),
        meta=np.empty((0,) * (len(before) + block.ndim - 1), dtype=np.float32),
        token=f"each-{tokenize(function, before)}",
    )


def provenance(key: EngineKey, dataset: xr.Dataset, *, done: str) -> dict[str, str]:
    """Return attributes that say which model made the numbers, and how.

    Parameters
    ----------
    done : str
        What was done, for the history.
    """
    from xstefa import __version__

    # No time of day: the same prediction planned twice is the same to dask.
    line = f"xstefa {__version__}: {done} by {key.model.name}"
    previous = dataset.attrs.get("history")
    schema = key.model.spec.schema
    return {
        "source": f"StefaLand model {key.model.name}",
        "model_name": key.model.name,
        "model_hash": key.model.content_hash,
        "model_schema": f"{schema.name} {schema.version} {schema.fingerprint[:12]}",
        "model_precision": key.precision,
        "xstefa_version": __version__,
        "history": f"{line}\n{previous}" if previous else line,
    }
