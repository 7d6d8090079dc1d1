"""Do the released models behave like water? All probes at three bundled basins, as a table.

    python examples/probes.py OUT.csv [MODEL ...]      # by default all bundled models of a target

One line for each probe and model: at how many of the basins (one wet, one with snow, one dry) the
answer is as it has to be, and the number farthest from it. About a minute a model on one core.
"""

from __future__ import annotations

import click
import pandas as pd

import xstefa

COLUMNS = ("model", "probe", "verdict", "passed", "asked", "worst")


@click.command()
@click.argument("out", type=click.Path(dir_okay=False))
@click.argument("models", nargs=-1)
def main(out: str, models: tuple[str, ...]) -> None:
    """Write what came of probes of MODELS to OUT."""
    basins = xstefa.open_sample("camels_us")
    names = models or [n for n in xstefa.list_models() if xstefa.load_model(n).target]
    lines = []
    for name in names:
        found = basins.stefa.probe(name)
        click.echo(found)
        lines += [
            (name, row.probe.name, row.verdict, sum(row.passed), sum(row.asked), f"{row.worst:.3g}")
            for row in found
        ]
    pd.DataFrame(lines, columns=list(COLUMNS)).to_csv(out, index=False)


if __name__ == "__main__":
    main()
