"""Datasets larger than memory: read onto the disk, and drawn from at random."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open

import xstefa
from tests.training.conftest import (
    ENCODER,
    HEAD,
    WINDOWS,
    Interruption,
    interrupted,
    make_basins,
)
from xstefa.errors import TrainingError
from xstefa.splits.holdout import Period, RandomSites
from xstefa.training import sampling
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.data import TrainingData, read_all
from xstefa.training.devices import Runner
from xstefa.training.options import HeadRecipe, Schedule
from xstefa.training.records import Record
from xstefa.training.sampling import Feed, Windows

FAST = {"head": HEAD, "steps": 4, "batch_size": 4}
SITES = 20


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Twenty sites in a Zarr store, three a chunk; one of them without any rain."""
    path = tmp_path_factory.mktemp("store") / "basins.zarr"
    basins = make_basins(sites=SITES)
    basins["pr"] = basins.pr.where(basins.site != "gauge 7")
    basins.chunk(site=3, time=-1).to_zarr(path)
    return xr.open_zarr(path)


def read(dataset: xr.Dataset, memory: str | None) -> TrainingData:
    (data,) = read_all(
        dataset,
        schema=xstefa.load_schema(),
        target="streamflow",
        length=40,
        rename=None,
        sites=None,
        memory=memory,
    )
    return data


@pytest.fixture(scope="module")
def pair(stored, tmp_path_factory):
    """The same data in memory and on disk."""
    with xstefa.set_options(cache_dir=tmp_path_factory.mktemp("cache")):
        return read(stored, None), read(stored, "100 kB")


def same(one: Record, two: Record) -> None:
    assert one.first_day == two.first_day
    for name in ("ids", "forcing", "static", "target"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_what_is_read_is_the_same(pair):
    whole, disk = pair
    assert disk.record.on_disk
    assert not whole.record.on_disk
    assert 1 <= disk.at_once < SITES
    assert (whole.stride, disk.stride) == (1, 3)  # 20 sites, 200 days, 14 numbers: 224 kB
    assert whole.present.tolist() == disk.present.tolist() == [i != 7 for i in range(SITES)]
    fold = whole.fold(RandomSites(0.25))
    chosen = fold.train_sites
    whole, disk = (data.on(fold, None) for data in pair)
    assert whole.survey == disk.survey
    ready = [data.prepared(lambda record: record, chosen) for data in pair]
    same(*ready)
    some = disk.sample()
    assert len(some.ids) == disk.at_once
    assert set(some.ids) <= set(ready[0].ids)


def test_the_same_batches(pair):
    chosen = np.ones(SITES - 1, dtype=bool)
    batches = []
    for data in pair:
        record = data.prepared(lambda record: record, chosen)
        windows = Windows.find([record], length=40, spin_up=10, strides=[7], seed=1)
        batches.append(Feed(windows, Runner())([np.array([3, 200, 90])]))
    for name in ("number", "forcing", "static", "target"):
        torch.testing.assert_close(*(getattr(b, name) for b in batches), equal_nan=True)


def test_windows_are_found_some_sites_at_a_time(pair, monkeypatch):
    record = pair[0].record

    def find() -> list[np.ndarray]:
        whole = Windows.find([record], length=40, spin_up=10, strides=[3], seed=1)
        part = whole.restricted([np.arange(SITES - 1) % 2 == 0], [np.arange(200) % 90 < 45])
        return [*whole.places, *part.drawn]

    expected = find()
    assert 0 < len(expected[1]) < len(expected[0]) / 2
    monkeypatch.setattr(sampling, "AT_ONCE", 3 * 200)
    for found, known in zip(find(), expected, strict=True):
        np.testing.assert_array_equal(found, known)


def test_other_processes_read_the_same_file(pair):
    record = pair[1].record
    again = pickle.loads(pickle.dumps(record))
    assert len(pickle.dumps(record)) < record.forcing.nbytes / 10
    assert again.on_disk
    same(record, again)


def weights_equal(one: xstefa.Model, two: xstefa.Model) -> bool:
    a, b = one.network().state_dict(), two.network().state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("holdout", [RandomSites(0.2), Period("2001-05-01", "2001-07-19")])
def test_heads_become_the_same(stored, foundation, tmp_path, holdout):
    how = {"model": foundation, "holdout": holdout, "validation": RandomSites(0.2), **FAST}
    how |= {"recipe": HeadRecipe(cache=False, token_dropout=0.3)}
    with xstefa.set_options(cache_dir=tmp_path):
        disk = stored.stefa.finetune("streamflow", memory="100 kB", **how)
        assert not list((tmp_path / "records").iterdir())  # removed when it is done
        whole = stored.stefa.finetune("streamflow", memory="1 GB", **how)
    assert weights_equal(disk, whole)
    assert disk.spec.ranges == whole.spec.ranges
    curves = [model.spec.provenance["learning_curve"] for model in (disk, whole)]
    assert curves[0] == curves[1]
    told = [model.spec.provenance["datasets"]["data"] for model in (disk, whole)]
    assert told[0]["trained"] == told[1]["trained"]


def test_embeddings_of_what_does_not_fit_are_not_kept(stored, foundation, tmp_path):
    with xstefa.set_options(cache_dir=tmp_path):
        stored.stefa.finetune("streamflow", model=foundation, memory="100 kB", **FAST)
    assert not (tmp_path / "embeddings").exists()


def test_pretraining_goes_on(stored, tmp_path):
    schedule = {"steps": 4, "batch_size": 4}
    how = {"size": ENCODER, "windows": WINDOWS, "memory": "100 kB"}
    data = {"a": stored, "b": make_basins(sites=3)}
    expected = xstefa.pretrain(data, schedule=Schedule(**schedule), **how)
    how["checkpoint"] = checkpoint = Checkpoint(path=tmp_path / "state", minutes=0)
    with pytest.raises(Interruption):
        xstefa.pretrain(data, schedule=interrupted(2, **schedule), **how)
    assert xstefa.pretrain(data, schedule=Schedule(**schedule), **how) == expected
    with safe_open(checkpoint.path, framework="np") as file:
        recipe = json.loads(file.metadata()["xstefa_training"])["recipe"]
    assert recipe["strides"] == [3, 1]


def test_a_grid_in_blocks_of_both_dimensions(stored, tmp_path):
    """Sites lie in the order of the grid, whatever the order of its chunks; water is left out."""
    flat = stored.compute()
    grid = xr.Dataset(
        {
            name: (("time", "lat", "lon") if "time" in v.dims else ("lat", "lon"),
                   v.transpose(..., "site").values.reshape(*v.shape[1:], 4, 5), v.attrs)
            for name, v in flat.data_vars.items()
        },
        coords={"time": flat.time, "lat": [50.0, 51, 52, 53], "lon": [3.0, 4, 5, 6, 7]},
    )  # fmt: skip
    grid = grid.where((grid.lat < 53) | (grid.lon > 4)).chunk(lat=2, lon=2)
    with xstefa.set_options(cache_dir=tmp_path):
        whole, disk = read(grid, None), read(grid, "100 kB")
        chosen = np.ones(int(whole.present.sum()), dtype=bool)
        assert len(chosen) == SITES - 3
        same(*(data.prepared(lambda record: record, chosen) for data in (whole, disk)))


def test_no_room(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 1000}))
    with (
        xstefa.set_options(cache_dir=tmp_path),
        pytest.raises(TrainingError, match=r"no room.*memory="),
    ):
        read(stored, "100 kB")
