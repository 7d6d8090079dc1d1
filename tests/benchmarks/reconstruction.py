"""How well hidden variables are recovered: `python -m tests.benchmarks.reconstruction FILE MODEL`.

FILE is a dataset of sites, MODEL a foundation model. Only sites that `held_out` keeps from the
released models are scored. Every variable is reconstructed while it and its physical group are
hidden. It is compared with what boosted trees (`sklearn`) say, which learn on the training sites
from the attributes outside the group, and for daily variables also from the other forcings of the
day and the day of the year. Reported is R², the share of the squared error of the training mean
that is explained.
"""

from __future__ import annotations

import argparse

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from xstefa.binding import bind
from xstefa.model.registry import load_model
from xstefa.schema import Schema, Variable
from xstefa.splits.holdout import held_out

Floats = NDArray[np.float64]


def explained(known: Floats, found: Floats, mean: float) -> float:
    """Return 1 - squared error over that of the training mean."""
    both = np.isfinite(known) & np.isfinite(found)
    error, reference = (known - found)[both], known[both] - mean
    return float(1 - (error**2).sum() / (reference**2).sum())


def others(variable: Variable, names: list[str], schema: Schema) -> list[str]:
    """Return the variables outside the group of one."""
    group = variable.group
    return [n for n in names if n != variable.name and (group is None or schema[n].group != group)]


def boosted(inputs: Floats, target: Floats, seed: int = 0) -> HistGradientBoostingRegressor:
    """Fit trees to the known values."""
    known = np.isfinite(target)
    return HistGradientBoostingRegressor(random_state=seed).fit(inputs[known], target[known])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("model")
    parser.add_argument("--ids", default="basin", help="variable that names the sites")
    parser.add_argument("--period", nargs=2, default=("1995-10-01", "1998-09-30"))
    parser.add_argument("--sample", type=int, default=60_000, help="site-days the trees learn from")
    options = parser.parse_args()
    model = load_model(options.model)
    schema = model.schema
    dataset = xr.open_dataset(options.file).sel(time=slice(*options.period))
    out = held_out([str(i) for i in dataset[options.ids].values])
    binding = bind(dataset, schema)
    (site,) = binding.layout.site_dims
    days = binding.layout.time
    test = dataset.isel({site: np.flatnonzero(out)})
    random = np.random.default_rng(0)

    statics = [n for n in binding.static if n in model.spec.tokens and schema[n].maskable]
    forcings = [n for n in binding.forcing if n in model.spec.tokens]
    found = test.stefa.reconstruct(statics + forcings, only_missing=False, model=model)

    attributes = {n: binding.static[n].values.astype(float) for n in binding.static}
    print(f"{model.name}: {out.sum()} held-out sites, {(~out).sum()} for the trees\n")
    print("| hidden | known without | StefaLand R² | trees R² |")
    print("|---|---|---|---|")
    for name in statics:
        values = attributes[name]
        inputs = np.column_stack(
            [attributes[n] for n in others(schema[name], list(attributes), schema)]
        )
        trees = boosted(inputs[~out], values[~out]).predict(inputs[out])
        mean = float(np.nanmean(values[~out]))
        rows = [
            explained(values[out], np.asarray(f, dtype=float), mean)
            for f in (found[name].values, trees)
        ]
        print(f"| {name} | {schema[name].group or 'itself'} | {rows[0]:.2f} | {rows[1]:.2f} |")

    series = {n: binding.forcing[n].transpose(site, days).values.astype(float) for n in forcings}
    count = len(dataset[days])
    season = 2 * np.pi * dataset[days].dt.dayofyear.values / 365.25
    for name in forcings:
        daily = [series[n] for n in others(schema[name], forcings, schema)]

        def table(sites: NDArray[np.int64], when: NDArray[np.int64], daily=daily) -> Floats:
            return np.column_stack(
                [
                    *(d[sites, when] for d in daily),
                    *(a[sites] for a in attributes.values()),
                    np.sin(season[when]),
                    np.cos(season[when]),
                ]
            )

        sites = random.choice(np.flatnonzero(~out), options.sample)
        when = random.integers(count, size=options.sample)
        trees = boosted(table(sites, when), series[name][sites, when])
        held, all_days = np.meshgrid(np.flatnonzero(out), np.arange(count), indexing="ij")
        told = trees.predict(table(held.ravel(), all_days.ravel())).reshape(held.shape)
        mean = float(np.nanmean(series[name][~out]))
        ours = found[name].transpose(site, days).values.astype(float)
        rows = [explained(series[name][out], f, mean) for f in (ours, told)]
        print(f"| {name} | {schema[name].group or 'itself'} | {rows[0]:.2f} | {rows[1]:.2f} |")


if __name__ == "__main__":
    main()
