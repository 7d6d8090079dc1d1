"""Compare the model that reads each day once with windows of a year at commit 33d4da9.

    python ci/benchmarks/one_pass.py [--rounds 3] [--sites 32]

Run inside a clone with its history: both commits are checked out into a temporary folder and timed
in turn, each round in a process of its own with one thread, in single precision and CPU seconds.
Three models of each target are timed: the one released at that commit, one of the same sizes that
looks back only (untrained: speed does not depend on the values of weights), and the one that is
released now, whatever its size. Prints a Markdown table of medians over rounds:

- from a Zarr store of sites over ten years (cells: four) to a Zarr store, and the peak of memory;
- fine-tuning: days whose loss counts in each CPU second, the frozen encoder included.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import numpy as np

BEFORE = "33d4da9"
RELEASED = {"streamflow": "streamflow", "soil_moisture": "soil-moisture-grid"}
YEARS = {"streamflow": 10, "soil_moisture": 4}
HEADS = {  # two of each were released at that commit
    "streamflow": {"hidden": 192, "link": "softplus", "scale": 2.0},
    "soil_moisture": {"hidden": 128, "link": "logistic"},
}
KINDS = ("before", "same sizes", "released")


def dataset(sites: int, years: int):
    """Make weather of sites."""
    import pandas as pd
    import xarray as xr

    random = np.random.default_rng(0)
    time_ = pd.date_range("1989-10-01", periods=round(365.25 * years))
    shape = (sites, len(time_))

    def variable(low: float, high: float, units: str) -> tuple[tuple[str, str], object, dict]:
        values = random.uniform(low, high, shape).astype(np.float32)
        return ("site", "time"), values, {"units": units}

    return xr.Dataset(
        {
            "precipitation": variable(0, 12, "mm d-1"),
            "temperature_mean": variable(5, 12, "degC"),
            "potential_evapotranspiration": variable(1, 4, "mm d-1"),
            "streamflow": variable(0, 4, "mm d-1"),
            "soil_moisture": variable(0.1, 0.4, "1"),
        },
        coords={"time": time_, "site": [f"s{i}" for i in range(sites)]},
    )


def of_same_sizes(model):
    """Return an untrained model with the sizes of that commit's, on the encoder of today's."""
    from dataclasses import replace

    import torch

    from xstefa.model.architecture import HeadSize
    from xstefa.model.checkpoint import create_model
    from xstefa.model.network import StefaLand

    heads = (HeadSize(**HEADS[model.spec.target]),) * 2
    spec = replace(model.spec, architecture=replace(model.spec.architecture, heads=heads))
    torch.manual_seed(0)
    return create_model(spec, StefaLand(spec.architecture).state_dict())


def measure(what: str, target: str, sites: int, kind: str, folder: Path) -> dict[str, float]:
    """Measure one thing in this process."""
    import torch
    import xarray as xr

    import xstefa

    torch.set_num_threads(1)
    xstefa.set_options(device="cpu", precision="fp32", progress=False, cache_dir=folder / "cache")
    model = xstefa.load_model(RELEASED[target])
    if kind == "same sizes":
        model = of_same_sizes(model)
    store = xr.open_zarr(folder / f"{target}.zarr")
    if what == "predict":
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        result = store.drop_vars(list(RELEASED)).stefa.predict(target, model=model)
        xstefa.to_zarr(result, folder / f"{time.time_ns()}.zarr")
        seconds = time.process_time() - started
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return {
            "site-days per CPU second": store.sizes["time"] * sites / seconds,
            "MiB of growth": grown / 1024,
        }
    windows, steps, batch = model.spec.windows, 12, 32
    batch = batch * 365 // windows.length
    started = time.process_time()
    store.compute().stefa.finetune(
        target, model=model, head=None, steps=steps, batch_size=batch, seed=int(time.time())
    )
    seconds = time.process_time() - started
    counted = (windows.length - windows.spin_up) * steps * batch
    return {"loss-bearing days per CPU second": counted / seconds}


@click.command()
@click.option("--rounds", default=3)
@click.option("--sites", default=32)
@click.option("--child", type=str, hidden=True)
def main(rounds: int, sites: int, child: str | None) -> None:
    """Compare both commits, see above."""
    if child is not None:
        what, target, kind, folder = child.split(",")
        print(json.dumps(measure(what, target, sites, kind, Path(folder))))
        return
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for target, years in YEARS.items():
            data = dataset(sites, years).chunk(site=16, time=-1)
            data.to_zarr(folder / f"{target}.zarr", zarr_format=2)
        old = folder / "before"
        subprocess.run(["git", "-C", root, "worktree", "add", "-q", "-f", old, BEFORE], check=True)
        try:
            compare(rounds, sites, folder, dict(zip(KINDS, (old, root, root), strict=True)))
        finally:
            subprocess.run(["git", "-C", root, "worktree", "remove", "--force", old], check=True)


def compare(rounds: int, sites: int, folder: Path, roots: dict[str, Path]) -> None:
    """Run all in turn and print the table."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for _ in range(rounds):
        for what in ("predict", "train"):
            for target in YEARS if what == "predict" else ("streamflow",):
                for kind, root in roots.items():
                    if (what, kind) == ("train", "released"):
                        continue
                    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
                    call = [sys.executable, __file__, "--sites", str(sites), "--child"]
                    call.append(f"{what},{target},{kind},{folder}")
                    done = subprocess.run(
                        call, env=environment, check=True, stdout=subprocess.PIPE, text=True
                    )
                    for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                        found.setdefault((target, name), {}).setdefault(kind, []).append(value)
    print(f"| what | {' | '.join(KINDS)} | ratios |\n|---|---|---|---|---|")
    for (target, name), rounds_of in found.items():
        medians = {kind: median(values) for kind, values in rounds_of.items()}
        cells = [f"{medians[kind]:,.0f}" if kind in medians else "" for kind in KINDS]
        ratios = ", ".join(f"{m / medians['before']:.2f}" for m in list(medians.values())[1:])
        print(f"| {target}, {name} | {' | '.join(cells)} | {ratios} |")


if __name__ == "__main__":
    main()
