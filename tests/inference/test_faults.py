"""Processes that are really killed, disks that are really full, files that are really damaged."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import dask
import pytest
import xarray as xr
from distributed import Client, LocalCluster, WorkerPlugin

import xstefa
from xstefa.errors import StoreError
from xstefa.inference import graph, store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def chunked(folder):
    return xr.open_dataset(folder / "a.nc").chunk(lat=1)


def several(folder):
    files = [folder / "early.nc", folder / "late.nc"]
    return xr.open_mfdataset(files, chunks={"lat": 1}, data_vars="minimal", compat="no_conflicts")


def arithmetic(folder):
    ds = chunked(folder)
    return ds.assign(precipitation=(ds["precipitation"] * 2).assign_attrs(ds.precipitation.attrs))


def masked(folder):
    ds = chunked(folder)
    rain = ds["precipitation"].where(ds["sand"] > 20).where(ds["precipitation"] < 19)
    return ds.assign(precipitation=rain)


def in_unit(unit):
    def opened(folder):
        return xr.open_dataset(
            folder / "a.nc", chunks={"lat": 1}, decode_times=xr.coders.CFDatetimeCoder(unit)
        )

    return opened


# How a dataset comes to be, at the first call and when it is resumed.
OPENED = {
    "zarr": [lambda folder: xr.open_zarr(folder / "input.zarr", consolidated=False)],
    "chunked": [chunked],
    "several": [several],
    "arithmetic": [arithmetic],
    "masked": [masked],
    "units": [in_unit("us"), in_unit("ns")],
}


def predicted(folder, model, opened, time=-1):
    ds = OPENED[opened][time](folder)
    prediction = ds.stefa.predict(model, device="cpu", coverage=True)
    # Arithmetic on the prediction has a name that follows from that of the input.
    return prediction if opened == "zarr" else prediction.where(prediction > -1)


WRITE = """
    import sys
    import dask, xstefa
    from pathlib import Path
    from dask.callbacks import Callback
    from tests.inference.test_faults import predicted, written
    from xstefa.inference import graph

    graph.BLOCK_BYTES = 30_000
    folder, target, model, opened, time, stop = sys.argv[1:]
    target = Path(folder, target)

    def stopping(*args):  # say that so many blocks are written, and wait to be killed
        if 0 < int(stop) <= written(target):
            print("stopped", flush=True)
            sys.stdin.read()

    def main():
        prediction = predicted(Path(folder), xstefa.load_model(model), opened, int(time))
        xstefa.to_zarr(prediction, target, resume=int(time) != 0 or opened == "zarr")
        print("done")

    if __name__ == "__main__":
        with dask.config.set(num_workers=2), Callback(posttask=stopping):
            main()
"""


@pytest.fixture
def writing(dataset, tiny_model, tmp_path):
    """Start a process that writes: ``writing("out.zarr", stop=blocks)``."""
    dataset.to_zarr(tmp_path / "input.zarr", consolidated=False)
    dataset.to_netcdf(tmp_path / "a.nc")
    dataset.isel(time=slice(120)).to_netcdf(tmp_path / "early.nc")
    dataset.drop_dims("time").merge(dataset.isel(time=slice(120, None))).to_netcdf(
        tmp_path / "late.nc"
    )

    def start(name, *, opened="zarr", time=-1, stop=0, **kwargs):
        words = map(str, [tmp_path, name, tiny_model.path, opened, time, stop])
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITE), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            **kwargs,
        )

    return start


def finish(process):
    out, err = process.communicate()
    return process.returncode, out, err


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def chunks(folder):
    found = folder.glob("soil_moisture/c/**/*")
    return [path for path in found if path.is_file() and path.suffix != ".partial"]


def written(folder):
    return len(chunks(folder))


@pytest.mark.slow
def test_killed_process(writing, tmp_path):
    assert finish(writing("undisturbed.zarr"))[0] == 0
    expected = files(tmp_path / "undisturbed.zarr")
    out = tmp_path / "out.zarr"
    for count in (1, 5, 9):
        process = writing("out.zarr", stop=count)
        assert process.stdout.readline() == "stopped\n"
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        assert count <= written(out) < 12
    code, _, err = finish(writing("out.zarr"))
    assert code == 0, err
    assert files(out) == expected


@pytest.mark.slow
@pytest.mark.parametrize("opened", [name for name in OPENED if name != "zarr"])
def test_input_is_known_in_another_process(writing, tmp_path, tiny_model, monkeypatch, opened):
    out = tmp_path / "out.zarr"
    process = writing("out.zarr", opened=opened, time=0, stop=4)
    assert process.stdout.readline() == "stopped\n", process.communicate()
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert written(out) >= 4
    done = chunks(out)
    times = {path: path.stat().st_mtime_ns for path in done}
    code, _, err = finish(writing("out.zarr", opened=opened))
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in done} == times  # none written again
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    xstefa.to_zarr(predicted(tmp_path, tiny_model, opened), tmp_path / "undisturbed.zarr")
    assert files(out) == files(tmp_path / "undisturbed.zarr")


@pytest.mark.slow
def test_full_disk(make_dataset, writing, tmp_path):
    # A long record, so that blocks of the output are larger than any file of metadata.
    long = make_dataset(days=5000, lat=2, lon=2)
    long.to_zarr(tmp_path / "input.zarr", mode="w", consolidated=False)
    assert finish(writing("undisturbed.zarr"))[0] == 0
    blocks = [p for p in (tmp_path / "undisturbed.zarr/soil_moisture/c").rglob("*") if p.is_file()]
    room = min(p.stat().st_size for p in blocks) - 1

    def little_room():
        # No file may be as large as a block: to the writer that is a disk with no room for it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    code, _, err = finish(writing("out.zarr", preexec_fn=little_room))
    assert code == 1
    assert "StoreError" in err
    assert "there is no room left" in err
    assert "resume=True" in err
    assert written(tmp_path / "out.zarr") == 0
    code, _, err = finish(writing("out.zarr"))
    assert code == 0, err
    assert files(tmp_path / "out.zarr") == files(tmp_path / "undisturbed.zarr")


class Dying(WorkerPlugin):
    """Kill the worker, once, after a block is written."""

    def __init__(self, out, died):
        self.out, self.died = out, died

    def transition(self, key, start, finish, **kwargs):
        if written(self.out) and not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_killed_worker(dataset, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    dataset.to_zarr(tmp_path / "input.zarr", consolidated=False)
    ds = xr.open_zarr(tmp_path / "input.zarr", consolidated=False)
    prediction = ds.stefa.predict(tiny_model, device="cpu", coverage=True)
    xstefa.to_zarr(prediction, tmp_path / "undisturbed.zarr")
    out, died = tmp_path / "out.zarr", tmp_path / "died"
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Dying(out, died))
        xstefa.to_zarr(prediction, out)
    assert died.exists()
    assert files(out) == files(tmp_path / "undisturbed.zarr")


class Killed(BaseException):
    """Nothing handles it, like SIGKILL, except that the test goes on."""


@pytest.fixture(scope="module")
def stores(make_dataset, tiny_model, tmp_path_factory):
    """A prediction, and a folder with a store that is finished and one that is not."""
    folder = tmp_path_factory.mktemp("stores")
    make_dataset(days=60, lat=3, lon=1).to_zarr(folder / "input.zarr", consolidated=False)
    ds = xr.open_zarr(folder / "input.zarr", consolidated=False)
    write, left = store._write_block, [2]

    def writing(*args):
        if not left[0]:
            raise Killed
        left[0] -= 1
        write(*args)

    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(graph, "BLOCK_BYTES", 1000)
        prediction = ds.chunk(lat=1).stefa.predict(tiny_model, device="cpu")
        xstefa.to_zarr(prediction, folder / "finished.zarr")
        patch.setattr(store, "_write_block", writing)
        with pytest.raises(Killed):
            xstefa.to_zarr(prediction, folder / "unfinished.zarr")
    return prediction, folder


def flipped(content):
    at = 3 * len(content) // 5
    return bytes([*content[:at], content[at] ^ 1, *content[at + 1 :]])


def edited(content):
    """Add an attribute, and forget the consolidated metadata."""
    document = json.loads(content)
    document["attributes"]["added"] = 1
    document.get("consolidated_metadata", {}).pop("metadata", None)
    return json.dumps(document).encode()


DAMAGES = {
    "deleted": None,
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": flipped,
    "other": lambda content: b'{"some": ["other", "JSON"]}',
    "edited": edited,
    "recoded": lambda content: content.replace(b'"level": 0', b'"level": 5'),
}
PARTS = {
    "zarr.json": "finished unfinished",  # with consolidated metadata, if finished
    "_xstefa/zarr.json": "finished unfinished",
    "soil_moisture/zarr.json": "finished unfinished",
    "time/zarr.json": "finished unfinished",
    "time/c": "finished unfinished",
    "lat/c": "finished unfinished",
    "soil_moisture/c": "finished unfinished",
}


@pytest.mark.parametrize(
    ("state", "part", "damage"),
    [
        (state, part, damage)
        for part, states in PARTS.items()
        for state in states.split()
        for damage in DAMAGES
        if part.endswith("zarr.json") or damage not in ("edited", "recoded")
    ],
)
def test_damaged_stores_are_restored_or_refused(stores, tmp_path, state, part, damage):
    prediction, folder = stores
    out = tmp_path / "out.zarr"
    shutil.copytree(folder / f"{state}.zarr", out)
    damaged = out / part
    if damaged.is_dir():
        damaged = min(path for path in damaged.rglob("*") if path.is_file())
    before = damaged.read_bytes()
    damaged.unlink()
    if damage != "deleted":
        damaged.write_bytes(DAMAGES[damage](before))
    refused = ""
    try:
        with dask.config.set(scheduler="synchronous"):
            xstefa.to_zarr(prediction, out, resume=True)
    except StoreError as error:
        refused = str(error)
    if not refused:
        assert files(out) == files(folder / "finished.zarr")
        return
    assert part.removesuffix("/zarr.json").split("/")[0] in refused  # a name, or zarr.json
    assert not part.endswith("/c") or damage == "deleted"  # of a coordinate, which may be intended


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_places_that_cannot_be_written(stores, tmp_path, how):
    prediction, _ = stores
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir(mode=0o500)
    for place in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "a.zarr"):
        with pytest.raises(StoreError, match=r"notes\.txt"):
            xstefa.to_zarr(prediction, place, **how)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    user = os.geteuid()
    try:
        if user == 0:  # who may write anywhere
            os.seteuid(65534)
        with pytest.raises(StoreError, match="Permission denied"):
            xstefa.to_zarr(prediction, tmp_path / "folder" / "a.zarr", **how)
    finally:
        os.seteuid(user)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "notes.txt"]
