"""What damaged and missing inputs cost: kinds of damage, each in four severities.

    python examples/corruptions.py DATA OUT                     # streamflow and soil moisture
    python examples/corruptions.py DATA OUT --targets streamflow --kinds bias,noise

DATA as for `train_release.py`. Sites are those of validation: CAMELS-US basins over ten years, SMAP
cells. Only the inputs are damaged, from the first day of the spin-up on, never the observations.
OUT gets corruptions.csv (medians over sites: score, coverage and width of the 90 % interval) and
corruptions.png.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from robustness import tokens_of
from train_release import SCHEMA, aligned, held_out_sites

from xstefa.errors import XstefaWarning
from xstefa.evaluation.evaluate import METRICS
from xstefa.model.checkpoint import Model
from xstefa.model.registry import load_model

P, T, PET = "precipitation", "temperature_mean", "potential_evapotranspiration"
TEMPERATURES = (T, "temperature_max", "temperature_min")
MODELS = {"streamflow": ("streamflow", "camels"), "soil_moisture": ("soil-moisture-grid", "smap")}
RANGES = {token.name: token.valid_range for token in SCHEMA.tokens}
SPANS = {"streamflow": ("1988-10", "1989-10", "1994-09"), "soil_moisture": (None, None, None)}
SCORES = {"streamflow": "nse", "soil_moisture": "ubrmse"}

Random = np.random.Generator
Damage = Callable[[xr.Dataset, float, Random], xr.Dataset]
KINDS: dict[str, tuple[Damage, tuple[float, ...]]] = {}


def kind(name: str, *severities: float) -> Callable[[Damage], Damage]:
    """Register a kind of damage with its severities."""

    def register(function: Damage) -> Damage:
        KINDS[name] = function, severities
        return function

    return register


def changed(
    ds: xr.Dataset, names: Iterable[str], change: Callable[[xr.DataArray], xr.DataArray]
) -> xr.Dataset:
    """Change those of the variables that there are."""
    found = {name: change(ds[name]).assign_attrs(ds[name].attrs) for name in names if name in ds}
    return ds.assign(found)


def forcings(ds: xr.Dataset) -> list[str]:
    """Return the names of the daily inputs."""
    return [name for name in SCHEMA.forcing_names if name in ds]


def statics(ds: xr.Dataset) -> list[str]:
    """Return the names of the attributes."""
    return [str(name) for name, array in ds.data_vars.items() if "time" not in array.dims]


def spells(ds: xr.Dataset, share: float, days: int, random: Random) -> xr.DataArray:
    """Return truths on a share of the days, in spells of so many, drawn for each site."""
    site, count = ds[P].dims[0], ds.sizes["time"]
    drawn = random.random((ds.sizes[site], -(-count // days))) < share
    return xr.DataArray(np.repeat(drawn, days, axis=1)[:, :count], dims=(site, "time"))


@kind("days missing", 0.02, 0.05, 0.1, 0.2)
def _days(ds: xr.Dataset, share: float, random: Random) -> xr.Dataset:
    return changed(ds, forcings(ds), lambda a: a.where(~spells(ds, share, 1, random)))


@kind("weeks missing", 0.05, 0.1, 0.2, 0.4)
def _weeks(ds: xr.Dataset, share: float, random: Random) -> xr.Dataset:
    gone = spells(ds, share, 14, random)
    return changed(ds, forcings(ds), lambda a: a.where(~gone))


@kind("months missing", 0.05, 0.1, 0.2, 0.4)
def _months(ds: xr.Dataset, share: float, random: Random) -> xr.Dataset:
    gone = spells(ds, share, 60, random)
    return changed(ds, forcings(ds), lambda a: a.where(~gone))


@kind("noise", 0.1, 0.25, 0.5, 1.0)
def _noise(ds: xr.Dataset, spread: float, random: Random) -> xr.Dataset:
    def of(array: xr.DataArray) -> xr.DataArray:
        return array.copy(data=random.normal(0, spread, array.shape))

    ds = changed(ds, (P, PET), lambda a: a * np.exp(of(a) - spread**2 / 2))
    return changed(ds, TEMPERATURES, lambda a: a + 4 * of(a))


@kind("bias of precipitation, factor", 1.1, 1.25, 1.5, 2.0)
def _bias(ds: xr.Dataset, factor: float, random: Random) -> xr.Dataset:
    return changed(ds, (P,), lambda a: a * factor)


@kind("a day late, by days", 0.25, 0.5, 0.75, 1.0)
def _late(ds: xr.Dataset, days: float, random: Random) -> xr.Dataset:
    return changed(ds, forcings(ds), lambda a: (1 - days) * a + days * a.shift(time=1).fillna(a))


@kind("another unit, a tenth, on a share of days", 0.02, 0.05, 0.1, 0.25)
def _unit(ds: xr.Dataset, share: float, random: Random) -> xr.Dataset:
    return changed(ds, (P,), lambda a: a.where(~spells(ds, share, 30, random), a / 10))


@kind("rain missed, share of days", 0.05, 0.1, 0.25, 0.5)
def _missed(ds: xr.Dataset, share: float, random: Random) -> xr.Dataset:
    return changed(ds, (P,), lambda a: a.where(~spells(ds, share, 1, random), 0))


@kind("rain smeared over days", 2, 3, 5, 7)
def _smeared(ds: xr.Dataset, days: float, random: Random) -> xr.Dataset:
    return changed(ds, (P,), lambda a: a.rolling(time=int(days), min_periods=1).mean())


@kind("lapse error, K", 1, 2, 4, 8)
def _lapse(ds: xr.Dataset, warmer: float, random: Random) -> xr.Dataset:
    return changed(ds, TEMPERATURES, lambda a: a + warmer)


@kind("stale for days, a fifth of the time", 3, 7, 14, 30)
def _stale(ds: xr.Dataset, days: float, random: Random) -> xr.Dataset:
    stale = spells(ds, 0.2, int(days), random)
    return changed(ds, forcings(ds), lambda a: a.where(~stale).ffill("time").fillna(a))


@kind("coarse: mean of nearest sites", 2, 4, 8, 16)
def _coarse(ds: xr.Dataset, sites: float, random: Random) -> xr.Dataset:
    lat, lon = np.radians(ds["lat"].values), np.radians(ds["lon"].values)
    x, y = lon * np.cos(lat.mean()), lat
    nearest = np.argsort((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2, axis=1)[:, : int(sites)]

    def mean(array: xr.DataArray) -> xr.DataArray:
        return array.copy(data=array.values[nearest].mean(axis=1))

    return changed(ds, forcings(ds), mean)


@kind("attributes of another site, share of sites", 0.1, 0.25, 0.5, 1.0)
def _swapped(ds: xr.Dataset, share: float, random: Random) -> xr.Dataset:
    site = ds[P].dims[0]
    count = ds.sizes[site]
    chosen = random.permutation(count)[: round(share * count)]
    order = np.arange(count)
    order[chosen] = np.roll(chosen, 1)
    return changed(ds, statics(ds), lambda a: a.copy(data=a.values[order]))


@kind("groups missing: radiation; humidity and wind; PET; attributes", 1, 2, 3, 4)
def _groups(ds: xr.Dataset, groups: float, random: Random) -> xr.Dataset:
    lost = [
        ["shortwave_down"],
        ["relative_humidity", "wind_speed", "surface_pressure"],
        [PET],
        statics(ds),
    ]
    gone = [name for group in lost[: int(groups)] for name in group]
    return ds.drop_vars(gone, errors="ignore")


@kind("saturated gauge, above quantile", 0.995, 0.99, 0.98, 0.95)
def _saturated(ds: xr.Dataset, level: float, random: Random) -> xr.Dataset:
    return changed(ds, (P,), lambda a: a.clip(max=a.quantile(level, "time").drop_vars("quantile")))


def possible(array: xr.DataArray) -> xr.DataArray:
    """Return where the values of a token can be."""
    low, high = RANGES[str(array.name)]
    return (array >= low) & (array <= high)


def judged(damaged: xr.Dataset, whole: xr.Dataset, target: str, model: Model) -> dict[str, float]:
    """Return medians over sites: the score, and coverage and width of the 90 % interval."""
    # Values that cannot be are refused as a mistake in the units; here they are not known.
    damaged = changed(damaged, forcings(damaged), lambda a: a.where(possible(a)))
    tokens = damaged.drop_vars(target).chunk()
    how = {"model": model, "rename": {str(name): str(name) for name in tokens.data_vars}}
    bounds = tokens.stefa.predict(target, interval=0.9, **how)
    found = bounds.assign(mean=tokens.stefa.predict(target, **how)).compute()
    observed = whole[target]
    known = observed.notnull() & found["mean"].notnull()
    covered = (observed >= found["lower"]) & (observed <= found["upper"])
    width = (found["upper"] - found["lower"]).where(known).mean("time")
    return {
        SCORES[target]: float(METRICS[SCORES[target]](found["mean"], observed).median()),
        "coverage": float(covered.where(known).mean("time").median()),
        "width": float(width.median()),
        "sites": int(known.any("time").sum()),
    }


def scored(data: Path, target: str, kinds: list[str]) -> pd.DataFrame:
    """Return what `judged` does for each kind and severity; severity 0 is undamaged."""
    name, source = MODELS[target]
    model = load_model(name)
    dataset = held_out_sites(aligned(data, source), source)
    begin, since, end = SPANS[target]
    whole = tokens_of(dataset.sel(time=slice(begin, end)).load(), model, target, since=since)
    rows = []
    for kind_, severity in [("none", 0.0), *((k, s) for k in kinds for s in KINDS[k][1])]:
        damaged = whole
        if severity:
            damaged = KINDS[kind_][0](whole, severity, np.random.default_rng(0))
        number = KINDS[kind_][1].index(severity) + 1 if severity else 0
        case = {"target": target, "kind": kind_, "severity": number, "damage": severity}
        rows.append(case | judged(damaged, whole, target, model))
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw score and width of each kind against severity, a column for each target."""
    targets = list(table.target.unique())
    figure, axes = plt.subplots(
        2, len(targets), figsize=(5 * len(targets), 8), layout="constrained", squeeze=False
    )
    for column, target in zip(axes.T, targets, strict=True):
        part = table[table.target == target]
        undamaged = part[part.kind == "none"].iloc[0]
        for axis, name in zip(column, (SCORES[target], "width"), strict=True):
            for number, (kind_, each) in enumerate(part[part.kind != "none"].groupby("kind")):
                line = ["-o", "--s"][number // 10]
                values = [undamaged[name], *each[name]]
                axis.plot([0, *each.severity], values, line, label=kind_, markersize=3)
            axis.set(xlabel="severity", ylabel=f"median {name}", xticks=range(5))
        column[0].set_title(target)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=90)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--targets", default=",".join(MODELS), show_default=True)
@click.option("--kinds", default=None, help="Some of: " + "; ".join(KINDS))
def main(data: Path, out: Path, targets: str, kinds: str | None) -> None:
    """Damage the inputs and score the answers."""
    warnings.simplefilter("ignore", XstefaWarning)
    out.mkdir(parents=True, exist_ok=True)
    chosen = kinds.split(",") if kinds else list(KINDS)
    table = pd.concat([scored(data, target, chosen) for target in targets.split(",")])
    table.to_csv(out / "corruptions.csv", index=False)
    draw(table, out / "corruptions.png")


if __name__ == "__main__":
    main()
