"""What is written, what is refused, what is written again."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import xstefa
from xstefa.errors import OptionError, StoreError
from xstefa.inference import graph
from xstefa.inference import store as module


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    # One thread: another would go on writing after a death that is only played.
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def plan(dataset, tiny_model, tmp_path):
    """Plan the same prediction anew each time, as a second process would."""
    dataset.to_zarr(tmp_path / "input.zarr", consolidated=False)

    def make(model=tiny_model, **changes):
        ds = xr.open_zarr(tmp_path / "input.zarr", consolidated=False)
        ds = ds.isel(changes.pop("isel", {}))
        return ds.stefa.predict(model, **({"coverage": True} | changes))

    return make


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def chunks(folder):
    return {path for path in folder.glob("*/c/**/*") if path.is_file()}


@pytest.fixture
def undisturbed(plan, tmp_path):
    xstefa.to_zarr(plan(), tmp_path / "undisturbed.zarr")
    return files(tmp_path / "undisturbed.zarr")


class Killed(BaseException):
    """Nothing handles it, like SIGKILL, except that the test goes on."""


@pytest.fixture
def kill_after(monkeypatch):
    """Let only some blocks be written; "half" also leaves one cut off."""
    write = module._write_block

    def arrange(count, *, half=False):
        left = [count]

        def writing(place, region, block):
            if left[0] <= 0:
                if half:
                    before = chunks(Path(place[0].location))
                    write(place, region, block)
                    (cut,) = chunks(Path(place[0].location)) - before
                    os.truncate(cut, cut.stat().st_size // 2)
                raise Killed
            left[0] -= 1
            write(place, region, block)

        monkeypatch.setattr(module, "_write_block", writing)

    return arrange


def test_round_trip(plan, tmp_path):
    prediction = plan()
    xstefa.to_zarr(prediction, tmp_path / "out.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    assert set(found.data_vars) == {"soil_moisture", "coverage"}
    assert found.soil_moisture.attrs["ancillary_variables"] == "coverage"
    expected = prediction.compute().reset_coords()
    xr.testing.assert_equal(found.load(), expected)
    assert found.soil_moisture.attrs == expected.soil_moisture.attrs


def test_finished_stores_open_without_a_word(plan, tmp_path, undisturbed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "coverage" in xr.open_zarr(tmp_path / "undisturbed.zarr")


def test_a_damaged_byte_is_an_error_to_whoever_reads_it(plan, tmp_path, undisturbed):
    random = np.random.default_rng(0)
    out = tmp_path / "undisturbed.zarr"
    chunks = [out / name for name in undisturbed if "/c/" in name or name.endswith("/c")]
    for chunk in random.choice(chunks, 60):
        intact = chunk.read_bytes()
        damaged = bytearray(intact)
        damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        chunk.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum"):
            xr.open_zarr(out)[chunk.relative_to(out).parts[0]].load()
        chunk.write_bytes(intact)


def test_every_variable_of_a_dataset(make_model, distribution, plan, tmp_path):
    model = make_model(members=2, distribution=distribution)
    both = xr.Dataset({"mean": plan(model), "spread": plan(model, quantiles=[0.1, 0.9])})
    xstefa.to_zarr(both, tmp_path / "out.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    assert {"mean", "spread"} <= set(found.variables)
    np.testing.assert_array_equal(found["spread"], both["spread"])


def test_in_memory_results_can_be_written(dataset, tiny_model, tmp_path):
    now = dataset.stefa.predict(tiny_model)
    xstefa.to_zarr(now, tmp_path / "out.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    xr.testing.assert_equal(found.soil_moisture.load(), now)


@pytest.mark.filterwarnings("error")
def test_names_of_sites(tiny_model, tmp_path):
    ds = xstefa.open_sample("camels_us", chunks={}).isel(time=slice(400))
    for number, sites in enumerate([slice(2), 1]):
        prediction = ds.isel(basin=sites).stefa.predict(tiny_model)
        xstefa.to_zarr(prediction, tmp_path / f"{number}.zarr")
        found = xr.open_zarr(tmp_path / f"{number}.zarr", consolidated=False)
        assert found.basin.values.tolist() == prediction.basin.values.tolist()


def test_nothing_of_the_journal_but_the_plan_stays(undisturbed):
    assert [name for name in undisturbed if name.startswith("_xstefa")] == ["_xstefa/zarr.json"]


def test_blocks_without_values_are_known_to_be_written(dataset, tiny_model, tmp_path, monkeypatch):
    sea = dataset.assign(precipitation=dataset["precipitation"].where(dataset["lat"] < 55))
    sea["precipitation"].attrs = dataset["precipitation"].attrs
    sea.to_zarr(tmp_path / "input.zarr", consolidated=False)
    ds = xr.open_zarr(tmp_path / "input.zarr", consolidated=False)
    prediction = ds.stefa.predict(tiny_model)
    xstefa.to_zarr(prediction, tmp_path / "out.zarr")
    monkeypatch.setattr(graph, "read_block", None)
    xstefa.to_zarr(prediction, tmp_path / "out.zarr", resume=True)
    assert xr.open_zarr(tmp_path / "out.zarr").soil_moisture.isel(lat=0).isnull().all()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_interrupted_anywhere(plan, tmp_path, undisturbed, kill_after, monkeypatch, count, half):
    out = tmp_path / "out.zarr"
    with monkeypatch.context():
        kill_after(count, half=half)
        with pytest.raises(Killed):
            xstefa.to_zarr(plan(), out)
        monkeypatch.undo()
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    assert files(out) != undisturbed
    (out / "coverage" / "0.0badc0de.partial").write_bytes(b"left by a killed writer")
    xstefa.to_zarr(plan(), out, resume=True)
    assert files(out) == undisturbed


def test_only_what_is_missing_is_computed(plan, tmp_path, undisturbed, kill_after, monkeypatch):
    out = tmp_path / "out.zarr"
    with monkeypatch.context():
        kill_after(6)
        with pytest.raises(Killed):
            xstefa.to_zarr(plan(coverage=False), out)
        monkeypatch.undo()
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    ran = []
    stack = graph.read_block
    monkeypatch.setattr(graph, "read_block", lambda *args: ran.append(1) or stack(*args))
    prediction = plan(coverage=False)
    xstefa.to_zarr(prediction, out, resume=True)
    assert len(ran) == prediction.data.npartitions - 6
    xstefa.to_zarr(plan(coverage=False), out, resume=True)  # finished: nothing to do
    assert len(ran) == prediction.data.npartitions - 6


@pytest.mark.parametrize("moment", ["create_group", "_restore", "_write_missing", "_finish"])
def test_interrupted_between_steps(plan, tmp_path, undisturbed, monkeypatch, moment):
    out = tmp_path / "out.zarr"

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group if moment == "create_group" else module, moment, die)
        with pytest.raises(Killed):
            xstefa.to_zarr(plan(), out)
    xstefa.to_zarr(plan(), out, resume=True)
    assert files(out) == undisturbed


def test_resume_begins_what_does_not_exist(plan, tmp_path, undisturbed):
    xstefa.to_zarr(plan(), tmp_path / "out.zarr", resume=True)
    assert files(tmp_path / "out.zarr") == undisturbed


def test_an_existing_store_is_left_alone(plan, tmp_path, undisturbed):
    out = tmp_path / "undisturbed.zarr"
    with pytest.raises(StoreError, match="resume=True to go on with it, overwrite=True"):
        xstefa.to_zarr(plan(), out)
    assert files(out) == undisturbed
    xstefa.to_zarr(plan(isel={"time": slice(100)}), out, overwrite=True)
    assert xr.open_zarr(out, consolidated=False).sizes["time"] == 100


def test_other_folders_are_left_alone(plan, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="something else"):
        xstefa.to_zarr(plan(), tmp_path / "folder", resume=True)
    plan().drop_vars("coverage").to_zarr(tmp_path / "plain.zarr", consolidated=False)
    with pytest.raises(StoreError, match=r"not written by xstefa\.to_zarr"):
        xstefa.to_zarr(plan(), tmp_path / "plain.zarr", resume=True)


def other_input(ds):
    return ds.assign(precipitation=ds.precipitation + 1)


def test_another_prediction_is_refused_with_what_differs(
    plan, tmp_path, undisturbed, make_model, dataset, tiny_model
):
    out = tmp_path / "undisturbed.zarr"
    schema = tiny_model.schema
    older = xstefa.schema.Schema.from_dict(schema.to_dict() | {"version": "0"})
    dataset.assign(sand=dataset.sand + 1).to_zarr(tmp_path / "other.zarr", consolidated=False)
    elsewhere = xr.open_zarr(tmp_path / "other.zarr", consolidated=False)
    cases = {
        "the model's content": plan(make_model(seed=5)),
        "the model .tiny there, other now.": plan(make_model(name="other")),
        "the schema .stefaland 1": plan(make_model(schema=older)),
        "the precision .fp32 there, bf16 now": plan(precision="bf16"),
        "shape of 'time'": plan(isel={"time": slice(150)}),
        "the values of 'lat'": plan().assign_coords(lat=[1.0, 2.0, 3.0]),
        "the input or a setting": elsewhere.stefa.predict(tiny_model, coverage=True),
        "variables coverage, .*soil_moisture.* there": plan(coverage=False),
    }
    for message, prediction in cases.items():
        with pytest.raises(StoreError, match=message):
            xstefa.to_zarr(prediction, out, resume=True)
    with pytest.raises(StoreError, match="resume=True goes on"):
        xstefa.to_zarr(plan(), out, resume=True, overwrite=True)
    assert files(out) == undisturbed


def test_unequal_chunks_are_made_equal(plan, tmp_path):
    uneven = plan().isel(lat=slice(1, None), time=slice(7, None)).chunk(time=(100, 33, 60))
    xstefa.to_zarr(uneven, tmp_path / "out.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    np.testing.assert_array_equal(found.soil_moisture, uneven)


def test_a_variable_called_like_the_journal_is_refused(plan, tmp_path):
    with pytest.raises(StoreError, match="rename"):
        xstefa.to_zarr(plan().rename("_xstefa"), tmp_path / "out.zarr")


def icechunk_store(folder):
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    return repository.writable_session("main").store


def object_store(folder):
    return zarr.storage.ObjectStore(pytest.importorskip("obstore").store.MemoryStore())


STORES = {
    "memory": lambda folder: zarr.storage.MemoryStore(),
    "local": lambda folder: zarr.storage.LocalStore(folder / "out.zarr"),
    "fsspec": lambda folder: zarr.storage.FsspecStore.from_url(f"memory://{folder}"),
    "wrapped": lambda folder: zarr.storage.WrapperStore(zarr.storage.MemoryStore()),
    "object": object_store,
    "icechunk": icechunk_store,
}


@pytest.mark.parametrize("kind", STORES)
def test_stores_of_zarr(plan, tmp_path, kill_after, monkeypatch, kind):
    store = STORES[kind](tmp_path)
    with monkeypatch.context():
        kill_after(5)
        with pytest.raises(Killed):
            xstefa.to_zarr(plan(), store)
        monkeypatch.undo()
    monkeypatch.setattr(graph, "BLOCK_BYTES", 30_000)
    with pytest.raises(StoreError, match="a store that is writing"):
        xstefa.to_zarr(plan(), store)
    xstefa.to_zarr(plan(), store, resume=True)
    found = xr.open_zarr(store, consolidated=False).load()
    xr.testing.assert_equal(found, plan().compute().reset_coords())
    with pytest.raises(StoreError, match="a store that is complete"):
        xstefa.to_zarr(plan(), store)


class Unsent(zarr.storage.MemoryStore):
    def __reduce__(self):
        raise ValueError("not for other processes")


@pytest.mark.parametrize(
    ("make", "client", "message"),
    [
        (lambda f: zarr.storage.MemoryStore(read_only=True), None, "can only be read"),
        (lambda f: zarr.storage.ZipStore(f / "out.zip", mode="w"), None, "can be replaced"),
        (lambda f: Unsent(), object(), "workers of the cluster cannot write"),
    ],
)
def test_stores_that_cannot_be_written_are_refused(
    plan, tmp_path, monkeypatch, make, client, message
):
    monkeypatch.setattr(module, "_client", lambda: client)
    with pytest.raises(StoreError, match=message):
        xstefa.to_zarr(plan(), make(tmp_path))


def test_a_prediction_for_no_sites_is_written(make_dataset, tiny_model, tmp_path):
    none = make_dataset().isel(lat=slice(0)).chunk(time=50)
    prediction = none.assign(precipitation=none["precipitation"] * 1).stefa.predict(tiny_model)
    xstefa.to_zarr(prediction, tmp_path / "none.zarr")
    assert xr.open_zarr(tmp_path / "none.zarr").sizes["lat"] == 0


def test_time_zones_cannot_be_written(make_dataset, tmp_path):
    ds = make_dataset()
    zoned = ds.assign_coords(time=ds.indexes["time"].tz_localize("Europe/Zurich"))
    for write, name in ((xstefa.to_zarr, "a.zarr"), (xstefa.to_netcdf, "a.nc")):
        with pytest.raises(StoreError, match="cannot be written"):
            write(zoned, tmp_path / name)


def test_pieces_lie_in_shards_of_a_block_each(plan, tmp_path, undisturbed):
    prediction, path = plan(), tmp_path / "pieces.zarr"
    pieces = {"time": 7}
    xstefa.to_zarr(prediction, path, pieces=pieces)
    array = zarr.open(path)[prediction.name]
    assert array.chunks == (7, *prediction.data.chunksize[1:])
    assert len(chunks(path)) == len(chunks(tmp_path / "undisturbed.zarr"))
    with xr.open_zarr(path) as stored:
        np.testing.assert_array_equal(stored[prediction.name], prediction.compute())
    whole = files(path)
    for chunk in sorted((path / prediction.name / "c").rglob("0"))[::2]:
        if chunk.is_file():
            chunk.unlink()
    assert files(path) != whole
    xstefa.to_zarr(plan(), path, pieces=pieces, resume=True)
    assert files(path) == whole


def test_pieces_of_nothing(tmp_path):
    none = xr.DataArray(da.zeros((0, 9), chunks=(1, 3)), dims=("site", "time"), name="none")
    xstefa.to_zarr(none, tmp_path / "none.zarr", pieces={"time": 3})
    with xr.open_zarr(tmp_path / "none.zarr") as stored:
        assert stored.none.shape == (0, 9)
    with pytest.raises(
        OptionError, match=r"Expected Mapping\[str, a whole number above 0\] or None"
    ):
        xstefa.to_zarr(none, tmp_path / "some.zarr", pieces={"time": 0})


@pytest.mark.parametrize(
    ("pieces", "found"),
    [({"tim": 7}, "no such dimension"), ({"lon": 2}, "pieces of 2, and blocks of 3")],
)
def test_pieces_that_do_not_fit_are_refused(plan, tmp_path, pieces, found):
    prediction = plan().chunk(lon=3, lat=-1, time=-1)
    assert prediction.sizes["lon"] > 3
    with pytest.raises(StoreError, match=found):
        xstefa.to_zarr(prediction, tmp_path / "pieces.zarr", pieces=pieces)
    assert not (tmp_path / "pieces.zarr").exists()
