"""Fine-tune on your own basins, look at the learning curve, and see what was gained.

    python examples/finetune_basins.py [--model FOUNDATION] [--output FOLDER]

Twelve CAMELS-US basins that come with the package. A head learns their streamflow of six years on
top of the pretrained encoder, and is scored on the four years after; the plain LSTM, trained on the
same days, is beside it. Takes a few minutes on one core.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

import xstefa
from xstefa.evaluation.report import compare, table
from xstefa.model.architecture import HeadSize
from xstefa.plotting.curves import plot_learning
from xstefa.plotting.scores import plot_cdf
from xstefa.splits.holdout import Period, RandomSites

# %%
# What is held out is said as data. Here the last four years, at all basins; `RandomGroups`,
# `Regions` and their combinations hold out sites.

HOLDOUT = Period("1995-10-01", "1999-09-30")


@click.command()
@click.option("--model", help="Foundation model; by default the bundled one.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("finetune_output"))
@click.option("--steps", default=600, show_default=True)
def main(model: str | None, output: Path, steps: int) -> None:
    output.mkdir(parents=True, exist_ok=True)
    basins = xstefa.open_sample("camels_us")

    # %%
    # One call each. Matching, units, scaling and windows are those of `predict`. One basin is not
    # learned from: its loss is watched, and shown beside that of the others.
    trained = {}
    for name in ("resconn", "lstm"):
        started = time.monotonic()
        trained[name] = basins.stefa.finetune(
            "streamflow",
            model=model,
            head=HeadSize(kind=name, hidden=64, link="softplus", scale=2.0),
            holdout=HOLDOUT,
            validation=RandomSites(0.1),
            steps=steps,
            learning_rate=3e-3,
            seed=1,
            name=f"twelve basins, {name}",
        )
        print(f"{trained[name]} in {time.monotonic() - started:.0f} s")
        plot_learning(trained[name]).savefig(output / f"learning_{name}.png")

    # %%
    # Both predict the whole record, so that the first day scored has a year of weather before it.
    # They are compared on the same days; the test says how sure the difference is.
    years = slice(HOLDOUT.start, HOLDOUT.end)
    compared = compare(
        {name: basins.stefa.predict(model).sel(time=years) for name, model in trained.items()},
        basins["streamflow"].load().sel(time=years),
        scores=["nse", "kge", "correlation", "rmse"],
    )
    print(table(compared, reference="lstm").round(3).to_string(index=False))
    plot_cdf(compared, "nse").savefig(output / "nse.png")
    print(trained["resconn"].save(output / "twelve_basins.safetensors"))


if __name__ == "__main__":
    main()
