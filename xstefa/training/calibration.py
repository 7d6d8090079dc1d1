"""Calibration: what may be observed around a model's answers, learned at sites new to it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.binding import Binding
from xstefa.binding.observations import with_observed
from xstefa.errors import ModelError, OptionError, TrainingError, XstefaWarning, warn
from xstefa.inference.engine import Answer
from xstefa.inference.predict import answering
from xstefa.inference.run import Period, Run, prepare
from xstefa.inference.trust import placed
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.distribution import (
    FARTHEST,
    LEVELS,
    MEASURES,
    MISSING,
    SUREST,
    Distribution,
    Measure,
    Regime,
    Scale,
    measured,
    standardised,
)
from xstefa.model.neighbourhood import HeldOut
from xstefa.model.registry import ModelLike
from xstefa.model.scaler import Moments
from xstefa.schema import Target
from xstefa.splits.leakage import SEEN, LeakageWarning, roles
from xstefa.splits.sites import Sites
from xstefa.training.data import Datasets
from xstefa.training.records import observations
from xstefa.windows import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.network import StefaLand

FEWEST = 20
"""Sites from which a distribution can be learned; fewer adapt one that is there."""

FEWEST_ALIKE = 5
"""Sites that make a regime."""

FOLDS = 5
"""Groups of sites; the errors of each are those of what the others taught."""

DAYS = 1000
"""Days of a site that count, spread evenly over those with an observation and an answer."""

ALL_SITES = 10
"""Sites of a regime or a region that count as much as all others."""

RIDGE = 1.0
"""Penalty of what measures change, in sites: few teach little about what makes them differ."""

LEAST_DAYS = 100
"""Days of a site with a score."""

SMALL = 0.04
"""Of the mean at a site: what is added before logarithms, in which small flows would be far off."""

SHAPE = 1000
"""Values that stand for a shape among others."""

SPELLS = (1, 14, 60)
"""Days of the gaps in copies of sites, from which is learned what missing weather costs."""

SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the days of a copy that are in gaps."""

# Tokens that tell of errors, and where errors are alike: attributes in their canonical units.
TOKENS = ("precipitation", "temperature_mean", "aridity", "snow_fraction", "catchment_area")
FAR = 1e9
REGIMES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "few attributes known": {"known": (-FAR, 0.2)},
    "snowy": {"snow_fraction": (0.25, FAR)},
    "arid": {"aridity": (1.3, FAR)},
    "humid": {"aridity": (-FAR, 0.8)},
    "others": {},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """Days with an observation and an answer, of all sites.

    Attributes
    ----------
    ids : ndarray of str, shape (site,)
    site : ndarray of int64, shape (n,)
        Place of each day's site in `ids`.
    observed : ndarray of float32, shape (n,)
        In the target's canonical unit.
    told : ndarray of float32, shape (n, 1 + k)
        Centre and measures, as `Evidence` has them.
    evidence : Evidence
    groups : ndarray of str, shape (site,)
        Sites of one hang together, and count as one.
    """

    ids: NDArray[np.str_]
    site: NDArray[np.int64]
    observed: Floats
    told: Floats
    evidence: Evidence
    groups: NDArray[np.str_]

    def select(self, sites: NDArray[np.bool_]) -> Errors:
        """Keep some sites, shape (site,)."""
        days, place = sites[self.site], np.cumsum(sites) - 1
        return replace(
            self,
            ids=self.ids[sites],
            groups=self.groups[sites],
            site=place[self.site[days]],
            observed=self.observed[days],
            told=self.told[days],
        )

    @property
    def count(self) -> int:
        """Sites that are independent of each other."""
        return len(np.unique(self.groups))

    @property
    def weight(self) -> NDArray[np.float64]:
        """Weights of the days, by which all sites that are independent count alike, shape (n,)."""
        _, group, sites = np.unique(self.groups, return_inverse=True, return_counts=True)
        return 1 / (np.bincount(self.site) * sites[group])[self.site]

    def located(self, distribution: Distribution) -> Floats:
        """Return what a distribution says of each day, shape (n, WIDTH): see its `locate`."""
        import torch

        told = torch.from_numpy(self.told)
        measures = dict(zip(self.evidence.names, told[:, 1:].unbind(1), strict=True))
        return distribution.place(told[:, 0], measures).numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(Answer):
    """The centre of what the heads say, and all that may tell of its error."""

    columns: tuple[tuple[str, int | None], ...]
    scale: Scale

    @property
    def names(self) -> list[str]:
        """Names of the measures."""
        return [name for name, _ in self.columns]

    def width(self, spec: ModelSpec) -> int:
        """Return the number of measures and one."""
        return 1 + len(self.columns)

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return centre and measures, shape (B, T, width)."""
        import torch

        members = network.members(forcing, static)
        centre, found = measured(dict(self.columns), self.scale, members, forcing, static)
        return torch.stack([centre, *found.values()], dim=-1)


@checked
def calibrate(
    dataset: Datasets,
    observed: xr.DataArray | None = None,
    *,
    target: str | None = None,
    model: ModelLike | None = None,
    trained_on: bool = False,
    rename: Mapping[str, str] | None = None,
    sites: str | Mapping[str, str] | None = None,
    groups: str | None = None,
    period: Period | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    name: str | None = None,
) -> Model:
    """Learn, at sites that a model was not trained on, what may be observed around its answers.

    From 20 sites on it is learned anew. Fewer adapt what the model knows already: of n sites it
    becomes n / (n + 10) what they say. All sites count alike, however long their records are, and
    what is said of a level holds for a new site, of which all days may be off in the same way. A
    model that keeps its training sites also learns which scores `trust` lets expect.

    Parameters
    ----------
    observed : DataArray, optional
        Observations; by default a variable of the dataset, matched as for `evaluate`.
    target : str, optional
        Of a bundled model; by default the one that the model predicts.
    model : str or Model, optional
        As for `predict`.
    trained_on : bool
        Also at sites that the model learned from, where it is better than elsewhere.
    rename : mapping of str to str, optional
        Dataset variable to token.
    sites : str, optional
        Variable that names the sites; by default the one with ``cf_role = "timeseries_id"``, else
        their labels.
    groups : str, optional
        Variable that says which sites hang together, for instance the river of nested gauges: they
        count as one site. By default each counts by itself.
    period : tuple of two dates or str, optional
        Days whose observations count, as for `predict`.
    device, precision, batch_size
        As for `predict`.
    name : str, optional
        Name of the new model.

    Returns
    -------
    Model
        The same, and its distribution: ``predict(quantiles=...)``, ``predict(interval=...)``.

    Raises
    ------
    TrainingError
        If there are no observations, the model learned from a site, or there are too few sites for
        a model that knows nothing yet.
    """
    asked = partial(
        gather,
        dataset,
        observed,
        target=target,
        model=model,
        trained_on=trained_on,
        rename=rename,
        sites=sites,
        groups=groups,
        period=period,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    errors, held_out, chosen = asked()
    spec, own, count = chosen.spec, chosen.spec.distribution, errors.count
    learned = count >= FEWEST
    if not count:
        raise TrainingError(
            variable=chosen.name,
            found="no site with an observation on a day with an answer",
            expected=f"observations of {spec.target}, after the model's spin-up",
            fix="give a longer record, or observed= with the sites and days of the dataset",
        )
    if learned:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XstefaWarning)  # said already, or of the gaps
            distribution = learn(errors, spec, gaps=asked(gaps=True)[0])
    elif own is not None:
        keys = () if isinstance(dataset, xr.Dataset) else dataset
        _refuse_counted(errors, spec, unnamed=tuple(f"{key}:" for key in ("data", *keys)))
        distribution = replace(own, sites=own.sites + count, regimes=_pooled(own, errors))
    else:
        raise TrainingError(
            "too few sites to learn from what may be observed elsewhere",
            variable=chosen.name,
            found=f"{count} sites with observations on days with an answer",
            expected=f"{FEWEST}, or a model that was calibrated before, which fewer adapt",
            fix="add sites to the dataset, or pass model= with one that was calibrated",
        )
    neighbourhood = spec.neighbourhood
    if neighbourhood is not None:
        known = () if learned else neighbourhood.held_out
        neighbourhood = replace(
            neighbourhood,
            score="correlation" if distribution.scale.kind == "logit" else "nse",
            held_out=known + held_out,
        )
    before = {} if learned else spec.provenance.get("calibration", {})
    calibration = {
        "sites": [*before.get("sites", ()), *errors.ids.tolist()],
        "learned": learned or before.get("learned", False),
        "trained_on": trained_on or before.get("trained_on", False),
    }
    said = f"{'Learned anew' if learned else 'Adapted'} by {count} sites, "
    said += "of those that training saw as well." if trained_on else "which training did not see."
    card = f"{spec.card.rstrip()}\n\n## Quantiles since then\n\n{said}\n" if spec.card else ""
    return chosen.described(
        replace(
            spec,
            name=name or spec.name,
            distribution=distribution,
            neighbourhood=neighbourhood,
            provenance={**spec.provenance, "calibration": calibration},
            card=card,
        )
    )


def _refuse_counted(errors: Errors, spec: ModelSpec, *, unnamed: tuple[str, ...]) -> None:
    """Refuse sites that a distribution was learned from already: they would count twice.

    Of sites without names, whose `Errors.ids` begin otherwise, nothing is known.

    Raises
    ------
    TrainingError
    """
    known = spec.provenance.get("calibration", {}).get("sites", ())
    named = [not site.startswith(unnamed) for site in errors.ids.tolist()]
    twice = errors.ids[np.isin(errors.ids, list(known)) & named]
    if twice.size:
        raise TrainingError(
            "sites of an earlier calibration would count twice",
            variable=", ".join(twice[:3]),
            found=f"{twice.size} of {len(errors.ids)} sites that {spec.name!r} was calibrated at",
            expected=f"other sites, or at least {FEWEST}, from which all is learned anew",
            fix="leave them out: their names are in model.spec.provenance['calibration']['sites']",
        )


def gather(
    dataset: Datasets,
    observed: xr.DataArray | None = None,
    *,
    target: str | None = None,
    model: ModelLike | None = None,
    trained_on: bool = False,
    rename: Mapping[str, str] | None = None,
    sites: str | Mapping[str, str] | None = None,
    groups: str | None = None,
    gaps: bool = False,
    **how: Any,
) -> tuple[Errors, tuple[HeldOut, ...], Model]:
    """Ask a model at all sites with observations, and return what it says beside them.

    Parameters are those of `calibrate`; with `gaps` a part of the weather is taken away before.
    Without also its skill at each site, of each dataset by itself, if it knows its training sites.
    """
    named = {"data": dataset} if isinstance(dataset, xr.Dataset) else dict(dataset)
    if model is None and target is None:
        raise OptionError(
            "which model is meant is not clear",
            variable="target",
            found="neither a target nor a model",
            expected="one of them",
            fix='target="streamflow"',
        )
    first = next(iter(named.values()))
    chosen = answering(first, target or "", model=model, rename=rename)
    chosen.require("target")
    spec = chosen.spec
    if target not in (None, spec.target):
        raise ModelError(
            variable=chosen.name,
            found=f"a model of {spec.target}",
            expected=f"one of {target}",
            fix=f"leave target out, or give target={spec.target!r}",
        )

    def has(each: xr.Dataset, variable: str | None) -> bool:
        """Whether a dataset has a variable; what none has is asked of all, and refused."""
        return variable in each.variables or not any(
            variable in d.variables for d in named.values()
        )

    def with_its(each: xr.Dataset, renamed: dict[str, str]) -> xr.Dataset:
        assert chosen.target is not None
        if observed is None:
            return each
        return with_observed(each, observed, chosen.target, schema=chosen.schema, rename=renamed)

    parts = [
        _Part.of(
            with_its(each, renamed),
            chosen,
            key=key,
            rename=renamed,
            sites=sites.get(key) if isinstance(sites, Mapping) else sites,
            groups=groups if has(each, groups) else None,
            gaps=gaps,
            **how,
        )
        for key, each in named.items()
        for renamed in [{k: token for k, token in (rename or {}).items() if has(each, k)}]
    ]
    if not trained_on:
        for part in parts:
            part.refuse_seen(spec)
    scale = _scale_of(chosen, parts) if spec.distribution is None else spec.distribution.scale
    evidence = Evidence(columns=_columns(spec), scale=scale)
    found, held_out = [], list[HeldOut]()
    for part in parts:
        told = part.told(evidence)
        found.append(part.errors(told))
        if spec.neighbourhood is not None and not gaps:
            held_out += part.scored(told[..., 0], scale)
    # A site of two datasets is one.
    names, together, *values = (np.concatenate(each) for each in zip(*found, strict=True))
    ids, begins, place = np.unique(names, return_index=True, return_inverse=True)
    errors = Errors(
        ids=ids,
        site=place,
        evidence=evidence,
        groups=together[begins],
        **dict(zip(("observed", "told"), values, strict=True)),
    )
    return errors, tuple(held_out), chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One dataset, the model on it, and its observations, shape (site, day)."""

    run: Run
    sites: Sites
    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    observed: Floats

    @classmethod
    def of(
        cls,
        dataset: xr.Dataset,
        model: Model,
        *,
        key: str,
        sites: str | None,
        groups: str | None,
        gaps: bool,
        **how: Any,
    ) -> _Part:
        run = prepare(dataset, model, **how)
        if gaps:
            run = prepare(_with_gaps(run.binding), model, **how)
        layout, target = run.binding.layout, model.spec.target
        assert target is not None
        observed = observations(run.binding, target)
        observed = observed.isel({layout.time: run.answered}).transpose(
            *layout.site_dims, layout.time
        )
        found = Sites.of(dataset, layout, name=sites)
        values = observed.values.reshape(len(found), observed.sizes[layout.time])
        ids = found.ids if found.named else np.array([f"{key}:{each}" for each in found.ids])
        together = ids if groups is None else found.values(groups)
        return cls(run=run, sites=found, ids=ids, groups=together, observed=values)

    def refuse_seen(self, spec: ModelSpec) -> None:
        """Refuse sites with observations that the model learned from.

        Raises
        ------
        TrainingError

        Warns
        -----
        LeakageWarning
            If sites have no names, so that this cannot be told.
        """
        if not self.sites.named and spec.provenance:
            warn(
                LeakageWarning(
                    f"whether {spec.name!r} was trained on some of these {len(self.sites)} sites "
                    "cannot be told: they have no names. Fix: sites=<variable with their names>"
                )
            )
        seen = roles(spec.provenance, self.sites.ids, named=self.sites.named) == SEEN
        seen &= np.isfinite(self.observed).any(axis=1)
        if seen.any():
            raise TrainingError(
                "at sites that a model learned from it is better than elsewhere",
                variable=", ".join(self.ids[seen][:3]),
                found=f"{seen.sum()} of {len(seen)} sites that {spec.name!r} was trained on",
                expected="sites that training did not see",
                fix="select others, or trained_on=True if it is for these sites only",
            )

    def told(self, answer: Answer) -> Floats:
        """Ask the model, shape (site, day, width)."""
        block, layout = np.asarray(self.run.compute(answer)), self.run.binding.layout
        told = np.moveaxis(block[..., :-1], layout.dims.index(layout.time), -2)
        return told.reshape(*self.observed.shape, told.shape[-1])

    def errors(self, told: Floats) -> tuple[NDArray[np.str_], NDArray[np.str_], Floats, Floats]:
        """Return site, its group, observation and answer of days that have both."""
        known = np.isfinite(self.observed) & np.isfinite(told[..., 0])
        picked = [_spread(np.flatnonzero(days)) for days in known]
        site = np.repeat(np.arange(len(picked)), [len(days) for days in picked])
        days = np.concatenate([np.empty(0, dtype=np.int64), *picked])
        return self.ids[site], self.groups[site], self.observed[site, days], told[site, days]

    def scored(self, centre: Floats, scale: Scale) -> Iterator[HeldOut]:
        """Yield the skill at each site with a score.

        Parameters
        ----------
        centre : ndarray of float32, shape (site, day)
            The mean of the heads, transformed.
        """
        told, dims = placed(self.run), self.run.binding.layout.site_dims
        places = (
            np.asarray(told[name].transpose(*dims).data, dtype=np.float64).ravel().round(3)
            for name in ("distance", "aridity")
        )
        answers = scale.back(centre)
        for distance, aridity, answer, truth in zip(*places, answers, self.observed, strict=True):
            known = np.isfinite(answer) & np.isfinite(truth)
            observed = truth[known].astype(np.float64)
            varies = observed.std() > 0 and answer[known].std() > 0
            if known.sum() >= LEAST_DAYS and np.isfinite(distance) and varies:
                if scale.kind == "logit":
                    score = np.corrcoef(answer[known], observed)[0, 1]
                else:
                    score = 1 - ((answer[known] - observed) ** 2).mean() / observed.var()
                yield HeldOut(
                    distance=float(distance),
                    aridity=float(aridity) if np.isfinite(aridity) else None,
                    score=round(float(score), 3),
                )


def _spread(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return so many days at most, evenly."""
    count = min(len(days), DAYS)
    return days[np.linspace(0, len(days) - 1, count).astype(int)] if count else days


def _with_gaps(binding: Binding) -> xr.Dataset:
    """Return the dataset without a part of its weather: all of it, or some of its variables.

    Sites have gaps of one length, and of a share of the days of their own; none at the beginning.
    """
    dataset, layout, random = binding.dataset, binding.layout, np.random.default_rng(0)
    forcings = (binding.sources.get(name) for name in binding.schema.forcing_names)
    read = dict.fromkeys(name for source in forcings if source for name in source.variables)
    names = [name for name in read if layout.time in dataset[name].dims]
    days, shape = layout.days.size, [dataset.sizes[dim] for dim in layout.site_dims]
    gone = np.zeros((len(names), math.prod(shape), days), dtype=bool)
    for site in range(gone.shape[1]):
        length, share = SPELLS[site % len(SPELLS)], random.choice(SHARES)
        spells = 1 + days // length
        part = random.random((len(names), spells)) < 0.5
        part |= random.random(spells) < 0.5
        part &= random.random(spells) < share
        part[:, 0] = False
        gone[:, site] = np.repeat(part, length, axis=1)[:, :days]
    dims = (*layout.site_dims, layout.time)
    masks = (xr.DataArray(each.reshape(*shape, days), dims=dims) for each in gone)
    return dataset.assign(
        {name: dataset[name].where(~mask) for name, mask in zip(names, masks, strict=True)}
    )


def scale_for(target: Target, mean: float) -> Scale:
    """Choose where errors are alike, by what values a target can have and its mean."""
    low, high = target.valid_range
    if (low, high) == (0, 1):
        return Scale(kind="logit", offset=0.001)
    return Scale(kind="log", offset=max(SMALL * mean, 1e-6)) if low == 0 else Scale()


def _scale_of(model: Model, parts: Sequence[_Part]) -> Scale:
    assert model.target is not None
    sites = [values for part in parts for values in part.observed if np.isfinite(values).any()]
    means = [float(np.nanmean(values)) for values in sites]
    return scale_for(model.target, sum(means) / max(len(means), 1))


def _columns(spec: ModelSpec) -> tuple[tuple[str, int | None], ...]:
    """Name what may tell of errors, of what the model reads."""
    names = (*spec.schema.forcing_names, *spec.schema.static_names)
    tokens = tuple((name, names.index(name)) for name in TOKENS if name in spec.tokens)
    known = [name for name in MEASURES if name != MISSING[0] or "precipitation" in dict(tokens)]
    return (*((name, None) for name in known), *tokens)


def learn(errors: Errors, spec: ModelSpec, gaps: Errors | None = None) -> Distribution:
    """Learn a distribution; the shape is that of sites left out of the fit, group by group.

    Parameters
    ----------
    gaps : Errors, optional
        Of sites with gaps, from which nothing is learned but how scales grow with them.
    """
    _, group = np.unique(errors.groups, return_inverse=True)
    fold = (np.random.default_rng(0).permutation(errors.count) % FOLDS)[group]
    left_out = np.empty(len(errors.site), dtype=np.float32)
    for i in range(FOLDS):
        taught, out = _fitted(errors.select(fold != i)), errors.select(fold == i)
        left_out[(fold == i)[errors.site]] = _in_scales(taught, out)
    found = _fitted(errors)
    found = replace(found, regimes=_regimes(spec, errors.evidence.names))
    sites = np.bincount(_regime(found, errors), errors.weight, len(found.regimes))
    sites[-1] = np.inf
    kept = [r for r, count in zip(found.regimes, sites, strict=True) if count >= FEWEST_ALIKE]
    found = replace(found, regimes=tuple(kept))
    found = replace(found, regimes=_pooled(found, errors, left_out))
    return found if gaps is None or not gaps.ids.size else _widened(found, gaps)


def _in_scales(distribution: Distribution, errors: Errors) -> Floats:
    """Return observations less centre, in scales, shape (n,)."""
    import torch

    centre, below, above, _ = errors.located(distribution).T
    off = distribution.scale.forward(torch.from_numpy(errors.observed)).numpy() - centre
    return off / np.where(off < 0, below, above)


def _regime(distribution: Distribution, errors: Errors) -> NDArray[np.int64]:
    """Return the number of each day's regime, shape (n,)."""
    return errors.located(distribution)[:, 3].astype(np.int64)


def _regimes(spec: ModelSpec, measures: Sequence[str]) -> tuple[Regime, ...]:
    """Return regimes without shapes yet, of what the model reads, in its standardised units."""
    found = []
    for name, within in REGIMES.items():
        bounds = {}
        for measure, (low, high) in within.items():
            moments = spec.scaler.statics.get(measure)
            if moments is not None:
                edges = moments.standardise(np.array([low, high], dtype=np.float32))
                low, high = (float(np.clip(edge, -FAR, FAR)) for edge in edges)
            bounds[measure] = (low, high)
        if set(bounds) <= set(measures):
            found.append(Regime(name=name, within=bounds, sites=0, quantiles=(0.0,) * len(LEVELS)))
    return tuple(found)


def _pooled(
    found: Distribution, errors: Errors, left_out: Floats | None = None
) -> tuple[Regime, ...]:
    """Return the regimes with the shapes of their sites, drawn towards others.

    Parameters
    ----------
    left_out : ndarray of float32, shape (n,), optional
        Errors in scales, of all sites that the distribution was learned at: others are these. By
        default it was learned elsewhere, and others are its own shapes.
    """
    weight, which, regimes = errors.weight, _regime(found, errors), []
    own = _in_scales(found, errors) if left_out is None else left_out
    shapes = found.shapes((np.arange(SHAPE) + 0.5) / SHAPE)
    for i, regime in enumerate(found.regimes):
        inside = which == i
        sites, total = float(weight[inside].sum()), errors.count
        others, each = left_out, weight / total
        if others is None:
            others, each, total = shapes[i], np.full(SHAPE, 1 / SHAPE), total + found.sites
        quantiles = _weighted_quantiles(
            np.concatenate([others, own[inside]]),
            np.concatenate([ALL_SITES * each, weight[inside]]),
            total,
        )
        before = 0 if left_out is not None else regime.sites
        regimes.append(
            replace(regime, sites=before + round(sites), quantiles=tuple(quantiles.tolist()))
        )
    return tuple(regimes)


def _weighted_quantiles(
    values: NDArray[Any], weight: NDArray[np.float64], sites: float
) -> NDArray[np.float64]:
    """Return quantiles at `LEVELS` that hold for one more site than there are.

    Of that one nothing is known: half of it is taken to lie below all, and half above.
    """
    order = np.argsort(values)
    below = np.cumsum(weight[order]) - weight[order] / 2
    levels = (np.array(LEVELS) * (sites + 1) - 0.5) / sites
    levels = levels.clip(1 - FARTHEST, FARTHEST)
    return np.interp(levels, below / weight.sum(), values[order].astype(np.float64))


def _fitted(errors: Errors) -> Distribution:
    """Fit centre and scales, and one shape, by the mean pinball loss over all levels.

    That is the continuous ranked probability score, up to a factor, in the transformed target.
    """
    import torch
    from torch.nn import functional

    scale, columns = errors.evidence.scale, errors.evidence.columns
    moments = [
        Moments(mean=0.0, std=1.0) if name in MISSING else _moments(values)
        for (name, _), values in zip(columns, errors.told[:, 1:].T, strict=True)
    ]
    told = torch.from_numpy(errors.told).double()  # single precision stops the search early
    scaled = torch.stack(
        [standardised(v, m) for v, m in zip(told[:, 1:].unbind(1), moments, strict=True)], dim=1
    )
    scaled *= told.new_tensor([name not in MISSING for name, _ in columns])
    off = (scale.forward(torch.from_numpy(errors.observed).double()) - told[:, 0])[:, None]
    constants = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    slopes = torch.zeros(len(moments), 2, dtype=torch.float64, requires_grad=True)
    steps = torch.full((len(LEVELS) - 1,), -1.0, dtype=torch.float64, requires_grad=True)
    middle, pinball = LEVELS.index(0.5), _pinball(errors)

    def loss() -> Tensor:
        shape = functional.pad(functional.softplus(steps).cumsum(0), (1, 0))
        shape = shape - shape[middle]
        changed = (scaled @ slopes).clamp(-SUREST, SUREST)
        below, above = (constants[1:] + changed).exp().split(1, dim=1)
        excess = off - constants[0] - torch.where(shape < 0, below, above) * shape
        return pinball(excess) + RIDGE / errors.count * (slopes**2).sum()

    _minimise(loss, [constants, slopes, steps])
    shift, below, above = constants.tolist()
    return Distribution(
        scale=scale,
        shift=shift,
        below=below,
        above=above,
        measures=tuple(
            Measure(name=name, column=column, moments=each, below=slope[0], above=slope[1])
            for (name, column), each, slope in zip(columns, moments, slopes.tolist(), strict=True)
        ),
        regimes=(Regime(name="all", within={}, sites=0, quantiles=(0.0,) * len(LEVELS)),),
        sites=errors.count,
    )


def _widened(found: Distribution, gaps: Errors) -> Distribution:
    """Fit how both scales grow with what is missing; where nothing is, nothing changes.

    They grow alike: whether an answer that lacks rain is too high or too low depends on the
    climate.
    """
    import torch
    from torch.nn import functional

    centre, below, above, regime = (
        torch.from_numpy(gaps.located(found)).double()[..., None].unbind(1)
    )
    off = found.scale.forward(torch.from_numpy(gaps.observed).double())[:, None] - centre
    shapes = torch.tensor([each.quantiles for each in found.regimes], dtype=torch.float64)
    widths = shapes[regime[:, 0].long()]
    widths = torch.where(widths < 0, below, above) * widths
    names = [name for name in gaps.evidence.names if name in MISSING]
    missing = torch.from_numpy(gaps.told[:, [1 + gaps.evidence.names.index(n) for n in names]])
    raw = torch.full((len(names), 1), -1.0, dtype=torch.float64, requires_grad=True)
    pinball = _pinball(gaps)

    def loss() -> Tensor:
        return pinball(off - (missing.double() @ functional.softplus(raw)).exp() * widths)

    _minimise(loss, [raw])
    slopes = dict(zip(names, functional.softplus(raw)[:, 0].tolist(), strict=True))
    measures = [
        replace(each, below=slopes[each.name], above=slopes[each.name])
        if each.name in slopes
        else each
        for each in found.measures
    ]
    return replace(found, measures=tuple(measures))


def _pinball(errors: Errors) -> Callable[[Tensor], Tensor]:
    """Return the mean pinball loss over all levels, of errors less quantiles, shape (n, level)."""
    import torch

    levels = torch.tensor(LEVELS, dtype=torch.float64)
    middles = (levels[1:] + levels[:-1]) / 2
    shares = torch.diff(middles, prepend=levels.new_zeros(1), append=levels.new_ones(1))
    weight = torch.from_numpy(errors.weight)[:, None] * shares
    weight = weight / weight.sum()

    def loss(excess: Tensor) -> Tensor:
        return (weight * torch.maximum(levels * excess, (levels - 1) * excess)).sum()

    return loss


def _minimise(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    import torch

    optimiser = torch.optim.LBFGS(parameters, max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)


def _moments(values: Floats) -> Moments:
    """Return the moments of known values; what never varies tells nothing."""
    known = values[np.isfinite(values)].astype(np.float64)
    std = float(known.std()) if known.size else 0.0
    return Moments(mean=float(known.mean()) if known.size else 0.0, std=std if std > 1e-6 else 1.0)
