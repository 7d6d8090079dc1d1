"""Score the trained models on held-out sites, write their cards, and put them into the package.

    python examples/release_weights.py DATA OUT

DATA and OUT as for `train_release.py`. Each model is rounded to half precision first, and what is
scored is the rounded model, through `ds.stefa.predict`, beside the plain LSTM trained on the same
sites.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import xarray as xr
from train_release import TASKS, held_out_sites, opened

import xstefa
from xstefa.binding import bind
from xstefa.evaluation import metrics
from xstefa.model.checkpoint import Model, create_model, load_model
from xstefa.training.ensemble import ensemble

WEIGHTS = Path(xstefa.__file__).parent / "weights"
RESAMPLES = 2000

LICENCES = {
    "camels": "CAMELS-US (CC-BY-4.0): Newman et al. 2015, doi:10.5194/hess-19-209-2015; Addor et "
    "al. 2017, doi:10.5194/hess-21-5293-2017. Daymet and USGS: US public data.",
    "mopex": "MOPEX (US Government work): Schaake et al. 2006; Duan et al. 2006, "
    "doi:10.1016/j.jhydrol.2005.07.031.",
    "smap": "SMAP L3 and NLDAS-2 (open NASA data), as extracted in the hydroDL example data, whose "
    "notice is non-commercial.",
    "fluxnet": "FLUXNET2015 Tier One (CC-BY-4.0): Pastorello et al. 2020, "
    "doi:10.1038/s41597-020-0534-3; collection of Giardina et al. 2023, "
    "doi:10.5281/zenodo.7853208.",
    "drb": "National Hydrologic Model, Delaware River Basin (CC0, USGS), forcing only.",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one released model is judged by."""

    source: str
    period: slice
    scores: dict[str, Callable[..., xr.DataArray]]
    text: str
    failures: str


TRIALS = {
    "streamflow": Trial(
        source="camels",
        period=slice("1989-10-01", "1999-09-30"),
        scores={
            "NSE": metrics.nse,
            "KGE": metrics.kge,
            "correlation": metrics.correlation,
            "RMSE (mm/d)": metrics.rmse,
        },
        text="CAMELS-US basins held out of pretraining and training, 1989-10 to 1999-09",
        failures="""Arid and intermittent basins, where NSE is often negative; basins with dams, diversions or
large lakes, of which nothing in the inputs tells; snow-fed basins in the first spring of a record,
since a window looks back less than a year. Trained on basins of the United States only.""",
    ),
    "soil-moisture-grid": Trial(
        source="smap",
        period=slice(None),
        scores={
            "ubRMSE (m3 m-3)": metrics.ubrmse,
            "RMSE (m3 m-3)": metrics.rmse,
            "correlation": metrics.correlation,
        },
        text="SMAP cells of the sparse lattice over the United States held out of pretraining and "
        "training, 2015-04 to 2017-03",
        failures="""Dense forest, frozen ground and coasts, where SMAP itself is uncertain; irrigation, which the
weather does not show; the level (not the course) outside the United States, and anything deeper than
the 5 cm that SMAP senses.""",
    ),
    "soil-moisture-point": Trial(
        source="fluxnet",
        period=slice(None),
        scores={
            "correlation": metrics.correlation,
            "ubRMSE (m3 m-3)": metrics.ubrmse,
            "RMSE (m3 m-3)": metrics.rmse,
        },
        text="FLUXNET towers held out of pretraining and training, shallowest sensor",
        failures="""The level, which depends on sensor depth and calibration that no attribute tells; winter and rainy
days, which the training data under-sample; peat and irrigated soils. Few towers were held out, so
the interval is wide.""",
    ),
}


def table(dataset: xr.Dataset, task: str, models: dict[str, Model]) -> tuple[str, int]:
    """Return a Markdown table of medians over held-out sites, and the number of sites."""
    trial, target = TRIALS[task], TASKS[task].target
    dataset = dataset.sel(time=trial.period)
    observed = bind(dataset, xstefa.load_schema()).observed(target).load()
    sites = [d for d in observed.dims if d != "time"]
    rows = [
        "| model | " + " | ".join(trial.scores) + " |",
        "|---" * (len(trial.scores) + 1) + "|",
    ]
    count = 0
    for label, model in models.items():
        predicted = dataset.stefa.predict(target, model=model)
        cells = []
        for score in trial.scores.values():
            values = score(predicted, observed, dim="time").stack(site=sites).dropna("site").values
            count = len(values)
            drawn = np.random.default_rng(0).choice(values, (RESAMPLES, count))
            low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
            cells.append(f"{np.median(values):.3f} ({low:.3f} to {high:.3f})")
        rows.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(rows), count


def minutes(out: Path, name: str) -> float:
    """Return how long a stage took, as its log says."""
    seconds: float = json.loads((out / f"{name}.json").read_text())["seconds"]
    return seconds / 60


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--folder", type=click.Path(path_type=Path), default=WEIGHTS, show_default=True)
@click.argument("tasks", nargs=-1, type=click.Choice(list(TRIALS)))
def main(data, out, folder, tasks):
    """Release TASKS (all by default)."""
    for task in tasks or TRIALS:
        names = [p.stem for p in sorted(out.glob(f"stefaland-{task}*.safetensors"))]
        trained = [load_model(out / f"{name}.safetensors") for name in names]
        model = trained[0] if len(trained) == 1 else ensemble(trained, name=task)
        weights = model.network().state_dict()
        rounded = create_model(model.spec, weights, half=True)
        scores, sites = table(
            held_out_sites(opened(data, TRIALS[task].source), TRIALS[task].source),
            task,
            {
                "StefaLand (this model)": rounded,
                "LSTM": load_model(out / f"lstm-{task}.safetensors"),
            },
        )
        card = (
            (Path(__file__).parent / "model_card.md")
            .read_text()
            .format(
                name=task,
                target=TASKS[task].target,
                support=TASKS[task].support,
                trial=TRIALS[task].text,
                scores=scores,
                sites=sites,
                members=model.spec.architecture.head.members,
                minutes=", ".join(f"{minutes(out, name):.0f}" for name in names),
                pretraining=f"{minutes(out, 'stefaland-pretrain'):.0f}",
                lstm=f"{minutes(out, f'lstm-{task}'):.0f}",
                tokens=", ".join(model.spec.tokens),
                failures=TRIALS[task].failures,
            licences="\n".join(f"- {text}" for text in LICENCES.values()),
                provenance=json.dumps(dict(model.spec.provenance), indent=2),
            )
        )
        spec = replace(model.spec, name=task, card=card)
        print(create_model(spec, weights, half=True).save(folder / task))
        print(scores)


if __name__ == "__main__":
    main()
