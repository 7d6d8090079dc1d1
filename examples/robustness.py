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

    def answers(self, model: Model) -> bool:
        """Whether a model answers with so little."""
        return self.forcings is None or all(
            set(group) & set(self.forcings) for group in model.spec.needs
        )

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


def tokens_of(
    dataset: xr.Dataset, model: Model, target: str, *, since: str | None = None
) -> xr.Dataset:
    """Return tokens and observations (from a day on) in their units, by their own names.

    Cells of a grid with observations become sites.
    """
    binding = bind(dataset, model.schema)
    observed = binding.observed(target)
    assert observed is not None
    found = {**binding.forcing, **binding.static}
    if since is not None:
        observed = observed.where(observed.time >= np.datetime64(since))
    units = {token.name: token.units for token in model.schema.tokens if token.name in found}
    units[target] = model.schema.target(target).units
    arrays = {name: array.drop_attrs() for name, array in {**found, target: observed}.items()}
    tokens = xr.Dataset({n: arrays[n].assign_attrs(units=unit) for n, unit in units.items()})
    if {"lat", "lon"} <= set(tokens.dims):
        tokens = tokens.stack(site=("lat", "lon")).reset_index("site").transpose("site", "time")
        tokens = tokens.dropna("site", how="all", subset=[target])
    return tokens


def reduced(whole: xr.Dataset, case: Case, target: str = "streamflow") -> xr.Dataset:
    """Return the tokens of a case; without latitudes, from which evaporation would be derived."""
    daily = [str(name) for name, array in whole.data_vars.items() if "time" in array.dims]
    kept = [n for n in daily if case.forcings is None or n in (*case.forcings, target)]
    kept += [str(name) for name in whole.data_vars if case.statics and name not in daily]
    return whole[kept].drop_vars(["lat", "lon"], errors="ignore")


def scores(whole: xr.Dataset, model: Model, case: Case) -> xr.Dataset | None:
    """Return the scores of each site; None if the model refuses."""
    part = reduced(whole, case)
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
            whole = tokens_of(dataset, model, "streamflow", since=since)
            found = {label: scores(whole, model, case) for label, case in CASES.items()}
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
