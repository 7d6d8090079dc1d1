"""What experiments on classes of sites share: blocks of space, baselines, scores with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xstefa.schema import Target
from xstefa.splits.holdout import Regions

FOLDS, DRAWS = 5, 500
GRID = {
    "max_iter": [30, 100],
    "max_leaf_nodes": [3, 8],
    "min_samples_leaf": [10, 20],
}


def blocks(x: np.ndarray, y: np.ndarray, size: float) -> np.ndarray:
    """Give each point the number of the square of this size in which it lies."""
    corners = np.floor(np.stack([x, y], axis=1) / size).astype(int)
    return np.unique(corners, axis=0, return_inverse=True)[1].ravel()


def in_folds(block: np.ndarray, *, seed: int = 0, folds: int = FOLDS) -> np.ndarray:
    """Deal whole blocks to folds, the largest first, each to the fold with the fewest points."""
    names, counts = np.unique(block, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    held, fold = np.zeros(folds), np.empty(len(names), dtype=int)
    for i in order:
        fold[i] = np.argmin(held)
        held[fold[i]] += counts[i]
    return fold[np.searchsorted(names, block)]


def by_xstefa(ds: xr.Dataset, target: Target, dim: str, **how: Any) -> np.ndarray:
    """Predict each point by a model of the other folds, which stand in ``ds.fold``."""
    found = np.full(ds.sizes[dim], np.nan)
    holdout = Regions("fold")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(int(ds.fold.max()) + 1):
            model = ds.stefa.finetune(target, holdout=holdout.fold(k), **how)
            trained = model.spec.provenance["datasets"]["data"]["trained"]
            learned = np.isin(ds[dim].values.astype(str), trained)
            (own,) = np.setdiff1d(ds.fold.values, ds.fold.values[learned])
            out = ds.fold.values == own
            answer = ds.isel({dim: out}).stefa.predict(model, rename=how.get("rename"))
            # Where nothing is known there is no answer; others would give the base rate, too.
            found[out] = answer.fillna(float(ds[target.name].values[learned].mean()))
    return found


def logistic(y: np.ndarray, groups: np.ndarray) -> Any:
    """Return logistic regression, its penalty chosen by blocks of the training points."""
    inner = list(GroupKFold(5).split(y, groups=groups))
    chosen = LogisticRegressionCV(
        Cs=np.logspace(-4, 2, 13), cv=inner, scoring="neg_log_loss", max_iter=2000,
        use_legacy_attributes=False, l1_ratios=(0.0,),
    )  # fmt: skip
    return make_pipeline(SimpleImputer(), StandardScaler(), chosen)


def unpenalised(y: np.ndarray, groups: np.ndarray) -> Any:
    """Return plain logistic regression, of a single predictor."""
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=1e6))


def boosting(y: np.ndarray, groups: np.ndarray) -> Any:
    """Return boosted trees, tuned by blocks of the training points."""
    return GridSearchCV(
        HistGradientBoostingClassifier(random_state=0, early_stopping=False, learning_rate=0.05),
        GRID,
        scoring="neg_log_loss",
        cv=list(GroupKFold(5).split(y, groups=groups)),
    )


def by_baseline(
    make: Callable[[np.ndarray, np.ndarray], Any],
    x: np.ndarray,
    y: np.ndarray,
    block: np.ndarray,
    fold: np.ndarray,
) -> np.ndarray:
    """Predict each point by a baseline of the other folds."""
    found = np.full(len(y), np.nan)
    for k in np.unique(fold):
        out = fold == k
        model = make(y[~out], block[~out]).fit(x[~out], y[~out])
        found[out] = model.predict_proba(x[out])[:, 1]
    return found


def scores(
    y: np.ndarray, answers: Mapping[str, np.ndarray], block: np.ndarray, against: str
) -> pd.DataFrame:
    """Return AUC and Brier score with intervals of 90 % over blocks, and differences of AUC."""
    rng, names = np.random.default_rng(0), np.unique(block)
    members = [np.flatnonzero(block == name) for name in names]
    draws = [
        np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
        for _ in range(DRAWS)
    ]
    draws = [rows for rows in draws if 0 < y[rows].mean() < 1]

    def over(score: Callable[[np.ndarray], float]) -> str:
        found = [score(rows) for rows in draws]
        low, high = np.quantile(found, [0.05, 0.95])
        return f"{score(np.arange(len(y))):.3f} ({low:.3f} to {high:.3f})"

    table = {}
    for name, p in answers.items():
        table[name] = {
            "AUC": over(lambda rows, p=p: roc_auc_score(y[rows], p[rows])),
            "Brier": over(lambda rows, p=p: brier_score_loss(y[rows], p[rows])),
            f"AUC less {against}": over(
                lambda rows, p=p: (
                    roc_auc_score(y[rows], p[rows]) - roc_auc_score(y[rows], answers[against][rows])
                )
            ),
        }
    return pd.DataFrame(table).T


def reliability(y: np.ndarray, p: np.ndarray, bins: int = 5) -> pd.DataFrame:
    """Return what was predicted and found in fifths of the points, by what was predicted."""
    parts = np.array_split(np.argsort(p), bins)
    return pd.DataFrame(
        {
            "points": [len(rows) for rows in parts],
            "predicted": [p[rows].mean() for rows in parts],
            "found": [y[rows].mean() for rows in parts],
        }
    )
