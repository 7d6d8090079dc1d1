"""Cross-validation of static targets: train without, and test on, each fold of sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from xstefa.binding.binding import DEPTH
from xstefa.errors import OptionError
from xstefa.evaluation.probabilistic import LEVELS
from xstefa.evaluation.sites import joined, labeled, named, of_quantiles, score_sites
from xstefa.inference.sites import predict_sites
from xstefa.model.checkpoint import Model
from xstefa.progress import progress
from xstefa.splits.holdout import Holdout, as_holdout
from xstefa.splits.leakage import site_roles
from xstefa.splits.sites import only_sites
from xstefa.training.site_data import SiteData
from xstefa.training.site_errors import train_validated
from xstefa.training.sites import SiteTask


def cross_validate_sites(
    task: SiteTask,
    dataset: xr.Dataset,
    *,
    holdout: Holdout,
    scores: str | Iterable[str] | None,
    rename: Mapping[str, str] | None,
    sites: str | None,
) -> xr.Dataset:
    """Train without, and test on, every fold of a holdout of sites.

    Returns
    -------
    Dataset
        Scores as those of `evaluate_sites`, each site predicted by the model that did not learn
        from it; ``predicted`` and ``observed`` along ``target``; ``fold``, which fold tested the
        site; ``pretraining``, whether the foundation model saw it, if its encoder is used.
    """
    (data,) = task.read(dataset, rename=rename, sites=sites)
    names = [target.name for target in task.targets]
    levels = LEVELS if of_quantiles(named(task.targets, scores)) else None
    if levels and task.how.validation is None:
        raise OptionError(
            "quantiles are learned from folds of the training sites",
            variable="scores",
            found=f"{', '.join(of_quantiles(named(task.targets, scores)))} without validation=",
            expected="folds within each fold, to learn errors from",
            fix="validation=BlocksOfSpace(seed=1), or other scores",
        )
    folds = as_holdout(holdout, name="holdout").numbered(data.land)
    shape = (len(data.sites), len(names), data.observed.shape[-1])
    predicted, observed = (np.full(shape, np.nan, dtype=np.float32) for _ in range(2))
    spread = np.full((len(levels or ()), *shape), np.nan, dtype=np.float32)
    observed[data.present] = data.observed
    tested, models = np.full(len(data.sites), -1, dtype=np.int16), []
    with progress("cross-validating", total=len(folds), unit="folds") as bar:
        for number, fold in folds.items():
            name = f"{names[0]}, {fold.name}"
            model = train_validated(
                task, [data], [fold.check()], holdout=holdout.fold(number), name=name
            )
            out = data.present.copy()
            out[out] = fold.test_sites
            predicted[out] = _answers(dataset, data, out, model, rename=rename)[0]
            if levels:
                how = {"rename": rename, "levels": levels}
                spread[:, out] = _answers(dataset, data, out, model, **how)
            tested[out] = number
            models.append(model)
            bar.update()
    ds, dims = data.binding.dataset, data.sites.site_dims
    found, known = (labeled(values, task.targets, ds, dims) for values in (predicted, observed))
    quantiles = None
    if levels:
        each = [labeled(values, task.targets, ds, dims) for values in spread]
        quantiles = xr.concat(each, "quantile").assign_coords(quantile=list(levels))
    result = score_sites(found, known, task.targets, scores, quantiles=quantiles)
    result["predicted"], result["observed"] = found, known
    result["fold"] = data.sites.labeled(
        tested, long_name="number of the fold that tested the site", units="1"
    )
    if "foundation" in models[0].spec.provenance:
        foundation = models[0].spec.provenance["foundation"]["provenance"]
        result["pretraining"] = site_roles(foundation, data.sites)
    coords = data.binding.layout.coords.to_dataset().reset_coords(drop=True).coords
    return result.assign_coords(coords).assign_attrs(
        title=f"cross-validation of {', '.join(names)}",
        holdout=repr(holdout),
        folds=[fold.name for fold in folds.values()],
        model_hashes=[model.content_hash for model in models],
    )


def _answers(
    dataset: xr.Dataset,
    data: SiteData,
    out: np.ndarray,
    model: Model,
    **how: Any,
) -> np.ndarray:
    """Predict the sites where `out` is True, shape (1 or quantile, site, target, depth)."""
    part = only_sites(dataset, data.sites, out)
    answer = joined(predict_sites(part, model.spec.outputs, model, **how))
    lacking = [dim for dim in ("quantile", DEPTH) if dim not in answer.dims]
    answer = answer.expand_dims(lacking)
    values = answer.transpose("quantile", *data.sites.site_dims, "target", DEPTH).to_numpy()
    flat = values.reshape(len(values), -1, *values.shape[-2:])
    return flat[:, out] if flat.shape[1] == len(out) else flat
