"""The recipe of the documentation, on a cluster of this machine."""

from __future__ import annotations

import os

import numpy as np
import psutil
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import xstefa
from xstefa.inference import engine, graph
from xstefa.windows import WindowPolicy


def loaded():
    return os.getpid(), len(engine._engines)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [True, False])
def test_cluster_gives_the_same(dataset, tiny_model, tmp_path, monkeypatch, processes):
    expected = dataset.stefa.predict(tiny_model, device="cpu")
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    dataset.to_zarr(tmp_path / "input.zarr", consolidated=False)
    ds = xr.open_zarr(tmp_path / "input.zarr", consolidated=False)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=2, processes=processes, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        prediction = ds.stefa.predict(tiny_model, device="cpu")
        xr.testing.assert_identical(prediction.compute(), expected)
        if processes:
            # One engine a process, not one a task or thread.
            counts = client.run(loaded)
            assert len({pid for pid, _ in counts.values()}) == 2
            assert all(count <= 1 for _, count in counts.values())
        xstefa.to_zarr(prediction, tmp_path / "out.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    xr.testing.assert_equal(found.soil_moisture.load(), expected)


def idle_worker(model):
    """Return the bytes that a worker takes which has loaded a model."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.submit(load, model).result()
        (taken,) = client.run(resident).values()
        return taken


def load(model):
    model.network()


def resident():
    return psutil.Process().memory_info().rss


@pytest.mark.slow
def test_workers_with_little_memory_finish(make_model, tmp_path, monkeypatch):
    # As reanalyses lie: whole maps, a few days a chunk; three variables, more than a worker holds.
    shape, chunks = (400, 400, 400), (8, 100, 100)
    weather = np.zeros(shape, dtype=np.float32)
    weather[:, 10:] = np.nan  # sea
    dims = ("time", "lat", "lon")
    units = {"precipitation": "mm d-1", "temperature_mean": "degC", "shortwave_down": "W m-2"}
    ds = xr.Dataset(
        {name: (dims, weather, {"units": unit}) for name, unit in units.items()},
        coords={"time": xr.date_range("2000-01-01", periods=shape[0])},
    )
    assert ds.nbytes > 700e6
    encoding = {name: {"chunks": chunks} for name in units}
    ds.to_zarr(tmp_path / "input.zarr", consolidated=False, encoding=encoding)
    del ds, weather
    monkeypatch.setattr(graph, "BLOCK_BYTES", 32 * 2**20)
    opened = xr.open_zarr(tmp_path / "input.zarr", consolidated=False)
    model = make_model(encoder=False, windows=WindowPolicy())
    # The CUDA build of torch takes twice as much as that for CPUs.
    limit = idle_worker(model) + 370_000_000
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit=limit, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        xstefa.to_zarr(opened.stefa.predict(model, device="cpu"), tmp_path / "out.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False).soil_moisture
    assert np.isfinite(found.isel(lat=0)).all()
    assert np.isnan(found.isel(lat=-1)).all()
