"""The same numbers however the data is cut, ordered or batched, bit by bit."""

from __future__ import annotations

import warnings
from itertools import pairwise

import cftime
import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xstefa.errors import CalendarError, MissingTokenError, OptionError
from xstefa.inference import graph
from xstefa.inference.run import SpinUpWarning
from xstefa.windows import SegmentPolicy, WindowPolicy

SLOWLY = settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def predict(ds, model, **kwargs):
    with dask.config.set(scheduler="synchronous"):
        return ds.stefa.predict(model, device="cpu", **kwargs).compute()


def same(left, right):
    xr.testing.assert_identical(left, right)
    np.testing.assert_array_equal(left.values.view(np.int32), right.values.view(np.int32))


@st.composite
def cuts(draw, size):
    """Ragged chunks of a dimension of `size`."""
    inner = draw(st.lists(st.integers(1, size - 1), max_size=5, unique=True)) if size > 1 else []
    edges = [0, *sorted(inner), size]
    return tuple(b - a for a, b in pairwise(edges))


@pytest.fixture(scope="module", params=["encoder", "lstm"])
def model(request, make_model):
    return make_model(encoder=request.param == "encoder")


@pytest.fixture(scope="module")
def gappy(make_dataset):
    """A map with a coast, missing values, and missing days."""
    ds = make_dataset()
    ds["precipitation"][:, 0, :2] = np.nan
    ds["temperature_mean"][:, 1, 1] = np.nan
    ds["shortwave_down"][40:90, 2, 3] = np.nan
    ds["precipitation"][:90, 2, 0] = np.nan  # begins late
    ds["temperature_mean"][30:150, 2, 1] = np.nan
    ds["sand"][1, 2] = np.nan
    return ds.isel(time=np.r_[0:60, 75:180, 181:200])


@pytest.fixture(scope="module")
def expected(gappy, model):
    return predict(gappy, model, coverage=True)


@SLOWLY
@given(data=st.data())
def test_chunks_do_not_matter(gappy, model, expected, data):
    chunks = {dim: data.draw(cuts(size), label=dim) for dim, size in gappy.sizes.items()}
    same(predict(gappy.chunk(chunks), model, coverage=True), expected)


@SLOWLY
@given(data=st.data())
def test_blocks_do_not_matter(gappy, model, expected, monkeypatch, data):
    # Whatever the planner takes for the memory of a block: from one window of one cell up.
    size = data.draw(st.sampled_from([1, 20_000, 50_000, 200_000, 10**9]), label="bytes")
    split = data.draw(st.sampled_from([1, 3]), label="lat")
    with monkeypatch.context() as patch:
        patch.setattr(graph, "BLOCK_BYTES", size)
        lazily = gappy.chunk(lat=split, time=50).stefa.predict(model, device="cpu", coverage=True)
    same(lazily.compute(scheduler="threads"), expected)


@SLOWLY
@given(size=st.integers(1, 100))
def test_batches_do_not_matter(gappy, model, expected, size):
    same(predict(gappy, model, coverage=True, batch_size=size), expected)


@SLOWLY
@given(order=st.permutations(["precipitation", "temperature_mean", "sand", "catchment_area"]))
def test_order_of_variables_does_not_matter(gappy, model, order):
    wanted = gappy[sorted(order)]
    same(predict(gappy[list(order)], model), predict(wanted, model))


@SLOWLY
@given(dims=st.permutations(["time", "lat", "lon"]), chunked=st.booleans())
def test_order_of_dimensions_only_shows_in_the_result(gappy, model, expected, dims, chunked):
    turned = gappy.transpose(*dims)
    found = predict(turned.chunk(lat=1) if chunked else turned, model, coverage=True)
    assert found.dims == tuple(dims)
    same(found.transpose(*expected.dims), expected)


@SLOWLY
@given(data=st.data())
def test_selection_commutes_in_space(gappy, model, expected, data):
    lat = data.draw(st.lists(st.integers(0, 2), min_size=1, unique=True), label="lat")
    lon = data.draw(st.slices(4).filter(lambda s: len(range(4)[s])), label="lon")
    part, right = gappy.isel(lat=lat, lon=lon), expected.isel(lat=lat, lon=lon)
    if right.isnull().all():
        with pytest.raises(MissingTokenError, match=r"no (value is|day .* are) known"):
            predict(part, model)
        part = part.chunk()
    same(predict(part, model, coverage=True), right)


def test_one_site_without_its_dimensions(gappy, model, expected):
    same(predict(gappy.isel(lat=2, lon=1), model, coverage=True), expected.isel(lat=2, lon=1))
    chunked = gappy.chunk(time=30, lat=1).isel(lat=2, lon=1)
    same(predict(chunked, model, coverage=True), expected.isel(lat=2, lon=1))


@SLOWLY
@given(start=st.integers(0, 100))
def test_selection_commutes_in_time_away_from_the_ends(dataset, model, start):
    whole = predict(dataset, model)
    policy = model.spec.windows
    part = predict(dataset.isel(time=slice(start, start + 90)), model)
    # A window shifted inside the record at either end reads other days than in the longer record.
    inner = slice(policy.length, 90 - policy.length)
    same(part.isel(time=inner), whole.isel(time=slice(start, start + 90)).isel(time=inner))


def test_record_shorter_than_a_window(make_dataset, model):
    short = make_dataset(days=15)
    found = predict(short, model, coverage=True)
    assert found[:5].isnull().all()  # half of the spin-up
    assert found[5:].notnull().all()
    # Three forcings of 13, and evapotranspiration from temperature, on 15 of 40 days.
    np.testing.assert_allclose(found.coverage[5:], 4 / 13 * 15 / 40, rtol=1e-6)
    same(predict(short.chunk(time=4, lon=1), model, coverage=True), found)


def test_single_day(make_dataset, model):
    with pytest.raises(CalendarError, match=r"too short .* Found 1 days, 2000-01-05") as caught:
        predict(make_dataset(days=1), model)
    assert "period=('2000-01-05', '2000-01-05')" in caught.value.fix


def test_days_without_spin_up_are_named(dataset, model):
    text = r"5 of 200 days \(2000-01-05 to 2000-01-09\).*period=\('2000-01-05', '2000-07-22'\)"
    with pytest.warns(SpinUpWarning, match=text):
        found = predict(dataset, model)
    assert found.notnull().all(["lat", "lon"]).values.tolist() == [False] * 5 + [True] * 195


@pytest.mark.parametrize("chunks", [None, {"time": 60, "lat": 2}])
@pytest.mark.parametrize(
    "period",
    [("2000-05", "2000-06"), ("2000-06-11", "2000-06-11"), (None, "2000-02"), (None, None)],
)
def test_a_period_is_a_part_of_the_whole(gappy, model, period, chunks):
    ds = gappy if chunks is None else gappy.chunk(chunks)
    found = ds.stefa.predict(model, device="cpu", coverage=True, period=period)
    assert (found.chunks is None) == (chunks is None)
    same(found.compute(), predict(gappy, model, coverage=True).sel(time=slice(*period)))


def test_a_text_is_a_period_as_in_sel(dataset, model):
    found = predict(dataset, model, period="2000-05")
    assert found.sizes["time"] == 31
    same(found, predict(dataset, model, period=("2000-05-01", "2000-05-31")))


def test_a_period_reads_its_spin_up_and_no_more(make_dataset, model):
    ds = make_dataset(days=400)
    expected = predict(ds, model).sel(time=slice("2000-10-01", "2000-10-31"))
    ds["precipitation"][:200] = 5000.0  # would be refused
    ds["precipitation"][350:] = 5000.0
    same(predict(ds.chunk(time=50), model, period=("2000-10-01", "2000-10-31")), expected)


@pytest.mark.parametrize(
    "period", ["May", "1990", ("May", "June"), ("1990", "1991"), (5, 9), 3, ("2000-06", "2000-05")]
)
def test_no_such_period(dataset, model, period):
    with pytest.raises(OptionError, match=r"'period'.*Found.*Expected"):
        predict(dataset, model, period=period)


def test_a_day_without_weather_leaves_no_mark(make_dataset, model):
    ds = make_dataset(days=400)
    expected = ds.copy(deep=True)
    around = ds[["precipitation", "temperature_mean", "shortwave_down"]].isel(time=[99, 101])
    for name, values in around.items():
        expected[name][100] = values[0] + np.float32(0.5) * (values[1] - values[0])
    hidden = ds.where(ds.time != ds.time[100])
    for name in ("sand", "catchment_area"):
        hidden[name] = ds[name]
    left_out = ds.isel(time=np.delete(np.arange(400), 100))
    found = predict(hidden, model)
    # Evapotranspiration is bridged itself, not derived from temperature that was.
    xr.testing.assert_allclose(found, predict(expected, model), atol=1e-4)
    same(predict(left_out, model), found.isel(time=np.delete(np.arange(400), 100)))
    same(predict(left_out.chunk(time=30), model), predict(left_out, model))


@pytest.mark.parametrize("chunked", [True, False])
def test_no_sites(dataset, model, chunked):
    none = dataset.isel(lat=slice(0))
    assert predict(none.chunk() if chunked else none, model).shape == (200, 0, 4)


def test_model_that_knows_no_required_token(dataset, make_model):
    partial = make_model(tokens=("shortwave_down", "sand"))
    found = predict(dataset, partial, coverage=True)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.coverage, 1.0)


def test_gap_longer_than_a_window_is_not_answered_for(make_dataset, model):
    ds = make_dataset(days=400)
    gap = ds["precipitation"].copy()
    gap[100:300] = np.nan
    found = predict(ds.assign(precipitation=gap), model)
    # Half of the spin-up of 10 days is known until the fifth day without rain, and again from the
    # sixth with it.
    assert np.isnan(found.isel(time=slice(105, 305))).all()
    assert np.isfinite(found.isel(time=slice(0, 105))).all()
    assert np.isfinite(found.isel(time=slice(305, 400))).all()


def test_cftime_calendar_without_leap_days(dataset, model):
    days = xr.date_range("2000-01-05", periods=200, calendar="noleap", use_cftime=True)
    ds = dataset.assign_coords(time=days)
    found = predict(ds, model)
    assert isinstance(found.time.values[0], cftime.DatetimeNoLeap)
    assert np.isfinite(found[5:]).all()
    same(predict(ds.chunk(time=7, lat=2), model), found)


def test_sea_is_not_answered_for_and_changes_no_neighbour(dataset, model):
    whole = predict(dataset, model)
    land = xr.DataArray(np.random.default_rng(0).random((3, 4)) > 0.5, dims=("lat", "lon"))
    masked = predict(dataset.where(land), model)
    same(masked, whole.where(land).assign_attrs(whole.attrs))


def jumps(model, ds):
    """Mean day-to-day change where windows meet, relative to elsewhere."""
    jump = np.abs(predict(ds, model).diff("time"))
    day = jump.time.values.astype("datetime64[D]").astype(int)
    windows = model.spec.windows
    border = (day + windows.blend // 2) % windows.stride < max(windows.blend, 1)
    return float(jump.values[border].mean() / jump.values[~border].mean())


@pytest.mark.parametrize("encoder", [True, False])
def test_no_seam_where_windows_meet(make_model, make_dataset, encoder):
    windows = WindowPolicy(length=120, spin_up=30, blend=30)
    ds = make_dataset(days=3000, lat=2, lon=2)
    assert 0.9 < jumps(make_model(encoder=encoder, windows=windows), ds) < 1.1


def test_the_statistic_sees_a_seam(make_model, make_dataset):
    # Without days to warm up and to fade, an LSTM starts each window from nothing.
    windows = WindowPolicy(length=120, spin_up=0, blend=0)
    ds = make_dataset(days=3000, lat=2, lon=2)
    assert jumps(make_model(encoder=False, windows=windows), ds) > 1.3


@pytest.mark.parametrize("causal", [False, True])
def test_quantiles(make_model, dataset, distribution, causal):
    windows = SegmentPolicy(length=40, spin_up=10) if causal else None
    model = make_model(members=3, distribution=distribution, causal=causal, windows=windows)
    spread = predict(dataset, model, quantiles=[0.002, 0.05, 0.5, 0.95, 0.998])
    assert spread.dims == ("quantile", "time", "lat", "lon")
    known = predict(dataset, model).notnull()
    assert known[5:].all()
    assert ((spread.diff("quantile") > 0) == known).all()
    assert ((spread > 0) & (spread < 1)).where(known, True).all()
    pieces = dataset.chunk(time=60, lat=1)
    same(predict(pieces, model, quantiles=[0.002, 0.05, 0.5, 0.95, 0.998]), spread)
    bounds = predict(dataset, model, interval=0.9)
    xr.testing.assert_equal(bounds.lower, spread.sel(quantile=0.05, drop=True).rename("lower"))
    xr.testing.assert_equal(bounds.upper, spread.sel(quantile=0.95, drop=True).rename("upper"))


def test_the_mean_is_that_of_the_heads_with_quantiles_or_without(make_model, dataset, distribution):
    with_, without = make_model(members=2, distribution=distribution), make_model(members=2)
    np.testing.assert_array_equal(predict(dataset, with_), predict(dataset, without))


def test_least_coverage(gappy, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SpinUpWarning)
        every = predict(gappy, model, coverage=True)
        some = predict(gappy, model, min_coverage=0.2)
    kept = every.where(every.coverage >= np.float32(0.2)).drop_vars("coverage")
    xr.testing.assert_equal(some, kept)
    assert some.isnull().sum() > every.isnull().sum()
