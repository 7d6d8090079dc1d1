"""What a record leaves to the days after it: going on from there is one long record."""

from __future__ import annotations

import warnings
from dataclasses import replace

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xstefa.errors import CalendarError, LayoutError, ModelError
from xstefa.inference.command import open_state, save_state
from xstefa.inference.state import ForecastWarning
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model, create_model
from xstefa.model.network import StefaLand
from xstefa.model.variants import driven_size
from xstefa.windows import SegmentPolicy

DAYS = 300
RECORD = SegmentPolicy(length=60, spin_up=20)
EXAMPLES = settings(max_examples=5, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=["flow", "lstm", "mixed"])
def model(request, make_model) -> Model:
    """Encoder and `resconn`; an LSTM alone; and both with HBV and reservoirs."""
    if request.param == "lstm":
        return make_model(encoder=False, windows=RECORD, members=2)
    flow = make_model(causal=True, windows=RECORD, link="softplus", target="streamflow")
    if request.param == "flow":
        return flow
    spec, heads = flow.spec, [*flow.spec.architecture.heads, HeadSize(kind="lstm", hidden=8)]
    for kind in ("hbv", "reservoirs"):
        size = HeadSize(kind=kind, hidden=8)
        heads.append(driven_size(size, spec=spec, tokens=spec.tokens, target="streamflow"))
    architecture = replace(spec.architecture, heads=tuple(heads))
    torch.manual_seed(3)
    return create_model(
        replace(spec, architecture=architecture), StefaLand(architecture).state_dict()
    )


@pytest.fixture(scope="module")
def weather(make_dataset) -> xr.Dataset:
    """A map with a coast, missing values and a missing day; do not change it."""
    ds = make_dataset(days=DAYS, lat=2, lon=3)
    ds["precipitation"][:, 0, 0] = np.nan
    ds["temperature_mean"][:, 0, 0] = np.nan
    ds["shortwave_down"][40:90, 1, 2] = np.nan
    ds["precipitation"][:90, 1, 0] = np.nan  # begins late
    ds["temperature_mean"][130:135, 1, 1] = np.nan
    return ds.isel(time=np.r_[0:200, 201:DAYS])


@pytest.fixture(scope="module")
def expected(weather, model):
    return predict(weather, model)


def predict(ds, model, **kwargs):
    with dask.config.set(scheduler="synchronous"):
        return ds.stefa.predict(model, device="cpu", coverage=True, **kwargs).compute()


def alike(left, right):
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(left.coverage, right.coverage, rtol=1e-6)


def chunked(ds, draw, label):
    chunks = draw(st.sampled_from([None, {"time": 40}, {"lat": 1, "lon": 2}]), label=label)
    return ds if chunks is None else ds.chunk(chunks)


@EXAMPLES
@given(data=st.data())
def test_a_record_that_goes_on_is_one_record(weather, model, expected, data):
    cut = data.draw(st.integers(1, DAYS - 2).filter(lambda day: day != 200), label="day")
    before = chunked(weather.isel(time=slice(cut)), data.draw, "before")
    after = chunked(weather.isel(time=slice(cut, None)), data.draw, "after")
    alike(predict(after, model, state=before.stefa.spin_up(model)), expected[cut:])


def test_day_by_day(weather, model, expected):
    state = weather.isel(time=slice(0, 150)).stefa.spin_up(model)
    for day in range(150, 154):
        today = weather.isel(time=[day])
        alike(predict(today, model, state=state), expected[day : day + 1])
        state = today.stefa.spin_up(model, state=state)
    assert int(state["record_days"]) == 154
    assert state["time"] == weather["time"][153]


def test_a_day_of_which_nothing_is_known_is_a_gap(weather, make_model):
    needs = (("precipitation",), ("temperature_mean",))
    model = make_model(causal=True, windows=RECORD, needs=needs)
    gone = weather.copy(deep=True)
    gone["precipitation"][150] = np.nan
    state = gone.isel(time=slice(150)).stefa.spin_up(model)
    alike(predict(gone.isel(time=[150]), model, state=state), predict(gone, model)[150:151])


@pytest.mark.parametrize("chunks", [None, {"lat": 1, "lon": 1}])
def test_a_site_whose_data_begin_later(weather, model, chunks):
    late = weather.copy(deep=True)
    for name in ("precipitation", "temperature_mean", "shortwave_down"):
        late[name][:110, 1, 1] = np.nan
    late = late[["precipitation", "temperature_mean", "shortwave_down", "sand"]]
    late = late if chunks is None else late.chunk(chunks)
    before, after = late.isel(time=slice(100)), late.isel(time=slice(100, None))
    state = before.stefa.spin_up(model)
    assert state["known"].isel(lat=1, lon=1).isnull().all()
    alike(predict(after, model, state=state), predict(late, model)[100:])


def test_a_state_is_saved_and_read(weather, model, expected, tmp_path):
    before = weather.isel(time=slice(100)).chunk(lat=1)
    before.stefa.spin_up(model).to_zarr(tmp_path / "state.zarr")
    state = xr.open_zarr(tmp_path / "state.zarr")
    after = weather.isel(time=slice(100, None))
    alike(predict(after, model, state=state), expected[100:])
    alike(predict(after.chunk(lon=1), model, state=state), expected[100:])
    half = state.map(lambda v: v.astype("f2") if v.dtype == "f4" else v, keep_attrs=True)
    found = predict(after, model, state=half)
    np.testing.assert_allclose(found, expected[100:], rtol=1e-2, atol=1e-2)


def test_a_state_within_a_dataset_is_refused(weather, model):
    first, then = weather.isel(time=slice(0, 150)), weather.isel(time=slice(150, None))
    state = first.stefa.spin_up(model).drop_vars("time")
    with pytest.raises(LayoutError, match=r"beside a dataset, not in it.*state=state"):
        then.merge(state, compat="override").stefa.predict(model)


def test_sites_in_part_and_turned(weather, model, expected):
    state = weather.isel(time=slice(100)).stefa.spin_up(model)
    after = weather.isel(time=slice(100, None))
    pick = {"lat": [1, 0], "lon": slice(1, 3)}
    alike(predict(after.isel(pick), model, state=state.isel(pick)), expected[100:].isel(pick))
    turned = predict(after.transpose("lon", "time", "lat"), model, state=state)
    alike(turned.transpose(*expected.dims), expected[100:])
    rows, known = (ds.stack(site=["lat", "lon"]) for ds in (after, state))
    alike(predict(rows, model, state=known).unstack().transpose(*expected.dims), expected[100:])
    members = predict(after.expand_dims(number=2), model, state=state)
    alike(members.isel(number=1), expected[100:])
    one = {"lat": 1, "lon": 2}
    alike(predict(after.isel(one), model, state=state.isel(one)), expected[100:].isel(one))


def test_quantiles_know_the_days_before(weather, make_model, distribution):
    model = make_model(encoder=False, windows=RECORD, members=2, distribution=distribution)
    whole = weather.stefa.predict(model, quantiles=[0.1, 0.9])
    for cut in (12, 60, 100):
        state = weather.isel(time=slice(cut)).stefa.spin_up(model)
        after = weather.isel(time=slice(cut, None))
        found = after.stefa.predict(model, quantiles=[0.1, 0.9], state=state)
        np.testing.assert_allclose(found, whole[:, cut:], rtol=1e-5, atol=1e-5)
    for day in (100, 101):
        state = weather.isel(time=[day]).stefa.spin_up(model, state=state)
    after = weather.isel(time=slice(102, None))
    found = after.stefa.predict(model, quantiles=[0.1, 0.9], state=state)
    np.testing.assert_allclose(found, whole[:, 102:], rtol=1e-5, atol=1e-5)


def test_all_water_goes_on(weather, make_model):
    flow = make_model(causal=True, windows=RECORD, link="softplus", target="streamflow")
    head = driven_size(
        HeadSize(kind="hbv", hidden=8), spec=flow.spec, tokens=flow.spec.tokens, target="streamflow"
    )
    architecture = replace(flow.spec.architecture, heads=(head,))
    model = create_model(
        replace(flow.spec, architecture=architecture), StefaLand(architecture).state_dict()
    )
    names = ["streamflow", "snow_water_equivalent", "evapotranspiration"]
    whole = weather.stefa.predict(names, model=model)
    state = weather.isel(time=slice(100)).stefa.spin_up(model)
    found = weather.isel(time=slice(100, None)).stefa.predict(names, model=model, state=state)
    xr.testing.assert_allclose(found, whole.isel(time=slice(100, None)), rtol=1e-5, atol=1e-4)


def test_what_was_known_before_and_is_not_now_is_named(weather, model, tmp_path):
    state = weather.isel(time=slice(100)).stefa.spin_up(model)
    save_state(state, tmp_path / "state.nc")
    after = weather.isel(time=slice(100, 103))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after.stefa.predict(model, state=state)
    with pytest.warns(ForecastWarning, match="shortwave_down, sand"):
        after.drop_vars(["sand", "shortwave_down"]).stefa.predict(
            model, state=open_state(tmp_path / "state.nc")
        )


def test_a_short_record_leaves_a_state_too(weather, model):
    state = weather.isel(time=slice(3)).stefa.spin_up(model)
    with pytest.raises(CalendarError, match="too short"):
        weather.isel(time=slice(3, 5)).stefa.predict(model, state=state)


def test_a_state_of_another_model_place_or_day_is_refused(weather, model, make_model):
    state = weather.isel(time=slice(100)).stefa.spin_up(model)
    after = weather.isel(time=slice(100, None))
    other = make_model(encoder=False, windows=RECORD, seed=5)
    with pytest.raises(ModelError, match="belongs to the model that made it"):
        after.stefa.predict(other, state=state)
    with pytest.raises(ModelError, match="without a state"):
        after.stefa.predict(model, state=after)
    with pytest.raises(LayoutError, match="same sites in the same order") as caught:
        after.isel(lon=[1, 0, 2]).stefa.predict(model, state=state)
    names = {"state": state, "ds": after.isel(lon=[1, 0, 2])}
    exec(caught.value.fix, names)
    names["ds"].stefa.predict(model, state=names["state"])
    with pytest.raises(LayoutError, match="3 along 'lon', and 2"):
        after.isel(lon=[0, 1]).stefa.predict(model, state=state)
    with pytest.raises(LayoutError, match="one value of 'lon'"):
        after.stefa.predict(model, state=state.isel(lon=0))
    with pytest.raises(CalendarError, match="on the day after it") as caught:
        weather.stefa.predict(model, state=state)
    period = eval(f"dict({caught.value.fix})")
    alike(predict(weather, model, state=state, **period), predict(after, model, state=state))
    assert weather.stefa.spin_up(model, state=state, **period)["time"] == weather["time"][-1]
    with pytest.raises(CalendarError, match="on the day after it"):
        after.isel(time=slice(5, None)).stefa.predict(model, state=state)
    with pytest.raises(CalendarError, match="no scalar coordinate 'time'"):
        after.stefa.predict(model, state=state.drop_vars("time"))


def test_a_state_is_used_as_a_whole(weather, model):
    state = weather.isel(time=slice(100)).stefa.spin_up(model)
    after = weather.isel(time=slice(100, None))
    name = next(n for n in state.data_vars if n.startswith("head"))
    axis = next(d for d in state[name].dims if d.startswith("state_"))
    short = state.assign({name: state[name].isel({axis: slice(1)}).rename({axis: "state_less"})})
    many = state.assign(record_days=state.record_days.expand_dims(lat=state.lat))
    wrong = {"nothing of that name": state.drop_vars(name), "'state_less': 1": short, "'lat'": many}
    for found, changed in wrong.items():
        with pytest.raises(LayoutError, match=f"a state is used as a whole.*{found}"):
            after.stefa.predict(model, state=changed)


def test_models_that_read_windows_have_none(weather, tiny_model, make_model):
    segments = make_model(
        causal=True, windows=SegmentPolicy(length=60, spin_up=20, span=110), name="cut"
    )
    for model in (tiny_model, segments):
        with pytest.raises(ModelError, match="those that look back only"):
            weather.stefa.spin_up(model)
