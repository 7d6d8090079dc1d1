"""What is each token worth to the released models? Hide it at sites that they did not see.

    python examples/ablations.py DATA OUT.toml [MODEL ...]

DATA is that of `train_release.py`; OUT is `xstefa/weights/ablations.toml` at a release. A model is
written when it is done, and those that OUT has already are kept.
"""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path

import click
import numpy as np
from train_release import aligned, held_out_sites

import xstefa
from xstefa.evaluation.intervals import median_interval

# Source, days to read, days to score, and what is said of them.
CAMELS = (
    "camels",
    slice("1992-10-01", "1999-09-30"),
    ("1994-10-01", "1999-09-30"),
    "CAMELS-US basins held out of pretraining and training, 1994-10 to 1999-09",
)
SITES = {
    "streamflow": CAMELS,
    "water-balance": CAMELS,
    "soil-moisture-grid": (
        "smap",
        slice(None),
        None,
        "cells of the SMAP lattice held out of pretraining and training",
    ),
    "soil-moisture-point": (
        "fluxnet",
        slice(None),
        None,
        "FLUXNET towers held out of pretraining and training",
    ),
}


def line(values: np.ndarray) -> str:
    """Return a median and its interval as TOML."""
    found = median_interval(values)
    return f"[{found.median:.4f}, {found.low:.4f}, {found.high:.4f}]"


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1)
def main(data: Path, out: Path, models: tuple[str, ...]) -> None:
    """Write what tokens are worth to MODELS."""
    warnings.simplefilter("ignore")
    kept = tomllib.loads(out.read_text("utf-8")) if out.is_file() else {}
    for name in models or tuple(SITES):
        if name in kept:
            raise click.ClickException(f"{out} has {name}: remove it to measure it anew")
        model = xstefa.load_model(name)
        source, days, period, text = SITES[name]
        dataset = held_out_sites(aligned(data, source).sel(time=days), source).load()
        found = dataset.stefa.ablate(model, period=period)
        skill = median_interval(found.skill.values)
        known = [token for token in found.token.values if found.lost.sel(token=token).count()]
        lines = [
            f"[{name}]",
            f'model_hash = "{model.content_hash}"',
            f'score = "{found.attrs["score"]}"',
            f'data = "{text}"',
            f"skill = {skill.median:.4f}",
            f"sites = {skill.sites}",
            f"[{name}.lost]",
            *(f"{token} = {line(found.lost.sel(token=token).values)}" for token in known),
        ]
        with out.open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, "", ""]))
        click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
