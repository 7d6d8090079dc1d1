"""Calibration: what may be observed around a model's answers, learned at sites new to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.errors import TrainingError
from xstefa.inference.engine import Answer
from xstefa.inference.predict import answering
from xstefa.inference.run import Period, Run, prepare
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.distribution import (
    LEVELS,
    MEASURES,
    Distribution,
    Measure,
    Regime,
    Scale,
    measured,
    standardised,
)
from xstefa.model.registry import ModelLike
from xstefa.model.scaler import Moments
from xstefa.splits.leakage import SEEN, roles
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

RIDGE = 0.01
"""Penalty of what measures change: few sites teach little about what makes them differ."""

SMALL = 0.04
"""Of the mean at a site: what is added before logarithms, in which small flows would be far off."""

SHAPE = 1000
"""Values that stand for a shape among others."""

# Tokens that tell of errors, and where errors are alike: attributes in their canonical units.
TOKENS = ("precipitation", "temperature_mean", "aridity", "snow_fraction", "catchment_area")
FAR = 1e9
REGIMES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "few attributes known": {"known": (-FAR, 0.2)},
    "arid": {"aridity": (1.3, FAR)},
    "snowy": {"snow_fraction": (0.25, FAR)},
    "humid": {"aridity": (-FAR, 0.8)},
    "others": {},
}


class Errors(NamedTuple):
    """Days with an observation and an answer, of all sites.

    Attributes
    ----------
    site : ndarray of int64, shape (n,)
        Number of the site.
    observed : ndarray of float32, shape (n,)
        In the target's canonical unit.
    told : ndarray of float32, shape (n, 1 + k)
        Centre and measures, as `Evidence` has them.
    """

    site: NDArray[np.int64]
    observed: Floats
    told: Floats

    def select(self, rows: NDArray[np.bool_]) -> Errors:
        """Keep some days."""
        return Errors(self.site[rows], self.observed[rows], self.told[rows])

    @property
    def weight(self) -> NDArray[np.float64]:
        """Weights of the days, by which all sites count alike, shape (n,)."""
        _, where, counts = np.unique(self.site, return_inverse=True, return_counts=True)
        return np.asarray(1 / counts[where])


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(Answer):
    """The centre of what the heads say, and all that may tell of its error."""

    columns: tuple[tuple[str, int | None], ...]
    scale: Scale

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
    period: Period | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    name: str | None = None,
) -> Model:
    """Learn, at sites that a model was not trained on, what may be observed around its answers.

    From 20 sites on it is learned anew. Fewer adapt what the model knows already: of n sites it
    becomes n / (n + 10) what they say. All sites count alike, however long their records are, and
    what is said of a level holds for a new site, of which all days may be off in the same way.

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
    named = {"data": dataset} if isinstance(dataset, xr.Dataset) else dict(dataset)
    chosen = answering(
        next(iter(named.values())), target or "streamflow", model=model, rename=rename
    )
    chosen.require("target")
    spec, own = chosen.spec, chosen.spec.distribution
    parts = [
        _Part.of(
            each if observed is None else _with(each, observed, chosen),
            chosen,
            key=key,
            rename={k: v for k, v in (rename or {}).items() if k in each.variables},
            sites=sites.get(key) if isinstance(sites, Mapping) else sites,
            device=device,
            precision=precision,
            batch_size=batch_size,
            period=period,
        )
        for key, each in named.items()
    ]
    if not trained_on:
        for part in parts:
            part.refuse_seen(spec)
    scale = _scale_of(chosen, parts) if own is None else own.scale
    columns = _columns(spec)
    found = [part.errors(Evidence(columns=columns, scale=scale)) for part in parts]
    names = np.concatenate([part.ids[each.site] for part, each in zip(parts, found, strict=True)])
    # A site of two datasets is one.
    ids, site = np.unique(names, return_inverse=True)
    errors = Errors(
        site,
        np.concatenate([each.observed for each in found]),
        np.concatenate([each.told for each in found]),
    )
    if len(ids) >= FEWEST:
        distribution = _learned(errors, spec, scale=scale, columns=columns)
    elif own is not None:
        distribution = _adapted(own, errors, columns=columns)
    else:
        raise TrainingError(
            "too few sites to learn from what may be observed elsewhere",
            variable=chosen.name,
            found=f"{len(ids)} sites with observations on days with an answer",
            expected=f"{FEWEST}, or a model that was calibrated before, which fewer adapt",
            fix="more sites: ds.stefa.calibrate(...) of a dataset with all that there are",
        )
    calibration = {"sites": ids.tolist(), "learned": len(ids) >= FEWEST}
    provenance = {**spec.provenance, "calibration": calibration}
    return chosen.described(
        replace(spec, name=name or spec.name, distribution=distribution, provenance=provenance)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One dataset, the model on it, and its observations, shape (site, day)."""

    run: Run
    sites: Sites
    ids: NDArray[np.str_]
    observed: Floats

    @classmethod
    def of(
        cls, dataset: xr.Dataset, model: Model, *, key: str, sites: str | None, **how: Any
    ) -> _Part:
        run = prepare(dataset, model, **how)
        layout, target = run.binding.layout, model.spec.target
        assert target is not None
        observed = observations(run.binding, target)
        observed = observed.isel({layout.time: run.answered}).transpose(
            *layout.site_dims, layout.time
        )
        found = Sites.of(dataset, layout, name=sites)
        values = observed.values.reshape(len(found), -1)
        ids = found.ids if found.named else np.array([f"{key}:{each}" for each in found.ids])
        return cls(run=run, sites=found, ids=ids, observed=values)

    def refuse_seen(self, spec: ModelSpec) -> None:
        """Refuse sites with observations that the model learned from.

        Raises
        ------
        TrainingError
        """
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

    def errors(self, answer: Answer) -> Errors:
        """Ask the model, and pick days with an observation and an answer; sites count from 0."""
        block, layout = np.asarray(self.run.compute(answer)), self.run.binding.layout
        told = np.moveaxis(block[..., :-1], layout.dims.index(layout.time), -2)
        told = told.reshape(*self.observed.shape, -1)
        known = np.isfinite(self.observed) & np.isfinite(told[..., 0])
        picked = [_spread(np.flatnonzero(days)) for days in known]
        site = np.repeat(np.arange(len(picked)), [len(days) for days in picked])
        days = np.concatenate([np.empty(0, dtype=np.int64), *picked])
        return Errors(site, self.observed[site, days], told[site, days])


def _spread(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return so many days at most, evenly."""
    count = min(len(days), DAYS)
    return days[np.linspace(0, len(days) - 1, count).astype(int)] if count else days


def _with(dataset: xr.Dataset, observed: xr.DataArray, model: Model) -> xr.Dataset:
    """Return the dataset with observations of the model's target, by a name that it is known by."""
    assert model.target is not None
    names = [alias.name for alias in model.target.aliases if alias.units is None]
    attrs = {k: v for k, v in observed.attrs.items() if k != "standard_name"}
    if not names:
        attrs["standard_name"] = model.target.standard_names[0].name
    return dataset.assign({next(iter(names), model.target.name): observed.assign_attrs(attrs)})


def _scale_of(model: Model, parts: Sequence[_Part]) -> Scale:
    """Choose where errors are alike, by what values the target can have."""
    assert model.target is not None
    low, high = model.target.valid_range
    if (low, high) == (0, 1):
        return Scale(kind="logit", offset=0.001)
    if low != 0:
        return Scale()
    means = [np.nanmean(part.observed[known], axis=1) for part in parts
             if (known := np.isfinite(part.observed).any(axis=1)).any()]  # fmt: skip
    return Scale(kind="log", offset=max(SMALL * float(np.concatenate(means).mean()), 1e-6))


def _columns(spec: ModelSpec) -> tuple[tuple[str, int | None], ...]:
    """Name what may tell of errors, of what the model reads."""
    names = (*spec.schema.forcing_names, *spec.schema.static_names)
    tokens = tuple((name, names.index(name)) for name in TOKENS if name in spec.tokens)
    return (*((name, None) for name in MEASURES), *tokens)


def _learned(
    errors: Errors, spec: ModelSpec, *, scale: Scale, columns: tuple[tuple[str, int | None], ...]
) -> Distribution:
    """Learn a distribution; each group of sites has the errors of what the others taught."""
    sites = np.unique(errors.site)
    fold = np.random.default_rng(0).permutation(len(sites)) % FOLDS
    fold = fold[np.searchsorted(sites, errors.site)]
    left_out = np.empty((len(fold), 2), dtype=np.float32)
    for i in range(FOLDS):
        taught = _fitted(errors.select(fold != i), scale=scale, columns=columns)
        left_out[fold == i] = _in_scales(taught, errors.select(fold == i), columns)
    found = _fitted(errors, scale=scale, columns=columns)
    found = replace(found, regimes=_regimes(spec, dict(columns)), sites=len(sites))
    kept = np.bincount(
        _in_scales(found, errors, columns)[:, 1].astype(int), errors.weight, len(found.regimes)
    )
    kept[-1] = np.inf
    regimes = [r for r, count in zip(found.regimes, kept, strict=True) if count >= FEWEST_ALIKE]
    found = replace(found, regimes=tuple(regimes))
    left_out[:, 1] = _in_scales(found, errors, columns)[:, 1]
    return replace(found, regimes=_pooled(found, left_out, errors))


def _adapted(
    own: Distribution, errors: Errors, *, columns: tuple[tuple[str, int | None], ...]
) -> Distribution:
    """Change the shapes of a distribution by what a few sites say."""
    left_out = _in_scales(own, errors, columns)
    sites = len(np.unique(errors.site))
    return replace(own, regimes=_pooled(own, left_out, errors, before=own), sites=own.sites + sites)


def _in_scales(
    distribution: Distribution, errors: Errors, columns: tuple[tuple[str, int | None], ...]
) -> Floats:
    """Return observations less centre in scales, and the regime of each day, shape (n, 2)."""
    import torch

    told = torch.from_numpy(errors.told)
    measures = dict(zip(dict(columns), told[:, 1:].unbind(1), strict=True))
    centre, below, above, regime = distribution.place(told[:, 0], measures).unbind(1)
    off = distribution.scale.forward(torch.from_numpy(errors.observed)) - centre
    return torch.stack([off / torch.where(off < 0, below, above), regime], dim=1).numpy()


def _regimes(spec: ModelSpec, columns: Mapping[str, int | None]) -> tuple[Regime, ...]:
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
        if set(bounds) <= set(columns):
            found.append(Regime(name=name, within=bounds, sites=0, quantiles=(0.0,) * len(LEVELS)))
    return tuple(found)


def _pooled(
    found: Distribution, left_out: Floats, errors: Errors, *, before: Distribution | None = None
) -> tuple[Regime, ...]:
    """Return the regimes with the shapes that their sites have, and so far others, or had before.

    Of a new site nothing is known: one more, half of it below all and half above, makes a level
    hold for it whichever it is of the sites.
    """
    weight, regimes = errors.weight, []
    for i, regime in enumerate(found.regimes):
        inside = left_out[:, 1] == i
        sites = float(weight[inside].sum())
        if before is None:
            values, others = left_out[:, 0], weight * ALL_SITES / weight.sum()
            known = float(weight.sum())
        else:
            grid = (np.arange(SHAPE) + 0.5) / SHAPE
            values = before.shapes(grid)[i]
            others = np.full(SHAPE, ALL_SITES / SHAPE)
            known = before.sites + sites
        values = np.concatenate([values, left_out[inside, 0]])
        quantiles = _weighted_quantiles(values, np.concatenate([others, weight[inside]]), known)
        total = round(sites) + (0 if before is None else regime.sites)
        regimes.append(replace(regime, sites=total, quantiles=tuple(quantiles.tolist())))
    return tuple(regimes)


def _weighted_quantiles(
    values: NDArray[Any], weight: NDArray[np.float64], sites: float
) -> NDArray[np.float64]:
    """Return quantiles at `LEVELS` that hold for one more site than there are."""
    order = np.argsort(values)
    below = np.cumsum(weight[order]) - weight[order] / 2
    levels = (np.array(LEVELS) * (sites + 1) - 0.5) / sites
    return np.interp(levels, below / weight.sum(), values[order].astype(np.float64))


def _fitted(
    errors: Errors, *, scale: Scale, columns: tuple[tuple[str, int | None], ...]
) -> Distribution:
    """Fit centre and scales, and one shape, by the mean pinball loss over all levels.

    That is the continuous ranked probability score, up to a factor, in the transformed target.
    """
    import torch
    from torch.nn import functional

    moments = [_moments(values) for values in errors.told[:, 1:].T]
    told = torch.from_numpy(errors.told).double()  # single precision stops the search early
    scaled = torch.stack(
        [standardised(v, m) for v, m in zip(told[:, 1:].unbind(1), moments, strict=True)], dim=1
    )
    off = (scale.forward(torch.from_numpy(errors.observed).double()) - told[:, 0])[:, None]
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    middles = (levels[1:] + levels[:-1]) / 2
    shares = torch.diff(middles, prepend=levels.new_zeros(1), append=levels.new_ones(1))
    weight = torch.from_numpy(errors.weight)[:, None] * shares
    weight = weight / weight.sum()
    constants = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    slopes = torch.zeros(len(moments), 2, dtype=torch.float64, requires_grad=True)
    steps = torch.full((len(LEVELS) - 1,), -1.0, dtype=torch.float64, requires_grad=True)
    middle = LEVELS.index(0.5)

    def loss() -> Tensor:
        shape = functional.pad(functional.softplus(steps).cumsum(0), (1, 0))
        shape = shape - shape[middle]
        below, above = (constants[1:] + scaled @ slopes).exp().split(1, dim=1)
        excess = off - constants[0] - torch.where(shape < 0, below, above) * shape
        pinball = torch.maximum(levels * excess, (levels - 1) * excess)
        return (weight * pinball).sum() + RIDGE * (slopes**2).sum()

    parameters = [constants, slopes, steps]
    optimiser = torch.optim.LBFGS(parameters, max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
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
        sites=len(np.unique(errors.site)),
    )


def _moments(values: Floats) -> Moments:
    """Return the moments of known values; what never varies tells nothing."""
    known = values[np.isfinite(values)].astype(np.float64)
    std = float(known.std()) if known.size else 0.0
    return Moments(mean=float(known.mean()) if known.size else 0.0, std=std if std > 1e-6 else 1.0)
