"""Blocks: within memory, whole where they can be."""

from __future__ import annotations

import ast
import math
import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xstefa.inference.file_reads import storage_chunks
from xstefa.inference.tiling import Stored, advice, plan_blocks
from xstefa.windows import WindowPolicy

POLICY = WindowPolicy()
GLOBE = {"time": 14_600, "lat": 1800, "lon": 3600}


def cut(sizes, pieces, *, computed=False, tiles=None, values=30, **kwargs):
    stored = [
        Stored(pieces=dict(zip(sizes, pieces, strict=True)), computed=computed, itemsize=4)
    ] * 6
    sites = {dim: n for dim, n in zip(sizes, pieces, strict=True) if dim != "time"}
    return plan_blocks(
        sizes, stored, time="time", tiles=tiles or sites, policy=POLICY, values=values, **kwargs
    )


@given(
    days=st.integers(1, 20_000),
    lat=st.integers(1, 60),
    lon=st.integers(1, 60),
    size=st.integers(1, 2**27),
    whole=st.booleans(),
)
def test_blocks_cover_everything_once(days, lat, lon, size, whole):
    sizes = {"time": days, "lat": lat, "lon": lon}
    blocks = cut(sizes, (days, lat, lon), block_bytes=size, whole_record=whole)
    assert [sum(c) for c in blocks.chunks] == [days, lat, lon]
    assert len(blocks) == math.prod(len(c) for c in blocks.chunks)
    for chunks in blocks.chunks:  # what Zarr wants: equal, and the last one no larger
        assert len(set(chunks[:-1])) <= 1
        assert chunks[-1] <= chunks[0]
    if whole:
        assert len(blocks.chunks[0]) == 1


def test_well_chunked_records_stay_whole_or_nearly():
    blocks = cut(GLOBE, (14_600, 8, 8))
    assert blocks.reads < 1.5
    assert blocks.lengths["time"] >= 3650
    assert advice(blocks) is None


def test_memory_of_a_block_is_kept_to():
    for pieces in ((14_600, 16, 16), (365, 100, 100), (24, 1800, 3600)):
        blocks = cut(GLOBE, pieces)
        cells = blocks.lengths["lat"] * blocks.lengths["lon"]
        assert cells * blocks.lengths["time"] * 30 * 4 <= 128 * 2**20


@pytest.mark.parametrize(("days", "itemsize"), [(3000, 20_000), (40_000, 20_000)])
def test_maps_day_by_day_are_advised_to_be_rewritten(days, itemsize, tmp_path, monkeypatch):
    """The calls of the advice run as they are printed, also on what was read from Zarr."""
    sizes, pieces = {"time": days, "lat": 9, "lon": 5}, {"time": 1, "lat": 9, "lon": 5}
    maps = Stored(pieces=pieces, computed=False, itemsize=itemsize)
    blocks = plan_blocks(
        sizes, [maps], time="time", tiles={"lat": 9, "lon": 5}, policy=POLICY, values=30_000
    )
    text = advice(blocks)
    assert text is not None
    monkeypatch.chdir(tmp_path)
    values = np.arange(days * 45, dtype="f4").reshape(days, 9, 5)
    ds = xr.Dataset({"rain": (tuple(sizes), values)})
    ds.to_zarr("input.zarr", encoding={"rain": {"chunks": (days // 4, 9, 5)}})
    calls = text.split("from the copy: ")[1]
    assert ("staged" in calls) == (days == 40_000)
    exec(calls, {"ds": xr.open_zarr("input.zarr"), "xr": xr})
    found = xr.open_zarr("rechunked.zarr")
    np.testing.assert_array_equal(found["rain"], values)
    assert found["rain"].chunks[0] == (days,)
    assert max(found["rain"].chunks[1]) < 9


def test_large_input_is_rewritten_in_two_steps_of_little_memory():
    text = advice(cut(GLOBE, (24, 1800, 3600)))
    assert text is not None
    first, second = re.findall(r"chunk\((.*?)\)", text)
    days, *tile = ast.literal_eval(first).values()
    assert 6 * 4 * days * 1800 * 3600 <= 4 * 2**30
    assert 6 * 4 * 14_600 * math.prod(tile) <= 4 * 2**30
    assert ast.literal_eval(second) == {"time": -1, "lat": 9, "lon": 8}
    assert not any(size % part for size, part in zip(tile, (9, 8), strict=True))


def test_small_stores_are_not_complained_about():
    small = {"time": 3000, "lat": 20, "lon": 20}
    assert advice(cut(small, (1, 20, 20))) is None


@pytest.mark.parametrize("chunk", [1, 24, 365])
def test_computed_maps_hold_little(chunk):
    sizes = {"time": 14_600, "lat": 180, "lon": 360}
    blocks = cut(sizes, (chunk, 180, 360), computed=True)
    assert blocks.lengths["time"] < 1000  # rather windows twice than the whole record in memory


def test_chunks_of_several_sizes_count_as_their_largest():
    rectilinear = {"preferred_chunks": {"lat": (2, 7), "lon": 5}, "chunks": ((2, 7), (5, 5))}
    variable = xr.Variable(("lat", "lon"), np.zeros((9, 10)), encoding=rectilinear)
    assert storage_chunks(variable) == {"lat": 7, "lon": 5}
    del variable.encoding["preferred_chunks"]
    assert storage_chunks(variable) == {"lat": 7, "lon": 5}


@pytest.mark.parametrize("value", ["T", 3, {}, {"lat": "a"}, ["a", None], (0, -1), np.ones(2)])
@pytest.mark.parametrize("key", ["preferred_chunks", "shards", "chunks", "chunksizes"])
def test_encodings_that_are_no_chunks_say_nothing(key, value):
    variable = xr.Variable(("lat", "lon"), np.zeros((8, 9)), encoding={key: value})
    assert storage_chunks(variable) == {"lat": 1, "lon": 1}
