"""What a streamflow model makes of poorer data: its scores where tokens are taken from it.

    python examples/robustness.py DATA MODEL...

DATA as for `train_release.py`, MODEL a name or file. Sites are those of validation, ten years of
each source; latitudes go as well, from which potential evapotranspiration would be derived. Ends
with what breaks the rule that more tokens never make a prediction worse.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import xarray as xr
from train_release import aligned, held_out_sites

from xstefa.binding import bind
from xstefa.errors import MissingTokenError, XstefaWarning
from xstefa.model.checkpoint import Model
from xstefa.model.registry import load_model


class Case(NamedTuple):
    """Which forcings there are (None: all), and whether there are attributes."""

    forcings: tuple[str, ...] | None
    statics: bool

    def within(self, other: Case) -> bool:
        """Whether the other case has all of this one, and more."""
        fewer = other.forcings is None or (
            self.forcings is not None and set(self.forcings) <= set(other.forcings)
        )
        return fewer and self.statics <= other.statics and self != other


P, T, PET = "precipitation", "temperature_mean", "potential_evapotranspiration"
CASES = {
    "P, T": Case((P, T), statics=False),
    "P, PET": Case((P, PET), statics=False),
    "P, T, PET": Case((P, T, PET), statics=False),
    "P, T, attributes": Case((P, T), statics=True),
    "everything": Case(None, statics=True),
}
# Ten years, after one of spin-up.
PERIODS = {"camels": ("1988-10", "1989-10", "1999-09"), "mopex": ("1988-10", "1989-10", "1999-09")}
WORLD = ("2002-10", "2003-10", "2013-09")
SCORES = {"nse": "NSE", "kge": "KGE", "pbias": "bias [%]"}
ROUNDING = 0.005  # of a median NSE


def reduced(dataset: xr.Dataset, model: Model, case: Case, *, since: str) -> xr.Dataset:
    """Return the tokens of a case, and the observations from a day on, under their own names."""
    binding = bind(dataset, model.schema)
    forcings = {n: a for n, a in binding.forcing.items() if n in (case.forcings or binding.forcing)}
    statics = dict(binding.static) if case.statics else {}
    observed = binding.observed("streamflow")
    assert observed is not None
    tokens = {
        token.name: array.drop_vars(["lat", "lon"], errors="ignore").assign_attrs(units=token.units)
        for token in model.schema.tokens
        if (array := {**forcings, **statics}.get(token.name)) is not None
    }
    late = observed.where(observed.time >= np.datetime64(since)).drop_attrs()
    return xr.Dataset(tokens).assign(
        streamflow=late.drop_vars(["lat", "lon"], errors="ignore").assign_attrs(units="mm d-1")
    )


def scores(dataset: xr.Dataset, model: Model, case: Case, *, since: str) -> xr.Dataset | None:
    """Return the scores of each site; None if the model refuses."""
    part = reduced(dataset, model, case, since=since)
    rename = {name: name for name in part.data_vars if name != "streamflow"}
    try:
        return part.stefa.evaluate("streamflow", model=model, rename=rename, scores=list(SCORES))
    except MissingTokenError:
        return None


def broken(found: dict[str, xr.Dataset | None]) -> list[str]:
    """Say where more tokens make the median NSE worse, over sites that have both."""
    said = []
    for few, fewer in found.items():
        for many, more in found.items():
            if fewer is None or more is None or not CASES[few].within(CASES[many]):
                continue
            change = more.nse - fewer.nse
            loss = float(fewer.nse.where(change.notnull()).median())
            loss -= float(more.nse.where(change.notnull()).median())
            if loss > ROUNDING:
                worse = int((change < 0).sum())
                said.append(
                    f"{many} is worse than {few} by {loss:.3f} "
                    f"({worse} of {int(change.notnull().sum())} sites)"
                )
    return said


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("models", nargs=-1, required=True)
@click.option("--sources", default="camels,france,germany,britain,thur,caravan", show_default=True)
def main(data, models, sources):
    """Print a table for each model."""
    warnings.simplefilter("ignore", XstefaWarning)
    for name in models:
        model = load_model(name)
        print(f"\n{model}\n\n| source | data | sites | {' | '.join(SCORES.values())} |")
        print("|---" * (len(SCORES) + 3) + "|")
        complaints = []
        for source in sources.split(","):
            begin, since, end = PERIODS.get(source, WORLD)
            dataset = held_out_sites(aligned(data, source), source).sel(time=slice(begin, end))
            dataset = dataset.load()
            found = {
                label: scores(dataset, model, case, since=since) for label, case in CASES.items()
            }
            for label, each in found.items():
                cells = ["refused"] + ["-"] * len(SCORES)
                if each is not None:
                    medians = [f"{float(each[score].median()):.3f}" for score in SCORES]
                    cells = [str(int(each.nse.notnull().sum())), *medians]
                print(f"| {source} | {label} | {' | '.join(cells)} |", flush=True)
            complaints += [f"{source}: {said}" for said in broken(found)]
        print("\n" + "\n".join(complaints or ["More is never worse."]), flush=True)


if __name__ == "__main__":
    main()
