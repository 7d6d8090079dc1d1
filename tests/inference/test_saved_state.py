"""States on disk, and commands that go on from them."""

from __future__ import annotations

from pkgutil import resolve_name

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import xstefa
from tests.inference.test_forecast import forecasts
from xstefa.cli import main
from xstefa.errors import ReadError, StoreError
from xstefa.windows import SegmentPolicy


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(windows=SegmentPolicy(length=60, spin_up=20), encoder=False, name="small")


@pytest.fixture(scope="module")
def weather(make_dataset):
    return make_dataset(days=90, lat=1, lon=2)


@pytest.fixture(scope="module")
def expected(weather, model):
    return weather.stefa.predict(model, device="cpu")


@pytest.fixture
def run(model, tmp_path):
    """Run a command on a dataset: ``run("predict", ds, "out.nc", "--history", other)``."""

    def typed(word):
        if not isinstance(word, xr.Dataset):
            return str(tmp_path / word) if "." in word and ":" not in word else word
        path = tmp_path / f"in{len(list(tmp_path.iterdir()))}.nc"
        word.to_netcdf(path)
        return str(path)

    def invoke(verb, *words, fails=False):
        target = ["--target", "soil_moisture"] if verb == "predict" else []
        how = [*target, "--model", str(model.path), "--device", "cpu"]
        result = CliRunner().invoke(main, [verb, *map(typed, words), *how])
        assert result.exit_code == fails, result.output
        return " ".join(result.output.split())

    return invoke


def close(path, values):
    with xr.open_dataset(path) as found:
        np.testing.assert_allclose(found["soil_moisture"], values, rtol=1e-5, atol=1e-5)


def test_day_after_day(run, weather, expected, tmp_path):
    run("spin-up", weather.isel(time=slice(60)), "state.zarr")
    passed_on = ["--state-in", "state.zarr", "--state-out", "state.zarr"]
    for first, last in ((60, 63), (63, 64)):
        run("predict", weather.isel(time=slice(first, last)), f"{last}.nc", *passed_on)
        close(tmp_path / f"{last}.nc", expected[first:last])
    state = xstefa.open_state(tmp_path / "state.zarr")
    assert state["time"] == weather["time"][63]
    assert int(state["record_days"]) == 64
    assert not list(tmp_path.glob("state.zarr.*"))


def test_after_a_history(run, weather, expected, tmp_path):
    late = weather.isel(time=slice(60, 70))
    run("predict", late, "out.nc", "--history", weather, "--state-out", "state.nc")
    close(tmp_path / "out.nc", expected[60:70])
    run("predict", weather.isel(time=slice(70, 90)), "more.nc", "--state-in", "state.nc")
    close(tmp_path / "more.nc", expected[70:])


def test_forecasts_of_members(run, weather, expected, tmp_path):
    fine = forecasts(weather, (60, 70), members=2)
    run("predict", fine, "out.nc", "--history", weather)
    with xr.open_dataset(tmp_path / "out.nc") as found:
        assert found["soil_moisture"].dims == ("member", "init_time", "lead_time", "lat", "lon")
    run("spin-up", weather.isel(time=slice(60)), "state.zarr")
    one = fine.isel(init_time=0).assign({n: weather[n] for n in ("sand", "catchment_area")})
    run("predict", one, "one.nc", "--state-in", "state.zarr")
    with xr.open_dataset(tmp_path / "one.nc") as single:
        xr.testing.assert_allclose(
            single["soil_moisture"], found["soil_moisture"].isel(init_time=0)
        )
    said = run("predict", fine, "x.nc", "--state-in", "state.zarr", fails=True)
    assert "or --history <the days before> in place of state" in said
    words = ["--history", weather, "--state-out", "end.zarr"]
    assert "2 initial dates" in run("predict", fine, "x.nc", *words, fails=True)
    assert not (tmp_path / "x.nc").exists()


def test_a_period_of_a_record_that_the_state_knows_in_part(run, weather, expected, tmp_path):
    run("spin-up", weather, "state.zarr", "--period", "2000-01-05", "2000-03-04")
    assert xstefa.open_state(tmp_path / "state.zarr")["time"] == weather["time"][59]
    said = run("predict", weather, "out.nc", "--state-in", "state.zarr", fails=True)
    fix = said.partition("Fix: ")[2].split()
    assert fix == ["--period", "2000-03-05", "2000-04-03"]
    words = ["--state-in", "state.zarr", "--state-out", "after.zarr", *fix]
    run("predict", weather, "out.nc", *words)
    close(tmp_path / "out.nc", expected[60:])
    assert xstefa.open_state(tmp_path / "after.zarr")["time"] == weather["time"][-1]
    words = ["--state-in", "after.zarr"]
    assert "a dataset with later days" in run("predict", weather, "x.nc", *words, fails=True)


def test_errors_say_what_is_typed_here(run, weather, tmp_path):
    run("spin-up", weather.isel(time=slice(60)), "state.zarr")
    late = weather.isel(time=slice(60, 70))
    assert "--overwrite to replace it" in run("spin-up", weather, "state.zarr", fails=True)
    words = ["--state-out", "state.zarr"]
    assert "--overwrite to replace it" in run("predict", late, "x.nc", *words, fails=True)
    words = ["--state-in", "state.zarr", "--history", weather]
    said = run("predict", late, "x.nc", *words, fails=True)
    assert "Found --history and --state-in" in said
    late.to_zarr(tmp_path / "other.zarr")
    said = run("predict", late, "x.nc", "--state-in", "other.zarr", fails=True)
    assert "Fix: xstefa spin-up IN STATE.zarr --model small" in said
    said = run("predict", weather.isel(time=slice(62, 70)), "x.nc", *words[:2], fails=True)
    namespace = {"ds": weather.isel(time=slice(62, 70)), "xr": xr}
    exec(said.partition("Fix: ")[2], namespace)
    assert (namespace["ds"]["time"].values == weather["time"].values[60:70]).all()


class Killed(BaseException):
    """Nothing handles it, like SIGKILL, except that the test goes on."""


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("xstefa.inference.store._restore", 0),
        ("xstefa.inference.store._finish", 0),
        ("os.rename", 0),
        ("os.rename", 1),
        ("shutil.rmtree", 1),  # the first is Zarr's, of what may be where it writes
    ],
)
def test_whoever_dies_while_writing_leaves_a_state(
    weather, model, tmp_path, monkeypatch, call, number
):
    path = tmp_path / "state.zarr"
    early, late = (weather.isel(time=slice(n)).stefa.spin_up(model) for n in (60, 70))
    xstefa.save_state(early, path)
    calls = iter([resolve_name(call)] * number)

    def dying(*args):
        for before in calls:
            return before(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(call, dying)
        with pytest.raises(Killed):
            xstefa.save_state(late, path)
    found = xstefa.open_state(path)
    there = late if call == "shutil.rmtree" else early
    xr.testing.assert_equal(found.load(), there)
    assert found.attrs["model_hash"] == model.content_hash
    xstefa.save_state(late, path)
    xr.testing.assert_equal(xstefa.open_state(path).load(), late)
    assert [p.name for p in tmp_path.iterdir()] == ["state.zarr"]


def test_the_same_line_after_an_interruption(run, weather, expected, tmp_path):
    run("spin-up", weather.isel(time=slice(60)), "state.zarr")
    weather.isel(time=slice(60, 70)).to_netcdf(tmp_path / "days.nc")
    words = ["days.nc", "out.zarr", "--state-in", "state.zarr", "--resume"]
    run("predict", *words)
    chunk = next(p for p in (tmp_path / "out.zarr/soil_moisture/c").rglob("*") if p.is_file())
    chunk.unlink()
    run("predict", *words, "--state-out", "state.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr")["soil_moisture"]
    np.testing.assert_allclose(found, expected[60:70], rtol=1e-5, atol=1e-5)
    assert xstefa.open_state(tmp_path / "state.zarr")["time"] == weather["time"][69]


def test_nothing_is_replaced_where_that_takes_several_steps(run, weather, model):
    place = "memory://states/state.zarr"
    state = weather.isel(time=slice(60)).stefa.spin_up(model)
    xstefa.save_state(state, place)
    xr.testing.assert_equal(xstefa.open_state(place).load(), state)
    with pytest.raises(StoreError, match="a new name, or a folder"):
        xstefa.save_state(state, place)
    words = ["x.nc", "--state-in", place, "--state-out", place]
    assert "a new name, or a folder" in run("predict", weather, *words, fails=True)


def test_a_state_that_is_not_there(tmp_path):
    with pytest.raises(ReadError, match="cannot be opened"):
        xstefa.open_state(tmp_path / "state.zarr")
