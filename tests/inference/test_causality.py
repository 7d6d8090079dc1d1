"""A model that looks back only: no answer before a day depends on that day, however it is asked."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xstefa.inference import graph
from xstefa.model.architecture import Architecture, EncoderSize, HeadSize
from xstefa.model.checkpoint import Model, create_model
from xstefa.model.network import StefaLand
from xstefa.model.variants import driven_size
from xstefa.windows import SegmentPolicy

DAYS = 500
EXAMPLES = settings(max_examples=6, suppress_health_check=list(HealthCheck))
RECORD = SegmentPolicy(length=60, spin_up=20)
SEGMENTS = SegmentPolicy(length=60, spin_up=20, span=110)
FORCINGS = ["precipitation", "temperature_mean", "shortwave_down"]


@pytest.fixture(scope="module", params=["soil moisture", "streamflow", "physics", "lstm"])
def model(request, make_model) -> Model:
    if request.param == "soil moisture":
        return make_model(causal=True, windows=SEGMENTS, members=2)
    if request.param == "lstm":
        return make_model(encoder=False, windows=SEGMENTS)
    flow = make_model(causal=True, windows=RECORD, link="softplus", target="streamflow")
    if request.param == "streamflow":
        return flow
    head = driven_size(
        HeadSize(kind="hbv", hidden=16),
        spec=flow.spec,
        tokens=flow.spec.tokens,
        target="streamflow",
    )
    architecture = replace(flow.spec.architecture, heads=(head,))
    torch.manual_seed(3)
    return create_model(
        replace(flow.spec, architecture=architecture), StefaLand(architecture).state_dict()
    )


@pytest.fixture(scope="module")
def weather(make_dataset) -> xr.Dataset:
    """A map with a coast, missing values and missing days; do not change it."""
    ds = make_dataset(days=DAYS, lat=2, lon=3)
    ds["precipitation"][:, 0, 0] = np.nan
    ds["shortwave_down"][40:90, 1, 2] = np.nan
    ds["precipitation"][:90, 1, 0] = np.nan  # begins late
    ds["temperature_mean"][130:135, 1, 1] = np.nan
    ds["temperature_mean"][300:350, 0, 1] = np.nan
    return ds.isel(time=np.r_[0:200, 203:DAYS])


@pytest.fixture(scope="module")
def expected(weather, model):
    return predict(weather, model)


def predict(ds, model, **kwargs):
    with dask.config.set(scheduler="synchronous"):
        return ds.stefa.predict(model, device="cpu", coverage=True, **kwargs).compute()


def same(left, right):
    xr.testing.assert_identical(left, right)
    np.testing.assert_array_equal(left.values.view(np.int32), right.values.view(np.int32))


def alike(left, right):
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(left.coverage, right.coverage)


def test_the_models_answer(expected):
    assert expected.notnull().mean() > 0.6
    assert expected.std("time").max() > 1e-5


@EXAMPLES
@given(data=st.data())
def test_no_day_knows_what_comes(weather, model, expected, data):
    day = data.draw(st.integers(30, weather.sizes["time"] - 1), label="day")
    name = data.draw(st.sampled_from(FORCINGS), label="variable")
    new = data.draw(st.sampled_from([0.0, 24.0, np.nan]), label="value")
    chunks = data.draw(st.sampled_from([None, {"time": 77}, {"lat": 1, "lon": 2}]), label="chunks")
    changed = weather.copy(deep=True)
    changed[name][day] = new
    found = predict(changed if chunks is None else changed.chunk(chunks), model)
    same(found[:day], expected[:day])
    if name == "precipitation" and new == 24:
        assert (found[day:] != expected[day:]).any()


@EXAMPLES
@given(day=st.integers(25, DAYS - 10), chunked=st.booleans())
def test_a_record_that_is_cut_says_the_same_until_then(weather, model, expected, day, chunked):
    cut = weather.isel(time=slice(day))
    alike(predict(cut.chunk(time=60) if chunked else cut, model), expected[:day])


@EXAMPLES
@given(data=st.data())
def test_neither_chunks_nor_blocks_nor_batches_matter(weather, model, expected, monkeypatch, data):
    chunks = {
        "time": data.draw(st.sampled_from([-1, 1, 13, 128, 200]), label="time"),
        "lat": data.draw(st.sampled_from([1, 2]), label="lat"),
        "lon": data.draw(st.sampled_from([1, 2, 3]), label="lon"),
    }
    size = data.draw(st.sampled_from([1, 20_000, 10**9]), label="bytes")
    batch = data.draw(st.sampled_from([None, 16, 48]), label="batch")
    with monkeypatch.context() as patch:
        patch.setattr(graph, "BLOCK_BYTES", size)
        same(predict(weather.chunk(chunks), model, batch_size=batch), expected)


@pytest.mark.parametrize("chunks", [None, {"time": 60, "lat": 1}])
@pytest.mark.parametrize(
    "period",
    [("2000-05", "2000-06"), ("2000-06-11", "2000-06-11"), (None, "2000-02"), ("2001-03", None)],
)
def test_a_period_is_a_part_of_the_whole(weather, model, expected, period, chunks):
    ds = weather if chunks is None else weather.chunk(chunks)
    same(predict(ds, model, period=period), expected.sel(time=slice(*period)))


def test_a_period_reads_nothing_after_it(weather, model, expected):
    later = weather.copy(deep=True)
    later["precipitation"][250:] = 5000.0  # would be refused
    period = (None, str(weather.time.values[249])[:10])
    same(predict(later.chunk(time=50), model, period=period), expected[:250])


def test_selection_commutes_in_space(weather, model, expected):
    for pick in ({"lat": 1, "lon": 2}, {"lat": [1, 0], "lon": slice(1, 3)}, {"lon": [2]}):
        same(predict(weather.isel(pick), model), expected.isel(pick))
        same(predict(weather.chunk(time=90, lon=1).isel(pick), model), expected.isel(pick))


def test_maps_and_calendars_of_all_kinds(weather, model, expected):
    turned = weather.isel(lat=slice(None, None, -1)).transpose("lon", "time", "lat")
    same(predict(turned, model).transpose(*expected.dims), expected.isel(lat=slice(None, None, -1)))
    round_the_world = weather.assign_coords(lon=weather["lon"] + 355)
    np.testing.assert_array_equal(predict(round_the_world, model), expected)
    for calendar in ("noleap", "360_day"):
        days = xr.date_range("2000-01-05", periods=480, calendar=calendar, use_cftime=True)
        ds = weather.isel(time=slice(480)).assign_coords(time=days)
        found = predict(ds, model)
        assert found.notnull().mean() > 0.6
        same(predict(ds.chunk(time=70, lat=1), model), found)
        day = ds["precipitation"].copy(deep=True)
        day[300] = 24.0
        same(predict(ds.assign(precipitation=day), model)[:300], found[:300])


def test_pieces_that_carry_the_state_are_one_long_pass(model):
    generator = torch.Generator().manual_seed(0)
    architecture = model.spec.architecture
    forcing = torch.randn(3, 900, architecture.forcings, generator=generator)
    forcing[0, 5:30, 1] = torch.nan
    static = torch.randn(3, architecture.statics, generator=generator)
    network = model.network()
    with torch.no_grad():
        whole, state, found = network.members(forcing, static), None, []
        for piece in forcing.split([1, 63, 400, 2, 384, 50], dim=1):
            answer, state = network.advance(piece, static, state)
            found.append(answer)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_where_a_record_ends_rounds_no_day_otherwise():
    """Matrix kernels of this width round the last days of a piece by its length."""
    torch.manual_seed(0)
    size = EncoderSize(attention="causal", band=64, width=256, layers=1, feedforward=512, hidden=8)
    head = HeadSize(hidden=256, link="softplus")
    network = StefaLand(Architecture(forcings=3, statics=2, encoder=size, heads=(head,))).eval()
    forcing, static = torch.randn(2, 450, 3), torch.randn(2, 2)
    with torch.no_grad():
        whole = network.members(forcing, static)
        for end in (1, 2, 11, 39, 63, 65, 127, 385, 401):
            assert network.members(forcing[:, :end], static).equal(whole[:, :end])
