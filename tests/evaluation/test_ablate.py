"""What tokens are worth: what is hidden, what is lost, what was measured at a release."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import xstefa
from xstefa.cli import main
from xstefa.errors import ModelError, TrainingError
from xstefa.evaluation import ablate as module
from xstefa.evaluation.ablate import Ablation, groups_of
from xstefa.evaluation.metrics import METRICS
from xstefa.windows import SegmentPolicy

pytestmark = pytest.mark.filterwarnings("ignore::xstefa.inference.run.SpinUpWarning")

TOKENS = ("precipitation", "temperature_mean", "shortwave_down", "sand", "clay", "catchment_area")


@pytest.fixture(scope="module")
def model(make_model):
    windows = SegmentPolicy(length=60, spin_up=10, known=0.5)
    return make_model(causal=True, windows=windows, name="ablated", tokens=TOKENS)


@pytest.fixture(scope="module")
def observed(make_dataset, model) -> xr.Dataset:
    """A map whose soil moisture is what the model says, and some noise."""
    ds = make_dataset(days=150, lat=2, lon=2)
    said = ds.stefa.predict(model)
    noise = np.random.default_rng(0).normal(0, 0.2 * float(said.std()), said.shape)
    ds["soil_moisture"] = (said + noise).assign_attrs(units="m3 m-3")
    return ds


def test_what_is_lost_is_what_dropping_it_costs(model, observed) -> None:
    found = observed.stefa.ablate("soil_moisture", model=model)
    score = METRICS["correlation"]
    whole = score(observed.stefa.predict(model), observed.soil_moisture, dim="time")
    np.testing.assert_allclose(found.skill, whole, rtol=1e-6)
    for token, variables in (
        ("shortwave_down", ["shortwave_down"]),
        ("soil_texture", ["sand"]),
        ("attributes", ["sand", "catchment_area"]),
    ):
        without = observed.drop_vars(variables).stefa.predict(model)
        lost = whole - score(without, observed.soil_moisture, dim="time")
        np.testing.assert_allclose(found.lost.sel(token=token), lost, atol=1e-6)
        assert abs(lost).max() > 1e-4


def test_what_cannot_be_hidden_is_said(model, observed) -> None:
    found = observed.stefa.ablate(model)
    assert found.needed.sel(token="precipitation")
    assert found.lost.sel(token="precipitation").isnull().all()
    assert not found.needed.sel(token="attributes")
    assert found.known.sel(token="soil_texture") == 0.5  # sand, without clay
    assert "expected" not in found  # nothing was measured of this model


def test_it_is_lazy(model, observed) -> None:
    lazy = observed.chunk(lat=1).stefa.ablate(model)
    assert lazy.lost.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), observed.stefa.ablate(model))


def test_temperatures_are_hidden_together() -> None:
    groups = groups_of(xstefa.load_model("streamflow").spec)
    assert groups["temperature"] == ("temperature_max", "temperature_min", "temperature_mean")
    assert "sand" in groups["soil_texture"]
    assert {*groups["soil_texture"]} < {*groups["attributes"]}


@pytest.fixture
def measured(model, monkeypatch) -> None:
    table = Ablation(
        model_hash=model.content_hash,
        score="correlation",
        data="twelve towers",
        skill=0.8,
        sites=12,
        lost={"shortwave_down": (0.01, 0.0, 0.02), "soil_texture": (0.05, 0.03, 0.09)},
    )
    monkeypatch.setattr(module, "_released", lambda: {model.name: table})


@pytest.mark.usefixtures("measured")
def test_what_to_bring_is_what_held_out_sites_lose(model, observed) -> None:
    bare = observed.drop_vars(["soil_moisture", "shortwave_down"])
    found = bare.stefa.ablate("soil_moisture", model=model)
    assert "lost" not in found
    assert found.known.sel(token="shortwave_down") == 0
    assert found.expected.sel(token="shortwave_down") == 0.01
    assert found.expected_high.sel(token="soil_texture") == 0.09
    assert np.isnan(found.expected.sel(token="catchment_area"))
    assert "twelve towers" in found.expected.attrs["comment"]


@pytest.mark.usefixtures("measured")
def test_the_token_table_says_it_on_request(model, observed, monkeypatch) -> None:
    monkeypatch.setattr("xstefa.accessor.load_model", lambda name: model)
    bare = observed.drop_vars("shortwave_down")
    table = bare.stefa.tokens(gain=model.name)
    assert table["shortwave_down"].gain == "+0.010 correlation (0.000 to 0.020)"
    assert table["clay"].gain == "+0.050 correlation (0.030 to 0.090) with all of soil_texture"
    assert "clay (+0.050 correlation" in repr(table)
    assert table["sand"].gain == ""  # it is there
    assert "correlation" not in repr(bare.stefa.tokens())


def test_errors_teach(model, observed, monkeypatch) -> None:
    with pytest.raises(TrainingError, match="where the target was observed"):
        observed.drop_vars("soil_moisture").stefa.ablate(model)
    monkeypatch.setattr("xstefa.accessor.load_model", lambda name: model)
    with pytest.raises(ModelError, match=r"ds\.stefa\.ablate\(model\)"):
        observed.stefa.tokens(gain="ablated")


def test_what_was_measured_is_of_the_models_that_are_released() -> None:
    assert module._released()
    for name, table in module._released().items():
        model = xstefa.load_model(name)
        assert table.model_hash == model.content_hash
        assert {*table.lost} <= {*groups_of(model.spec)}
        assert all(low <= median <= high for median, low, high in table.lost.values())


def test_it_is_a_command(model, observed, tmp_path) -> None:
    source, out = tmp_path / "in.nc", tmp_path / "out.nc"
    observed.to_netcdf(source)
    asked = ["ablate", str(source), str(out), "--target", "soil_moisture"]
    done = CliRunner().invoke(main, [*asked, "--model", str(model.path)])
    assert done.exit_code == 0, done.output
    assert "shortwave_down" in done.output
    with xr.open_dataset(out) as found:
        assert found.lost.sizes["token"] == found.sizes["token"]
