"""Blocks: within memory, whole where they can be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xstefa.inference.blocks import Stored, advice, plan_blocks
from xstefa.inference.windows import WindowPolicy

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
    assert advice(blocks, time="time", policy=POLICY, values=30) is None


def test_memory_of_a_block_is_kept_to():
    for pieces in ((14_600, 16, 16), (365, 100, 100), (24, 1800, 3600)):
        blocks = cut(GLOBE, pieces)
        cells = blocks.lengths["lat"] * blocks.lengths["lon"]
        assert cells * blocks.lengths["time"] * 30 * 4 <= 128 * 2**20


def test_maps_day_by_day_are_advised_to_be_rewritten():
    blocks = cut(GLOBE, (24, 1800, 3600))
    text = advice(blocks, time="time", policy=POLICY, values=30)
    assert text is not None
    assert "ds.chunk({'time': -1, 'lat': 9, 'lon': 8}).to_zarr('rechunked.zarr')" in text


def test_small_stores_are_not_complained_about():
    small = {"time": 3000, "lat": 20, "lon": 20}
    assert advice(cut(small, (1, 20, 20)), time="time", policy=POLICY, values=30) is None


@pytest.mark.parametrize("chunk", [1, 24, 365])
def test_computed_maps_hold_little(chunk):
    sizes = {"time": 14_600, "lat": 180, "lon": 360}
    blocks = cut(sizes, (chunk, 180, 360), computed=True)
    assert blocks.lengths["time"] < 1000  # rather windows twice than the whole record in memory
