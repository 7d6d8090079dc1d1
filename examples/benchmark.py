"""How good is it where nobody measured: StefaLand, its ablations and the LSTM on real data.

    python examples/benchmark.py DATA OUT                            # reduced: hours on one core
    python examples/benchmark.py DATA OUT --protocol full            # a GPU
    python examples/benchmark.py DATA OUT --protocol smoke           # minutes: does it run?
    python examples/benchmark.py DATA OUT --experiments unseen,few   # some of it

DATA holds camels_us.nc, conus_smap_nldas.nc and fluxnet_daily.nc. Experiments:

- ``pub``, ``pur``: streamflow at ten random groups of basins, in seven regions of HUC-02 units;
- ``unseen``: streamflow at the basins that the released weights have never seen;
- ``few``: the same, or one group of ``pub``, learned from 10 to 300 basins only;
- ``cells``, ``towers``: soil moisture at cells of SMAP, at towers of FLUXNET.

All models of an experiment learn from the same sites and days, with the same number of steps and
windows, and are scored on identical sites and days. The full protocol pretrains a foundation model
for each fold without the sites that it tests. The reduced one does so for regions; else it uses the
released model, and reports of how many tested sites that may know the weather. It also has
``short``: ``unseen`` with little training, and with an encoder that was not pretrained.

What is done is kept in OUT/<protocol>/runs: a call that was interrupted goes on there, inside a run
where it was.

OUT/<protocol>/<experiment>-<seed>, with few <experiment>-<sites>-<seed>, gets sites.csv (every site
and model), medians.csv, report.json (medians, bootstrap intervals, paired tests against the LSTM,
seeds, hashes, versions, the paper's values), cdf.png and map.png.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr

import xstefa
from xstefa.datasets import US_OUTLINE
from xstefa.evaluation.report import compare, write_report
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.model.variants import VARIANTS
from xstefa.options import get_options
from xstefa.plotting.scores import plot_cdf, plot_map
from xstefa.splits.holdout import PUB, PUR, FewSites, HashedSites, Holdout, RandomGroups
from xstefa.splits.leakage import HELD_OUT
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.finetune import HeadRecipe
from xstefa.training.options import Schedule
from xstefa.training.runs import versions
from xstefa.windows import SegmentPolicy

# Models look back only: they learn on two years, one of them spin-up; of soil on half of that.
WINDOWS = SegmentPolicy(length=730, spin_up=365)
SOIL_WINDOWS = SegmentPolicy(length=548, spin_up=183)
PRETRAINING_WINDOWS = SegmentPolicy(length=640, spin_up=128)
CAUSAL = EncoderSize(attention="causal", band=128, positions=1000)


def basins(data: Path) -> xr.Dataset:
    """Open the basins of the 531 that are in the file, 1980-10-01 to 1995-09-30."""
    dataset = xr.open_dataset(data / "camels_us.nc").sel(time=slice("1980-10-01", "1995-09-30"))
    return dataset.isel(basin=np.flatnonzero(dataset["in_531_subset"].values == 1))


def cells(data: Path) -> xr.Dataset:
    """Open the lattice, as sites: the cells that SMAP observed, under the names held out by."""
    dataset = xr.open_dataset(data / "conus_smap_nldas.nc").drop_dims("nv")
    dataset = dataset.stack(cell=("lat", "lon"))
    names = [f"smap:{place}" for place in dataset["cell"].to_index()]
    dataset = dataset.reset_index("cell").assign_coords(
        cell=("cell", names, {"cf_role": "timeseries_id"})
    )
    return dataset.isel(cell=dataset["soil_moisture"].notnull().any("time").values)


def towers(data: Path) -> xr.Dataset:
    """Open the towers that measure soil moisture."""
    dataset = xr.open_dataset(data / "fluxnet_daily.nc")
    return dataset.isel(station=dataset["swc"].notnull().any(("time", "swc_layer")).values)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A target where it was observed.

    Attributes
    ----------
    record : str
        Variable with dimensions site and time.
    published : str, optional
        A prediction that is in the file, to compare with.
    """

    open: Callable[[Path], xr.Dataset]
    target: str
    record: str
    link: str
    scale: float
    recipe: HeadRecipe
    scores: tuple[str, ...]
    published: str | None = None


FLOW = Task(
    open=basins,
    target="streamflow",
    record="prcp",
    link="softplus",
    scale=2.0,
    recipe=HeadRecipe(windows=WINDOWS, stride=183, encoding="bf16"),
    scores=("nse", "kge", "correlation", "rmse", "ubrmse", "pbias", "fhv", "flv", "fdc_rmse"),
)
CELLS = Task(
    open=cells,
    target="soil_moisture",
    record="precipitation",
    link="logistic",
    scale=1.0,
    recipe=HeadRecipe(windows=SOIL_WINDOWS, stride=61, centred=0.7, encoding="bf16"),
    scores=("correlation", "ubrmse", "rmse", "nse"),
    published="soil_moisture_lstm",
)
TOWERS = replace(CELLS, open=towers, published=None)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A task with what is held out.

    Attributes
    ----------
    schedule : Schedule
        How long each model learns on a fold.
    hidden : int
        Size of its LSTM.
    few : tuple of int
        Numbers of training sites to try; by default all of a fold at once.
    models : tuple of str
        Names of `VARIANTS`; the first is what others are compared with.
    pretraining : Schedule, optional
        Of a foundation model for each fold; by default the released one serves all.
    encoder : EncoderSize, optional
        Of such a model.
    paper : str, optional
        Key of `PAPER`.
    """

    task: Task
    folds: tuple[Holdout, ...]
    schedule: Schedule
    hidden: int
    few: tuple[int, ...] = ()
    models: tuple[str, ...] = ("lstm", "resconn", "no_adapter", "linear", "scratch")
    pretraining: Schedule | None = None
    encoder: EncoderSize | None = None
    paper: str | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How much is computed.

    Attributes
    ----------
    sites : int, optional
        Most sites that are used.
    """

    experiments: Mapping[str, Experiment]
    seeds: tuple[int, ...] = (0,)
    sites: int | None = None


def each(rule: Holdout, count: int) -> tuple[Holdout, ...]:
    """Return the folds of a rule one by one: each is a run of its own."""
    return tuple(rule.fold(number) for number in range(count))


LONG = Schedule(steps=8_000, batch_size=64, learning_rate=1e-3, precision="fp32")
# A batch computes as many days as 64 windows of a year, which models that look both ways read.
MIDDLE = Schedule(steps=4_800, batch_size=32, learning_rate=2e-3, precision="fp32")
# Of 1e-3, 3e-3 and 6e-3 the rate that served the LSTM best at basins left out of its training.
SHORT = Schedule(steps=400, batch_size=16, learning_rate=6e-3, precision="fp32")
FROZEN = ("lstm", "resconn", "no_adapter", "linear")  # to train an encoder costs ten times as much
COUNTS = (10, 25, 50, 100, 300)

FULL_FLOW = Experiment(
    task=FLOW,
    folds=each(PUB, 10),
    schedule=LONG,
    hidden=256,
    pretraining=Schedule(steps=10_000, batch_size=256, learning_rate=3e-4, clip=5.0),
    encoder=CAUSAL,
)
FULL_CELLS = replace(
    FULL_FLOW,
    task=CELLS,
    folds=each(RandomGroups(5), 5),
    schedule=replace(LONG, steps=1_600),
    hidden=128,
)
FULL = {
    "pub": replace(FULL_FLOW, paper="pub"),
    "pur": replace(FULL_FLOW, folds=each(PUR, 7), paper="pur"),
    "few": replace(FULL_FLOW, folds=each(PUB, 1), few=COUNTS, models=("lstm", "resconn")),
    "cells": FULL_CELLS,
    "towers": replace(
        FULL_CELLS, task=TOWERS, schedule=replace(LONG, steps=800), hidden=64, paper="ismn"
    ),
}
FLOW_UNSEEN = Experiment(
    task=FLOW, folds=(HashedSites(),), schedule=MIDDLE, hidden=128, models=FROZEN
)
CELLS_UNSEEN = replace(FLOW_UNSEEN, task=CELLS, schedule=replace(MIDDLE, steps=1_700), hidden=64)
REDUCED = {
    "unseen": replace(FLOW_UNSEEN, paper="pub"),
    "short": replace(FLOW_UNSEEN, schedule=SHORT, models=(*FROZEN, "scratch"), paper="pub"),
    "pur": replace(
        FLOW_UNSEEN,
        folds=each(PUR, 3),
        pretraining=Schedule(steps=1_600, batch_size=16, learning_rate=1e-3),
        encoder=replace(CAUSAL, width=128, layers=4, heads=4, feedforward=256, hidden=32),
        paper="pur",
    ),
    "few": replace(
        FLOW_UNSEEN,
        schedule=replace(MIDDLE, steps=1_600),
        hidden=64,
        few=COUNTS,
        models=("lstm", "resconn"),
    ),
    "cells": CELLS_UNSEEN,
    "towers": replace(
        CELLS_UNSEEN,
        task=TOWERS,
        folds=each(RandomGroups(3), 3),  # the hash holds out too few
        schedule=replace(MIDDLE, steps=640),
        paper="ismn",
    ),
}
SMOKE = {
    name: replace(
        experiment,
        schedule=replace(SHORT, steps=2, batch_size=4),
        hidden=8,
        few=experiment.few and (5, 10),
        pretraining=Schedule(steps=2, batch_size=4),
        encoder=replace(CAUSAL, width=16, layers=1, heads=2, feedforward=16, hidden=8),
    )
    for name, experiment in REDUCED.items()
}
PROTOCOLS = {
    "full": Protocol(experiments=FULL, seeds=(0, 1, 2)),
    "reduced": Protocol(experiments=REDUCED),
    "smoke": Protocol(experiments=SMOKE, sites=30),
}

PAPER = {
    "pub": {
        "lstm": {"nse": 0.636, "rmse": 1.402, "correlation": 0.762},
        "resconn": {"nse": 0.717, "rmse": 1.111, "correlation": 0.869},
        "no_adapter": {"nse": 0.706, "rmse": 1.171, "correlation": 0.823},
        "linear": {"nse": 0.661, "rmse": 1.452, "correlation": 0.751},
        "scratch": {"nse": 0.661, "rmse": 1.355, "correlation": 0.801},
    },
    "pur": {
        "lstm": {"nse": 0.554, "rmse": 1.609, "correlation": 0.743},
        "resconn": {"nse": 0.635, "rmse": 1.344, "correlation": 0.801},
        "no_adapter": {"nse": 0.610, "rmse": 1.376, "correlation": 0.798},
        "linear": {"nse": 0.542, "rmse": 1.484, "correlation": 0.672},
        "scratch": {"nse": 0.560, "rmse": 1.516, "correlation": 0.771},
    },
    "ismn": {
        "lstm": {"rmse": 0.073, "ubrmse": 0.055, "correlation": 0.764},
        "resconn": {"rmse": 0.068, "ubrmse": 0.054, "correlation": 0.783},
        "no_adapter": {"rmse": 0.075, "ubrmse": 0.057, "correlation": 0.741},
        "linear": {"rmse": 0.084, "ubrmse": 0.061, "correlation": 0.720},
        "scratch": {"rmse": 0.074, "ubrmse": 0.058, "correlation": 0.749},
    },
}
"""What StefaLand's paper (arXiv:2509.17942) reports for the experiment that is nearest."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """An experiment on data, with the folder that remembers what is done."""

    name: str
    dataset: xr.Dataset
    experiment: Experiment
    runs: Path
    seed: int

    def foundation(self, fold: Holdout) -> xstefa.Model:
        """Pretrain without the sites of a fold, once; or return the released model."""
        if self.experiment.pretraining is None:
            return xstefa.load_model("stefaland-causal")
        # One file for all experiments that test the same sites.
        what = json.dumps([self.experiment.task.open.__name__, fold.to_dict()])
        name = f"foundation-{sha256(what.encode()).hexdigest()[:8]}-{self.seed}"
        path = self.runs / f"{name}.safetensors"
        state = Checkpoint(path=self.runs / f"{name}-state")
        if not path.exists():
            model = xstefa.pretrain(
                self.dataset,
                size=self.experiment.encoder,
                windows=PRETRAINING_WINDOWS,
                schedule=replace(self.experiment.pretraining, seed=self.seed),
                holdout=fold,
                checkpoint=state,
                name=name,
            )
            model.save(path)
            state.path.unlink()
        return xstefa.load_model(path)

    def test(self, fold: Holdout, label: str, variant: str, foundation: xstefa.Model) -> xr.Dataset:
        """Train and test one model on one fold, once."""
        path = self.runs / f"{label}-{variant}-{self.seed}.nc"
        if not path.exists():
            task, started = self.experiment.task, time.monotonic()
            state = path.with_suffix(".state")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is in the result
                found = self.dataset.stefa.cross_validate(
                    task.target,
                    holdout=fold,
                    model=foundation,
                    head=HeadSize(
                        kind=VARIANTS[variant].head,
                        hidden=self.experiment.hidden,
                        link=task.link,
                        scale=task.scale,
                    ),
                    encoder=VARIANTS[variant].encoder,
                    schedule=replace(self.experiment.schedule, seed=self.seed),
                    recipe=task.recipe,
                    scores=["nse", "correlation"],
                    checkpoint=state,
                )
            found.attrs["seconds"] = time.monotonic() - started
            unfinished = path.with_suffix(".part")
            found.to_netcdf(unfinished)
            unfinished.rename(path)
            shutil.rmtree(state)
            medians = {name: float(found[name].median()) for name in ("nse", "correlation")}
            print(f"{path.stem}: {medians}, {found.attrs['seconds']:.0f} s", flush=True)
        with xr.open_dataset(path) as kept:
            return kept.load()

    def run(
        self, count: int | None, models: tuple[str, ...]
    ) -> tuple[dict[str, xr.DataArray], xr.DataArray, dict[str, object]]:
        """Test models on all folds; return predictions, observation, and hashes and times.

        Parameters
        ----------
        count : int, optional
            Training sites that are kept.
        """
        predicted: dict[str, xr.DataArray] = {}
        about: dict[str, object] = {}
        for number, fold in enumerate(self.experiment.folds):
            foundation = self.foundation(fold)
            label = f"{self.name}-{number}"
            if count is not None:
                fold, label = FewSites(fold, count, seed=self.seed), f"{label}-{count}"
            for variant in models:
                found = self.test(fold, label, variant, foundation)
                part = found["predicted"]
                known = predicted.get(variant)
                predicted[variant] = part if known is None else known.fillna(part)
                tested = found["fold"] >= 0
                about[f"{label}, {variant}"] = {
                    "foundation": foundation.content_hash,
                    "model": found.attrs["model_hashes"],
                    "seconds": round(found.attrs["seconds"]),
                    "tested": int(tested.sum()),
                    "near_duplicates": int((found["twin"] != "").sum()),
                    # Unknown is not held out: the released model's rule tells those only.
                    "seen_in_pretraining": int(((found["pretraining"] != HELD_OUT) & tested).sum()),
                }
            if self.experiment.pretraining is not None:
                # No other fold has this encoder, and what it said fills gigabytes.
                shutil.rmtree(get_options().cache_path() / "embeddings", ignore_errors=True)
        return predicted, found["observed"], about


def report(
    folder: Path,
    predicted: Mapping[str, xr.DataArray],
    observed: xr.DataArray,
    *,
    scores: tuple[str, ...],
    about: Mapping[str, object],
) -> pd.DataFrame:
    """Write tables and pictures of one experiment; return the medians."""
    compared = compare(predicted, observed, scores=scores)
    medians = write_report(folder, compared, about=about)
    first = scores[0]
    plot_cdf(compared, first, limits=(-0.2, 1)).savefig(folder / "cdf.png")
    last = list(predicted)[min(1, len(predicted) - 1)]
    plot_map(
        compared[first].sel(model=last), limits=(0, 1), outline=US_OUTLINE, title=last
    ).savefig(folder / "map.png")
    shown = medians[medians.score.isin(["nse", "rmse", "ubrmse", "correlation"])]
    print(f"\n{folder}\n{shown.round(3).to_string(index=False)}", flush=True)
    return medians


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--protocol", "size", type=click.Choice(list(PROTOCOLS)), default="reduced")
@click.option("--experiments", help="Comma-separated; by default all of the protocol.")
@click.option("--models", help="Comma-separated; by default those of each experiment.")
@click.option("--seeds", help="Comma-separated; by default those of the protocol.")
@click.option("--threads", type=int, help="Of one process; by default as torch chooses.")
@click.option("--device", help='"cpu", "cuda"; by default a GPU if there is one.')
def main(data, out, size, experiments, models, seeds, threads, device):
    """Run the benchmark."""
    if threads:
        torch.set_num_threads(threads)
    protocol = PROTOCOLS[size]
    runs = out / size / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for name in experiments.split(",") if experiments else protocol.experiments:
        experiment = protocol.experiments[name]
        task = experiment.task
        dataset = task.open(data)
        site = next(dim for dim in dataset[task.record].dims if dim != "time")
        if protocol.sites is not None:  # evenly over the list
            every = -(-dataset.sizes[site] // protocol.sites)
            dataset = dataset.isel({site: slice(None, None, every)})
        dataset = dataset.load()
        about = {
            "experiment": name,
            "protocol": size,
            "target": task.target,
            "heads": asdict(experiment.schedule),
            "hidden": experiment.hidden,
            "recipe": asdict(task.recipe),
            "pretraining": experiment.pretraining and asdict(experiment.pretraining),
            "holdouts": [fold.to_dict() for fold in experiment.folds],
            "sites": dataset.sizes[site],
            "period": [str(day)[:10] for day in dataset["time"].values[[0, -1]]],
            "versions": versions(),
            "paper": PAPER.get(experiment.paper),
        }
        chosen = tuple(models.split(",")) if models else experiment.models
        with xstefa.set_options(device=device, cache_dir=out / "cache"):
            for seed in map(int, seeds.split(",")) if seeds else protocol.seeds:
                benchmark = Benchmark(
                    name=name,
                    dataset=dataset,
                    experiment=experiment,
                    runs=runs,
                    seed=seed,
                )
                for count in experiment.few or (None,):
                    predicted, observed, made = benchmark.run(count, chosen)
                    if task.published is not None:
                        predicted["published"] = dataset[task.published]
                    label = name if count is None else f"{name}-{count}"
                    report(
                        out / size / f"{label}-{seed}",
                        predicted,
                        observed,
                        scores=task.scores,
                        about={**about, "seed": seed, "training_sites": count, "runs": made},
                    )


if __name__ == "__main__":
    main()
