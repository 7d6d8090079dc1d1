"""Write a map on a cluster that loses hosts, and compare each byte: run by ci/hosts.sh.

Hosts are the networks that the script has made, with addresses from 10.77.0.2 on.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
import xarray as xr
from distributed import Client

import xstefa

HOSTS = ("scheduler", "one", "two", "three", "store")
ADDRESS = {name: f"10.77.0.{number}" for number, name in enumerate(HOSTS, start=2)}
SCHEDULER = f"tcp://{ADDRESS['scheduler']}:8786"
BUCKET = "maps"
# A host that is gone says nothing: these are the times after which its silence counts. Dask's own
# are 30 s and 5 minutes; below 11 s it refuses all connections.
SILENCE = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "15s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "12s",
}
# What every host has to know of the object store.
STORE = {
    "AWS_ENDPOINT_URL": f"http://{ADDRESS['store']}:5000",
    "AWS_ACCESS_KEY_ID": "rehearsal",
    "AWS_SECRET_ACCESS_KEY": "rehearsal",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def on(host: str, *command: str) -> subprocess.Popen[bytes]:
    """Start a process on a host."""
    return subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, "-m", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def worker(name: str) -> subprocess.Popen[bytes]:
    """Start a worker on a host."""
    how = ("--host", ADDRESS[name], "--nthreads", "1", "--no-dashboard")
    return on(name, "distributed.cli.dask_worker", SCHEDULER, *how)


@contextmanager
def cluster() -> Iterator[tuple[Client, dict[str, subprocess.Popen[bytes]]]]:
    """Start a scheduler and three workers on hosts of their own."""
    place = ("--host", ADDRESS["scheduler"], "--port", "8786", "--no-dashboard")
    running = {"scheduler": on("scheduler", "distributed.cli.dask_scheduler", *place)}
    running |= {name: worker(name) for name in ("one", "two", "three")}
    try:
        with Client(SCHEDULER, timeout=60) as client:
            client.wait_for_workers(3, timeout=60)
            yield client, running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def prediction() -> xr.DataArray:
    """Return a map of 70 blocks, lazily."""
    grid = xstefa.open_sample("conus_grid", chunks={"lat": 4, "lon": 6}).isel(time=slice(0, 500))
    return grid.stefa.predict("soil_moisture")


def content(store: str) -> dict[str, str]:
    """Hash each file of a store."""
    files = fsspec.get_mapper(store)
    return {key: hashlib.sha256(files[key]).hexdigest() for key in files}


def chunks_in(store: str) -> int:
    """Count the chunks of the map that are there."""
    filesystem, path = fsspec.url_to_fs(store, use_listings_cache=False)
    if not filesystem.exists(path):
        return 0
    return sum("soil_moisture/c/" in name for name in filesystem.find(path))


def link(host: str, state: str) -> None:
    """Cut or mend the cable of a host."""
    subprocess.run(["ip", "link", "set", host, state], check=True)


def rehearse(store: str) -> str:
    """Write to a store while one host dies and another is cut off for a while; tell what was."""
    with cluster() as (client, running), ThreadPoolExecutor(1) as pool:
        writing = pool.submit(xstefa.to_zarr, prediction(), store)
        while chunks_in(store) < 4:
            assert not writing.done(), writing.result()
            time.sleep(0.2)
        before = chunks_in(store)
        pids = client.run(os.getpid)
        (victim,) = (pid for address, pid in pids.items() if ADDRESS["one"] in address)
        running["one"].kill()  # its nanny, which would start it anew
        os.kill(victim, 9)
        link("two", "down")
        time.sleep(20)
        alone = chunks_in(store)
        link("two", "up")
        running["again"] = worker("two")  # as a batch system does; the first has given up
        writing.result(timeout=600)
        return (
            f"{before} chunks before one worker died and one was cut off, {alone} when its link "
            f"was mended 20 s later, {chunks_in(store)} in the end"
        )


def main() -> None:
    """Compare what two rehearsals write with what an undisturbed run does."""
    warnings.simplefilter("ignore")  # small chunks, and no answer in the first months
    os.environ |= SILENCE | STORE
    store = on("store", "moto.server", "-H", ADDRESS["store"], "-p", "5000")
    try:
        with TemporaryDirectory() as folder:
            expected = str(Path(folder) / "undisturbed.zarr")
            xstefa.to_zarr(prediction(), expected)
            fsspec.filesystem("s3").mkdir(BUCKET)
            wrong = False
            for kind, place in {
                "shared folder": str(Path(folder) / "shared.zarr"),
                "object store": f"s3://{BUCKET}/map.zarr",
            }.items():
                print(f"{kind}: {rehearse(place)}", flush=True)
                same = content(place) == content(expected)
                wrong |= not same
                print(f"{kind}: {len(content(place))} files, {'the same' if same else 'DIFFERENT'}")
    finally:
        store.kill()
    sys.exit(wrong)


if __name__ == "__main__":
    main()
