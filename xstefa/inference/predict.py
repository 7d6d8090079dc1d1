"""From a dataset to a labeled prediction: bind, plan, wrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import dask.array as da
import numpy as np
import xarray as xr

from xstefa.binding import plan
from xstefa.errors import LayoutError, ModelError, OptionError, raise_problems
from xstefa.inference.answers import Members
from xstefa.inference.engine import EngineKey
from xstefa.inference.lazy import is_lazy, plan_job
from xstefa.inference.windows import Floats
from xstefa.model.checkpoint import Model, load_model, model_for
from xstefa.options import resolve_options
from xstefa.schema import load_schema

COVERAGE = {
    "long_name": "share of the model's daily forcings known in the windows behind each value",
    "units": "1",
}


def predict(
    dataset: xr.Dataset,
    target: str | Model,
    *,
    model: str | Model | None = None,
    quantiles: Sequence[float] | None = None,
    coverage: bool = False,
    min_coverage: float = 0.0,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
) -> xr.DataArray:
    """Predict a target for every site and day of a dataset; see `StefaAccessor.predict`."""
    if isinstance(target, Model):
        model, target = target, _target_of(target)
    understood = plan(
        dataset, load_schema() if model is None else load_model(model).schema, rename=rename
    )
    raise_problems(understood.problems)
    layout = understood.layout
    if layout is None:
        raise LayoutError(
            "no forcing to read the layout from",
            expected="at least one daily series that is a token of the schema",
        )
    chosen = model_for(target, support=layout.support) if model is None else load_model(model)
    if _target_of(chosen) != target:
        raise ModelError(
            variable=chosen.name,
            found=f"a model of {chosen.spec.target}",
            expected=f"a model of {target}",
            fix=f"predict {chosen.spec.target!r} with it, or leave model= out",
        )
    levels = _check_quantiles(quantiles, chosen)
    if not 0 <= min_coverage <= 1:
        raise OptionError(
            variable="min_coverage", found=repr(min_coverage), expected="a share between 0 and 1"
        )
    options = resolve_options(device=device, precision=precision, batch_size=batch_size)
    key = EngineKey(
        model=chosen,
        device=options.device,
        precision=options.precision or "fp32",
        batch_size=options.batch_size,
    )
    block = plan_job(dataset, understood.sources, layout=layout, key=key, answer=Members())
    if not is_lazy(dataset[n] for s in understood.sources.values() for n in s.variables):
        # In-memory input runs here and now, whatever cluster is connected.
        block = block.compute(scheduler="threads")

    # What follows is arithmetic on one pass over the data: the mean, quantiles and coverage of the
    # same dataset and model, computed together, share that pass.
    extra = () if levels is None else ("quantile",)
    values = _each_block(
        partial(_target, levels=levels, least=min_coverage),
        block,
        () if levels is None else (len(levels),),
    )
    attrs = _attributes(key, dataset)
    frame = layout.wrap(_each_block(_coverage, block, ()), name="coverage")
    result = xr.DataArray(
        values, dims=(*extra, *frame.dims), coords=frame.coords, name=target, attrs=attrs
    )
    result.attrs |= frame.attrs
    result.encoding = frame.encoding
    if levels is not None:
        result = result.assign_coords(quantile=("quantile", list(levels), {"units": "1"}))
    if coverage:
        result = result.assign_coords(coverage=(frame.dims, frame.data, COVERAGE | frame.attrs))
        result.attrs["ancillary_variables"] = "coverage"
    return result


def _each_block(
    function: Callable[[Floats], Floats], block: da.Array | Floats, before: tuple[int, ...]
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
    )


def _target(block: Floats, *, levels: tuple[float, ...] | None, least: float) -> Floats:
    members, share = block[..., :-1], block[..., -1]
    if levels is None:
        values = members.mean(axis=-1)
    else:
        values = np.quantile(members, levels, axis=-1).astype(np.float32)
    return np.where(share >= np.float32(least), values, np.float32(np.nan)) if least else values


def _coverage(block: Floats) -> Floats:
    return block[..., -1]


def _check_quantiles(quantiles: Sequence[float] | None, model: Model) -> tuple[float, ...] | None:
    if quantiles is None:
        return None
    levels = tuple(float(level) for level in quantiles)
    if not levels or not all(0 <= level <= 1 for level in levels):
        raise OptionError(
            variable="quantiles",
            found=repr(list(quantiles)),
            expected="levels between 0 and 1",
            fix="quantiles=[0.05, 0.5, 0.95]",
        )
    head = model.spec.architecture.head
    if head is None or head.members < 2:
        raise ModelError(
            variable=model.name,
            found="a model with one head, which has no spread",
            expected="a model of several heads",
            fix="leave quantiles out, or choose a model whose card says it is an ensemble",
        )
    return levels


def _target_of(model: Model) -> str:
    if model.spec.target is None:
        raise ModelError(
            variable=model.name,
            found="a foundation model, which predicts nothing by itself",
            expected="a model with a target",
            fix="fine-tune it, or choose one of xstefa.list_models()",
        )
    return model.spec.target


def _attributes(key: EngineKey, dataset: xr.Dataset) -> dict[str, str]:
    """Return CF attributes, and which model made the numbers."""
    from xstefa import __version__

    target = key.model.target
    assert target is not None
    # No time of day: the same prediction planned twice is the same to dask.
    line = f"xstefa {__version__}: {target.name} predicted by {key.model.name}"
    previous = dataset.attrs.get("history")
    schema = key.model.schema
    attrs = {
        "long_name": target.long_name,
        "units": target.units,
        "cell_methods": target.cell_methods,
        "source": f"StefaLand model {key.model.name}",
        "model_name": key.model.name,
        "model_hash": key.model.content_hash,
        "model_schema": f"{schema.name} {schema.version} {schema.fingerprint[:12]}",
        "model_precision": key.precision,
        "xstefa_version": __version__,
        "history": f"{line}\n{previous}" if previous else line,
    }
    # Specific discharge has no CF standard name.
    return attrs | ({"standard_name": target.standard_name} if target.standard_name else {})
