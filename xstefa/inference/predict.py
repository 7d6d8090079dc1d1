"""From a dataset to a labeled prediction: bind, plan, wrap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, overload

import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import plan
from xstefa.errors import ModelError, OptionError, did_you_mean
from xstefa.inference.answers import Members, mean
from xstefa.inference.beyond import outside_training
from xstefa.inference.engine import EngineKey
from xstefa.inference.passes import Period, each_block, make_key, provenance, run, understand
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike, load_model, model_for
from xstefa.options import as_list
from xstefa.schema import load_schema
from xstefa.typed import Share
from xstefa.windows import Floats

COVERAGE = {
    "long_name": "share of the model's daily forcings known in the windows behind each value",
    "units": "1",
}
QUANTILE = {"long_name": "level of the quantile over the model's heads", "units": "1"}


@overload
def predict(dataset: xr.Dataset, target: str | Model, **how: Any) -> xr.DataArray: ...


@overload
def predict(dataset: xr.Dataset, target: Sequence[str], **how: Any) -> xr.Dataset: ...


@checked  # type: ignore[misc]
def predict(
    dataset: xr.Dataset,
    target: str | Model | Sequence[str],
    *,
    model: ModelLike | None = None,
    quantiles: float | Iterable[float] | None = None,
    coverage: bool = False,
    min_coverage: Share = 0.0,
    period: Period | None = None,
    strict: bool = False,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    extrapolate: bool = False,
) -> xr.DataArray | xr.Dataset:
    """Predict targets for every site and day of a dataset; see `StefaAccessor.predict`."""
    if isinstance(target, Model):
        model, target = target, _target_of(target)
    names = _check_names(target)
    chosen = answering(dataset, names, model=model, rename=rename)
    understood = understand(
        dataset,
        chosen.schema,
        rename=rename,
        needs=chosen.spec.needs,
        period=period,
        strict=strict,
    )
    layout = understood.layout.during(understood.answered)
    if others := [name for name in names if name not in chosen.spec.outputs]:
        raise ModelError(
            variable=chosen.name,
            found=f"a model of {', '.join(chosen.spec.outputs) or _target_of(chosen)}",
            expected=f"a model of {', '.join(others)}",
            fix=did_you_mean(others[0], chosen.spec.outputs)
            or f"predict {chosen.spec.target!r} with it, or leave model= out",
        )
    levels = _check_quantiles(quantiles, chosen)
    key = make_key(
        chosen,
        device=device,
        precision=precision,
        batch_size=batch_size,
        extrapolate=extrapolate,
    )
    outside = outside_training(understood, key)
    block = run(understood, key, Members(every=names != [chosen.spec.target]))

    # What follows is arithmetic on one pass over the data: the targets, mean, quantiles and
    # coverage of the same dataset and model, computed together, share that pass.
    extra = () if levels is None else ("quantile",)
    heads = len(chosen.spec.architecture.heads)
    frame = layout.wrap(each_block(_coverage, block), name="coverage")
    coords = {}
    if levels is not None:
        coords["quantile"] = xr.Variable("quantile", list(levels), QUANTILE)
    if coverage:
        coords["coverage"] = xr.Variable(frame.dims, frame.data, COVERAGE | frame.attrs)
    found = {}
    for name in names:
        first = chosen.spec.outputs.index(name) * heads
        values = each_block(
            partial(_target, heads=slice(first, first + heads), levels=levels, least=min_coverage),
            block,
            () if levels is None else (len(levels),),
        )
        attrs = _attributes(key, dataset, name) | outside | frame.attrs
        if coverage:
            attrs["ancillary_variables"] = "coverage"
        found[name] = xr.Variable((*extra, *frame.dims), values, attrs, frame.encoding)
    result = xr.Dataset(found, coords=frame.coords).assign_coords(coords)
    return result[target] if isinstance(target, str) else result


def answering(
    dataset: xr.Dataset,
    targets: str | Sequence[str],
    *,
    model: ModelLike | None,
    rename: Mapping[str, str] | None,
) -> Model:
    """Return the model that is meant: by default the bundled one for the dataset's support."""
    if model is not None:
        return load_model(model)
    layout = plan(dataset, load_schema(), rename=rename).layout
    return model_for(targets, support=layout.support)


def _check_names(target: str | Sequence[str]) -> list[str]:
    names = as_list(target)
    if not names or len(set(names)) < len(names):
        raise OptionError(
            variable="target",
            found=repr(target),
            expected="a target, or several, each once",
            fix='["streamflow", "evapotranspiration"]',
        )
    return names


def _target(
    block: Floats, *, heads: slice, levels: tuple[float, ...] | None, least: float
) -> Floats:
    members, share = block[..., heads], block[..., -1]
    values = mean(members) if levels is None else _quantiles(members, levels)
    return np.where(share >= np.float32(least), values, np.float32(np.nan)) if least else values


def _quantiles(members: Floats, levels: tuple[float, ...]) -> Floats:
    """Return quantiles over the members that have an answer, shape (level, ...)."""
    found = np.full((len(levels), *members.shape[:-1]), np.nan, dtype=np.float32)
    members = np.sort(members, axis=-1)  # what has none comes last
    count = np.isfinite(members).sum(axis=-1)
    for known in set(np.unique(count)) - {0}:
        alike = count == known
        found[:, alike] = np.quantile(members[alike, :known], levels, axis=-1)
    return found


def _coverage(block: Floats) -> Floats:
    return block[..., -1]


def _check_quantiles(
    quantiles: float | Iterable[float] | None, model: Model
) -> tuple[float, ...] | None:
    if quantiles is None:
        return None
    try:
        levels = tuple(map(float, as_list(quantiles)))
    except (TypeError, ValueError):
        levels = ()
    if not levels or not all(0 <= level <= 1 for level in levels):
        raise OptionError(
            variable="quantiles",
            found=repr(quantiles),
            expected="levels between 0 and 1",
            fix="quantiles=[0.05, 0.5, 0.95]",
        )
    if len(model.spec.architecture.heads) < 2:
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


def _attributes(key: EngineKey, dataset: xr.Dataset, name: str) -> dict[str, str]:
    """Return CF attributes of a target, and which model made the numbers."""
    target = key.model.schema.target(name)
    attrs = {
        "long_name": target.long_name,
        "units": target.units,
        "cell_methods": target.cell_methods,
    }
    # Specific discharge has no CF standard name.
    if target.standard_name:
        attrs["standard_name"] = target.standard_name
    return attrs | provenance(key, dataset, done=f"{target.name} predicted")
