"""Cross-validation: train without, test on, each fold of a holdout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.errors import warn
from xstefa.evaluation.evaluate import score
from xstefa.evaluation.site_folds import cross_validate_sites
from xstefa.inference.predict import predict
from xstefa.inference.sites import AT_ONCE, only_one, refuse_daily
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike
from xstefa.progress import progress
from xstefa.schema import Target, Targets, load_targets
from xstefa.splits.holdout import Fold, Holdout, as_holdout
from xstefa.splits.leakage import HELD_OUT, SEEN, LeakageWarning, find_twins, site_roles
from xstefa.splits.sites import Mask, Sites, only_sites
from xstefa.training.data import TrainingData
from xstefa.training.finetune import HeadTask, train_heads
from xstefa.training.options import HeadOptions
from xstefa.training.records import Record, observations
from xstefa.training.sites import SiteTask
from xstefa.windows import Floats

NEAR_DUPLICATE = 0.98
"""Correlation of both precipitation and target from which two sites count as nearly the same."""


@checked
def cross_validate(
    dataset: xr.Dataset,
    target: Targets,
    *,
    holdout: Holdout,
    model: ModelLike | None = None,
    scores: str | Iterable[str] | None = None,
    rename: Mapping[str, str] | None = None,
    sites: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    **how: Any,
) -> xr.Dataset:
    """Train and test on every fold of a holdout; see `StefaAccessor.cross_validate`."""
    options, target = HeadOptions.of(how), load_targets(target)
    if (of_sites := SiteTask.of(target, model=model, how=options)) is not None:
        refuse_daily(AT_ONCE, checkpoint=checkpoint)
        of: dict[str, Any] = {"scores": scores, "rename": rename, "sites": sites}
        return cross_validate_sites(of_sites, dataset, holdout=holdout, **of)
    task = HeadTask.of(only_one(target), model=model, how=options)
    foundation, wanted = task.foundation, task.target
    (data,) = task.read(dataset, rename=rename, sites=sites)
    layout = data.binding.layout
    folds = as_holdout(holdout, name="holdout").numbered(data.land)
    predicted = np.full((len(data.sites), len(layout.days)), np.nan, dtype=np.float32)
    tested = np.full(len(data.sites), -1, dtype=np.int16)
    similarity = np.full(len(data.sites), np.nan)
    twin = np.full(len(data.sites), "", dtype=data.sites.ids.dtype)
    models = []
    with progress("cross-validating", total=len(folds), unit="folds") as bar:
        for number, fold in folds.items():
            fold.check()
            trained = train_heads(
                task,
                [data],
                [fold],
                holdout=holdout.fold(number),
                name=f"{wanted.name}, {fold.name}",
                keep_sites=True,
                checkpoint=None if checkpoint is None else Path(checkpoint) / f"fold-{number}",
            )
            models.append(trained.content_hash)
            out = data.present.copy()
            out[out] = fold.test_sites
            answer = _predict(dataset, data.sites, out, trained, rename)
            predicted[np.ix_(out, fold.test_days)] = answer[:, fold.test_days]
            tested[out] = number
            if not fold.train_sites[fold.test_sites].any():
                similarity[out], twin[out] = _duplicates(data.record, fold)
            bar.update()
    observed = observations(data.binding, wanted.name).load()
    found = _labeled(predicted, data, wanted)
    result = score(found, observed, scores=scores, dim=layout.time)
    result["predicted"], result["observed"] = found, observed
    result["fold"] = data.sites.labeled(
        tested,
        long_name="number of the fold, the last if several, that tested the site",
        units="1",
    )
    result["twin_similarity"] = data.sites.labeled(
        similarity,
        long_name="correlation with the training site most like it, the lower of precipitation "
        "and target",
        units="1",
    )
    result["twin"] = data.sites.labeled(
        twin, long_name=f"that training site, from {NEAR_DUPLICATE} on"
    )
    result["pretraining"] = site_roles(foundation.spec.provenance, data.sites)
    _report(result, tuple(folds.values()))
    return result.assign_attrs(
        title=f"cross-validation of {wanted.name}",
        target=wanted.name,
        holdout=repr(holdout),
        folds=[fold.name for fold in folds.values()],
        foundation_name=foundation.name,
        foundation_hash=foundation.content_hash,
        model_hashes=models,
    )


def _predict(
    dataset: xr.Dataset,
    sites: Sites,
    out: Mask,
    model: Model,
    rename: Mapping[str, str] | None,
) -> Floats:
    """Predict the sites where `out` is True, shape (site, time)."""
    answer = predict(only_sites(dataset, sites, out), model, rename=rename)
    days = next(dim for dim in answer.dims if dim not in sites.site_dims)
    values = answer.transpose(*sites.site_dims, days).to_numpy()
    flat = values.reshape(-1, values.shape[-1])
    return flat[out] if len(flat) == len(out) else flat


def _duplicates(record: Record, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Return how alike each test site and a training site are, and which, if nearly the same."""
    assert record.target is not None
    series = (record.forcing[..., 0], record.target)
    found = find_twins(
        [values[fold.test_sites] for values in series],
        [values[fold.train_sites] for values in series],
    )
    names = record.ids[fold.train_sites][found.nearest]
    return found.similarity, np.where(found.above(NEAR_DUPLICATE), names, "")


def _labeled(values: Floats, data: TrainingData, target: Target) -> xr.DataArray:
    layout, sites = data.binding.layout, data.sites
    array = xr.DataArray(
        values.reshape(*sites.shape, len(layout.days)), dims=(*layout.site_dims, layout.time)
    )
    attrs = {"units": target.units, "long_name": target.long_name}
    return layout.wrap(array.transpose(*layout.dims).to_numpy(), name=target.name, attrs=attrs)


def _report(result: xr.Dataset, folds: Sequence[Fold]) -> None:
    """Warn of what makes the test easier than it looks."""
    alike = int((result["twin_similarity"] >= NEAR_DUPLICATE).sum())
    if alike:
        warn(
            LeakageWarning(
                f"{alike} test sites have a near duplicate among the training sites of their "
                "fold: see 'twin' in the result, and group such sites, e.g. with Regions"
            )
        )
    over_sites = any(not fold.train_sites.all() for fold in folds)
    roles = result["pretraining"].where(result["fold"] >= 0, HELD_OUT)
    seen = int((roles == SEEN).sum())
    # Of released models only the rule is known by which sites were held out.
    perhaps = int((roles != HELD_OUT).sum()) - seen
    if over_sites and seen + perhaps:
        counts = [f"{seen}"] * bool(seen) + [f"perhaps {perhaps}"] * bool(perhaps)
        warn(
            LeakageWarning(
                f"the foundation model was pretrained on the inputs of {' and '.join(counts)} test "
                "sites: see 'pretraining' in the result. Pretrain without them for a clean test"
            )
        )
