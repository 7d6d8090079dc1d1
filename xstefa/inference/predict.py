"""From a dataset to a labeled prediction: bind, plan, wrap."""

from __future__ import annotations

from collections.abc import Mapping

import dask.array as da
import xarray as xr

from xstefa.binding import bind
from xstefa.errors import ModelError
from xstefa.inference.engine import EngineKey
from xstefa.inference.lazy import predict_lazily
from xstefa.model.checkpoint import Model, load_model, model_for
from xstefa.options import resolve_options
from xstefa.schema import load_schema

# Large enough for the kernels, small enough that a batch's temporaries stay near the caches.
CPU_BATCH_SIZE = 16
GPU_BATCH_SIZE = 512


def predict(
    dataset: xr.Dataset,
    target: str | Model,
    *,
    model: str | Model | None = None,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
) -> xr.DataArray:
    """Predict a target for every site and day of a dataset; see `StefaAccessor.predict`."""
    if isinstance(target, Model):
        model, target = target, _target_of(target)
    binding = bind(
        dataset, load_schema() if model is None else load_model(model).schema, rename=rename
    )
    layout = binding.layout
    chosen = model_for(target, support=layout.support) if model is None else load_model(model)
    if _target_of(chosen) != target:
        raise ModelError(
            variable=chosen.name,
            found=f"a model of {chosen.spec.target}",
            expected=f"a model of {target}",
            fix=f"predict {chosen.spec.target!r} with it, or leave model= out",
        )
    options = resolve_options(device=device, precision=precision, batch_size=batch_size)  # type: ignore[typeddict-item]
    device = options.device or _default_device()
    key = EngineKey(
        model=chosen,
        device=device,
        precision=options.precision or "fp32",
        batch_size=options.batch_size
        or (CPU_BATCH_SIZE if device == "cpu" else GPU_BATCH_SIZE),
    )
    data = predict_lazily(binding.forcing, binding.static, layout=layout, key=key)
    if not any(isinstance(array.data, da.Array) for array in binding.forcing.values()):
        # In-memory input runs here and now, whatever cluster is connected.
        data = data.compute(scheduler="threads")
    return layout.wrap(data, name=target, attrs=_attributes(key, dataset))


def _target_of(model: Model) -> str:
    if model.spec.target is None:
        raise ModelError(
            variable=model.name,
            found="a foundation model, which predicts nothing by itself",
            expected="a model with a target",
            fix="fine-tune it, or choose one of xstefa.list_models()",
        )
    return model.spec.target


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _attributes(key: EngineKey, dataset: xr.Dataset) -> dict[str, str]:
    """Return CF attributes, and which model made the numbers."""
    from xstefa import __version__

    target = key.model.target
    assert target is not None
    # No time of day: the same prediction planned twice is the same to dask.
    line = f"xstefa {__version__}: {target.name} predicted by {key.model.name}"
    previous = dataset.attrs.get("history")
    attrs = {
        "long_name": target.long_name,
        "units": target.units,
        "cell_methods": target.cell_methods,
        "source": f"StefaLand model {key.model.name}",
        "model_name": key.model.name,
        "model_hash": key.model.content_hash,
        "model_precision": key.precision,
        "xstefa_version": __version__,
        "history": f"{line}\n{previous}" if previous else line,
    }
    # Specific discharge has no CF standard name.
    return attrs | ({"standard_name": target.standard_name} if target.standard_name else {})
