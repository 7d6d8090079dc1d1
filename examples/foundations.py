"""Pretrain encoders of several sizes, and say what they bring where data are few.

    python examples/foundations.py DATA OUT                 # all foundations: hours on one core
    python examples/foundations.py DATA OUT w64-1 w64-4     # some of them

DATA as for `train_release.py`. Each foundation is pretrained, its encoder frozen, and one head on
it taught by 25 basins of CAMELS-US, drawn twice. It is judged at basins and whole rivers that no
stage saw (those of validation). What is done is kept in OUT, where a table and a picture go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import click
import matplotlib.pyplot as plt
import pandas as pd
import torch
from train_release import (
    ENCODER,
    HOLDOUT,
    PRETRAINING,
    PRETRAINING_WINDOWS,
    aligned,
    held_out_sites,
    pretrained,
)

import xstefa
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.model.checkpoint import Model
from xstefa.splits.holdout import FewSites
from xstefa.training.finetune import HeadRecipe, finetune
from xstefa.training.options import Schedule
from xstefa.windows import SegmentPolicy, WindowPolicy

A_PASS = 750  # steps of 32 windows of 640 days, in which each day is read about once
DRAWS = 2
FEW = Schedule(steps=300, batch_size=32, learning_rate=6e-3, precision="fp32")
YEARS = SegmentPolicy(length=730, spin_up=365)
BOTH_WAYS = WindowPolicy(length=640, spin_up=275, blend=0)
RIVERS = ("france", "germany", "thur")
PERIOD = ("1989-10-01", "1999-09-30")


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """An encoder and how long it is pretrained; without one, the head is a plain LSTM."""

    encoder: EncoderSize | None = None
    passes: float = 1.0

    @property
    def windows(self) -> WindowPolicy:
        """Those that heads learn on, and predict with."""
        both_ways = self.encoder is not None and not self.encoder.causal
        return BOTH_WAYS if both_ways else YEARS


def wide(width: int) -> EncoderSize:
    """Return the released encoder in another width."""
    return replace(ENCODER, width=width, feedforward=2 * width, hidden=width // 4)


FOUNDATIONS = {
    "lstm": Foundation(),
    **{
        f"w{width}-{passes:g}": Foundation(encoder=wide(width), passes=passes)
        for passes in (0.3, 1, 4, 12)
        for width in (64, 128, 256)
    },
    "band64-0.3": Foundation(encoder=replace(ENCODER, band=64), passes=0.3),
    "band256-0.3": Foundation(encoder=replace(ENCODER, band=256), passes=0.3),
    "both-ways-0.3": Foundation(encoder=replace(ENCODER, attention="bidirectional"), passes=0.3),
}


def foundation_of(data: Path, out: Path, name: str) -> Path:
    """Pretrain a foundation, unless that is done."""
    path = out / f"{name}.safetensors"
    foundation = FOUNDATIONS[name]
    if not path.exists():
        assert foundation.encoder is not None
        pretrained(
            data,
            size=foundation.encoder,
            windows=PRETRAINING_WINDOWS if foundation.encoder.causal else BOTH_WAYS,
            schedule=replace(PRETRAINING, steps=round(foundation.passes * A_PASS)),
            holdout=HOLDOUT,
            device="cpu",
            checkpoint=out / "checkpoints" / name,
            name=name,
        ).save(path)
    return path


def taught(data: Path, out: Path, name: str, draw: int) -> Model:
    """Teach a head by few basins."""
    foundation = FOUNDATIONS[name]
    bare = foundation.encoder is None
    kind = "lstm" if bare else "resconn"
    return finetune(
        aligned(data, "camels"),
        "streamflow",
        model="stefaland-causal" if bare else foundation_of(data, out, name),
        head=(HeadSize(kind=kind, hidden=64, link="softplus", scale=2.0),),
        holdout=FewSites(HOLDOUT, sites=25, seed=draw),
        sites="basin",
        schedule=replace(FEW, seed=draw),
        recipe=HeadRecipe(windows=foundation.windows, stride=183, encoding="bf16"),
        device="cpu",
    )


@cache
def judged(data: Path, source: str):
    """Open the sites of a source that no stage saw."""
    return held_out_sites(aligned(data, source), source).load()


def scored(data: Path, out: Path, name: str) -> pd.DataFrame:
    """Return NSE by draw, source and site, of a foundation; kept in OUT."""
    path = out / f"{name}.csv"
    if not path.exists():
        rows = []
        for draw in range(DRAWS):
            model = taught(data, out, name, draw)
            for source in ("camels", *RIVERS):
                scores = judged(data, source).stefa.evaluate(
                    "streamflow",
                    model=model,
                    scores=["nse"],
                    period=PERIOD if source == "camels" else None,
                )
                rows += [
                    {"foundation": name, "draw": draw, "source": source, "nse": float(value)}
                    for value in scores["nse"].values
                ]
        pd.DataFrame(rows).to_csv(path, index=False)
    return pd.read_csv(path)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Return medians over sites, mean over draws: of the United States, and of rivers abroad."""
    place = scores.source.where(scores.source == "camels", "abroad")
    medians = scores.groupby(["foundation", "draw", place], sort=False).nse.median()
    table = medians.groupby(level=[0, 2], sort=False).mean().unstack()
    return table.rename(columns={"camels": "United States"})[["United States", "abroad"]].round(3)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw NSE against passes, a line for each width."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
    for axis, place in zip(axes, table.columns, strict=True):
        for width in (64, 128, 256):
            found = {
                FOUNDATIONS[name].passes: value
                for name, value in table[place].items()
                if str(name).startswith(f"w{width}-")
            }
            if found:
                axis.semilogx(list(found), list(found.values()), "o-", label=f"width {width}")
        if "lstm" in table.index:
            axis.axhline(table.loc["lstm", place], color="grey", ls="--", label="LSTM, no encoder")
        axis.set(xlabel="passes of pretraining", title=place)
    axes[0].set_ylabel("median NSE, taught by 25 basins")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1, type=click.Choice(list(FOUNDATIONS)))
@click.option("--threads", default=2)
def main(data: Path, out: Path, names: tuple[str, ...], threads: int) -> None:
    """Pretrain, teach and judge the foundations NAMES (all by default)."""
    torch.set_num_threads(threads)
    xstefa.set_options(progress=True)
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    for name in names or FOUNDATIONS:
        scored(data, out, name)
    done = [name for name in FOUNDATIONS if (out / f"{name}.csv").exists()]
    table = summary(pd.concat([scored(data, out, name) for name in done]))
    table.to_csv(out / "foundations.csv")
    draw(table, out / "foundations.png")
    print(table)


if __name__ == "__main__":
    main()
