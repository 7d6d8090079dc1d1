"""Datasets larger than memory: the same data, a few blocks at a time."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xstefa
from tests.training.conftest import ENCODER, HEAD, WINDOWS, make_basins
from xstefa.binding import bind
from xstefa.splits.holdout import RandomSites
from xstefa.splits.sites import Sites
from xstefa.training import streaming
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.samples import Record
from xstefa.training.sampling import Windows
from xstefa.training.streaming import RESIDENT, Stream, StreamedWindows, cut, is_too_large

FAST = {"head": HEAD, "steps": 12, "batch_size": 4}


@pytest.fixture(autouse=True)
def _short_periods(monkeypatch):
    monkeypatch.setattr(streaming, "STEPS_PER_BLOCK", 2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Twenty sites in a Zarr store, one site a chunk."""
    path = tmp_path_factory.mktemp("store") / "basins.zarr"
    make_basins(sites=20).chunk(site=1, time=-1).to_zarr(path)
    return xr.open_zarr(path)


def make_stream(dataset: xr.Dataset, memory: int, target: str | None = "streamflow") -> Stream:
    binding = bind(dataset, xstefa.load_schema())
    sites = Sites.of(dataset, binding.layout)
    return Stream(
        binding=binding,
        sites=sites,
        blocks=cut(binding, memory),
        target=target,
        length=40,
        keep=np.ones(len(sites), dtype=bool),
    )


def test_blocks_follow_chunks_and_memory(stored):
    binding = bind(stored, xstefa.load_schema())
    size = streaming._size(binding)
    assert is_too_large(binding, size - 1)
    assert not is_too_large(binding, size)
    assert not is_too_large(bind(stored.compute(), xstefa.load_schema()), 1)
    assert len(cut(binding, size // 2)) == 20  # a chunk is a site
    wide = stored.chunk(site=10)
    blocks = cut(bind(wide, xstefa.load_schema()), size // 2)
    assert [b["site"].stop - b["site"].start for b in blocks] == [2] * 10
    read = np.concatenate([make_stream(wide, size // 2).read(n).ids for n in range(10)])
    assert read.tolist() == stored.site.values.tolist()


def test_a_block_is_a_part_of_the_record(stored):
    stream = make_stream(stored.chunk(site=5), 10**6)
    whole = Record.from_binding(stream.binding, ids=stored.site.values, target="streamflow")
    record = stream.read(1)
    rows = np.isin(whole.ids, record.ids)
    np.testing.assert_array_equal(record.forcing, whole.forcing[rows])
    np.testing.assert_array_equal(record.target, whole.target[rows])
    np.testing.assert_array_equal(record.static, whole.static[rows])


def test_every_site_gets_its_turn(stored):
    stream = make_stream(stored, 10**4)
    supply = StreamedWindows(
        [stream],
        prepare=lambda record, raw: (record, None),
        find=lambda records, **more: Windows.find(records, length=40, spin_up=10, **more),
        shares=[1.0],
        seed=0,
    )
    seen, resident = [], []
    for step in range(40):
        windows = supply.at(step)
        assert windows is supply.at(step)
        resident.append(len(windows.records))
        seen.extend(record.ids[0] for record in windows.records)
    assert set(seen) == set(stored.site.values)
    # A block may come up again while it is still there: at the seam of two rounds.
    assert max(resident) == RESIDENT
    assert min(resident) >= RESIDENT - 2


def test_finetune_streams(stored, foundation, tmp_path):
    how = {"model": foundation, "holdout": RandomSites(0.2), "validation": RandomSites(0.2), **FAST}
    with xstefa.set_options(cache_dir=tmp_path):
        model = stored.stefa.finetune("streamflow", memory="100 kB", **how)
        assert model == stored.stefa.finetune("streamflow", memory="100 kB", **how)
        assert not (tmp_path / "embeddings").exists()  # what is not kept is not encoded ahead
    content = model.spec.provenance["datasets"]["data"]
    assert len(content["trained"]) + len(content["validated"]) == 16
    assert set(content["trained"]).isdisjoint(content["validated"])
    assert model.spec.provenance["learning_curve"]["validation"]
    whole = stored.stefa.finetune("streamflow", memory="1 GB", **how)
    assert model != whole
    assert model.spec.tokens == whole.spec.tokens
    # All attributes were looked at, not only those of the sample.
    trained = stored.elevation.sel(site=content["trained"])
    found, known = model.spec.ranges["elevation"], foundation.spec.ranges["elevation"]
    assert found.low == min(trained.min(), known.low)
    assert found.high == max(trained.max(), known.high)


def test_pretraining_streams_and_goes_on(stored, tmp_path, monkeypatch):
    how = {"size": ENCODER, "windows": WINDOWS, "batch_size": 4, "memory": "100 kB", "steps": 7}
    expected = xstefa.pretrain({"a": stored, "b": make_basins(sites=3)}, **how)
    checkpoint = Checkpoint(path=tmp_path / "state", minutes=0)
    from xstefa.training import loop

    clip, seen = loop._clip, []

    def fail(*args):
        seen.append(args)
        if len(seen) == 5:
            raise KeyboardInterrupt
        clip(*args)

    monkeypatch.setattr(loop, "_clip", fail)
    data = {"a": stored, "b": make_basins(sites=3)}
    with pytest.raises(KeyboardInterrupt):
        xstefa.pretrain(data, checkpoint=checkpoint, **how)
    assert xstefa.pretrain(data, checkpoint=checkpoint, **how) == expected


def test_water_in_blocks(foundation):
    """Blocks without land are passed over."""
    basins = make_basins(sites=20)
    land = np.arange(20) % 5 == 0
    grid = basins.where(xr.DataArray(land, dims="site"))
    grid = grid.assign(region=basins.region).chunk(site=1)
    model = grid.stefa.finetune("streamflow", model=foundation, memory="100 kB", **FAST)
    assert model.target.name == "streamflow"
