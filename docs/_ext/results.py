"""Tables of the benchmark's reports in ``docs/results``, for the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from xstefa.evaluation.probes import PROBES
from xstefa.plotting.scores import plot_few_sites

SHOWN = 4  # scores: the first of a report are those that matter for its target
FOLDER = Path(__file__).parents[1] / "results"
DIFFERENCE = ("difference", "difference_low", "difference_high")


def reports(*, few: bool) -> dict[str, dict[str, Any]]:
    """Return the reports by name: of few training sites, or of all."""
    found = {
        path.parent.name: json.loads(path.read_text()) for path in FOLDER.glob("*/report.json")
    }
    chosen = {name: r for name, r in found.items() if (r["training_sites"] is not None) == few}
    return dict(sorted(chosen.items(), key=lambda item: (item[1]["target"], item[0])))


def show_probes() -> None:
    """Print at how many sites each released model passes each probe, and its number if it fails."""
    lines = pd.read_csv(FOLDER / "probes.csv").set_index(["model", "probe"])
    models = list(lines.index.unique("model"))
    print("| probe | asks | number, and what it has to be | " + " | ".join(models) + " | judge |")
    print("|---" * (len(models) + 4) + "|")
    for probe in PROBES:
        cells = []
        for model in models:
            row = lines.loc[(model, probe.name)] if (model, probe.name) in lines.index else None
            if row is None or not row.asked:
                cells.append("–")
            elif row.verdict == "pass":
                cells.append(f"{row.passed} of {row.asked}")
            else:
                cells.append(f"**{row.passed} of {row.asked}** ({row.worst:.2g})")
        what = f"{probe.number}: {probe.bounds}"
        judge = f"`{probe.judge}`" if probe.judge else ""
        print(f"| {probe.name} | {probe.asks} | {what} | {' | '.join(cells)} | {judge} |")
    asked = lines[lines.asked > 0]
    passed = (asked.verdict == "pass").groupby("model").agg(["sum", "size"]).loc[models]
    counts = (f"{passed} of {all_}" for passed, all_ in passed.itertuples(index=False))
    print(f"| all | | | {' | '.join(counts)} | |")


def show() -> None:
    """Print a table of each experiment, and the gains of its other seeds."""
    shown = set()
    for name, report in reports(few=False).items():
        if report["experiment"] in shown:
            print(f"**{name}**: the same with seed {report['seed']}\n")
            print(_table(report | {"paper": None}, most=1), "\n")
            continue
        shown.add(report["experiment"])
        heads = report["heads"]
        runs = [run for key, run in report["runs"].items() if key.endswith(", lstm")]
        tested, known = (sum(r[key] for r in runs) for key in ("tested", "seen_in_pretraining"))
        print(
            f"**{name}**, {report['protocol']} protocol: {report['target']} at {tested} of "
            f"{report['sites']} sites, {' to '.join(report['period'])}; {heads['steps']} steps "
            f"of {heads['batch_size']} windows, rate {heads['learning_rate']:g}, LSTM of "
            f"{report['hidden']}, seed {report['seed']}; the foundation may know the weather of "
            f"{known} of the tested\n"
        )
        print(_table(report), "\n")


def few_sites() -> pd.DataFrame:
    """Return the medians for each number of training sites and each seed."""
    return pd.concat(
        [
            pd.DataFrame(report["medians"]).assign(
                training_sites=report["training_sites"], seed=report["seed"]
            )
            for report in reports(few=True).values()
        ]
    )


def draw_few() -> Figure:
    """Draw the NSE against the number of training sites."""
    return plot_few_sites(few_sites())


def show_few(score: str) -> None:
    """Print a score for each number of training sites, and what is gained over the LSTM."""
    rows = few_sites().query("score == @score").set_index(["training_sites", "seed"]).sort_index()
    columns = {
        model: _texts(part, "median", "low", "high") for model, part in rows.groupby("model")
    }
    gained = rows.dropna(subset="difference")
    columns["gained"] = _texts(gained, *DIFFERENCE, sign="+")
    columns["p"] = gained.p_value.map(_chance)
    table = pd.DataFrame(columns).rename_axis(["training sites", "seed"])
    print(_markdown(table.reset_index().set_index("training sites")))


def _table(report: dict[str, Any], *, most: int = SHOWN) -> str:
    rows = pd.DataFrame(report["medians"]).set_index("model")
    scores = list(dict.fromkeys(rows.score))[:most]
    own, paper, gained = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
    for score in scores:
        part = rows[rows.score == score]
        own[score] = _texts(part, "median", "low", "high")
        values = {m: v[score] for m, v in (report["paper"] or {}).items() if score in v}
        if values:
            paper[f"paper's {score}"] = pd.Series(values).reindex(part.index).map("{:.3f}".format)
    for score in scores[:2]:
        part = rows[rows.score == score].dropna(subset="difference")
        gained[f"{score} gained over lstm"] = _texts(part, *DIFFERENCE, sign="+")
        gained[f"p ({score})"] = part.p_value.map(_chance)
    tables = (table for table in (own, gained, paper) if len(table))
    return "\n\n".join(_markdown(table.rename_axis("model")) for table in tables)


def _markdown(table: pd.DataFrame) -> str:
    rows = table.reset_index().fillna("").astype(str)
    cells = [list(rows), ["---"] * len(rows.columns), *rows.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def _texts(rows: pd.DataFrame, *names: str, sign: str = "") -> pd.Series:
    """Write a median with its interval."""
    median, low, high = (rows[name].map(f"{{:{sign}.3f}}".format) for name in names)
    return median + " (" + low + " to " + high + ")"
