"""The ``xstefa`` command: the same verbs as in Python, for a terminal."""

from __future__ import annotations

from pathlib import Path

import click
import xarray as xr

import xstefa


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(xstefa.__version__, prog_name="xstefa")
def main() -> None:
    """Predict streamflow and soil moisture from any labeled dataset."""


@main.command()
@click.argument("dataset", type=click.Path(exists=True))
@click.option("--schema", default="stefaland", help="Name or path of the schema.")
def tokens(dataset: str, schema: str) -> None:
    """Show which variables of DATASET provide which of the model's tokens."""
    with xr.open_dataset(dataset, chunks={}) as opened:
        click.echo(repr(opened.stefa.tokens(schema=schema)))


@main.command()
def models() -> None:
    """List the models that come with the package."""
    for name in xstefa.list_models():
        click.echo(repr(xstefa.load_model(name)))


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
