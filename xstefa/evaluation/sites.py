"""Scores of static targets: one number for all sites, since a site has one value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xstefa.binding.binding import DEPTH
from xstefa.binding.sites import plan_sites
from xstefa.errors import LayoutError, OptionError
from xstefa.evaluation.metrics import mae, metric, nse, rmse
from xstefa.evaluation.probabilistic import LEVELS, PROBABILISTIC
from xstefa.inference.sites import predict_sites
from xstefa.model.checkpoint import Model
from xstefa.options import as_list
from xstefa.schema import Target
from xstefa.splits.leakage import site_roles
from xstefa.splits.sites import Sites
from xstefa.training.site_data import observed_parts

PLACE = "place"

_numbers: dict[str, Callable[..., xr.DataArray]] = {"r2": nse, "rmse": rmse, "mae": mae}
NUMBERS: Mapping[str, Callable[..., xr.DataArray]] = _numbers
"""Scores of numbers and fractions: `r2` is the Nash-Sutcliffe efficiency over sites."""

_classes: dict[str, Callable[..., xr.DataArray]] = {}
CLASSES: Mapping[str, Callable[..., xr.DataArray]] = _classes
"""Scores of probabilities of a class."""

BINS = 10


@metric("mean error", into=_numbers)
def bias(pred: xr.DataArray, obs: xr.DataArray, *, dim: str) -> xr.DataArray:
    """Mean of what is predicted less that of what is observed."""
    return (pred - obs).mean(dim)


@metric("area under the receiver operating characteristic", "1", into=_classes)
def auc(pred: xr.DataArray, obs: xr.DataArray, *, dim: str) -> xr.DataArray:
    """Return the probability that a site of the class has more than another; 0.5 tells nothing."""
    return xr.apply_ufunc(
        _auc,
        pred,
        obs,
        input_core_dims=[[dim], [dim]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )


@metric("Brier score", "1", into=_classes)
def brier(pred: xr.DataArray, obs: xr.DataArray, *, dim: str) -> xr.DataArray:
    """Mean squared difference of probability and label; 0 is perfect (Brier 1950)."""
    return ((pred - obs) ** 2).mean(dim)


@metric("calibration error", "1", into=_classes)
def reliability(pred: xr.DataArray, obs: xr.DataArray, *, dim: str) -> xr.DataArray:
    """Mean difference of probability and frequency, over tenths of probability; 0 is perfect."""
    bins = (pred * BINS).clip(max=BINS - 1).fillna(-1).astype(int)
    gaps = [(pred - obs).where(bins == k).sum(dim) for k in range(BINS)]
    return abs(xr.concat(gaps, "bin")).sum("bin") / pred.notnull().sum(dim)


def _auc(pred: np.ndarray, obs: np.ndarray) -> float:
    from scipy.stats import rankdata

    known = np.isfinite(pred) & np.isfinite(obs)
    ranks, label = rankdata(pred[known]), obs[known] == 1
    pairs = label.sum() * (~label).sum()
    if not pairs:
        return np.nan
    return float((ranks[label].sum() - label.sum() * (label.sum() + 1) / 2) / pairs)


def evaluate_sites(
    dataset: xr.Dataset,
    names: Sequence[str],
    model: Model,
    *,
    scores: str | Iterable[str] | None = None,
    rename: Mapping[str, str] | None = None,
    sites: str | None = None,
    **how: Any,
) -> xr.Dataset:
    """Predict static targets and score them against the dataset's own observations.

    Returns
    -------
    Dataset
        A variable for each score along ``target``, and `DEPTH` if they have depths: of all sites
        together; ``sites``, the number scored; ``training``, whether the model learned from each.
        Lazy exactly if the attributes are chunked; observations, one a site, are read.
    """
    schema = model.schema
    wanted = [schema.target(name) for name in schema.expanded(names)]
    binding = plan_sites(dataset, schema, rename=rename)
    parts, layout = schema.parts_of(wanted[0]), binding.layout
    observed = labeled(observed_parts(binding, parts), parts, binding.dataset, layout.site_dims)
    asked = [target.name for target in wanted]
    how |= {"rename": rename}
    predicted = joined(predict_sites(dataset, asked, model, **how))
    quantiles = None
    if of_quantiles(named(wanted, scores)):
        quantiles = joined(predict_sites(dataset, asked, model, levels=LEVELS, **how))
    places = Sites.of(dataset, layout, name=sites)
    observed = observed.sel(target=asked)
    found = score_sites(predicted, observed, wanted, scores, quantiles=quantiles)
    found["training"] = roles = site_roles(model.spec.provenance, places)
    of_sites = {n: c for n, c in predicted.coords.items() if {*c.dims} <= {*roles.dims}}
    return found.assign_coords(of_sites).assign_attrs(
        title=f"{', '.join(asked)} of {model.name} against observations",
        model_name=model.name,
        model_hash=model.content_hash,
    )


def named(targets: Sequence[Target], scores: str | Iterable[str] | None) -> list[str]:
    """Return the names of scores; by default all of what is predicted, but those of quantiles.

    Raises
    ------
    OptionError
        If there is no such score.
    """
    usual = CLASSES if targets[0].kind == "class" else NUMBERS
    known = usual if usual is CLASSES else {**NUMBERS, **PROBABILISTIC}
    names = as_list(usual if scores is None else scores)
    if unknown := [name for name in names if name not in known]:
        raise OptionError(
            "scores of a static target are taken over sites",
            variable="scores",
            found=", ".join(map(repr, unknown)),
            expected=", ".join(known),
            fix="leave scores out",
        )
    return names


def of_quantiles(names: Iterable[str]) -> list[str]:
    """Return those scores that are of quantiles."""
    return [name for name in names if name in PROBABILISTIC]


def score_sites(
    predicted: xr.DataArray,
    observed: xr.DataArray,
    targets: Sequence[Target],
    scores: str | Iterable[str] | None,
    *,
    quantiles: xr.DataArray | None = None,
) -> xr.Dataset:
    """Score predictions of sites, shape (target, site dimensions, perhaps depth), and quantiles."""
    names = named(targets, scores)
    dims = [dim for dim in observed.dims if dim not in ("target", DEPTH)]
    if not observed.size:
        raise LayoutError(
            "there is no site to score",
            variable=targets[0].name,
            found=f"sizes {dict(observed.sizes)}",
            expected="at least one site",
            fix="check the selection that made the dataset",
        )
    kept = ("target", DEPTH, "quantile")
    *pair, spread = (
        array.drop_vars([name for name in array.coords if name not in kept])
        .expand_dims([] if dims else ["site"])
        .stack({PLACE: dims or ["site"]}, create_index=False)
        for array in (predicted, observed, predicted if quantiles is None else quantiles)
    )
    usual = {**NUMBERS, **CLASSES}
    found = xr.Dataset(
        {
            name: usual[name](*pair, dim=PLACE)
            if name in usual
            else PROBABILISTIC[name](spread, pair[1], dim=PLACE)
            for name in names
        }
    )
    counted = (pair[0].notnull() & pair[1].notnull()).sum(PLACE)
    counted.attrs = {"long_name": "sites with prediction and observation", "units": "1"}
    return found.assign(sites=counted)


def labeled(
    values: np.ndarray, targets: Sequence[Target], dataset: xr.Dataset, dims: Sequence[str]
) -> xr.DataArray:
    """Unstack values, shape (site, target, depth), to (target, site dimensions, perhaps depth)."""
    first = targets[0]
    sizes = [dataset.sizes[dim] for dim in dims]
    array = xr.DataArray(
        values.reshape(*sizes, *values.shape[1:]),
        dims=(*dims, "target", DEPTH),
        coords={"target": [target.name for target in targets]},
        attrs={"units": first.units},
    ).transpose("target", ...)
    if not first.depths:
        return array.isel({DEPTH: 0})
    return array.assign_coords({DEPTH: list(first.depths)})


def joined(predicted: xr.Dataset) -> xr.DataArray:
    """Return predictions along ``target``, without the coordinates of sites."""
    bare = {name: array.reset_coords(drop=True) for name, array in predicted.items()}
    found = xr.concat(bare.values(), "target", coords="minimal", compat="override")
    found = found.assign_coords(target=[str(name) for name in bare])
    return found.drop_attrs().assign_attrs(units=next(iter(bare.values())).attrs["units"])
