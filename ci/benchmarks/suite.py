"""Time the parts that every use goes through, as multiples of a yardstick.

    python ci/benchmarks/suite.py [--rounds 5] [--against COMMIT] [--store]

The yardstick is a fixed piece of the same kinds of work (a matrix product, sorting, a loop), timed
in turn with the parts, in CPU seconds with one thread, in processes of their own: so a ratio
changes little with the load of a machine, and less than seconds do from one machine to another.
Printed beside each ratio is that of ``suite.json``, stored at the last release (`--store` writes
it); `--against` times a commit of this clone in the same run, which alone tells small differences.
Run it in a clone with its history. No test: a slow machine fails nobody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_suffix(".json")
YARDSTICK = "yardstick"


def yardstick() -> None:
    """Do work of the kinds that the parts are made of, about half a second."""
    import numpy as np

    random = np.random.default_rng(0)
    matrix = random.normal(size=(700, 700)).astype("f4")
    for _ in range(10):
        matrix = np.tanh(matrix @ matrix / 700)
    np.sort(random.normal(size=2_000_000))
    sum(int(str(number)) for number in range(400_000))


def parts(folder: Path) -> dict[str, Callable[[], object]]:
    """Return the parts, ready to be timed."""
    import numpy as np
    import pandas as pd
    import xarray as xr

    import xstefa

    xstefa.set_options(device="cpu", precision="fp32", progress=False, cache_dir=folder)
    basins = xstefa.open_sample("camels_us").isel(time=slice(0, 1096)).load()
    grid = xstefa.open_sample("conus_grid").isel(time=slice(0, 400)).load()
    cells = grid.isel(lat=slice(8, 16), lon=slice(20, 32))
    model = xstefa.load_model("streamflow")
    time_ = pd.date_range("1980-01-01", periods=20 * 365)
    rain = xr.DataArray(
        np.random.default_rng(0).gamma(0.3, 9, (64, 64, len(time_))).astype("f4"),
        dims=("lat", "lon", "time"),
        coords={"lat": np.arange(64.0), "lon": np.arange(64.0), "time": time_},
    )
    many = grid.isel(time=slice(0, 380)).chunk(lat=1, lon=1)
    written = rain.to_dataset(name="rain").chunk(lat=8, lon=8)
    return {
        "match a dataset": lambda: [basins.stefa.tokens() for _ in range(10)],
        "plan 1,450 blocks": lambda: many.stefa.predict("soil_moisture"),
        "predict three years of 12 basins": lambda: basins.stefa.predict(model),
        "predict 400 days of 96 cells": lambda: cells.stefa.predict("soil_moisture"),
        "write 120 MB": lambda: xstefa.to_zarr(written, folder / f"{time.time_ns()}.zarr"),
        "10 steps of training": lambda: basins.stefa.finetune(
            "streamflow", steps=10, batch_size=8, seed=time.time_ns() % 1000
        ),
    }


def measure() -> dict[str, float]:
    """Return CPU seconds of each part in this process, after one turn that is not counted."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, work in ({YARDSTICK: yardstick} | parts(Path(folder))).items():
            work()
            begun = time.process_time()
            work()
            found[name] = time.process_time() - begun
    return found


def child(root: Path) -> dict[str, float]:
    """Measure the xstefa of a folder in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, __file__, "--child"],
        env=os.environ | threads | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def ratios(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return medians of what each part took in yardsticks of its own round."""
    return {
        name: median(each[name] / each[YARDSTICK] for each in rounds)
        for name in rounds[0]
        if name != YARDSTICK
    }


@click.command()
@click.option("--rounds", default=5)
@click.option("--against", help="Commit that is timed, too.")
@click.option("--store", is_flag=True, help="Make what is found the reference.")
@click.option("--child", "as_child", is_flag=True, hidden=True)
def main(rounds: int, against: str | None, store: bool, as_child: bool) -> None:
    """Print a Markdown table."""
    if as_child:
        print(json.dumps(measure()))
        return
    roots = {"now": ROOT}
    with tempfile.TemporaryDirectory() as folder:
        if against is not None:
            roots["then"] = Path(folder) / "then"
            add = ["git", "-C", str(ROOT), "worktree", "add", "-q", "--detach", str(roots["then"])]
            subprocess.run([*add, against], check=True)
        try:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
            for _ in range(rounds):
                for name, root in roots.items():
                    found[name].append(child(root))
        finally:
            if against is not None:
                remove = ["git", "-C", str(ROOT), "worktree", "remove", "--force"]
                subprocess.run([*remove, str(roots["then"])], check=True)
    now = ratios(found["now"])
    reference = json.loads(STORED.read_text()) if STORED.exists() else {}
    columns = {"stored": reference.get("ratios", {}), "now": now}
    if against is not None:
        columns[against] = ratios(found["then"])
    print("| in yardsticks | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name in now:
        cells = (f"{each[name]:.2f}" if name in each else "–" for each in columns.values())
        print(f"| {name} | {' | '.join(cells)} |")
    if store:
        import xstefa

        short = {name: round(ratio, 2) for name, ratio in now.items()}
        content = {"version": xstefa.__version__, "rounds": rounds, "ratios": short}
        STORED.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
