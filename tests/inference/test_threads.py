"""NetCDF files that several threads read at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr

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
