"""Score the released streamflow model where attributes lie outside its training, by rule.

    python examples/attribute_ranges.py DATA

DATA holds camels_us.nc and the folder ``world``. The table says, for each source, how many values
lie outside, and the median NSE over its basins when such a value is read as it is, clipped to the
range of training, not known, or by the rule of the schema. With ``--narrow`` instead, for each
attribute, what a narrower range would cost at those held-out basins of the United States that lie
outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import xarray as xr
from release_weights import TRIALS
from train_release import held_out_sites, opened

import xstefa
from xstefa.binding import bind
from xstefa.model.checkpoint import Model, create_model
from xstefa.model.ranges import Range

WORLD = {
    "camels_fr_sample": "France",
    "camels_de_sample": "Germany",
    "switzerland_thur": "Switzerland",
    "camels_gb_sample": "Great Britain",
    "canada_sample": "Canada",
    "caravan_sample": "Caravan",
}
# Units that the sources' documentation states, where the files do not.
UNITS = {
    "canada_sample": {"elev_mean": "m", "slope_mean": "%"},
    "caravan_sample": {"high_prec_freq": "1", "low_prec_freq": "1"},
}
YEARS = slice("1989-10", "1995-09")
EXTREME = 4  # basins at either end that a narrower range leaves out
RULES = ("keep", "clip", "unknown")


def sources(data: Path) -> dict[str, xr.Dataset]:
    """Open the sources: basins that no stage of training saw."""
    home = held_out_sites(opened(data, "camels"), "camels").sel(
        time=slice(*TRIALS["streamflow"].period)
    )
    found = {"United States": home.load()}
    for file, name in WORLD.items():
        dataset = xr.open_dataset(data / "world" / f"{file}.nc")
        for variable, units in UNITS.get(file, {}).items():
            dataset[variable].attrs["units"] = units
        found[name] = dataset
    return found


def outside(dataset: xr.Dataset, model: Model) -> xr.DataArray:
    """Say which attributes of which basins lie outside the range of training."""
    static = bind(dataset, model.schema).read().statics()
    ranges, names = model.spec.ranges, model.schema.static_names
    found = [
        ranges[name].excludes(column) if name in ranges else np.zeros(len(static), dtype=bool)
        for name, column in zip(names, static.T, strict=True)
    ]
    return xr.DataArray(found, coords={"token": list(names)}, dims=["token", "basin"])


def ruled(model: Model, ranges: Mapping[str, Range] | None = None, **rules: str) -> Model:
    """Return the model with other rules, and ranges, for its attributes."""
    statics = [replace(v, beyond=rules.get(v.name, v.beyond)) for v in model.schema.statics]
    schema = replace(model.schema, statics=tuple(statics))
    spec = replace(
        model.spec, schema=schema, ranges=model.spec.ranges if ranges is None else ranges
    )
    return create_model(spec, model.network().state_dict(), half=True)


def cost_of_narrower(home: xr.Dataset, model: Model) -> None:
    """Print how the NSE changes where an attribute is outside a range that is made narrower."""
    static = bind(home, model.schema).read().statics()
    nse = home.stefa.evaluate("streamflow", model=model).nse.values
    print("| attribute | clipped: mean, worst basin | not known: mean, worst basin |")
    print("|---|---|---|")
    for i, name in enumerate(model.schema.static_names):
        known = np.sort(static[np.isfinite(static[:, i]), i])
        if name not in model.spec.ranges or len(known) < 20 or known[EXTREME] == known[-1]:
            continue
        low, high = float(known[EXTREME]), float(known[-1 - EXTREME])
        ranges = {name: Range(low=low, high=high, mean_low=low, mean_high=high)}
        basins = np.flatnonzero(ranges[name].excludes(static[:, i]) & np.isfinite(nse))
        if not len(basins):
            continue
        part, cells = home.isel(basin=basins), []
        for rule in ("clip", "unknown"):
            tried = ruled(model, ranges, **{name: rule})
            change = part.stefa.evaluate("streamflow", model=tried).nse.values - nse[basins]
            cells.append(f"{change.mean():+.3f}, {change.min():+.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--narrow", is_flag=True, help="What narrower ranges would cost instead.")
def main(data, narrow):
    """Print the table."""
    model = xstefa.load_model("streamflow")
    names = model.schema.static_names
    if narrow:
        cost_of_narrower(sources(data)["United States"].sel(time=YEARS), model)
        return
    models = {rule: ruled(model, **dict.fromkeys(names, rule)) for rule in RULES}
    models["schema"] = model
    print("| source | basins | values outside | " + " | ".join(models) + " |")
    print("|---" * (len(models) + 3) + "|")
    for name, dataset in sources(data).items():
        beyond = outside(dataset, model)
        affected = np.flatnonzero(beyond.any("token"))
        nse = dataset.stefa.evaluate("streamflow", model=models["keep"]).nse.values
        found = {}
        for rule, tried in models.items():
            found[rule] = nse.copy()
            if len(affected) and rule != "keep":
                part = dataset.isel(basin=affected).stefa.evaluate("streamflow", model=tried)
                found[rule][affected] = part.nse.values
        counts = beyond.sum("basin")
        text = ", ".join(f"{int(n)} {n.token.item()}" for n in counts if n) or "none"
        medians = " | ".join(f"{np.nanmedian(values):.3f}" for values in found.values())
        scored = np.isfinite(nse).sum()
        print(f"| {name} | {scored} | {text} | {medians} |", flush=True)


if __name__ == "__main__":
    main()
