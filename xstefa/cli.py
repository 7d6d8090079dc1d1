"""The ``xstefa`` command: the same verbs as in Python, for a terminal."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import click

import xstefa
from xstefa.inference.command import open_lazily, predict_to_store

# Options of glibc's mallopt(3). Of M_MMAP_THRESHOLD glibc before 2.35 takes no more than 32 MiB.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


class _Group(click.Group):
    """Commands whose errors are messages, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except xstefa.XstefaError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(xstefa.__version__, prog_name="xstefa")
def main() -> None:
    """Predict streamflow and soil moisture from any labeled dataset."""
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: this process is ours, and page faults cost a quarter of it."""
    # Where there is no glibc there is no such option.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**30)


@main.command()
@click.argument("dataset", type=click.Path(exists=True))
@click.option("--schema", default="stefaland", help="Name or path of the schema.")
def tokens(dataset: str, schema: str) -> None:
    """Show which variables of DATASET provide which of the model's tokens."""
    with open_lazily(dataset) as opened:
        click.echo(repr(opened.stefa.tokens(schema=schema)))


@main.command()
def models() -> None:
    """List the models that come with the package."""
    click.echo(repr(xstefa.list_models()))


@main.command()
@click.argument("dataset", metavar="IN")
@click.argument("store", metavar="OUT.zarr", type=click.Path(path_type=Path))
@click.option("--target", required=True, help='What to predict: "streamflow", "soil_moisture".')
@click.option("--model", help="Name or file of a model, instead of the bundled one.")
@click.option("--quantile", "quantiles", type=float, multiple=True, help="Of an ensemble's spread.")
@click.option("--coverage/--no-coverage", default=True, show_default=True, help="Write it too.")
@click.option("--rename", multiple=True, metavar="VARIABLE=TOKEN", help="Say what a variable is.")
@click.option("--device", help='Torch device, for instance "cuda:0".')
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Arithmetic.")
@click.option("--batch-size", type=int, help="Windows per call of the network.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on the dask cluster there.")
@click.option("--resume", is_flag=True, help="Go on with a store that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace a store that exists.")
def predict(dataset: str, store: Path, rename: tuple[str, ...], **options: Any) -> None:
    """Predict a target for every site and day of IN, a Zarr store or NetCDF file."""
    pairs = [pair.partition("=") for pair in rename]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("expected VARIABLE=TOKEN", param_hint="--rename")
    predict_to_store(dataset, store, rename={v: t for v, _, t in pairs} or None, **options)


@main.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo_output"),
    show_default=True,
    help="Folder for pictures and stores.",
)
def demo(output: Path) -> None:
    """Predict the bundled samples, and draw maps, hydrographs and a soil-moisture series."""
    from xstefa.demo import run

    made = run(output, say=click.echo)
    click.echo("\nMade:")
    for path in made:
        click.echo(f"  {path}")
