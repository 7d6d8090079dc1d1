"""Measure prediction at scale: graph, throughput, workers, sea, memory; plan the global job.

    python ci/benchmarks/scale.py [graph] [throughput] [workers] [sea] [memory] [plan]

Prints Markdown tables, those of docs/scale.md. The models are untrained: speed does not depend on
the values of weights, sizes are those of the released models. All stores are made in a temporary
folder. Wall-clock figures need an idle machine; figures in CPU seconds do not.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import xarray as xr
import zarr

import xstefa
from xstefa.inference.graph import ChunksWarning
from xstefa.inference.predict import Members
from xstefa.model.architecture import Architecture, EncoderSize, HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.scaler import Moments, Scaler
from xstefa.windows import WindowPolicy

FORCINGS = {
    "precipitation": ("mm d-1", 0.0, 20.0),
    "temperature_mean": ("degC", -10.0, 25.0),
    "temperature_max": ("degC", 0.0, 35.0),
    "shortwave_down": ("W m-2", 20.0, 300.0),
    "relative_humidity": ("%", 20.0, 100.0),
    "wind_speed": ("m s-1", 0.0, 10.0),
}
GLOBE = {"time": 14_600, "lat": 1800, "lon": 3600}
LAND = 0.29


def untrained(kind: str) -> Model:
    """Make a model with the sizes of a released one."""
    import torch

    from xstefa.model.network import StefaLand

    torch.manual_seed(0)
    schema = xstefa.load_schema()
    encoder = kind == "stefaland"
    architecture = Architecture(
        forcings=len(schema.forcings),
        statics=len(schema.statics),
        encoder=EncoderSize() if encoder else None,
        heads=(HeadSize(kind="resconn" if encoder else "lstm", hidden=256, link="logistic"),),
    )
    moments = Moments(mean=1.0, std=10.0)
    spec = ModelSpec(
        name=kind,
        target="soil_moisture",
        support="any",
        architecture=architecture,
        schema=schema,
        scaler=Scaler(
            forcings={name: moments for name in schema.forcing_names},
            statics={name: moments for name in schema.static_names},
        ),
        windows=WindowPolicy(),
        tokens=(*schema.forcing_names, *schema.static_names),
    )
    return create_model(spec, StefaLand(architecture).state_dict())


def make_store(
    path: Path,
    sizes: dict[str, int],
    chunks: dict[str, int],
    *,
    land: float | None,
    full: bool = False,
) -> xr.Dataset:
    """Make a store of six forcings and 25 attributes.

    The share `land` of the map has data, which does not compress; with `full`, the sea lacks only
    precipitation. With `land` None there is no data at all.
    """
    schema = xstefa.load_schema()
    names = {name: units for name, (units, _, _) in FORCINGS.items()}
    statics = {name: schema[name].units for name in schema.static_names[:25]}
    days = xr.date_range("1981-01-01", periods=sizes["time"])
    frame = xr.Dataset(
        coords={
            "time": days,
            "lat": ("lat", np.linspace(90, -90, sizes["lat"]), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(-180, 180, sizes["lon"]), {"units": "degrees_east"}),
        }
    )
    frame.to_zarr(path, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    random = np.random.default_rng(0)
    for name, units in (names | statics).items():
        dims = ("time", "lat", "lon") if name in names else ("lat", "lon")
        array = group.create_array(
            name,
            shape=[sizes[d] for d in dims],
            chunks=[min(chunks[d], sizes[d]) for d in dims],
            dtype="float32",
            fill_value=np.nan,
            attributes={"units": units, "_FillValue": "AAAAAAAA+H8="},
            dimension_names=dims,
        )
        if land is None:
            continue
        rows = max(1, round(land * sizes["lat"]))
        if name in names:
            _, low, high = FORCINGS[name]
            step = chunks["time"]
            for start in range(0, sizes["time"], step):
                part = min(step, sizes["time"] - start)
                covered = sizes["lat"] if full and name != "precipitation" else rows
                values = random.random((part, covered, sizes["lon"]), dtype=np.float32)
                array[start : start + part, :covered] = low + (high - low) * values
        else:
            array[:rows] = random.uniform(1, 50, (rows, sizes["lon"])).astype(np.float32)
    return open_store(path)


def open_store(path: Path) -> xr.Dataset:
    """Open a store as its chunks are."""
    return xr.open_zarr(path, consolidated=False)


@dataclass
class Clock:
    """Seconds."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def clock() -> Iterator[Clock]:
    """Time a block, in seconds of the wall clock and of all threads of this process."""
    found = Clock()
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found.wall, found.cpu = time.perf_counter() - wall, time.process_time() - cpu


def table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows in Markdown."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |", flush=True)


def graph(folder: Path) -> None:
    """Plan the global job over stores that hold no data."""
    model = untrained("stefaland")
    rows = []
    for chunks in ((14_600, 8, 8), (1460, 60, 60), (365, 100, 100), (24, 1800, 3600)):
        wanted = dict(zip(GLOBE, chunks, strict=True))
        ds = make_store(folder / f"globe-{chunks[0]}", GLOBE, wanted, land=None)
        with clock() as planning, warnings.catch_warnings():
            warnings.simplefilter("ignore", ChunksWarning)
            prediction = ds.stefa.predict(model)
        with clock() as optimising:
            (optimised,) = dask.optimize(prediction.data)
        content = dict(optimised.dask)
        tasks = sum(type(task).__name__ != "Alias" for task in content.values())
        rows.append(
            {
                "input chunks": " × ".join(map(str, chunks)),
                "block": " × ".join(map(str, prediction.data.chunksize)),
                "blocks": f"{prediction.data.npartitions:,}",
                "tasks": f"{tasks:,}",
                "plan s": f"{planning.wall:.1f}",
                "optimise s": f"{optimising.wall:.1f}",
                "graph MB": f"{len(pickle.dumps(content)) / 1e6:.1f}",
            }
        )
    table("Graph of 0.1°, 40 years, 6 forcings, 25 attributes", rows)


def bare(model: Model, *, sites: int, days: int, device: str = "cpu") -> tuple[float, float]:
    """Site-days a second of wall clock and of CPU that the network alone does, on one thread."""
    import torch

    torch.set_num_threads(1)
    network = model.network().to(device)
    policy, rows = model.spec.windows, 16 if device == "cpu" else 512
    windows = -(-days // policy.stride) + 1
    batches = -(-sites * windows // rows)
    forcing = torch.randn(rows, policy.length, len(model.schema.forcings))
    forcing[..., 6:] = torch.nan
    static = torch.randn(rows, len(model.schema.statics))
    with torch.inference_mode():

        def batch() -> None:
            Members().run(network, forcing.to(device), static.to(device)).cpu()

        batch()
        with clock() as spent:
            for _ in range(batches):
                batch()
    return sites * days / spent.wall, sites * days / spent.cpu


def write(ds: xr.Dataset, model: Model, out: Path) -> Clock:
    """Predict and write, with a clock."""
    with clock() as spent, warnings.catch_warnings():
        warnings.simplefilter("ignore", ChunksWarning)
        xstefa.to_zarr(ds.stefa.predict(model, device="cpu"), out, overwrite=True)
    return spent


def throughput(folder: Path) -> None:
    """From store to store, against the network alone on the same number of windows."""
    rows = []
    for kind, side in (("stefaland", 8), ("lstm", 32)):
        model = untrained(kind)
        sizes = {"time": 3650, "lat": side, "lon": side}
        sites = side**2
        ds = make_store(folder / f"t-{kind}", sizes, {"time": 3650, "lat": 8, "lon": 8}, land=1.0)
        with dask.config.set(scheduler="synchronous"):
            write(ds.isel(lat=slice(1)), model, folder / "warm.zarr")
            spent = write(ds, model, folder / f"t-{kind}-out.zarr")
        wall, cpu = bare(model, sites=sites, days=3650)
        rate = sites * 3650 / spent.wall, sites * 3650 / spent.cpu
        rows.append(
            {
                "model": kind,
                "network alone": f"{wall:,.0f} site-days/s",
                "store to store": f"{rate[0]:,.0f} site-days/s",
                "ratio (wall)": f"{rate[0] / wall:.2f}",
                "ratio (CPU)": f"{rate[1] / cpu:.2f}",
            }
        )
    table("Throughput on one thread", rows)


def workers(folder: Path) -> None:
    """Compare one worker process of one thread with two.

    The speed-up in CPU time is what an idle machine would show in wall-clock time: all the work of
    one worker, over that of the busier of two.
    """
    from distributed import Client, LocalCluster

    model = untrained("stefaland")
    sizes = {"time": 1825, "lat": 8, "lon": 8}
    ds = make_store(folder / "w", sizes, {"time": 1825, "lat": 2, "lon": 4}, land=1.0)
    wall, busiest = {}, {}
    for count in (1, 2):
        with (
            LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            write(ds.isel(lat=slice(2 * count)), model, folder / "warm.zarr")
            before = client.run(time.process_time)
            wall[count] = write(ds, model, folder / f"w-{count}.zarr").wall
            after = client.run(time.process_time)
            busiest[count] = max(after[worker] - before[worker] for worker in before)
    rows = [
        {
            "workers": str(n),
            "site-days/s": f"{8 * 8 * 1825 / wall[n]:,.0f}",
            "speed-up (wall)": f"{wall[1] / wall[n]:.2f}",
            "speed-up (CPU)": f"{busiest[1] / busiest[n]:.2f}",
        }
        for n in wall
    ]
    table("Worker processes of one thread", rows)


def sea(folder: Path) -> None:
    """Predict maps of which a part has data."""
    model = untrained("lstm")
    sizes, chunks = {"time": 1095, "lat": 80, "lon": 40}, {"time": 1095, "lat": 20, "lon": 20}
    rows = []
    whole = 0.0
    for land in (1.0, 0.5, 0.25, 0.05):
        ds = make_store(folder / f"sea-{land}", sizes, chunks, land=land)
        with dask.config.set(scheduler="synchronous"):
            write(ds.isel(lat=slice(1)), model, folder / "warm.zarr")
            spent = write(ds, model, folder / f"sea-{land}-out.zarr").cpu
        whole = whole or spent
        rows.append(
            {"land": f"{land:.0%}", "CPU s": f"{spent:.1f}", "of all land": f"{spent / whole:.0%}"}
        )
    table("Time against the share of land", rows)


def memory(folder: Path) -> None:
    """Predict stores larger than a worker of 2 GB, well and badly chunked."""
    from distributed import Client, LocalCluster

    model = untrained("lstm")
    days = 2190
    rows = []
    # The land comes in whole blocks. There is little of it, so that the run is about memory and not
    # about the model.
    for name, side, land, chunks in (
        ("whole record, small tiles", 480, 0.07, {"time": days, "lat": 16, "lon": 16}),
        ("a year, large tiles", 480, 0.01, {"time": 365, "lat": 120, "lon": 120}),
        ("24 days, whole map", 240, 0.01, {"time": 24, "lat": 240, "lon": 240}),
    ):
        sizes = {"time": days, "lat": side, "lon": side}
        ds = make_store(folder / "m", sizes, chunks, land=land, full=True)
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, memory_limit="2GB", dashboard_address=":0"
            ) as cluster,
            Client(cluster) as client,
        ):
            base = max(client.run(peak).values())
            spent = write(ds, model, folder / "m-out.zarr")
            most = max(client.run(peak).values())
        rows.append(
            {
                "chunks": name,
                "land": f"{land:.0%}",
                "store": f"{ds.nbytes / 1e9:.1f} GB",
                "finished in": f"{spent.wall:.0f} s",
                "peak of the worker": f"{most / 1e9:.2f} GB",
                "of which before": f"{base / 1e9:.2f} GB",
            }
        )
        for store in ("m", "m-out.zarr"):
            shutil.rmtree(folder / store)
    table("Memory under a limit of 2 GB", rows)


def peak() -> int:
    """Most memory this process has held, in bytes."""
    # Not ru_maxrss: a child begins with that of its parent.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the peak of memory")


def plan(folder: Path) -> None:
    """Hours of the global job from the measured speed of one core, and of a GPU if there is one."""
    import torch

    cells, days = GLOBE["lat"] * GLOBE["lon"], GLOBE["time"]
    site_days = cells * days * LAND
    rows = []
    for kind in ("stefaland", "lstm"):
        model = untrained(kind)
        # CPU time: the other cores of a shared machine do not count.
        speeds = {"core": bare(model, sites=32, days=1825)[1]}
        if torch.cuda.is_available():
            speeds["GPU"] = bare(model, sites=20_000, days=1825, device="cuda")[0]
        for unit, speed in speeds.items():
            for count in (1, 8, 64, 512):
                rows.append(
                    {
                        "model": kind,
                        "on": f"{count} {unit}{'s' if count > 1 else ''}",
                        "site-days/s": f"{speed * count:,.0f}",
                        "hours": f"{site_days / speed / count / 3600:,.1f}",
                    }
                )
    print(f"\nInput {cells * days * 4 * 6 / 1e12:.1f} TB, output {cells * days * 4 / 1e12:.2f} TB")
    print(f"uncompressed, {site_days / 1e9:,.0f} billion site-days on land.")
    table("The global job", rows)


PARTS: dict[str, Callable[[Path], None]] = {
    part.__name__: part for part in (graph, throughput, workers, sea, memory, plan)
}


def main() -> None:
    """Run the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all, if none is named")
    chosen = parser.parse_args().parts or list(PARTS)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as folder, xstefa.set_options(cache_dir=folder):
        for name in chosen:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main()
