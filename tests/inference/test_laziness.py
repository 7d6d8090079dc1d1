"""Planning reads nothing, and the graph is as large as its blocks are many."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize

from xstefa.errors import RangeError
from xstefa.inference import graph
from xstefa.inference.file_reads import read_inside
from xstefa.inference.graph import ChunksWarning


class Unreadable:
    """An array whose values must not be looked at."""

    def __init__(self, shape):
        self.shape, self.ndim, self.dtype = shape, len(shape), np.dtype("float32")

    def __getitem__(self, index):
        raise AssertionError("planning read data")


@pytest.fixture
def unreadable(dataset):
    ds = dataset.copy()
    for name in ds.data_vars:
        array = da.from_array(Unreadable(ds[name].shape), chunks=-1, name=f"unreadable-{name}")
        ds[name] = (ds[name].dims, array, ds[name].attrs)
    return ds


@pytest.fixture
def on_disk(dataset, tmp_path):
    path = tmp_path / "input.zarr"
    chunks = {"precipitation": (40, 3, 2), "temperature_mean": (200, 3, 4)}
    encoding = {name: {"chunks": size} for name, size in chunks.items()}
    dataset.to_zarr(path, encoding=encoding, consolidated=False)
    return path


def opened(path, **chunks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # chunks unlike the file's are the point
        return xr.open_zarr(path, chunks=chunks, consolidated=False)


def test_planning_reads_nothing(unreadable, tiny_model):
    prediction = unreadable.stefa.predict(tiny_model, coverage=True)
    assert prediction.chunks is not None
    assert prediction.shape == (200, 3, 4)
    assert repr(prediction)
    with pytest.raises(AssertionError, match="planning read data"):
        prediction.compute(scheduler="synchronous")


def test_planning_loads_neither_weights_nor_torch(on_disk, tiny_model):
    code = f"""
        import sys, xarray as xr, xstefa
        ds = xr.open_zarr({str(on_disk)!r}, consolidated=False)
        prediction = ds.stefa.predict(xstefa.load_model({str(tiny_model.path)!r}))
        assert prediction.chunks is not None
        assert "torch" not in sys.modules, "torch was imported"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_one_task_a_block(on_disk, tiny_model, monkeypatch):
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    prediction = opened(on_disk).stefa.predict(tiny_model)
    (optimised,) = dask.optimize(prediction.data)
    blocks = prediction.data.npartitions
    assert blocks >= 8
    tasks = [task for task in dict(optimised.dask).values() if type(task).__name__ != "Alias"]
    assert len(tasks) == blocks + 1  # and one for what all blocks share


def test_selection_of_a_file_is_followed(on_disk):
    ds = opened(on_disk, time=50)
    for selected in (
        ds.precipitation,
        ds.precipitation.isel(time=slice(30, 120), lat=slice(None, None, -1)),
        ds.precipitation.isel(time=slice(10, 150)).isel(lon=2).isel(time=slice(None, None, 3)),
        ds.precipitation.sel(time="2000-03"),
        ds.precipitation.isel(time=5, lat=1, lon=1),
    ):
        found = read_inside(selected.variable)
        assert found is not None
        assert found.chunks is None
        np.testing.assert_array_equal(found.values, selected.values)
        assert found.dims == selected.dims


def test_what_dask_computes_is_left_to_dask(on_disk):
    rain = opened(on_disk, time=50).precipitation
    for computed in (
        rain * 2,
        rain.chunk(time=30),
        rain.isel(lat=[0, 2]),
        rain.rolling(time=3).mean(),
    ):
        assert read_inside(computed.variable) is None


def test_computed_input_gives_the_same(on_disk, dataset, tiny_model):
    expected = dataset.stefa.predict(tiny_model)
    ds = opened(on_disk, time=30)
    computed = ds.assign(precipitation=ds.precipitation + 0, sand=ds.sand.chunk(lat=1))
    xr.testing.assert_identical(computed.stefa.predict(tiny_model).compute(), expected)
    xr.testing.assert_identical(ds.stefa.predict(tiny_model).compute(), expected)
    undasked = xr.open_zarr(on_disk, chunks=None, consolidated=False)
    xr.testing.assert_identical(undasked.stefa.predict(tiny_model), expected)


@pytest.mark.parametrize("days", [1, 24])
@pytest.mark.parametrize("computed", [False, True])
def test_whole_maps_a_few_days_a_chunk(dataset, tiny_model, tmp_path, days, computed):
    encoding = {n: {"chunks": (days, 3, 4)} for n in dataset.data_vars if dataset[n].ndim == 3}
    dataset.to_zarr(tmp_path / "maps.zarr", encoding=encoding, consolidated=False)
    ds = opened(tmp_path / "maps.zarr")
    assert ds.precipitation.chunks[0][0] == days
    found = (ds + 0 if computed else ds).stefa.predict(tiny_model).compute()
    xr.testing.assert_equal(found, dataset.stefa.predict(tiny_model))


def test_the_same_prediction_is_the_same_to_dask(on_disk, make_model, tiny_model):
    plan = opened(on_disk).stefa.predict(tiny_model)
    assert tokenize(plan) == tokenize(opened(on_disk).stefa.predict(tiny_model))
    assert plan.data.name != opened(on_disk).stefa.predict(make_model(seed=1)).data.name
    assert (
        plan.data.name != opened(on_disk).isel(time=slice(150)).stefa.predict(tiny_model).data.name
    )
    half = opened(on_disk).stefa.predict(tiny_model, precision="bf16")
    assert plan.data.name != half.data.name


def test_the_same_prediction_is_the_same_in_another_process(on_disk, tiny_model):
    code = f"""
        import xarray as xr, xstefa
        ds = xr.open_zarr({str(on_disk)!r}, consolidated=False)
        print(ds.stefa.predict(xstefa.load_model({str(tiny_model.path)!r})).data.name)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    names = {subprocess.check_output(command, text=True) for _ in range(2)}
    assert len(names) == 1


def test_mean_quantiles_and_coverage_are_one_pass(on_disk, make_model, distribution):
    model = make_model(members=2, distribution=distribution)
    ds = opened(on_disk)
    mean = ds.stefa.predict(model, coverage=True)
    spread = ds.stefa.predict(model, quantiles=[0.1, 0.9])
    # Keys name the pass: what is computed together shares it.
    passes = [{key for key in dict(a.data.dask) if "stefa-" in str(key)} for a in (mean, spread)]
    assert passes[0] == passes[1]
    together = xr.Dataset({"mean": mean.reset_coords(drop=True), "spread": spread}).compute()
    assert set(together.data_vars) == {"mean", "spread"}


def many_blocks(days, cells):
    """A map from a file that does not exist, in tiles that each make a few blocks."""

    def variable(name, dims, shape):
        array = da.from_array(Unreadable(shape), chunks=(days, 50, 50)[-len(dims) :], name=name)
        return dims, array

    ds = xr.Dataset(coords={"time": xr.date_range("1980-01-01", periods=days)})
    for name, units in (("precipitation", "mm d-1"), ("temperature_mean", "degC")):
        dims, array = variable(name, ("time", "y", "x"), (days, cells, cells))
        ds[name] = (dims, array, {"units": units})
    return ds


def size(prediction):
    return len(pickle.dumps(dict(prediction.data.dask)))


def test_graph_grows_with_blocks_only(tiny_model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChunksWarning)
        small = many_blocks(800, 50).stefa.predict(tiny_model)
        long = many_blocks(14_600, 50).stefa.predict(tiny_model)
        wide = many_blocks(14_600, 500).stefa.predict(tiny_model)
    count = {"long": long.data.npartitions, "wide": wide.data.npartitions}
    assert count["wide"] == 100 * count["long"]
    # The calendar of a long record is in the graph once.
    per_block = (size(wide) - size(long)) / (count["wide"] - count["long"])
    assert per_block < 2000
    assert size(long) - size(small) < 14_600 * 20 + per_block * count["long"]


def test_bad_chunks_are_warned_about_once_with_the_call_that_helps(tiny_model):
    days, cells = 3000, 1000
    rain = da.zeros((days, cells, cells), chunks=(1, -1, -1), dtype="float32")
    ds = xr.Dataset(
        {
            "precipitation": (("time", "y", "x"), rain, {"units": "mm d-1"}),
            "temperature_mean": (("time", "y", "x"), rain + 1, {"units": "degC"}),
        },
        coords={"time": xr.date_range("1980-01-01", periods=days)},
    )
    with pytest.warns(
        ChunksWarning, match=r"\.chunk\(\{'time': -1, 'y': \d+, 'x': \d+\}\)"
    ) as seen:
        ds.stefa.predict(tiny_model)
    assert len(seen) == 1
    assert Path(seen[0].filename).name == Path(__file__).name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many_blocks(3000, 100).stefa.predict(tiny_model)


def test_a_wrong_label_is_found_when_the_values_are_read(dataset, tiny_model):
    wrong = dataset.assign(
        temperature_mean=(dataset["temperature_mean"] + 273.15).assign_attrs(
            dataset["temperature_mean"].attrs
        )
    )
    lazily = wrong.chunk(lat=1).stefa.predict(tiny_model, device="cpu")
    with pytest.raises(RangeError, match=r"temperature_mean.*look like K"):
        lazily.compute(scheduler="threads")


def test_an_odd_corner_of_a_chunked_map_is_not_refused(dataset, tiny_model):
    odd = dataset.copy(deep=True)
    odd["temperature_mean"][:, 0, :2] += 40
    odd.chunk(lat=1).stefa.predict(tiny_model, device="cpu").compute(scheduler="threads")


@pytest.mark.parametrize("chunks", [None, {"lat": 1}])
@pytest.mark.parametrize("value", [np.inf, -999.0, -99.0, 90000.0])
@pytest.mark.parametrize("name", ["precipitation", "sand"])
def test_one_impossible_value_is_refused_wherever_it_is(dataset, tiny_model, name, value, chunks):
    marked, missing = (dataset.copy(deep=True) for _ in range(2))
    where = {"time": 51, "lat": 1, "lon": 1} if name == "precipitation" else {"lat": 1, "lon": 1}
    marked[name][where], missing[name][where] = value, np.nan
    marked = marked if chunks is None else marked.chunk(chunks)
    with pytest.raises(RangeError, match=rf"{name}.* 1 values, e\.g\. {value:g}") as caught:
        marked.stefa.predict(tiny_model, device="cpu").compute(scheduler="threads")
    exec(caught.value.fix, {"ds": marked})
    found, expected = (
        ds.stefa.predict(tiny_model, device="cpu").compute() for ds in (marked, missing)
    )
    np.testing.assert_array_equal(found, expected)
