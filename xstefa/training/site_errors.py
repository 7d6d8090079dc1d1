"""How far static targets are off at sites that training did not see, and what that lets expect.

A model is learned again without each fold of sites in turn: all that is kept of these models are
their errors there. The model of all sites then states quantiles, by `learn`, as daily ones do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xstefa.errors import TrainingError
from xstefa.inference.engine import Answer, EngineKey
from xstefa.inference.sites import answer_sites
from xstefa.model.checkpoint import Model
from xstefa.model.distribution import Distribution, Scale, measured
from xstefa.model.ranges import bounded
from xstefa.progress import progress
from xstefa.splits.holdout import Fold, as_holdout
from xstefa.splits.sites import Mask
from xstefa.training.calibration import FEWEST, Errors, Evidence, learn, scale_for
from xstefa.training.site_data import SiteData
from xstefa.training.sites import SiteTask, check_folds, train_sites
from xstefa.windows import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.network import StefaLand

COLUMNS = (("level", None), ("disagreement", None))
"""What tells of an error: the answer, and how heads differ. How much is known does not: what lacks
attributes in one training set may be easier to tell than what has them in another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEvidence(Answer):
    """Of each target at each depth the mean of the heads, transformed, and what tells of errors."""

    evidence: Evidence

    @property
    def daily(self) -> bool:
        """Whether there is one for each day: there is none."""
        return False

    def width(self, spec: ModelSpec) -> int:
        """Return the number of targets, depths, and measures and one."""
        size = spec.architecture.heads[0]
        return size.outputs * size.levels * self.evidence.width(spec)

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return centres and measures, shape (B, width)."""
        import torch

        columns, nothing = dict(self.evidence.columns), static.new_empty((len(static), 1, 0))
        found = []
        for members in network.sites(static).flatten(1, 2).split(1, dim=1):
            centre, told = measured(columns, self.evidence.scale, members, nothing, static)
            found += [centre, *told.values()]
        return torch.cat(found, dim=-1)


def train_validated(
    task: SiteTask, data: Sequence[SiteData], folds: Sequence[Fold], **how: Any
) -> Model:
    """Learn as `train_sites`, and from errors in the folds of ``task.how.validation`` quantiles.

    Raises
    ------
    TrainingError
        If fewer than `FEWEST` sites are tested.
    """
    validation = task.how.validation
    if validation is None:
        return train_sites(task, data, folds, **how)
    check_folds(task, data, folds)
    inner = [list(_within(part, fold, task)) for part, fold in zip(data, folds, strict=True)]
    _require_enough(data, folds, inner)
    model = train_sites(task, data, folds, **how)
    alone = replace(task, how=replace(task.how, validation=None))
    scale = _scale(task, data, folds)
    answer = SiteEvidence(evidence=Evidence(columns=COLUMNS, scale=scale))
    shape = (len(task.targets) * data[0].observed.shape[-1], len(COLUMNS) + 1)
    told = [np.full((len(part.static), *shape), np.nan, dtype=np.float32) for part in data]
    rounds = list(zip(*inner, strict=True))
    with progress("learning errors", total=len(rounds), unit="folds") as bar:
        for parts in rounds:
            without = train_sites(alone, data, parts)
            for values, part, fold in zip(told, data, parts, strict=True):
                static = part.static[fold.test_sites]
                values[fold.test_sites] = _told(without, answer, static).reshape(-1, *shape)
            bar.update()
    names = [f"{part.name}:{site}" for part in data for site in part.land.ids]
    observed = np.concatenate([part.observed for part in data]).reshape(len(names), -1)
    distributions = tuple(
        _learned(np.array(names), of_one, seen, answer.evidence, model.spec)
        for of_one, seen in zip(np.moveaxis(np.concatenate(told), 1, 0), observed.T, strict=True)
    )
    provenance = {**model.spec.provenance, "validation": validation.to_dict()}
    return model.described(replace(model.spec, distributions=distributions, provenance=provenance))


def _within(part: SiteData, fold: Fold, task: SiteTask) -> Iterator[Fold]:
    """Split the training sites of a fold once more."""
    holdout = as_holdout(task.how.validation, name="validation")

    def of_all(chosen: Mask) -> Mask:
        found = fold.train_sites.copy()
        found[found] = chosen
        return found

    for each in holdout.folds(part.land.select(fold.train_sites)):
        train, test = of_all(each.train_sites), of_all(each.test_sites)
        yield replace(each, train_sites=train, test_sites=test)


def _require_enough(
    data: Sequence[SiteData], folds: Sequence[Fold], inner: Sequence[Sequence[Fold]]
) -> None:
    """Refuse folds that test fewer than `FEWEST` sites, before anything is learned.

    Raises
    ------
    TrainingError
    """
    tested = [np.any([each.test_sites for each in of_part], axis=0) for of_part in inner]
    count, possible = (
        sum(
            np.isfinite(part.observed[sites]).sum(axis=0)
            for part, sites in zip(data, chosen, strict=True)
        ).min()
        for chosen in (tested, [fold.train_sites for fold in folds])
    )
    if count < FEWEST:
        raise TrainingError(
            "too few sites to learn from what may be observed elsewhere",
            variable="validation",
            found=f"{count} sites with observations in its folds",
            expected=f"at least {FEWEST}",
            fix="validation=RandomGroups(5), which tests every site"
            if possible >= FEWEST
            else f"leave validation out, or learn from more than these {possible} sites",
        )


def _scale(task: SiteTask, data: Sequence[SiteData], folds: Sequence[Fold]) -> Scale:
    learned = [p.observed[f.train_sites] for p, f in zip(data, folds, strict=True)]
    return scale_for(task.targets[0], float(np.nanmean(np.concatenate(learned))))


def _told(model: Model, answer: SiteEvidence, static: Floats) -> Floats:
    """Ask a model at sites, shape (site, width), whose attributes are all that are known."""
    spec = model.spec
    read = [token.name in spec.tokens for token in spec.schema.site_columns.values()]
    static = bounded(np.where(read, static, np.float32(np.nan)), spec.schema, spec.ranges)
    return answer_sites(EngineKey(model=model), answer, static)


def _learned(
    names: np.ndarray, told: Floats, observed: Floats, evidence: Evidence, spec: ModelSpec
) -> Distribution:
    """Learn the distribution of one target at one depth."""
    known = np.isfinite(told[:, 0]) & np.isfinite(observed)
    errors = Errors(
        ids=names[known],
        site=np.arange(known.sum()),
        observed=observed[known],
        told=told[known],
        evidence=evidence,
        groups=names[known],
    )
    return learn(errors, spec)
