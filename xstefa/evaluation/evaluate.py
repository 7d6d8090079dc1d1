"""Scores of a model at every site of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import bind
from xstefa.errors import LayoutError, OptionError, warn
from xstefa.evaluation.metrics import METRICS
from xstefa.evaluation.probabilistic import LEVELS, PROBABILISTIC
from xstefa.evaluation.signatures import SIGNATURES, runoff_ratio
from xstefa.evaluation.sites import evaluate_sites
from xstefa.inference.predict import answering, predict
from xstefa.inference.run import Period
from xstefa.inference.sites import model_of_sites, only_one, refuse_daily
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike
from xstefa.options import as_list
from xstefa.splits.leakage import SEEN, LeakageWarning, roles, site_roles
from xstefa.splits.sites import Sites
from xstefa.training.records import observations

SCORES: Mapping[str, Callable[..., xr.DataArray]] = {**METRICS, **SIGNATURES}
"""All scores of one prediction by name."""


@checked
def evaluate(
    dataset: xr.Dataset,
    target: str | Model | Sequence[str],
    *,
    model: ModelLike | None = None,
    scores: str | Iterable[str] | None = None,
    rename: Mapping[str, str] | None = None,
    sites: str | None = None,
    period: Period | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    extrapolate: bool = False,
) -> xr.Dataset:
    """Predict a target and score it against the dataset's own observations, site by site.

    Parameters
    ----------
    target : str, Model or sequence of str
        One target; or several static ones of one model.
    model : str or Model, optional
        As for `predict`.
    scores : str or sequence of str, optional
        Of `xstefa.evaluation.metrics.METRICS`; by default all of the paper's appendix E:
        ``nse``, ``kge``, ``correlation``, ``rmse``, ``ubrmse``, ``mae``, ``pbias``, ``fhv``,
        ``flv``, ``fdc_rmse``. Of streamflow also of `xstefa.evaluation.signatures.SIGNATURES`:
        ``peak_timing``, ``missed_peaks``, ``flood_2``, ``flood_5``, ``flood_10``, ``annual_nse``,
        ``baseflow_index``, ``runoff_ratio``, ``slope_fdc``, ``hfd_mean``, ``high_q_freq``,
        ``high_q_dur``, ``low_q_freq``, ``low_q_dur``. Of a model that was calibrated also of
        `xstefa.evaluation.probabilistic.PROBABILISTIC`: ``crps``, ``coverage``, ``sharpness``,
        ``pit``, of its quantiles at 0.05, 0.15, ..., 0.95. Of static targets others, over sites:
        ``r2``, ``rmse``, ``mae`` and ``bias``, also those of quantiles of a model that knows them;
        of a class ``auc``, ``brier`` and ``reliability``.
    rename : mapping of str to str, optional
        Dataset variable to token.
    sites : str, optional
        Variable that names the sites; by default the one with ``cf_role = "timeseries_id"``,
        else their labels.
    period, device, precision, batch_size, extrapolate
        As for `predict`.

    Returns
    -------
    Dataset
        A variable for each score, on the site dimensions; ``days``, the number of days scored;
        ``training``, whether the model learned from the site; with scores of quantiles
        ``calibration``, whether these were learned there. Of static targets each score is one
        number, along ``target``, and ``sites`` in place of ``days``. Lazy exactly if the dataset is
        chunked.

    Raises
    ------
    TrainingError
        If the dataset has no observations of the target.

    Warns
    -----
    LeakageWarning
        If quantiles are scored at sites where they were learned.
    """
    if isinstance(target, Model):
        model, target = target, target.spec.target or target.name
        if model.spec.static:
            target = model.spec.outputs
    names = as_list(target)
    of_sites = model_of_sites(dataset, names, model=model, rename=rename)
    if of_sites is not None:
        refuse_daily(period=period)
        how: dict[str, Any] = {"scores": scores, "rename": rename, "sites": sites}
        how |= {"device": device, "precision": precision, "extrapolate": extrapolate}
        return evaluate_sites(dataset, names, of_sites, **how)
    target = str(only_one(names))
    chosen = answering(dataset, target, model=model, rename=rename)
    binding = bind(dataset, chosen.schema, rename=rename, needs=chosen.spec.needs)
    layout = binding.layout
    observed = observations(binding, target)
    named = _named(scores, {**SCORES, **PROBABILISTIC})
    asked = partial(
        cast("Callable[..., xr.DataArray]", predict),
        dataset,
        target,
        model=chosen,
        rename=rename,
        period=period,
        device=device,
        precision=precision,
        batch_size=batch_size,
        extrapolate=extrapolate,
    )
    predicted = asked()
    if not (predicted.size and observed.size):
        raise LayoutError(
            "there is no site to score",
            variable=target,
            found=f"sizes {dict(predicted.sizes)}",
            expected="at least one site",
            fix="check the selection that made the dataset",
        )
    observed = observed.sel({layout.time: predicted[layout.time]})
    of_mean = [name for name in named if name in SCORES]
    rain = binding.forcing.get("precipitation") if "runoff_ratio" in named else None
    if rain is not None:
        rain = rain.sel({layout.time: predicted[layout.time]})
    found = score(predicted, observed, scores=of_mean, dim=layout.time, precipitation=rain)
    places = Sites.of(dataset, layout, name=sites)
    found["training"] = site_roles(chosen.spec.provenance, places)
    if len(of_mean) < len(named):
        quantiles = asked(quantiles=LEVELS)
        for name in named:
            if name in PROBABILISTIC:
                found[name] = PROBABILISTIC[name](quantiles, observed, dim=layout.time)
        taught = {"trained": chosen.spec.provenance.get("calibration", {}).get("sites", ())}
        flags = roles({"datasets": {"": taught}}, places.ids, named=places.named) == SEEN
        meaning = "whether the model's quantiles were learned at the site, as its provenance tells"
        found["calibration"] = places.labeled(
            flags.astype(np.int8),
            long_name=meaning,
            flag_values=np.array([0, 1], dtype=np.int8),
            flag_meanings="not_known learned",
        )
        if flags.any():
            warn(
                LeakageWarning(
                    f"quantiles were learned at {flags.sum()} of {flags.size} sites, where what is "
                    "scored of them flatters: see 'calibration' in the result"
                )
            )
    outside = "attributes_outside_training"
    return found.assign_attrs(
        {outside: predicted.attrs[outside]} if outside in predicted.attrs else {},
        title=f"{target} of {chosen.name} against observations",
        target=target,
        model_name=chosen.name,
        model_hash=chosen.content_hash,
    )


def score(
    predicted: xr.DataArray,
    observed: xr.DataArray,
    *,
    scores: str | Iterable[str] | None = None,
    dim: str = "time",
    precipitation: xr.DataArray | None = None,
) -> xr.Dataset:
    """Score a prediction.

    Parameters
    ----------
    predicted, observed : DataArray
        On the same labels along `dim`.
    scores : str or sequence of str, optional
        Names of `SCORES`; by default all of `METRICS`.
    dim : str
    precipitation : DataArray, optional
        On the same labels, for the score ``runoff_ratio``.

    Returns
    -------
    Dataset
        A variable for each score, and `days`, the number of days on which both are known. Lazy if
        an input is.

    Raises
    ------
    OptionError
        If there is no score of a name.
    """
    names = _named(scores, SCORES)
    found = xr.Dataset()
    for name in names:
        options = {}
        if name == runoff_ratio.__name__:
            if precipitation is None:
                raise OptionError(
                    "the share of the precipitation that runs off needs precipitation",
                    variable="scores",
                    found=repr(name),
                    expected="precipitation in the dataset, or other scores",
                    fix="precipitation=<a DataArray on the same labels>",
                )
            options["precipitation"] = precipitation
        found[name] = SCORES[name](predicted, observed, dim=dim, **options)
    days = (predicted.notnull() & observed.notnull()).sum(dim)
    days.attrs = {"long_name": "days with prediction and observation", "units": "1"}
    return found.assign(days=days)


def _named(scores: str | Iterable[str] | None, known: Mapping[str, object]) -> list[str]:
    """Return the names of scores; by default all of `METRICS`."""
    names = as_list(METRICS if scores is None else scores)
    unknown = [name for name in names if not isinstance(name, str) or name not in known]
    if unknown:
        raise OptionError(
            variable="scores",
            found=", ".join(map(repr, unknown)),
            expected=", ".join(known),
        )
    return names
