"""The same task with NeuralHydrology and with xstefa: the bundled basins of CAMELS-US.

    python -m venv nh && nh/bin/pip install "neuralhydrology==1.13.*"
    python examples/neuralhydrology.py nh/bin/python OUT

Both learn from the five basins of the sample that the released models were trained on, 1989-10 to
1994-09, and are judged at the seven held-out basins, 1995-10 to 1999-09, after a year of weather.
NeuralHydrology trains its `cudalstm` with the settings of its own tutorials (an output a day from
the 365 days up to it), with all forcings and attributes that xstefa reads too; xstefa trains a head
on the bundled encoder with its own settings, and predicts with the released model, untrained.
Each part is a process of its own with one thread; all files that are needed are written by what is
counted. Prints a Markdown table.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
import xarray as xr

from xstefa.evaluation.metrics import kge, nse

PERIOD = slice("1995-10-01", "1999-09-30")
# What either user has to write, beside the paths of their own files.
PREPARE = """\
import xarray as xr, xstefa
from pathlib import Path

ds = xstefa.open_sample("camels_us").load()
forcings = [v for v in ds if ds[v].dims == ("basin", "time") and v != "streamflow"]
statics = [v for v in ds if ds[v].dims == ("basin",) and ds[v].dtype.kind == "f"]
statics = [v for v in statics if v not in {leaking} and ds[v].notnull().all()]
data = Path("data")
(data / "time_series").mkdir(parents=True)
(data / "attributes").mkdir()
for basin in ds.basin.values:
    one = ds[[*forcings, "streamflow"]].sel(basin=basin, drop=True).rename(time="date")
    one.to_netcdf(data / "time_series" / f"{{basin}}.nc")
table = ds[statics].drop_vars(["lat", "lon"]).to_dataframe()
table.rename_axis("gauge_id").to_csv(data / "attributes" / "attributes.csv")
Path("train.txt").write_text("\\n".join(ds.basin.values[~ds.held_out.values]))
Path("test.txt").write_text("\\n".join(ds.basin.values[ds.held_out.values]))
text = Path("template.yml").read_text().replace("FORCINGS", str(forcings))
Path("config.yml").write_text(text.replace("STATICS", str(statics)))
"""
TEMPLATE = """\
experiment_name: run
run_dir: runs
train_basin_file: train.txt
validation_basin_file: train.txt
test_basin_file: test.txt
train_start_date: "01/10/1990"
train_end_date: "30/09/1994"
validation_start_date: "01/10/1994"
validation_end_date: "30/09/1995"
test_start_date: "01/10/1995"
test_end_date: "30/09/1999"
device: cpu
model: cudalstm
head: regression
hidden_size: 64
initial_forget_bias: 3
output_dropout: 0.4
output_activation: linear
optimizer: Adam
loss: NSE
learning_rate: {{0: 0.001, {late}: 0.0005}}
clip_gradient_norm: 1
batch_size: 256
epochs: {epochs}
predict_last_n: 1
seq_length: 365
num_workers: 0
log_tensorboard: False
save_weights_every: {epochs}
metrics: [NSE]
dataset: generic
data_dir: data
dynamic_inputs: FORCINGS
static_attributes: STATICS
target_variables: [streamflow]
seed: {seed}
"""
TRAIN = """\
from pathlib import Path
from neuralhydrology.nh_run import start_run
start_run(Path("config.yml"))
"""
EVALUATE = """\
import pickle
from pathlib import Path
import xarray as xr
from neuralhydrology.nh_run import eval_run
(run,) = Path("runs").iterdir()
eval_run(run, period="test", epoch={epochs}, gpu=-1)
(found,) = run.glob("test/*/test_results.p")
results = pickle.loads(found.read_bytes())
flow = {{b: r["1D"]["xr"]["streamflow_sim"].isel(time_step=0) for b, r in results.items()}}
flow = xr.concat(flow.values(), dim="basin").assign_coords(basin=[*flow])
flow.rename(date="time").rename("streamflow").to_netcdf("theirs.nc")
"""
RELEASED = """\
import xstefa
ds = xstefa.open_sample("camels_us").isel(time=slice(1826, None))
ds = ds.isel(basin=ds.held_out.values)
xstefa.to_netcdf(ds.stefa.predict("streamflow"), "released.nc")
"""
FINETUNE = """\
import xstefa
ds = xstefa.open_sample("camels_us")
train = ds.isel(basin=~ds.held_out.values).sel(time=slice(None, "1994-09-30"))
train.stefa.finetune("streamflow", seed={seed}).save("own.safetensors")
"""
OWN = """\
import xstefa
ds = xstefa.open_sample("camels_us").isel(time=slice(1826, None))
ds = ds.isel(basin=ds.held_out.values)
flow = ds.stefa.predict("streamflow", model="own.safetensors")
xstefa.to_netcdf(flow, "own.nc")
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a part took: lines to write, and CPU seconds."""

    lines: int
    cpu: float


def cost(python: str, code: str, folder: Path, *, more: str = "") -> Cost:
    """Run a part in a process of its own; lines of `more` were written for it, too."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code],
        cwd=folder,
        env=os.environ | one,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(done.stderr[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = sum(bool(line.strip()) for line in (code + more).splitlines())
    return Cost(lines=lines, cpu=cpu)


@click.command()
@click.argument("python", type=click.Path(exists=True, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--epochs", default=30)
@click.option("--seed", default=0)
def main(python: str, out: Path, epochs: int, seed: int) -> None:
    """Compare with the NeuralHydrology of the interpreter PYTHON; files go to OUT."""
    import xstefa

    out.mkdir(parents=True)
    leaking = xstefa.load_schema().target("streamflow").leaking
    config = TEMPLATE.format(epochs=epochs, late=2 * epochs // 3, seed=seed)
    (out / "template.yml").write_text(config)
    python = str(Path(python).absolute())
    prepared = cost(sys.executable, PREPARE.format(leaking=leaking), out, more=config)
    trained = cost(python, TRAIN, out)
    judged = cost(python, EVALUATE.format(epochs=epochs), out)
    released = cost(sys.executable, RELEASED, out)
    tuned = cost(sys.executable, FINETUNE.format(seed=seed), out)
    own = cost(sys.executable, OWN, out)
    rows = {
        "NeuralHydrology 1.13, `cudalstm` of 5 basins": ("theirs.nc", [prepared, trained], judged),
        "xstefa, `finetune` on 5 basins": ("own.nc", [tuned], own),
        "xstefa, released model": ("released.nc", [], released),
    }
    observed = xstefa.open_sample("camels_us")["streamflow"].sel(time=PERIOD)
    site_years = 7 * 4
    print(
        "| | lines | CPU minutes to the first prediction | CPU seconds a basin and year, "
        "predicting | median NSE | median KGE |\n|---|---|---|---|---|---|"
    )
    for name, (file, before, last) in rows.items():
        flow = xr.open_dataset(out / file)["streamflow"].sel(time=PERIOD)
        truth = observed.sel(basin=flow["basin"])
        lines = sum(part.lines for part in (*before, last))
        minutes = sum(part.cpu for part in (*before, last)) / 60
        scores = [
            float(np.median(score(flow.transpose(*truth.dims), truth))) for score in (nse, kge)
        ]
        print(
            f"| {name} | {lines} | {minutes:.1f} | {last.cpu / site_years:.2f} "
            f"| {scores[0]:.2f} | {scores[1]:.2f} |"
        )
    print(f"\nSeed {seed}, {epochs} epochs; {pd.Timestamp.now():%Y-%m}.")


if __name__ == "__main__":
    main()
