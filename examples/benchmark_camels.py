"""Streamflow where nobody measured: StefaLand and its ablations beside the LSTM, on CAMELS-US.

    python examples/benchmark_camels.py DATA OUT --protocol reduced      # 2 cores, a night
    python examples/benchmark_camels.py DATA OUT --protocol full         # a GPU
    python examples/benchmark_camels.py DATA OUT --protocol smoke        # minutes: does it run?
    python examples/benchmark_camels.py DATA OUT --few-shot              # fewer training basins

DATA holds camels_us.nc: Daymet forcings, attributes, observed streamflow. The 531-basin subset, as
far as it is in the file, 1980-10-01 to 1995-09-30. Experiments: PUB (ten random groups) and PUR
(seven regions of HUC-02 units). All models learn from the same basins and days, with the same
number of windows, and are scored on identical basins and days. Basins that are tested leave
pretraining, too. What is done is kept in OUT/<protocol>/runs: an interrupted call goes on there.

Results for each experiment and seed: sites.csv (every basin and model), medians.csv and report.json
(medians, bootstrap intervals, paired tests against the LSTM, seeds, hashes, versions, the paper's
values), cdf.png, map.png. With --few-shot, few.png: skill against the number of training basins.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.figure import Figure

import xstefa
from xstefa.datasets import US_OUTLINE
from xstefa.evaluation.holdout import PUB, PUR, AllTests, FewSites, Holdout
from xstefa.evaluation.pictures import plot_cdf, plot_map, style
from xstefa.evaluation.report import compare, write_report
from xstefa.inference.windows import WindowPolicy
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.model.variants import VARIANTS
from xstefa.training.loop import Schedule
from xstefa.training.runs import versions

PERIOD = slice("1980-10-01", "1995-09-30")
WINDOWS = WindowPolicy(length=365, spin_up=150, blend=30)
SCORES = ["nse", "kge", "correlation", "rmse", "ubrmse", "pbias", "fhv", "flv", "fdc_rmse"]
FEW = (10, 25, 50, 100, 300)

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
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How much is computed.

    Attributes
    ----------
    folds : mapping of str to tuple of int
        Which folds of each experiment.
    per_fold : bool
        Whether each fold has a foundation model of its own; otherwise one serves all, pretrained
        without any basin that is tested.
    basins : int
        Most basins that are used.
    """

    folds: dict[str, tuple[int, ...]]
    seeds: tuple[int, ...]
    per_fold: bool
    encoder: EncoderSize
    pretraining: Schedule
    heads: Schedule
    hidden: int
    models: tuple[str, ...] = ("lstm", "resconn", "no_adapter", "linear", "scratch")
    basins: int = 531


PROTOCOLS = {
    "full": Protocol(
        folds={"pub": tuple(range(10)), "pur": tuple(range(7))},
        seeds=(0, 1, 2),
        per_fold=True,
        encoder=EncoderSize(positions=366),
        pretraining=Schedule(steps=10_000, batch_size=256, learning_rate=3e-4, clip=5.0),
        heads=Schedule(steps=8_000, batch_size=128, learning_rate=1e-3, precision="fp32"),
        hidden=256,
    ),
    "reduced": Protocol(
        folds={"pub": (0, 1), "pur": (0,)},
        seeds=(0,),
        per_fold=False,
        encoder=EncoderSize(width=128, feedforward=256, hidden=32, positions=366),
        pretraining=Schedule(steps=1_600, batch_size=32, learning_rate=1e-3),
        heads=Schedule(steps=5_000, batch_size=64, learning_rate=1e-3, precision="fp32"),
        hidden=128,
        models=("lstm", "resconn", "no_adapter", "linear"),  # scratch takes twice as long as all
    ),
    "smoke": Protocol(
        folds={"pub": (0,), "pur": (0,)},
        seeds=(0,),
        per_fold=False,
        encoder=EncoderSize(width=16, layers=1, heads=2, feedforward=16, hidden=8, positions=366),
        pretraining=Schedule(steps=2, batch_size=8),
        heads=Schedule(steps=3, batch_size=8, precision="fp32"),
        hidden=8,
        basins=30,
    ),
}


def opened(data: Path, basins: int) -> xr.Dataset:
    """Open the benchmark basins and years; of fewer basins, evenly over the list."""
    dataset = xr.open_dataset(data / "camels_us.nc").sel(time=PERIOD)
    chosen = np.flatnonzero(dataset["in_531_subset"].values == 1)
    few = np.unique(np.linspace(0, len(chosen) - 1, min(basins, len(chosen))).astype(int))
    return dataset.isel(basin=chosen[few]).load()


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A protocol on data, with the folder that remembers what is done."""

    dataset: xr.Dataset
    protocol: Protocol
    runs: Path
    given: xstefa.Model | None = None

    def foundation(self, holdout: Holdout, name: str, seed: int) -> xstefa.Model:
        """Pretrain without the sites of a holdout, once; or return the model that was given."""
        if self.given is not None:
            return self.given
        path = self.runs / f"foundation-{name}-{seed}.safetensors"
        if not path.exists():
            model = xstefa.pretrain(
                self.dataset,
                size=self.protocol.encoder,
                windows=WINDOWS,
                schedule=replace(self.protocol.pretraining, seed=seed),
                holdout=holdout,
                checkpoint=path.with_suffix(".state"),
                name=f"foundation {name}",
            )
            model.save(path)
        return xstefa.load_model(path)

    def test(
        self, holdout: Holdout, name: str, variant: str, foundation: xstefa.Model, seed: int
    ) -> xr.Dataset:
        """Train and test one model on one fold, once."""
        path = self.runs / f"{name}-{variant}-{seed}.nc"
        if not path.exists():
            started = time.monotonic()
            head = HeadSize(
                kind=VARIANTS[variant].head,
                hidden=self.protocol.hidden,
                link="softplus",
                scale=2.0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is in the result
                found = self.dataset.stefa.cross_validate(
                    "streamflow",
                    holdout=holdout,
                    model=foundation,
                    head=head,
                    encoder=VARIANTS[variant].encoder,
                    schedule=replace(self.protocol.heads, seed=seed),
                    scores=["nse"],
                )
            found.attrs["seconds"] = time.monotonic() - started
            unfinished = path.with_suffix(".part")
            found.to_netcdf(unfinished)
            unfinished.rename(path)
            median = float(found["nse"].median())
            seconds = found.attrs["seconds"]
            print(f"{path.stem}: median NSE {median:.3f}, {seconds:.0f} s", flush=True)
        with xr.open_dataset(path) as kept:
            return kept.load()

    def experiment(
        self, holdouts: dict[str, Holdout], models: tuple[str, ...], seed: int, clean: Holdout
    ) -> tuple[dict[str, xr.DataArray], dict[str, object]]:
        """Run models on folds; return predictions by model, and hashes and times."""
        predicted: dict[str, xr.DataArray] = {}
        about: dict[str, object] = {}
        for name, holdout in holdouts.items():
            if self.protocol.per_fold:
                foundation = self.foundation(AllTests((holdout,)), name, seed)
            else:
                foundation = self.foundation(clean, "all", seed)
            for variant in models:
                found = self.test(holdout, name, variant, foundation, seed)
                part = found["predicted"]
                known = predicted.get(variant)
                predicted[variant] = part if known is None else known.fillna(part)
                about[f"{name}, {variant}"] = {
                    "foundation": foundation.content_hash,
                    "model": found.attrs["model_hashes"],
                    "seconds": found.attrs["seconds"],
                    "tested": int((found["fold"] >= 0).sum()),
                    "near_duplicates": int((found["twin"] != "").sum()),
                    "seen_in_pretraining": int(
                        ((found["pretraining"] == 1) & (found["fold"] >= 0)).sum()
                    ),
                }
        return predicted, about


def report(
    folder: Path,
    dataset: xr.Dataset,
    predicted: dict[str, xr.DataArray],
    about: dict[str, object],
) -> pd.DataFrame:
    """Write tables and pictures of one experiment; return the medians."""
    observed = dataset["streamflow"]
    compared = compare(predicted, observed, scores=SCORES)
    medians = write_report(folder, compared, about=about, reference=next(iter(predicted)))
    plot_cdf(compared, "nse", limits=(-0.2, 1)).savefig(folder / "cdf.png")
    last = list(predicted)[min(1, len(predicted) - 1)]
    plot_map(
        compared["nse"].sel(model=last), limits=(0, 1), outline=US_OUTLINE, title=last
    ).savefig(folder / "map.png")
    print(f"\n{folder}")
    shown = medians[medians.score.isin(["nse", "rmse", "correlation"])]
    print(shown.round(3).to_string(index=False))
    return medians


def plot_few(curves: dict[int, pd.DataFrame]) -> Figure:
    """Draw the median NSE, with its interval, against the number of training basins."""
    with style():
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axis = figure.add_subplot()
        for model in ("lstm", "resconn"):
            rows = [m[(m.score == "nse") & (m.model == model)].iloc[0] for m in curves.values()]
            median, low, high = np.array([[r["median"], r["low"], r["high"]] for r in rows]).T
            error = (median - low, high - median)
            axis.errorbar(list(curves), median, error, label=model, marker="o", capsize=3)
        axis.set_xscale("log")
        axis.set_xticks(list(curves), [str(count) for count in curves])
        axis.set_xlabel("training basins")
        axis.set_ylabel("median NSE at basins never seen")
        axis.legend()
    return figure


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--protocol", "size", type=click.Choice(list(PROTOCOLS)), default="reduced")
@click.option("--experiments", default="pub,pur", show_default=True)
@click.option("--models", help="Instead of the protocol's; the first is the reference.")
@click.option("--foundation", help="A model to use everywhere; what it saw is in the report.")
@click.option("--few-shot", is_flag=True, help="Skill against the number of training basins.")
@click.option("--threads", type=int, help="Of one process; by default as torch chooses.")
@click.option("--device", help='"cpu", "cuda"; by default a GPU if there is one.')
def main(data, out, size, experiments, models, foundation, few_shot, threads, device):
    """Run the benchmark."""
    if threads:
        torch.set_num_threads(threads)
    xstefa.set_options(device=device, cache_dir=out / "cache")
    protocol = PROTOCOLS[size]
    models = tuple(models.split(",")) if models else protocol.models
    rules = {"pub": PUB, "pur": PUR}
    folds = {
        name: {f"{name}-{k}": rules[name].fold(k) for k in protocol.folds[name]}
        for name in experiments.split(",")
    }
    clean = AllTests(tuple(rule for parts in folds.values() for rule in parts.values()))
    runs = out / size / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(
        dataset=opened(data, protocol.basins),
        protocol=protocol,
        runs=runs,
        given=None if foundation is None else xstefa.load_model(foundation),
    )
    about = {
        "protocol": json.loads(json.dumps(asdict(protocol))),
        "period": [PERIOD.start, PERIOD.stop],
        "basins": benchmark.dataset.sizes["basin"],
        "versions": versions(),
    }
    for seed in protocol.seeds:
        for name, holdouts in folds.items():
            if few_shot:
                continue
            predicted, made = benchmark.experiment(holdouts, models, seed, clean)
            details = {**about, "seed": seed, "runs": made, "paper": PAPER[name]}
            report(out / size / f"{name}-{seed}", benchmark.dataset, predicted, details)
        if few_shot:
            name, rule = next(iter(folds["pub"].items()))
            curves = {}
            for count in FEW:
                if count > benchmark.dataset.sizes["basin"] // 2:
                    break
                thinned = {f"{name}-few{count}": FewSites(rule, count)}
                predicted, made = benchmark.experiment(thinned, ("lstm", "resconn"), seed, clean)
                details = {**about, "seed": seed, "runs": made, "training_basins": count}
                folder = out / size / f"few-{count}-{seed}"
                curves[count] = report(folder, benchmark.dataset, predicted, details)
            plot_few(curves).savefig(out / size / f"few-{seed}.png")


if __name__ == "__main__":
    main()
