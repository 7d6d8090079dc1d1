"""Score the trained models on held-out sites, write their cards, and put them into the package.

    python examples/release_weights.py DATA OUT
    python examples/release_weights.py DATA OUT --test

DATA and OUT as for `train_release.py`. With ``--test`` the sites that no choice was made on are
scored, too: once, when all choices are made. Each model is rounded to half precision first, and
what is scored is the rounded model, through `ds.stefa.evaluate`, beside the plain LSTM trained on
the same sites. Models of one task (other seeds, ``--tag``), and of those that a trial names beside
it, are joined into an ensemble.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import click
import numpy as np
import xarray as xr
from robustness import CASES, PERIODS, WORLD, reduced, tokens_of
from train_release import (
    SCHEMA,
    SOURCES,
    TASKS,
    aligned,
    held_out_sites,
    opened,
    tests,
    with_rivers,
)

import xstefa
from xstefa.binding import bind
from xstefa.evaluation.evaluate import METRICS
from xstefa.evaluation.intervals import median_interval, paired_difference
from xstefa.model.checkpoint import Model, create_model
from xstefa.model.registry import load_model
from xstefa.training.calibration import calibrate
from xstefa.training.ensemble import ensemble, stretched
from xstefa.training.neighbourhood import acquainted
from xstefa.windows import SegmentPolicy

LICENCES = """\
- CAMELS-US (CC-BY-4.0): Newman et al. 2015, doi:10.5194/hess-19-209-2015; Addor et al. 2017,
  doi:10.5194/hess-21-5293-2017. Daymet and USGS streamflow: US public data.
- MOPEX (US Government work): Schaake et al. 2006; Duan et al. 2006,
  doi:10.1016/j.jhydrol.2005.07.031.
- SMAP L3 and NLDAS-2 (open NASA data), as extracted in the hydroDL example data, whose notice is
  non-commercial; not shipped.
- FLUXNET2015 Tier One (CC-BY-4.0): Pastorello et al. 2020, doi:10.1038/s41597-020-0534-3;
  collection of Giardina et al., doi:10.5281/zenodo.7853208.
- National Hydrologic Model, Delaware River Basin (CC0, USGS): forcing only.
- CAMELS-FR (CC-BY-4.0): doi:10.5194/essd-17-1461-2025. CAMELS-DE (CC-BY-4.0):
  doi:10.5194/essd-16-5625-2024. CAMELS-GB (OGL v3): doi:10.5194/essd-12-2459-2020.
- Caravan (CC-BY-4.0; lamah_1145 CC-BY-SA): Kratzert et al. 2023, doi:10.1038/s41597-023-01975-w.
- HYSETS, two Canadian basins; Stehekin grid (source without a stated licence): not shipped.
- E-OBS grids of Rhine and Moselle, forcing only (non-commercial): not shipped."""
WEIGHTS = Path(xstefa.__file__).parent / "weights"
HEADS = {"resconn": "residual", "hbv": "HBV", "reservoirs": "reservoir", "lstm": "LSTM"}
WORLD_SCORES = ("nse", "kge", "pbias")
TEMPLATE = Path(__file__).with_name("model_card.md")
FOUNDATION_TEMPLATE = Path(__file__).with_name("foundation_card.md")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one released model is judged by; the first score decides.

    Models of the tasks `joined` are averaged with its own, if `mixed` also the LSTMs that it is
    compared with. At held-out sites of the sources `stretched` is found how much more they should
    vary: see `xstefa.training.ensemble.stretched`.
    """

    source: str
    period: tuple[str, str] | None
    scores: tuple[str, ...]
    text: str
    failures: str
    joined: tuple[str, ...] = ()
    mixed: bool = False
    calibrated: bool = True
    stretched: tuple[str, ...] = ()
    note: str = ""


TRIALS = {
    "streamflow": Trial(
        source="camels",
        period=("1989-10-01", "1999-09-30"),
        scores=("nse", "kge", "correlation", "rmse"),
        text="CAMELS-US basins held out of pretraining and training, 1989-10 to 1999-09",
        failures="Arid and intermittent basins, where NSE is often negative; basins with dams, "
        "diversions or\nlarge lakes, of which nothing in the inputs tells; karst; climates that "
        "neither the\nUnited States nor Europe have.",
        joined=("water-balance",),
        mixed=True,
        stretched=("camels", "mopex"),
        note="It has two\n"
        "heads, which are members of this model, too; its own part is two residual heads with as "
        "many steps (8,000) of\n"
        "the same recipe. All were stretched at the held-out sites of the United States. The "
        "second tenth below had been\n"
        "scored once before, without the LSTMs in this model (NSE 0.723, KGE 0.698): they were "
        "chosen at the first. ",
    ),
    "water-balance": Trial(
        source="camels",
        period=("1989-10-01", "1999-09-30"),
        scores=("nse", "kge", "correlation", "rmse"),
        text="Streamflow of CAMELS-US basins held out of pretraining and training,\n"
        "1989-10 to 1999-09",
        failures="As `streamflow`, and: rain is neither corrected for what gauges miss nor lost to "
        "other basins, so where\nprecipitation is wrong evapotranspiration is. Glaciers and lakes "
        "have no store of their own.",
        note="It is one, its\nstate as large as that of one of these heads, with as many steps as "
        "the first of them (1,500; the other\n2,000). In so few it learns less than it could: see "
        "the card `streamflow`. ",
    ),
    "soil-moisture-grid": Trial(
        source="smap",
        period=None,
        scores=("ubrmse", "correlation", "rmse"),
        text="Cells of the sparse SMAP lattice over the United States held out of pretraining and "
        "training,\n2015-04 to 2017-03",
        failures="Dense forest, frozen ground and coasts, where SMAP itself is uncertain; "
        "irrigation, which the\nweather does not show; the level (not the course) outside the "
        "United States, and anything deeper\nthan the 5 cm that SMAP senses.",
    ),
    "soil-moisture-point": Trial(
        source="fluxnet",
        period=None,
        scores=("correlation", "ubrmse", "rmse"),
        text="FLUXNET towers held out of pretraining and training, shallowest sensor, all years",
        failures="The level, which depends on sensor depth and calibration that no attribute "
        "tells; winter and rainy\ndays, which the training data under-sample; peat and irrigated "
        "soils. Few towers were held out, so\nthe interval is wide.",
        joined=("soil-water-point",),
        calibrated=False,  # five towers teach no distribution
        note="It has as many\n"
        "heads as the part of this model that is its own; the reservoirs come on top. ",
    ),
}


def table(dataset: xr.Dataset, task: str, models: dict[str, Model]) -> str:
    """Return a Markdown table of medians over held-out sites; the others less the last in pairs."""
    trial, target = TRIALS[task], TASKS[task].target
    scored = {
        label: dataset.stefa.evaluate(
            target, model=model, scores=list(trial.scores), period=trial.period
        )
        for label, model in models.items()
    }
    rows = ["| model | " + " | ".join(trial.scores) + " |", "|---" * (len(trial.scores) + 1) + "|"]
    for label, scores in scored.items():
        cells = [str(median_interval(scores[name].values)) for name in trial.scores]
        rows.append(f"| {label} | " + " | ".join(cells) + " |")
    decisive = trial.scores[0]
    *ours, theirs = scored.values()
    rows.append(f"\n{median_interval(theirs[decisive].values).sites} sites.")
    for label, scores in zip(scored, ours, strict=False):
        difference = paired_difference(scores[decisive].values, theirs[decisive].values)
        rows.append(
            f"Difference of {decisive} site by site, {label} less the LSTM: "
            f"{difference.median}, p = {difference.p_value:.3f}."
        )
    return "\n".join(rows)


def elsewhere(data: Path, task: str, models: dict[str, Model]) -> str:
    """Return a Markdown table over the other sources that a task is judged by."""
    trial, (ours, *_, theirs) = TRIALS[task], models.values()
    rows = []
    for source in TASKS[task].judged:
        if source == trial.source:
            continue
        dataset = held_out_sites(aligned(data, source), source)
        scored = [
            dataset.stefa.evaluate(TASKS[task].target, model=model, scores=[*WORLD_SCORES])
            for model in (ours, theirs)
        ]
        for label, scores in zip(("this model", "LSTM"), scored, strict=True):
            medians = [f"{float(scores[name].median()):.2f}" for name in WORLD_SCORES]
            sites = int(scores[WORLD_SCORES[0]].notnull().sum())
            rows.append(f"| {source} | {label} | {sites} | {' | '.join(medians)} |")
    if not rows:
        return ""
    head = f"| source | model | sites | {' | '.join(WORLD_SCORES)} |"
    return "\n".join(
        ["Other sources, all years:\n", head, "|---" * (len(WORLD_SCORES) + 3) + "|", *rows]
    )


def evaporation(data: Path, model: Model) -> str:
    """Return a line on evapotranspiration at all towers, of which no stage has seen a value."""
    if "evapotranspiration" not in model.spec.outputs:
        return ""
    towers = opened(data, "fluxnet")
    scores = towers.stefa.evaluate(
        "evapotranspiration", model=model, scores=["correlation", "rmse", "pbias", "kge"]
    )
    found = [f"{name} {median_interval(scores[name].values)}" for name in ("correlation", "rmse")]
    found += [f"{name} {float(scores[name].median()):.2f}" for name in ("pbias", "kge")]
    sites = int(scores.rmse.notnull().sum())
    return (
        f"Evapotranspiration, of which training saw no value, at {sites} FLUXNET towers (medians): "
        + ", ".join(found)
        + "."
    )


def trained(out: Path, task: str, kind: str = "stefaland") -> list[str]:
    """Return the names of a task's models."""
    return [path.stem for path in sorted(out.glob(f"{kind}-{task}*.safetensors"))]


def joined(data: Path, out: Path, names: list[str], task: str) -> Model:
    """Return the model, or the ensemble of several, stretched if the trial says so."""
    models = [load_model(out / f"{each}.safetensors") for each in names]
    model = models[0] if len(models) == 1 else ensemble(models, name=task)
    if not TRIALS[task].stretched:
        return model
    gain, power = variability(data, task, model)
    print(f"{', '.join(names)}: gain {gain:.2f}, power {power:.2f}", flush=True)
    return stretched(model, gain=gain, power=power)


def variability(data: Path, task: str, model: Model) -> tuple[float, float]:
    """Return the gain and the power of the best mean of NSE and KGE over sites and sources."""
    pairs = []
    for source in TRIALS[task].stretched:
        sites = held_out_sites(aligned(data, source), source)
        predicted = sites.stefa.predict(model, period=("1980-10-01", "1999-09-30")).compute()
        observed = bind(sites, SCHEMA).observed(TASKS[task].target).sel(time=predicted.time)
        pairs.append((predicted, observed.compute()))

    def mean(gain: float, power: float) -> float:
        values = [
            metric(gain * predicted**power, observed).clip(0).mean()
            for predicted, observed in pairs
            for metric in (METRICS["nse"], METRICS["kge"])
        ]
        return float(sum(values))

    tried = product(np.arange(0.94, 1.1, 0.02).round(2), np.arange(1.0, 1.12, 0.01).round(2))
    return max(((float(gain), float(power)) for gain, power in tried), key=lambda x: mean(*x))


def calibrated(data: Path, task: str, model: Model) -> Model:
    """Return the model that knows how far off it is at held-out sites, whatever they lack.

    Gauges of one river count as one. Of each site there are two, over six years: as it is, and
    without attributes, with precipitation and temperature only (physics needs potential
    evapotranspiration as well).
    """
    target, named, sites = TASKS[task].target, {}, {}
    for source in TASKS[task].judged:
        begin, *_ = PERIODS.get(source, WORLD)
        dataset = held_out_sites(aligned(data, source), source)
        if target == "streamflow":
            dataset = dataset.sel(time=slice(begin, str(int(begin[:4]) + 6)))
        whole = with_rivers(tokens_of(dataset.load(), model, target), source)
        fewer = next(case for case in ("P, T", "P, T, PET") if CASES[case].answers(model))
        parts = {case: reduced(whole, CASES[case], target) for case in (fewer, "everything")}
        named |= {f"{source}, {part}": each for part, each in parts.items()}
        sites |= {f"{source}, {part}": SOURCES[source].ids for part in parts}
    rename = {str(n): str(n) for each in named.values() for n in each if n != target}
    return calibrate(named, model=model, rename=rename, sites=sites, groups="river")


def placed(data: Path, task: str, model: Model) -> Model:
    """Return the model that knows the sites which it was trained on."""
    named = {source: aligned(data, source) for source in TASKS[task].sources}
    return acquainted(named, model, sites={source: SOURCES[source].ids for source in named})


def intervals(sites: xr.Dataset, task: str, model: Model) -> str:
    """Return a line on the quantiles at sites that neither training nor calibration saw."""
    if model.spec.distribution is None:
        return "No quantiles: too few sites were held out to learn them from. See `calibrate`."
    scores = sites.stefa.evaluate(
        TASKS[task].target,
        model=model,
        scores=["coverage", "sharpness", "crps", "mae"],
        period=TRIALS[task].period,
    )
    found = {name: float(scores[name].median()) for name in ("sharpness", "crps", "mae")}
    covered = float(scores["coverage"].mean())
    alike = " (gauges of one river count as one)" if TASKS[task].target == "streamflow" else ""
    return (
        f"Quantiles were learned at {model.spec.distribution.sites} validation sites{alike},\n"
        "as they are and without attributes. "
        f"At the second tenth the 90 % interval holds {covered:.1%} of the observed days (mean "
        f"over sites; median width\n{found['sharpness']:.3g}); continuous ranked probability "
        f"score {found['crps']:.3g}, mean absolute error of the mean {found['mae']:.3g} (medians)."
    )


def minutes(out: Path, name: str) -> float:
    """Return how long a stage took, as its log says."""
    seconds: float = json.loads((out / f"{name}.json").read_text())["seconds"]
    return seconds / 60


def release(model: Model, *, name: str, card: str, folder: Path) -> None:
    """Write a model in half precision, with its card, into the package."""
    provenance = {**model.spec.provenance, "skill": stated_skill(card)}
    spec = replace(model.spec, name=name, card=card, provenance=provenance)
    released = create_model(spec, model.network().state_dict(), half=True).save(folder / name)
    print(released, released.card, sep="\n")


def stated_skill(card: str) -> dict[str, str | float | int] | None:
    """Return the score that decided, as a card's table says; None without a table."""
    ours = re.search(r"this model\) \| (\S+) \((\S+) to (\S+)\)", card)
    score, sites = re.search(r"\| model \| (\w+)", card), re.search(r"^(\d+) sites\.", card, re.M)
    if not (ours and score and sites):
        return None
    median, low, high = map(float, ours.groups())
    numbers = {"median": median, "low": low, "high": high, "sites": int(sites[1])}
    return {"score": score[1], **numbers}


def release_foundation(out: Path, folder: Path) -> None:
    """Release the pretrained encoder and decoder, to be fine-tuned in windows of two years."""
    trained = load_model(out / "stefaland-pretrain.safetensors")
    spec = replace(trained.spec, windows=SegmentPolicy(length=730, spin_up=365))
    model = create_model(spec, trained.network().state_dict())
    drawn = spec.provenance["schedule"]
    drawn = drawn["steps"] * drawn["batch_size"]
    card = FOUNDATION_TEMPLATE.read_text().format(
        name="stefaland-causal",
        windows=f"{drawn:,} windows of {trained.spec.windows.length}",
        minutes=f"{minutes(out, 'stefaland-pretrain'):.0f}",
        tokens=", ".join(model.spec.tokens),
        licences=LICENCES,
    )
    release(model, name="stefaland-causal", card=card, folder=folder)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--folder", type=click.Path(path_type=Path), default=WEIGHTS, show_default=True)
@click.option("--test", is_flag=True, help="Score the sites that no choice was made on, too.")
@click.argument("tasks", nargs=-1, type=click.Choice(["foundation", *TRIALS]))
def main(data, out, folder, test, tasks):
    """Release TASKS (all by default)."""
    for task in tasks or ("foundation", *TRIALS):
        if task == "foundation":
            release_foundation(out, folder)
            continue
        trial = TRIALS[task]
        baseline = trained(out, task, "lstm")
        names = [name for family in (task, *trial.joined) for name in trained(out, family)]
        names += baseline if trial.mixed else []
        model = joined(data, out, names, task)
        source = opened(data, trial.source)
        sites = held_out_sites(source, trial.source)
        judged = {
            # All answer on the same days.
            label: create_model(
                replace(found.spec, windows=model.spec.windows),
                found.network().state_dict(),
                half=True,
            )
            for label, found in {
                "StefaLand (this model)": model,
                **(
                    {"its own part": joined(data, out, trained(out, task), task)}
                    if trial.joined
                    else {}
                ),
                "LSTM": joined(data, out, baseline, task),
            }.items()
        }
        tested = tests(source, trial.source)
        ours = placed(data, task, judged["StefaLand (this model)"])
        if trial.calibrated:
            ours = calibrated(data, task, ours)
        card = TEMPLATE.read_text().format(
            name=task,
            target=TASKS[task].target,
            support=TASKS[task].support,
            trial=trial.text,
            scores=table(sites, task, judged),
            elsewhere="\n\n".join([elsewhere(data, task, judged), evaporation(data, model)]),
            test=table(tested, task, judged) if test else "Not scored yet.",
            intervals=intervals(tested, task, ours) if test else "",
            heads=" and ".join(
                f"{count} {HEADS.get(kind, kind)} head(s)"
                for kind, count in Counter(h.kind for h in model.spec.architecture.heads).items()
            ),
            minutes=", ".join(f"{minutes(out, name):.0f}" for name in names),
            pretraining=f"{minutes(out, 'stefaland-pretrain'):.0f}",
            lstm=", ".join(f"{minutes(out, name):.0f}" for name in baseline),
            tokens=", ".join(model.spec.tokens),
            failures=trial.failures,
            note=trial.note,
            licences=LICENCES,
        )
        release(ours, name=task, card=card, folder=folder)


if __name__ == "__main__":
    main()
