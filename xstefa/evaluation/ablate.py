"""What a dataset's tokens are worth: the skill that is lost when one is hidden from a model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources

import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import TokenTable
from xstefa.errors import ModelError, TrainingError
from xstefa.evaluation.metrics import METRICS
from xstefa.inference.predict import Members, answering, mean_of_heads
from xstefa.inference.run import Period, Run, each_block, prepare
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.registry import ModelLike
from xstefa.typed import Finite, build

TOKEN = "token"
TEMPERATURE, ATTRIBUTES = "temperature", "attributes"

LONG_NAMES = {
    "known": "share of these tokens that the dataset has",
    "needed": "whether there is no answer without them",
    "skill": "{} of the model with all that the dataset has",
    "lost": "{} that is lost without them, on the dataset's own observations",
    "expected": "{} that held-out sites lose without them, median",
    "expected_low": "lower bound of its 95 % interval over sites",
    "expected_high": "upper bound of its 95 % interval over sites",
}


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What tokens are worth to a released model, at sites that it did not see.

    Attributes
    ----------
    model_hash : str
        Of the model.
    score, data : str
        What skill is, and where it was measured.
    skill : float
        Median with all tokens.
    sites : int
    lost : mapping of str to (float, float, float)
        By token or group: what is lost without it, median over sites and its 95 % interval.
    """

    model_hash: str
    score: str
    data: str
    skill: Finite
    sites: int
    lost: Mapping[str, tuple[Finite, Finite, Finite]]

    def gain(self, spec: ModelSpec, token: str) -> str:
        """Say what is gained by a token, or by the group that it was hidden with."""
        group = token if token in self.lost else spec.schema[token].group or token
        if group not in self.lost:
            return ""
        together = "" if group == token else f" with all of {group}"
        median, low, high = self.lost[group]
        return f"{median:+.3f} {self.score} ({low:.3f} to {high:.3f}){together}"


@cache
def _released() -> Mapping[str, Ablation]:
    path = resources.files("xstefa").joinpath("weights", "ablations.toml")
    content = tomllib.loads(path.read_text("utf-8"))
    return {
        name: build(Ablation, each, error=ModelError, fix="install xstefa anew")
        for name, each in content.items()
    }


def released(model: Model) -> Ablation | None:
    """Return what was measured of a model; None if nothing was, or of another by its name."""
    found = _released().get(model.name)
    return found if found is not None and found.model_hash == model.content_hash else None


def with_gains(table: TokenTable, model: Model) -> TokenTable:
    """Return a token table that says of what is missing what held-out sites lose without.

    Raises
    ------
    ModelError
        If nothing was measured of the model.
    """
    found = released(model)
    if found is None:
        raise ModelError(
            "what tokens are worth to it is not known",
            variable=model.name,
            found="a model of which nothing was measured",
            expected=f"one of {', '.join(_released())}",
            fix="ds.stefa.ablate(model) measures it, where the target is observed",
        )
    rows = (
        replace(row, gain=found.gain(model.spec, row.token))
        if not row.matched and row.token in model.spec.tokens
        else row
        for row in table.rows
    )
    return replace(table, rows=tuple(rows))


@checked
def ablate(
    dataset: xr.Dataset,
    target: str | Model,
    *,
    model: ModelLike | None = None,
    period: Period | None = None,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
) -> xr.Dataset:
    """Say what each token is worth: what to bring, and what the dataset's own tokens do.

    Parameters
    ----------
    target : str or Model
    model, period, rename, device, precision, batch_size
        As for `predict`.

    Returns
    -------
    Dataset
        By ``token``: each forcing that the model reads, the temperatures together
        (``"temperature"``), attributes by physical group, and all together (``"attributes"``).
        ``known``, the share of them that the dataset has; ``needed``, whether there is no answer
        without. ``expected``, with an interval, is the skill that held-out sites with all tokens
        lose when these are hidden: of what the dataset lacks, the gain to expect if it were there,
        and all else, too. It is known of released models. If the dataset observes the target,
        ``skill`` is that of each site, and ``lost`` what it loses when these tokens are hidden.
        Skill is the NSE of streamflow, and the correlation of soil moisture.

    Raises
    ------
    TrainingError
        If nothing is known of the model, and the dataset has no observations.
    XstefaError
        As for `predict`.

    Notes
    -----
    Tokens stand in for each other: two temperatures may be worth nothing each, and much together.
    Without potential evapotranspiration, or the temperature, the physics in a model has no answer,
    and is left out of the mean, as in any prediction.
    """
    if isinstance(target, Model):
        target.require("target")
        model, target = target, target.spec.outputs[0]
    chosen = answering(dataset, target, model=model, rename=rename)
    chosen.require("target")
    spec = chosen.spec
    score = "nse" if chosen.schema.target(target).units == "mm d-1" else "correlation"
    run = prepare(
        dataset,
        chosen,
        period=period,
        rename=rename,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    observed = run.binding.observed(target)
    table = released(chosen) if target == spec.target else None
    if observed is None and table is None:
        raise TrainingError(
            "what tokens are worth is measured where the target was observed",
            variable=target,
            found=f"no observations in the dataset, and {chosen.name!r}, which is no released "
            "model of it",
            expected=f"one of {', '.join(chosen.schema.target(target).aliases_text)}",
            fix="add the observations, under one of these names or with their standard_name",
        )
    groups = groups_of(spec)
    has = set(run.binding.sources)
    found = xr.Dataset(coords={TOKEN: list(groups)})
    found.attrs = run.attrs(f"{target} ablated") | {"score": score}
    found["known"] = TOKEN, [float(np.mean([n in has for n in names])) for names in groups.values()]
    found["needed"] = TOKEN, [not _answered(spec, has, names) for names in groups.values()]
    if observed is not None:
        observed = observed.isel({run.binding.layout.time: run.answered})
        rate = partial(_skill, target=target, observed=observed, score=score)
        found["skill"] = rate(run)
        nothing = xr.full_like(found["skill"], np.nan)
        lost = [
            found["skill"] - rate(_without(run, names))
            if has & {*names} and _answered(spec, has, names)
            else nothing
            for names in groups.values()
        ]
        found["lost"] = xr.concat(lost, TOKEN)
    if table is not None:
        rows = np.array([table.lost.get(name, (np.nan,) * 3) for name in groups])
        for i, bound in enumerate(("expected", "expected_low", "expected_high")):
            found[bound] = TOKEN, rows[:, i]
        found.expected.attrs["comment"] = f"{table.data}; {table.sites} sites"
    for name in found:
        text = LONG_NAMES[str(name)].format(score)
        found[name].attrs |= {"long_name": text} | ({} if name == "needed" else {"units": "1"})
    return found


def groups_of(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return the tokens of a model that are hidden together, by name."""
    forcings = [name for name in spec.schema.forcing_names if name in spec.tokens]
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in forcings}
    warmth = tuple(name for name in forcings if name.startswith(TEMPERATURE))
    if len(warmth) > 1:
        found[TEMPERATURE] = warmth
    statics = [name for name in spec.schema.static_names if name in spec.tokens]
    for name in statics:
        group = spec.schema[name].group or name
        found[group] = (*found.get(group, ()), name)
    return found | {ATTRIBUTES: tuple(statics)} if statics else found


def _answered(spec: ModelSpec, has: set[str], hidden: tuple[str, ...]) -> bool:
    """Whether there are answers without some tokens of those that a dataset has."""
    left = has - {*hidden}
    return all(left.intersection(group) for group in spec.needs)


def _without(run: Run, names: tuple[str, ...]) -> Run:
    """Return a run that does not see some tokens."""
    sources = {name: each for name, each in run.binding.sources.items() if name not in names}
    return replace(run, binding=replace(run.binding, sources=sources))


def _skill(run: Run, *, target: str, observed: xr.DataArray, score: str) -> xr.DataArray:
    """Return the score of a run at each site."""
    spec = run.key.model.spec
    heads = len(spec.architecture.heads)
    first = spec.outputs.index(target) * heads
    block = run.compute(Members(every=target != spec.target), first=False)
    frame = run.frame()
    said = each_block(partial(mean_of_heads, what=slice(first, first + heads)), block)
    predicted = frame.copy(data=said)
    return METRICS[score](predicted, observed, dim=run.binding.layout.time)
