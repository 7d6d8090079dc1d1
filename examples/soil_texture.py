"""Sand, silt and clay from the attributes of a site: against trees, and neighbours on the map.

    python examples/soil_texture.py test DATA OUT     # folds, baselines: soil-texture.json
    python examples/soil_texture.py release DATA OUT  # the model that ships, and its card
    python examples/soil_texture.py profiles DATA     # learned from soil profiles, not shipped

DATA is a folder with ``camels_us.nc``, ``caravan_attributes.nc`` and ``soil_profiles.nc``. Folds
are blocks of space of 5 degrees, 50 km from any training site, and random sites. Baselines read the
same attributes; the settings of trees are the best of those tried on the very folds that are
scored, which flatters them.

CAMELS-US states shares of all that is in the soil, organic matter and water included: each is
divided by the sum of the three. Caravan's gauges of CAMELS-US are left out, since they are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import xstefa
from xstefa.evaluation.sites import joined
from xstefa.splits.holdout import BlocksOfSpace, Holdout, RandomGroups
from xstefa.training.options import HeadOptions
from xstefa.training.site_data import SiteData
from xstefa.training.site_errors import train_validated
from xstefa.training.sites import SiteTask, train_sites

PARTS = ("sand", "silt", "clay")
CAMELS = tuple(f"{name}_frac" for name in PARTS)
HOLDOUTS: dict[str, Holdout] = {"blocks": BlocksOfSpace(), "random": RandomGroups(5)}
LICENCES = """\
- CAMELS-US (CC-BY-4.0): Newman et al. 2015, doi:10.5194/hess-19-209-2015; Addor et al. 2017,
  doi:10.5194/hess-21-5293-2017; texture from STATSGO (Miller and White 1998).
- Caravan (CC-BY-4.0): Kratzert et al. 2023, doi:10.1038/s41597-023-01975-w; HydroATLAS (CC-BY-4.0):
  Linke et al. 2019, doi:10.1038/s41597-019-0300-6; texture from SoilGrids (Hengl et al. 2017)."""

Array = NDArray[np.float64]
Baseline = Callable[[Array, Array, Array, Array, Array], Array]


def opened(data: Path, name: str) -> xr.Dataset:
    """Open what has no days of a dataset, ready to learn texture from."""
    ds = xr.open_dataset(data / f"{name}.nc")
    ds = ds[[key for key, each in ds.items() if "time" not in each.dims]].load()
    if name == "camels_us":
        total = sum(ds[key] for key in CAMELS)
        ds = ds.assign({key: (100 * ds[key] / total).assign_attrs(units="%") for key in CAMELS})
    if name == "caravan_attributes":
        ds = ds.isel(basin=ds.source_dataset.values != "camels")
    if name == "soil_profiles":
        ds = ds.isel(depth=0, drop=True)  # the topsoil
    return ds


def neighbours(train: Array, target: Array, _: Array, here: Array, there: Array) -> Array:
    """Ten training sites nearest on the globe, weighted by distance."""
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(10, weights="distance").fit(here, target).predict(there)


def kriged(train: Array, target: Array, _: Array, here: Array, there: Array) -> Array:
    """Kriging by place: exponential covariance and nugget, fitted to 600 training sites at most."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern, WhiteKernel

    some = np.random.default_rng(0).permutation(len(here))[:600]
    how = {"normalize_y": True, "random_state": 0}
    covariance = 1.0 * Matern(0.1, nu=0.5) + WhiteKernel(0.1)
    fitted = GaussianProcessRegressor(covariance, **how).fit(here[some], target[some]).kernel_
    return GaussianProcessRegressor(fitted, optimizer=None, **how).fit(here, target).predict(there)


def mean(train: Array, target: Array, test: Array, here: Array, there: Array) -> Array:
    """Mean of the training sites."""
    return np.tile(target.mean(axis=0), (len(test), 1))


def boosted(**how: float) -> Baseline:
    """LightGBM, a model for each part."""
    from lightgbm import LGBMRegressor

    fixed = {"n_jobs": 1, "verbose": -1, "subsample": 0.7, "subsample_freq": 1}

    def answer(train: Array, target: Array, test: Array, here: Array, there: Array) -> Array:
        models = [LGBMRegressor(**fixed, **how).fit(train, part) for part in target.T]
        return np.stack([model.predict(test) for model in models], axis=1)

    return answer


def forest(share: float) -> Baseline:
    """Random forest; missing values are medians, and said to be missing."""
    from sklearn.ensemble import RandomForestRegressor

    def answer(train: Array, target: Array, test: Array, here: Array, there: Array) -> Array:
        middle = np.nan_to_num(np.nanmedian(train, axis=0))
        read = [np.hstack([np.where(np.isnan(a), middle, a), np.isnan(a)]) for a in (train, test)]
        model = RandomForestRegressor(200, max_features=share, min_samples_leaf=2, random_state=0)
        return model.fit(read[0], target).predict(read[1])

    return answer


def baselines() -> dict[str, dict[str, Baseline]]:
    """Return baselines by kind, each with the settings that are tried."""
    rates = [(0.03, 400), (0.06, 200)]
    return {
        "mean": {"": mean},
        "neighbours on the map": {"10": neighbours},
        "kriging by place": {"": kriged},
        "random forest": {f"{share}": forest(share) for share in (0.33, 0.6)},
        "boosted trees": {
            f"{leaves} leaves, {share} of the attributes, rate {rate}": boosted(
                learning_rate=rate,
                n_estimators=steps,
                num_leaves=leaves,
                colsample_bytree=share,
                min_child_samples=10,
            )
            for leaves in (6, 15)
            for share in (0.3, 0.6)
            for rate, steps in rates
        },
    }


def points(data: SiteData) -> Array:
    """Return the places of sites on the unit sphere."""
    up, along = map(np.radians, data.land.places())
    return np.stack([np.cos(up) * np.cos(along), np.cos(up) * np.sin(along), np.sin(up)], axis=1)


def cross_validated(
    task: SiteTask,
    data: list[SiteData],
    holdout: Holdout,
    beside: dict[str, dict[str, Baseline]],
) -> dict[str, Array]:
    """Predict each site by models that did not learn from it, shape (site, part)."""
    splits = [holdout.numbered(part.land) for part in data]
    static = np.concatenate([part.static for part in data])
    hidden = set(task.targets[0].hidden)
    read = [name not in hidden for name in task.schema.site_columns]
    static = static[:, read & np.isfinite(static).any(axis=0)]
    observed = np.concatenate([part.observed[..., 0] for part in data]).astype(float)
    places = np.concatenate([points(part) for part in data])
    found: dict[str, Array] = {"observed": observed}
    settings = {"model": {"": None}, **beside}
    named = [f"{kind}: {one}" for kind, each in settings.items() for one in each]
    found |= {name: np.full_like(observed, np.nan) for name in named}
    for number in splits[0]:
        parts = [split[number] for split in splits]
        train = np.concatenate([fold.train_sites for fold in parts])
        test = np.concatenate([fold.test_sites for fold in parts])
        found["model: "][test] = answered(train_sites(task, data, parts), data, parts)
        for kind, each in beside.items():
            for one, baseline in each.items():
                found[f"{kind}: {one}"][test] = baseline(
                    static[train], observed[train], static[test], places[train], places[test]
                )
        click.echo(f"  fold {number + 1} of {len(splits[0])}")
    return found


def answered(model: xstefa.Model, data: list[SiteData], folds: list) -> Array:
    """Predict the sites that folds test."""
    rows = []
    for part, fold in zip(data, folds, strict=True):
        answer = joined(part.binding.dataset.stefa.predict(list(PARTS), model=model))
        rows.append(answer.transpose(..., "target").values[part.present][fold.test_sites])
    return np.concatenate(rows)


def r2(predicted: Array, observed: Array) -> Array:
    """Share of the variance over sites that is explained, of each part."""
    return 1 - ((predicted - observed) ** 2).sum(0) / ((observed - observed.mean(0)) ** 2).sum(0)


def crps(predicted: Array, observed: Array) -> Array:
    """Score of the answers with the errors of all other sites around them (Gneiting 2007)."""
    errors = np.quantile(observed - predicted, (np.arange(50) + 0.5) / 50, axis=0)
    spread = np.abs(errors[:, None] - errors[None]).mean(axis=(0, 1)) / 2
    return np.abs(predicted + errors[:, None] - observed).mean(axis=(0, 1)) - spread


def scored(found: dict[str, Array], blocks: Array) -> dict[str, object]:
    """Score all, and the model against the best trees, with intervals over blocks of space."""
    observed = found["observed"]
    best: dict[str, str] = {}
    for name in found:
        kind = name.partition(":")[0]
        if kind == "observed":
            continue
        better = kind not in best or r2(found[name], observed).mean() > best[kind][0]
        if better:
            best[kind] = (r2(found[name], observed).mean(), name)
    table = {
        kind: {
            "setting": name.partition(": ")[2],
            "r2": r2(found[name], observed).round(4).tolist(),
            "rmse": np.sqrt(((found[name] - observed) ** 2).mean(0)).round(4).tolist(),
            "crps": crps(found[name], observed).round(4).tolist(),
        }
        for kind, (_, name) in best.items()
    }
    random = np.random.default_rng(0)
    groups = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    draws = []
    for _ in range(2000):
        rows = np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])
        one, two = (found[best[kind][1]][rows] for kind in ("model", "boosted trees"))
        draws.append(r2(one, observed[rows]) - r2(two, observed[rows]))
    interval = np.quantile(draws, [0.025, 0.975], axis=0).round(4)
    return {
        "scores": table,
        "r2_above_boosted_trees_95": dict(zip(PARTS, interval.T.tolist(), strict=True)),
    }


def blocks_of(data: list[SiteData], degrees: float = 5.0) -> Array:
    """Return a number for the block of space of each site, of any dataset."""
    latitude, longitude = np.concatenate([part.land.places() for part in data], axis=1)
    return np.floor(latitude / degrees) * 1000 + np.floor(longitude / degrees)


def read(data: Path, *names: str) -> tuple[SiteTask, list[SiteData]]:
    """Match and read datasets for the task."""
    task = SiteTask.of("texture", model=None, how=HeadOptions())
    assert task is not None
    datasets = {name: opened(data, name) for name in names}
    return task, task.read(datasets, rename=None, sites=None)


@click.group()
def main() -> None:
    """Learn soil texture from attributes of sites."""


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def test(data: Path, out: Path) -> None:
    """Cross-validate, beside baselines on the same attributes and folds."""
    report: dict[str, object] = {}
    for names in (("camels_us",), ("camels_us", "caravan_attributes")):
        task, known = read(data, *names)
        for kind, holdout in HOLDOUTS.items():
            click.echo(f"{' and '.join(names)}, {kind}")
            found = cross_validated(task, known, holdout, baselines())
            result = scored(found, blocks_of(known))
            report[f"{' and '.join(names)}, {kind}"] = {
                "sites": len(found["observed"]),
                "holdout": holdout.to_dict(),
                **result,
            }
            out.mkdir(parents=True, exist_ok=True)
            (out / "soil-texture.json").write_text(json.dumps(report, indent=1) + "\n")
            for line, each in result["scores"].items():
                click.echo(f"{line:24} R2 {each['r2']}  CRPS {each['crps']}")
            click.echo(result["r2_above_boosted_trees_95"])


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
def profiles(data: Path) -> None:
    """Learn from profiles of the topsoil, of which terrain and canopy are all that is known."""
    task, known = read(data, "soil_profiles")
    tried = baselines()
    del tried["kriging by place"]  # of 13,000 sites
    found = cross_validated(task, known, HOLDOUTS["blocks"], tried)
    click.echo(f"{len(found['observed'])} profiles, blocks of space")
    result = scored(found, blocks_of(known))
    for line, each in result["scores"].items():
        click.echo(f"{line:24} R2 {each['r2']}")
    click.echo(result["r2_above_boosted_trees_95"])


CARD = Path(__file__).with_name("soil_texture_card.md")


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def release(data: Path, out: Path) -> None:
    """Train on all sites of both, write the card from the report of `test`, and save."""
    report = json.loads((out / "soil-texture.json").read_text())
    task, known = read(data, "camels_us", "caravan_attributes")
    folds = [part.fold(None) for part in known]
    task = replace(task, how=replace(task.how, validation=BlocksOfSpace()))
    model = train_validated(task, known, folds, support="any", name="soil-texture")
    profiles = xr.open_dataset(data / "soil_profiles.nc").load()
    answer = (
        joined(profiles.stefa.predict(list(PARTS), model=model)).transpose(..., "target").values
    )
    top = np.stack([profiles[name].isel(depth=0).values / 100 for name in PARTS], axis=1)
    there = np.isfinite(top + answer).all(axis=1)
    lines = ["| sites | kind | R2 sand, silt, clay | RMSE |", "|---|---|---|---|"]
    for case, content in report.items():
        lines += [
            f"| {case} | {kind} | {_row(each['r2'])} | {_row(each['rmse'])} |"
            for kind, each in content["scores"].items()
        ]
    intervals = "; ".join(
        f"{case}: "
        + ", ".join(
            f"{name} {low:+.3f} to {high:+.3f}"
            for name, (low, high) in content["r2_above_boosted_trees_95"].items()
        )
        for case, content in report.items()
    )
    card = CARD.read_text().format(
        table="\n".join(lines),
        intervals=intervals,
        profiles=_row(r2(answer[there], top[there])),
        sites=sum(len(part.land) for part in known),
        tokens=len(model.spec.tokens),
        read=", ".join(model.spec.tokens),
        licences=LICENCES,
    )
    model.described(replace(model.spec, card=card)).save(out / "soil-texture")


def _row(values: Array) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
