"""NetCDF files that several threads read at once."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import numpy as np
import pytest
import xarray as xr
from xarray.backends import netCDF4_

THREADS, ROUNDS = 4, 3


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_several_threads_predict_from_open_files(engine, dataset, tiny_model, tmp_path):
    for name in "ab":
        dataset.to_netcdf(tmp_path / name)
    with (
        xr.open_dataset(tmp_path / "a", engine=engine) as eager,
        xr.open_dataset(tmp_path / "b", engine=engine, chunks={"time": 50}) as lazy,
        ThreadPoolExecutor(THREADS) as pool,
    ):

        def predict(number):
            source = lazy if number % 2 else eager.copy()
            return source.stefa.predict(tiny_model, device="cpu").values

        found = list(pool.map(predict, range(THREADS * ROUNDS)))
    expected = dataset.stefa.predict(tiny_model, device="cpu").values
    for values in found:
        np.testing.assert_array_equal(values, expected)


def test_several_threads_open_files_of_their_own_with_h5netcdf(dataset, tiny_model, tmp_path):
    dataset.to_netcdf(tmp_path / "a")

    def predict(_):
        with xr.open_dataset(tmp_path / "a", engine="h5netcdf") as ds:
            return ds.stefa.predict(tiny_model, device="cpu").values

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(predict, range(THREADS * ROUNDS)))
    expected = dataset.stefa.predict(tiny_model, device="cpu").values
    for values in found:
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_files_are_read_under_the_lock_of_their_library(
    dataset, tiny_model, tmp_path, monkeypatch, elsewhere
):
    half = dataset.isel(time=slice(100))
    half.to_netcdf(tmp_path / "a.nc")
    dataset.drop_dims("time").merge(dataset.isel(time=slice(100, None))).to_netcdf(
        tmp_path / "b.nc"
    )
    paths, how = [tmp_path / "a.nc", tmp_path / "b.nc"], {"engine": "netcdf4", "chunks": {}}
    joined = xr.open_mfdataset(paths, data_vars="minimal", compat="no_conflicts", **how)
    again = xr.open_dataset(paths[0], **how).isel(time=slice(100))
    plans = [ds.stefa.predict(tiny_model, device="cpu") for ds in (joined, again)]
    if elsewhere:  # as on the worker of a cluster, which opens the files itself
        plans = cloudpickle.loads(cloudpickle.dumps(plans))
        again.close()
        joined.close()
    held, library = [], netCDF4_.NETCDF4_PYTHON_LOCK
    acquire = netCDF4_.NetCDF4DataStore._acquire

    def acquiring(self, needs_lock=True):
        own, of_all = ({each.lock for each in lock.locks} for lock in (self.lock, library))
        held.append(not needs_lock and own == of_all and self.lock.locked())
        return acquire(self, needs_lock)

    monkeypatch.setattr(netCDF4_.NetCDF4DataStore, "_acquire", acquiring)
    for plan, source in zip(plans, (dataset, half), strict=True):
        expected = source.stefa.predict(tiny_model, device="cpu")
        np.testing.assert_array_equal(plan.compute(scheduler="threads"), expected)
    assert held
    assert all(held)


def test_a_dataset_that_is_dropped_closes_its_files(dataset, tiny_model, tmp_path):
    dataset.to_netcdf(tmp_path / "a.nc")
    ds = xr.open_dataset(tmp_path / "a.nc")
    ds.stefa.tokens()
    ds.stefa.predict(tiny_model, device="cpu")
    left = weakref.ref(ds)
    gc.disable()
    try:
        del ds
        assert left() is None
    finally:
        gc.enable()
