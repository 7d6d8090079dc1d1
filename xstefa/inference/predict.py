"""From a dataset to a labeled prediction: choose a model, match, run, label."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import plan
from xstefa.binding.forecasts import Forecast
from xstefa.binding.observations import with_observed
from xstefa.binding.time_axis import find_time
from xstefa.errors import MissingTokenError, ModelError, OptionError, did_you_mean
from xstefa.inference.engine import Answer
from xstefa.inference.forecast import alone, continued, framed, names_of
from xstefa.inference.observed import FADING, move_towards
from xstefa.inference.run import Period, SpinUpWarning, each_block, prepare
from xstefa.inference.sites import (
    QUANTILE,
    model_of_sites,
    predict_sites,
    refuse_daily,
    target_attributes,
)
from xstefa.model.checkpoint import Model
from xstefa.model.distribution import FARTHEST, WIDTH, Distribution, Level
from xstefa.model.registry import ModelLike, load_model, model_for
from xstefa.options import as_list
from xstefa.schema import load_schema
from xstefa.typed import Share, fits
from xstefa.windows import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.heads.recurrent import State
    from xstefa.model.network import StefaLand

COVERAGE = {
    "long_name": "share of the model's daily forcings known in the windows behind each value",
    "units": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Members(Answer):
    """The target as each head predicts it, in its canonical unit; or all `ModelSpec.outputs`.

    Attributes
    ----------
    every : bool
        All outputs of a model that has several: first what each head says of the first.
    distribution : Distribution, optional
        That of the model: last comes what may be observed of the first output.
    """

    every: bool = False
    distribution: Distribution | None = None

    def width(self, spec: ModelSpec) -> int:
        """Return the number of heads, times that of the outputs; and that of the distribution."""
        members = len(spec.architecture.heads) * (len(spec.outputs) if self.every else 1)
        return members + (0 if self.distribution is None else WIDTH)

    def run(
        self, network: StefaLand, forcing: Tensor, static: Tensor, state: State | None = None
    ) -> Tensor:
        """Return the answers of the heads, and what may be observed, shape (B, T, width)."""
        members = network.members(forcing, static, state, water=self.every).flatten(2)
        if self.distribution is None:
            return members
        import torch

        first, days = members[..., : len(network.heads)], forcing.shape[1]
        if state is not None:  # errors depend on what was answered, and known, lately
            first = torch.cat([state["answers"], first], dim=1)
            known = torch.where(state["known"], 0.0, torch.nan)
            forcing = torch.cat([known, forcing], dim=1)
        located = self.distribution.locate(first, forcing, static)[:, -days:]
        return torch.cat([members, located], dim=-1)


@overload
def predict(
    dataset: xr.Dataset, target: str | Model, *, interval: float, **how: Any
) -> xr.Dataset: ...


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
    interval: float | None = None,
    coverage: bool = False,
    min_coverage: Share = 0.0,
    period: Period | None = None,
    history: xr.Dataset | None = None,
    state: xr.Dataset | None = None,
    observed: xr.DataArray | str | None = None,
    strict: bool = False,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    extrapolate: bool = False,
) -> xr.DataArray | xr.Dataset:
    """Predict one target or several for every site and day of the dataset.

    Parameters
    ----------
    target : str, Model or sequence of str
        ``"streamflow"``, ``"soil_moisture"``, or a model with a target of its own. Or a list of
        what one model predicts in one pass: a model with physics inside (``head="hbv"``) says
        where the water is, ``["streamflow", "evapotranspiration", "snow_water_equivalent",
        "soil_water_storage", "groundwater_storage"]``. Precipitation is their sum: what runs
        off, evaporates and is added to the three storages, on each day and at each site.
    model : str or Model, optional
        Name or path of a model. By default the bundled model for the targets, of those that
        were trained on observations of the dataset's support: grid cells or points.
    quantiles : sequence of float, optional
        Levels between 0 and 1: what an observation stays below with these probabilities, at a
        site that the model was not trained on. The result then has a first dimension
        ``quantile``, as that of `xarray.DataArray.quantile`; by default it is the mean of the
        heads. Of the first target of a model that was calibrated, see `calibrate`; or of all
        static targets of one that learned with `validation`, see `finetune`.
    interval : float, optional
        Probability of an observation between ``lower`` and ``upper``, which are returned: with
        0.9 the quantiles of 0.05 and 0.95.
    coverage : bool
        Add a coordinate ``coverage``: the share of the model's daily forcings that were known
        in the windows behind each value; 0 where there is none.
    min_coverage : float
        Answer NaN where the coverage is less. Whatever it is, there is no answer on a day
        unless what the model needs is known on half of the days of the model's spin-up before
        it (with physics inside, 95 %). Gaps of up to three days are bridged, but not by models
        that look back only.
    period : tuple of two dates or str, optional
        First and last day to answer for, as ``.sel(time=slice(*period))`` takes them, or both
        in one, as ``.sel(time="1991")`` does. The days before are read for the spin-up: the
        result is that of the whole record, to the bit. Selecting time before predicting hides
        them from the model.
    history : Dataset, optional
        The weather of the days before the dataset, at the same sites: what the model is spun up
        with. The dataset may then be a forecast, with lead times counted from one initial date or
        several, and members: each begins where its history ends, on the day before it. Later days
        of the history are not read. Attributes that only one of them has count for both.
    state : Dataset, optional
        What the days before the dataset have left, from `spin_up`: the answers are those of one
        record with these days in it, to rounding, and none of them is read again. A dataset that
        has some of them needs a `period` after them.
    observed : DataArray or str, optional
        What was observed of the target, on days of the dataset, or of its history; or the name of a
        variable there. Each day is moved towards what was observed before it, never on it: less
        the longer ago that is, and not at all where nothing was in 90 days. See
        `xstefa.inference.observed`.
    strict : bool
        Refuse what would be warned of: variables that may be optional tokens, but whose units
        or match are in doubt, and which else count as not known.
    rename : mapping of str to str, optional
        Dataset variable to token, where matching by metadata and name does not suffice.
    device : str, optional
        Torch device; default as set by `set_options`, else the first GPU of the process that
        computes if it has one, else its CPU.
    precision : {"fp32", "bf16"}, optional
        Arithmetic; default as set by `set_options`, else ``"fp32"``.
    batch_size : int, optional
        Windows per call of the network, rounded up to a multiple of 16; default as set by
        `set_options`, else 16 on a CPU and 512 on a GPU. Halved where memory runs out.
    extrapolate : bool
        Read site attributes outside all that the model was trained on as they are. By default
        they count as the nearest value of training, aridity as it is (`Variable.beyond`); an
        `ExtrapolationWarning` and the result's ``attributes_outside_training`` name them.

    Returns
    -------
    DataArray, or Dataset for a list of targets or an interval
        Dimensions, coordinates and coordinate reference system as in the dataset; lazy exactly
        if the dataset is chunked.

    Notes
    -----
    Targets, mean, quantiles and coverage of one dataset and model come from one pass over the
    data if they are computed together, for instance as variables of one Dataset. Coverage is a
    coordinate, so that it goes where the prediction goes, and only on request, because xarray
    compares coordinates when it joins arrays: the difference of two lazy predictions that
    carry it would compute both at once. Turn it into a variable with ``.reset_coords()``.

    Raises
    ------
    MissingTokenError, AmbiguousMatchError, UnitsError, LayoutError, CalendarError
        If the dataset does not fit, with what was found and how to mend it.
    CalendarError
        If the record is too short for an answer on any day; a warning says on which there is
        none.
    ModelError
        If no model, or more than one, predicts the targets; or quantiles are asked of one that
        was not calibrated.
    """
    if isinstance(target, Model):
        target.require("target")
        outputs = target.spec.outputs
        several = target.spec.static and len(outputs) > 1
        model, target = target, [*outputs] if several else outputs[0]
    names = _check_names(target)
    how: dict[str, Any] = {
        "strict": strict,
        "rename": rename,
        "device": device,
        "precision": precision,
        "batch_size": batch_size,
        "extrapolate": extrapolate,
    }
    levels = _check_levels(quantiles, interval)
    if (of_sites := model_of_sites(dataset, names, model=model, rename=rename)) is not None:
        refuse_daily(period=period, history=history, state=state, observed=observed)
        limits: dict[str, Any] = {"coverage": coverage, "min_coverage": min_coverage}
        whole = predict_sites(dataset, names, of_sites, levels=levels, **limits, **how)
        if interval is not None:
            return _bounds(_one(whole), interval)
        return whole[target] if isinstance(target, str) and target in whole else whole
    if observed is not None:
        given = {"quantiles": quantiles, "interval": interval, "period": period, "state": state}
        refuse_beside("observed", given)
        how |= {"coverage": coverage, "min_coverage": min_coverage}
        moved = _moved(dataset, names, observed, model=model, history=history, **how)
        return moved if isinstance(target, str) else moved.to_dataset()
    renamed = rename if history is None else names_of(rename, history)
    if history is not None:
        known = history
    else:
        forecast = None if state is None else alone(dataset)
        known = dataset if forecast is None else forecast.at(0)
    chosen = answering(known, names, model=model, rename=renamed)
    chosen.require("target")
    if others := [name for name in names if name not in chosen.spec.outputs]:
        raise ModelError(
            variable=chosen.name,
            found=f"a model of {', '.join(chosen.spec.outputs)}",
            expected=f"a model of {', '.join(others)}",
            fix=did_you_mean(others[0], chosen.spec.outputs)
            or f"predict {chosen.spec.target!r} with it, or leave model= out",
        )
    if levels is not None:
        _require_distribution(names, chosen)
    distribution = chosen.spec.distribution
    answer = Members(every=names != [chosen.spec.target], distribution=distribution)
    if history is not None:
        refuse_beside("history", {"period": period, "state": state})
        run, frame, block = continued(dataset, history, chosen, answer, **how)
    else:
        run = prepare(known, chosen, period=period, state=state, **how)
        frame = run.frame() if forecast is None else framed(forecast, run)
        block = run.compute(answer)

    # What follows is arithmetic on one pass over the data: the targets, mean, quantiles and
    # coverage of the same dataset and model, computed together, share that pass.
    extra = () if levels is None else ("quantile",)
    heads = len(chosen.spec.architecture.heads)
    coords = {}
    if levels is not None:
        coords["quantile"] = xr.Variable("quantile", list(levels), QUANTILE)
    if coverage:
        shares = each_block(_coverage, block)
        coords["coverage"] = xr.Variable(frame.dims, shares, COVERAGE | frame.attrs)
    found = {}
    for name in names:
        first = chosen.spec.outputs.index(name) * heads
        what = slice(first, first + heads)
        take: Callable[[Floats], Floats] = _mean
        if levels is not None and distribution is not None:
            what = slice(-1 - WIDTH, -1)
            take = partial(distribution.quantiles, levels=levels)
        values = each_block(
            partial(_target, what=what, take=take, least=min_coverage),
            block,
            () if levels is None else (len(levels),),
        )
        attrs = target_attributes(chosen.schema.target(name)) | run.attrs(f"{name} predicted")
        attrs |= frame.attrs
        if coverage:
            attrs["ancillary_variables"] = "coverage"
        if levels is not None and distribution is not None:
            attrs["comment"] = f"predictive quantiles, calibrated at {distribution.sites} sites"
        found[name] = xr.Variable((*extra, *frame.dims), values, attrs, frame.encoding)
    result = xr.Dataset(found, coords=frame.coords).assign_coords(coords)
    if interval is not None:
        return _bounds(result[names[0]], interval)
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


def refuse_beside(option: str, others: Mapping[str, object]) -> None:
    """Refuse what an option cannot be combined with."""
    if wrong := [name for name, value in others.items() if value is not None]:
        raise OptionError(
            f"{option}= does not go with all options",
            variable=option,
            found=f"{option}= and {wrong[0]}=",
            expected="one of them",
            fix=f"leave {wrong[0]}= out; select from the result",
        )


def _moved(
    dataset: xr.Dataset,
    names: Sequence[str],
    observed: xr.DataArray | str,
    *,
    model: ModelLike | None,
    history: xr.Dataset | None,
    rename: Mapping[str, str] | None,
    **how: Any,
) -> xr.DataArray:
    """Predict, and move what is predicted towards what was observed before it."""
    known = dataset if history is None else history
    renamed = rename if history is None else names_of(rename, history)
    chosen = answering(known, names, model=model, rename=renamed)
    (name, *others) = names
    if others or name not in FADING:
        raise OptionError(
            "how long errors stay is known of some targets, one at a time",
            variable="observed",
            found=f"a prediction of {', '.join(names)}",
            expected=" or ".join(FADING),
            fix="leave observed= out",
        )
    if isinstance(observed, str):
        if observed not in known.variables:
            raise MissingTokenError(
                variable=observed,
                found=", ".join(map(str, known.data_vars)),
                expected="a variable of the dataset, or of its history",
                fix=did_you_mean(observed, map(str, known.data_vars))
                or "observed=<DataArray by site and day>",
            )
        observed = known[observed]
    of: dict[str, Any] = {"schema": chosen.schema, "rename": renamed}
    called = "ds" if history is None else "history"
    known = with_observed(known, observed, chosen.schema.target(name), called=called, **of)
    binding = plan(known, **of)
    how |= {"model": chosen}
    found = predict(dataset, name, history=history, rename=rename, **how)
    if history is None:
        return move_towards(found, found, binding, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpinUpWarning)  # its first days are not asked for
        simulated = predict(history, name, rename=renamed, **how)
    forecast = Forecast.of(dataset)
    if forecast is None:
        after: tuple[str, ...] = (find_time(dataset),)
    else:
        after = (*([forecast.init] if forecast.several else []), forecast.lead)
    return move_towards(found, simulated, binding, name, after=after)


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
    block: Floats, *, what: slice, take: Callable[[Floats], Floats], least: float
) -> Floats:
    values, share = take(block[..., what]), block[..., -1]
    return np.where(share >= np.float32(least), values, np.float32(np.nan)) if least else values


def mean_of_heads(block: Floats, *, what: slice) -> Floats:
    """Return the mean of those heads, of these values of a block, that have an answer."""
    return _mean(block[..., what])


def _mean(members: Floats) -> Floats:
    """Return the mean over the last axis of those members that have an answer."""
    known = np.isfinite(members)
    count = known.sum(axis=-1, dtype=np.float32)
    count[count == 0] = np.nan
    return np.where(known, members, np.float32(0)).sum(axis=-1) / count


def _coverage(block: Floats) -> Floats:
    return block[..., -1]


def _check_levels(
    quantiles: float | Iterable[float] | None, interval: float | None
) -> tuple[float, ...] | None:
    """Return the levels that are asked for; None for the mean."""
    if quantiles is None and interval is None:
        return None
    if interval is not None:
        levels: tuple[float, ...] = ((1 - interval) / 2, (1 + interval) / 2)
    else:
        levels = tuple(as_list(quantiles))
    both = quantiles is not None and interval is not None
    swapped = interval is not None and interval < 0  # bounds in the places of one another
    valid = fits(levels, tuple[Level, ...]) and 0 < len(set(levels)) == len(levels)
    if both or swapped or not valid:
        raise OptionError(
            "beyond these levels nothing is known of a new site",
            variable="quantiles" if interval is None else "interval",
            found=repr(quantiles if interval is None else interval)
            + (f" and quantiles={quantiles!r}" if both else ""),
            expected=f"levels from {1 - FARTHEST:.3f} to {FARTHEST}, each once, or an interval "
            "between two of them",
            fix="quantiles=[0.05, 0.5, 0.95]" if interval is None else "interval=0.9",
        )
    return levels


def _require_distribution(names: Sequence[str], model: Model) -> None:
    """Refuse quantiles of other targets than that of a model, and of one that knows none."""
    if names != [model.spec.target]:
        raise OptionError(
            "what may be observed is known of the target that a model was trained on",
            variable="target",
            found=", ".join(names),
            expected=repr(model.spec.target),
            fix=f"predict {model.spec.target!r} with quantiles, and the others without",
        )
    if model.spec.distribution is None:
        raise ModelError(
            "what may be observed around its answers is not known",
            variable=model.name,
            found="a model that was not calibrated",
            expected="one that was, at sites with observations that training did not see",
            fix=f"model = ds.stefa.calibrate(model={model.name!r}), of a dataset with such sites",
        )


def _one(found: xr.Dataset) -> xr.DataArray:
    """Return the one target of which there is an interval."""
    names = [str(name) for name in found]
    if len(names) > 1:
        raise OptionError(
            "an interval has two bounds, of one target at a time",
            variable="target",
            found=", ".join(names),
            expected="one target, or quantiles=",
            fix=f"predict({names[0]!r}, interval=...), and so on",
        )
    return found[names[0]]


def _bounds(quantiles: xr.DataArray, interval: float) -> xr.Dataset:
    """Return the two quantiles of an interval as variables that refer to each other."""
    found = {}
    others = quantiles.attrs.get("ancillary_variables", "").split()
    for i, (name, other) in enumerate((("lower", "upper"), ("upper", "lower"))):
        bound = quantiles.isel(quantile=i, drop=True)
        found[name] = bound.assign_attrs(
            long_name=f"{name} bound of the {100 * interval:g} % interval of "
            f"{bound.attrs['long_name']}",
            ancillary_variables=" ".join([other, *others]),
        )
    return xr.Dataset(found)
