"""`examples/nowcast.py`: killed at any moment and called again, it is one long prediction."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore

from xstefa.windows import SegmentPolicy

ROOT = Path(__file__).parents[2]
DAYS = 40


@pytest.fixture(scope="module")
def nowcast():
    return runpy.run_path(str(ROOT / "examples" / "nowcast.py"))["nowcast"]


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(windows=SegmentPolicy(length=60, spin_up=10), encoder=False)


@pytest.fixture(scope="module")
def weather(make_dataset):
    return make_dataset(days=DAYS, lat=1, lon=2)


@pytest.fixture(scope="module")
def expected(weather, model):
    return weather.stefa.predict(model, device="cpu")


@pytest.fixture
def places(tmp_path, model):
    return {
        "store": str(tmp_path / "out.zarr"),
        "saved": str(tmp_path / "state.nc"),
        "target": "soil_moisture",
        "model": str(model.path),
    }


def check(store, expected):
    found = xr.open_zarr(store, consolidated=False)
    np.testing.assert_array_equal(found["time"], expected["time"])
    np.testing.assert_allclose(found["soil_moisture"], expected, rtol=1e-5, atol=1e-5)
    assert found["soil_moisture"].attrs["units"] == expected.attrs["units"]
    np.testing.assert_array_equal(found["lon"], expected["lon"])


def chunks(store):
    found = Path(store, "soil_moisture", "c").rglob("*")
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def test_what_is_there_is_not_written_again(nowcast, weather, expected, places):
    assert nowcast(weather.isel(time=slice(30)), **places, step=20) == 30
    there = chunks(places["store"])
    assert len(there) == 25  # the first days have no answer
    for day in (31, 33, 40):
        nowcast(weather.isel(time=slice(day)), **places)
        check(places["store"], expected[:day])
    assert nowcast(weather, **places) == 0
    after = chunks(places["store"])
    assert len(after) == 35
    assert {path: after[path] for path in there} == there


class Killed(BaseException):
    """Nothing handles it, like SIGKILL, except that the test goes on."""


def test_killed_before_each_write(nowcast, weather, expected, places, monkeypatch):
    """Of arrays, of metadata, and of the state; twice in a row."""
    write, left = LocalStore.set, 0

    async def dying(self, key, value):
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        await write(self, key, value)

    monkeypatch.setattr(LocalStore, "set", dying)
    for writes in (0, 3, 10, 18):  # there is no state yet
        left = writes
        with pytest.raises(Killed):
            nowcast(weather.isel(time=slice(20)), **places)
    killed = 0
    for day in range(20, DAYS + 1):
        left = killed if day > 20 else 10**6
        try:
            nowcast(weather.isel(time=slice(day)), **places)
        except Killed:
            killed += 1
            left = 2
            with pytest.raises(Killed):
                nowcast(weather.isel(time=slice(day)), **places)
            left = 10**6
            nowcast(weather.isel(time=slice(day)), **places)
        check(places["store"], expected[:day])
    assert killed >= 4  # two arrays and their lengths


RUN = """
    import os, sys
    from pathlib import Path

    import xstefa
    from zarr.storage import LocalStore

    stop, *words = sys.argv[1:]
    write = LocalStore.set

    async def stopping(self, key, value):  # say what is about to be written, and wait
        if stop == key:
            print("stopped", flush=True)
            sys.stdin.read()
        await write(self, key, value)

    def replaced(*places, replace=os.replace):
        if stop == Path(places[1]).name:
            print("stopped", flush=True)
            sys.stdin.read()
        replace(*places)

    LocalStore.set, os.replace, sys.argv = stopping, replaced, ["nowcast", *words]
    import runpy
    runpy.run_path("examples/nowcast.py", run_name="__main__")
"""


@pytest.mark.slow
def test_killed_process(weather, expected, nowcast, places, tmp_path):
    nowcast(weather.isel(time=slice(20)), **places)
    weather.to_netcdf(tmp_path / "weather.nc")
    words = ["weather.nc", "out.zarr", "state.nc"]
    words = [*(str(tmp_path / word) for word in words), "--target", "soil_moisture"]
    for stop in ("soil_moisture/c/30/0/0", "state.nc"):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RUN), stop, *words, "--model", places["model"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout.readline() == "stopped\n", process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert nowcast(weather, **places) == 20
    check(places["store"], expected)
