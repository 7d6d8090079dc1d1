"""Compare whole-process prediction with NeuralHydrology, in CPU seconds.

    python -m venv nh && nh/bin/pip install "neuralhydrology==1.13.*"
    python ci/benchmarks/neuralhydrology.py nh/bin/python [--rounds 3]

Both read eight made-up basins of ten years from files, predict streamflow for each day and write
it, each in a process of its own with one thread, in turn. NeuralHydrology evaluates its `cudalstm`
of 64 units on a CPU, which reads the 365 days before each day that it answers for; xstefa runs the
released model `streamflow`. Weights do not change the speed, so NeuralHydrology's are those after
one step. Prints a Markdown table of medians over rounds; importing is a part of each process, and
is given beside it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
import numpy as np
import pandas as pd
import xarray as xr

BASINS, YEARS, SPIN_UP = 8, 10, 365
UNITS = {
    "precipitation": "mm d-1",
    "temperature_mean": "degC",
    "potential_evapotranspiration": "mm d-1",
    "streamflow": "mm d-1",
}
CONFIG = """\
experiment_name: run
run_dir: {folder}/runs
train_basin_file: {folder}/basins.txt
validation_basin_file: {folder}/basins.txt
test_basin_file: {folder}/basins.txt
train_start_date: "01/10/1989"
train_end_date: "30/09/1990"
validation_start_date: "01/10/1989"
validation_end_date: "30/09/1990"
test_start_date: "{first:%d/%m/%Y}"
test_end_date: "{last:%d/%m/%Y}"
device: cpu
model: cudalstm
head: regression
hidden_size: 64
initial_forget_bias: 3
output_dropout: 0.4
output_activation: linear
optimizer: Adam
loss: MSE
learning_rate:
  0: 0.001
batch_size: 256
epochs: 1
max_updates_per_epoch: 1
predict_last_n: 1
seq_length: 365
num_workers: 0
log_interval: 5
log_tensorboard: False
save_weights_every: 1
metrics: [NSE]
dataset: generic
data_dir: {folder}/basins
dynamic_inputs: [precipitation, temperature_mean, potential_evapotranspiration]
static_attributes: [elevation, aridity]
target_variables: [streamflow]
"""
OURS = """\
import xarray as xr, xstefa
ds = xr.open_zarr("basins.zarr")
xstefa.to_zarr(ds.drop_vars("streamflow").stefa.predict("streamflow", model="streamflow",
    device="cpu", precision="fp32"), "found-{number}.zarr")
"""
THEIRS = "from neuralhydrology.nh_run import eval_run; from pathlib import Path; {call}"
EVALUATE = "eval_run(Path({run!r}), period='test', epoch=1, gpu=-1)"


def write_basins(folder: Path) -> dict[str, pd.Timestamp]:
    """Write the weather as a Zarr store, and as NeuralHydrology's generic data set."""
    random = np.random.default_rng(0)
    days = pd.date_range("1988-10-01", periods=SPIN_UP + round(365.25 * YEARS))
    names = [f"b{i}" for i in range(BASINS)]
    dims, shape = ("basin", "time"), (BASINS, len(days))
    drawn = {
        "precipitation": random.gamma(0.4, 6, shape),
        "temperature_mean": 10
        + 10 * np.sin(np.arange(len(days)) / 58)
        + random.normal(0, 3, shape),
        "potential_evapotranspiration": random.uniform(1, 4, shape),
        "streamflow": random.gamma(1, 1, shape),
    }
    dataset = xr.Dataset(
        {n: (dims, v.astype(np.float32), {"units": UNITS[n]}) for n, v in drawn.items()},
        coords={"basin": names, "time": days},
    )
    attributes = {"elevation": random.uniform(100, 900, BASINS), "aridity": random.random(BASINS)}
    units = {"elevation": "m", "aridity": "1"}
    dataset.assign({n: ("basin", v, {"units": units[n]}) for n, v in attributes.items()}).to_zarr(
        folder / "basins.zarr", zarr_format=2
    )
    for part in ("time_series", "attributes"):
        (folder / "basins" / part).mkdir(parents=True)
    for name in names:
        one = dataset.sel(basin=name, drop=True).rename(time="date")
        one.to_netcdf(folder / "basins" / "time_series" / f"{name}.nc")
    table = pd.DataFrame(attributes, index=pd.Index(names, name="gauge_id"))
    table.to_csv(folder / "basins" / "attributes" / "attributes.csv")
    (folder / "basins.txt").write_text("\n".join(names))
    return {"first": days[SPIN_UP], "last": days[-1]}


def seconds(python: str, code: str, folder: Path) -> float:
    """Return the CPU seconds of a process."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code],
        cwd=folder,
        env=os.environ | one,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@click.command()
@click.argument("python", type=click.Path(exists=True, dir_okay=False))
@click.option("--rounds", default=3)
def main(python: str, rounds: int) -> None:
    """Compare with the NeuralHydrology of the interpreter PYTHON."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        days = write_basins(folder)
        config = folder / "config.yml"
        config.write_text(CONFIG.format(folder=folder, **days))
        train = f"from neuralhydrology.nh_run import start_run; start_run(Path({str(config)!r}))"
        seconds(python, THEIRS.format(call=train), folder)
        (run,) = (folder / "runs").iterdir()
        tasks = {
            "NeuralHydrology": (python, THEIRS.format(call=EVALUATE.format(run=str(run)))),
            "its imports": (python, THEIRS.format(call="")),
            "xstefa": (sys.executable, OURS),
            "xstefa's imports": (sys.executable, "import xarray, dask.array, zarr, torch, xstefa"),
        }
        found: dict[str, list[float]] = {name: [] for name in tasks}
        for number in range(rounds):
            for name, (interpreter, code) in tasks.items():
                found[name].append(seconds(interpreter, code.format(number=number), folder))
    medians = {name: median(values) for name, values in found.items()}
    print("| process | CPU seconds |\n|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.1f} |")
    print(
        f"\nxstefa takes {medians['xstefa'] / medians['NeuralHydrology']:.2f} of NeuralHydrology."
    )


if __name__ == "__main__":
    main()
