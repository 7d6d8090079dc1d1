"""Compare the model that reads each day once with windows of a year at commit 33d4da9.

    python ci/benchmarks/one_pass.py [--rounds 3] [--sites 32]

Run inside a clone with its history: both commits are checked out into a temporary folder and timed
in turn, each round in a process of its own with one thread, in single precision and CPU seconds.
Models are untrained, speed does not depend on the values of weights, and those of today have the
sizes of the ones that were released at that commit. Prints a Markdown table of medians over rounds:

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


def looking_back(model):
    """Return an untrained model of the same sizes that looks back only."""
    from dataclasses import replace

    import torch

    from xstefa.model.checkpoint import create_model
    from xstefa.model.network import StefaLand
    from xstefa.windows import SegmentPolicy

    spec = model.spec
    short = {} if spec.target == "streamflow" else {"length": 548, "spin_up": 183}
    encoder = replace(spec.architecture.encoder, attention="causal")
    spec = replace(
        spec,
        windows=SegmentPolicy(**short),
        architecture=replace(spec.architecture, encoder=encoder),
    )
    torch.manual_seed(0)
    return create_model(spec, StefaLand(spec.architecture).state_dict())


def measure(what: str, target: str, sites: int, causal: bool, folder: Path) -> dict[str, float]:
    """Measure one thing in this process."""
    import torch
    import xarray as xr

    import xstefa

    torch.set_num_threads(1)
    xstefa.set_options(device="cpu", precision="fp32", progress=False, cache_dir=folder / "cache")
    model = xstefa.load_model(RELEASED[target])
    if causal:
        model = looking_back(model)
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
        what, target, causal, folder = child.split(",")
        print(json.dumps(measure(what, target, sites, causal == "True", Path(folder))))
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
            compare(rounds, sites, folder, {False: old, True: root})
        finally:
            subprocess.run(["git", "-C", root, "worktree", "remove", "--force", old], check=True)


def compare(rounds: int, sites: int, folder: Path, roots: dict[bool, Path]) -> None:
    """Run all in turn and print the table."""
    found: dict[tuple[str, str, bool], list[float]] = {}
    for _ in range(rounds):
        for what in ("predict", "train"):
            for target in YEARS if what == "predict" else ("streamflow",):
                for causal, root in roots.items():
                    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
                    call = [sys.executable, __file__, "--sites", str(sites), "--child"]
                    call.append(f"{what},{target},{causal},{folder}")
                    done = subprocess.run(
                        call, env=environment, check=True, stdout=subprocess.PIPE, text=True
                    )
                    for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                        found.setdefault((target, name, causal), []).append(value)
    print(f"| what | {BEFORE} | now | ratio |\n|---|---|---|---|")
    for target, name, causal in found:
        if causal:
            before, now = (median(found[target, name, kind]) for kind in (False, True))
            print(f"| {target}, {name} | {before:,.0f} | {now:,.0f} | {now / before:.2f} |")


if __name__ == "__main__":
    main()
