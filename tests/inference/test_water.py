"""Where the water is: several targets of one pass, which add up to what fell."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner

import xstefa
from xstefa.cli import main
from xstefa.errors import ModelError, OptionError
from xstefa.model.architecture import WATER, HeadSize
from xstefa.model.checkpoint import create_model
from xstefa.model.distribution import LEVELS, Distribution, Regime, Scale
from xstefa.model.network import StefaLand
from xstefa.model.registry import model_for
from xstefa.model.variants import driven_size
from xstefa.windows import SegmentPolicy


@pytest.fixture(scope="module")
def physics(make_model, tmp_path_factory) -> xstefa.Model:
    """An untrained model with two heads of physics, whose parameters vary from day to day."""
    spec = make_model(foundation=True).spec
    size = driven_size(
        HeadSize(kind="hbv", hidden=8), spec=spec, tokens=spec.tokens, target="streamflow"
    )
    encoder = replace(spec.architecture.encoder, attention="causal", band=64)
    spec = replace(
        spec,
        name="physics",
        target="streamflow",
        architecture=replace(spec.architecture, encoder=encoder, decoder=False, heads=(size, size)),
        windows=SegmentPolicy(length=200, spin_up=60),
        needs=tuple((spec.schema.forcing_names[d.column],) for d in size.drivers),
    )
    torch.manual_seed(3)
    network = StefaLand(spec.architecture)
    with torch.no_grad(), xstefa.set_options(cache_dir=tmp_path_factory.mktemp("physics")):
        for head in network.heads:
            for layer in (head.output, head.site[-1]):
                layer.weight *= 30
        return create_model(spec, network.state_dict())


@pytest.fixture(scope="module")
def weather(make_dataset) -> xr.Dataset:
    return make_dataset(days=500, lat=2, lon=3)


@pytest.fixture(scope="module")
def water(physics, weather) -> xr.Dataset:
    return weather.stefa.predict(list(WATER), model=physics)


def test_what_fell_is_what_ran_off_evaporated_and_is_stored(water, weather) -> None:
    stored = sum(water[name].astype("f8") for name in WATER[2:])
    gone = (water.streamflow + water.evapotranspiration).astype("f8")
    left = weather.precipitation - gone - stored.diff("time")
    assert left.notnull().sum("time").values.min() > 400
    assert float(abs(left).max()) < 1e-3
    assert (water.max() > 0.1).all()
    assert (water.min() >= 0).all()


def test_a_list_is_a_dataset_and_a_name_an_array(physics, water, weather) -> None:
    assert isinstance(water, xr.Dataset)
    assert list(water) == list(WATER)
    for name, units in zip(WATER, ["mm d-1", "mm d-1", "mm", "mm", "mm"], strict=True):
        alone = weather.stefa.predict(name, model=physics)
        assert isinstance(alone, xr.DataArray)
        xr.testing.assert_identical(alone, water[name])
        assert alone.attrs["units"] == units
        assert alone.dims == weather.precipitation.dims
        assert ("standard_name" in alone.attrs) == (name not in (WATER[0], WATER[4]))
    one = weather.stefa.predict(["streamflow"], model=physics)
    xr.testing.assert_identical(one, water[["streamflow"]])
    some = weather.stefa.predict(["soil_water_storage", "streamflow"], model=physics)
    assert list(some) == ["soil_water_storage", "streamflow"]
    xr.testing.assert_identical(weather.stefa.predict(physics), water.streamflow)


@pytest.mark.parametrize("chunks", [{"lat": 1}, {"time": 170, "lon": 2}])
def test_lazy_is_eager(physics, water, weather, chunks) -> None:
    lazy = weather.chunk(chunks).stefa.predict(list(WATER), model=physics)
    assert all(dask.is_dask_collection(array.data) for array in lazy.values())
    passes = {key[0] for key in dict(lazy.__dask_graph__()) if str(key[0]).startswith("stefa-")}
    assert len(passes) == 1
    xr.testing.assert_equal(lazy.compute(), water)


def test_no_day_looks_ahead(physics, water, weather) -> None:
    later = weather.copy(deep=True)
    later.precipitation[300:] += 5.0
    later.temperature_mean[300:] -= 4.0
    found = later.stefa.predict(list(WATER), model=physics)
    before = slice(0, 300)
    xr.testing.assert_equal(found.isel(time=before), water.isel(time=before))
    assert (abs(found - water).max() > 0).all()


def test_quantiles_are_of_the_target_that_was_trained_on(physics, water, weather) -> None:
    shape = tuple(float(i - 8) for i in range(len(LEVELS)))
    known = Distribution(
        scale=Scale(kind="log", offset=0.01),
        shift=0.0,
        below=-1.0,
        above=-1.0,
        measures=(),
        regimes=(Regime(name="all", within={}, sites=3, quantiles=shape),),
        sites=3,
    )
    model = physics.described(replace(physics.spec, distribution=known))
    found = weather.stefa.predict(["streamflow"], quantiles=0.5, model=model)
    np.testing.assert_allclose(found.streamflow[0], water.streamflow, rtol=1e-4, atol=1e-6)
    xr.testing.assert_equal(weather.stefa.predict(list(WATER), model=model), water)
    with pytest.raises(OptionError, match="that a model was trained on"):
        weather.stefa.predict(list(WATER), quantiles=0.5, model=model)


def test_what_no_model_predicts(physics, tiny_model, weather) -> None:
    with pytest.raises(ModelError, match=r"'tiny'.*soil_moisture.*evapotranspiration"):
        weather.stefa.predict(["soil_moisture", "evapotranspiration"], model=tiny_model)
    with pytest.raises(ModelError, match=r"physics.*groundwater_storage.*soil_moisture"):
        weather.stefa.predict(["streamflow", "soil_moisture"], model=physics)
    with pytest.raises(ModelError, match=r"evaporation.*did you mean 'evapotranspiration'"):
        weather.stefa.predict(["streamflow", "evaporation"], model=physics)
    with pytest.raises(ModelError, match=r"all of them.*streamflow \(streamflow\).*by itself"):
        model_for(["streamflow", "soil_moisture"], support="point")
    with pytest.raises(ModelError, match=r"did you mean 'streamflow'"):
        model_for(["streamfow", "soil_moisture"], support="point")
    for wrong in ([], ["streamflow", "streamflow"]):
        with pytest.raises(OptionError, match="each once"):
            weather.stefa.predict(wrong, model=physics)


def test_the_bundled_model_with_the_fewest_other_outputs(physics, monkeypatch) -> None:
    bundled = {name: xstefa.load_model(name).path for name in xstefa.list_models()}
    del bundled["water-balance"]  # it would be a second one
    point = replace(physics.spec, support="point", name="balance")
    balance = create_model(point, physics.network().state_dict())
    monkeypatch.setattr("xstefa.model.registry._bundled", lambda: bundled | {"b": balance.path})
    assert model_for("streamflow", support="point") == xstefa.load_model("streamflow")
    assert model_for(["streamflow"], support="point") == xstefa.load_model("streamflow")
    assert model_for(["evapotranspiration"], support="point") == balance
    assert model_for(list(WATER), support="point") == balance


def test_evaporation_is_scored_though_never_trained_on(physics, water, weather) -> None:
    measured = (("time", "lat", "lon"), water.evapotranspiration.values * 2 - 0.1, {
        "units": "kg m-2 s-1", "standard_name": "water_evapotranspiration_flux"})  # fmt: skip
    measured = (measured[0], measured[1] / 86400, measured[2])
    found = weather.assign(le=measured).stefa.evaluate("evapotranspiration", model=physics)
    assert found.attrs["target"] == "evapotranspiration"
    np.testing.assert_allclose(found.correlation, 1, atol=1e-5)
    assert list(found.days.values.ravel()) == [int(water.streamflow[:, 0, 0].count())] * 6
    assert physics.summary()["target"].split(", ") == list(WATER)


def test_drivers_are_those_of_the_scaler(physics) -> None:
    rain = replace(physics.spec.scaler.forcings["precipitation"], mean=2.0)
    forcings = {**physics.spec.scaler.forcings, "precipitation": rain}
    with pytest.raises(ModelError, match=r"architecture\.heads"):
        replace(physics.spec, scaler=replace(physics.spec.scaler, forcings=forcings))


def test_nodes_of_a_tree(physics, water, weather) -> None:
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), "/a": weather})
    found = tree.stefa.predict(list(WATER), model=physics)
    xr.testing.assert_identical(found["a"].to_dataset(), water)


def test_several_targets_of_the_command(physics, water, weather, tmp_path) -> None:
    weather.to_netcdf(tmp_path / "in.nc")
    words = ["predict", tmp_path / "in.nc", tmp_path / "out.nc", "--model", physics.path]
    words += ["--target", "streamflow", "--target", "soil_water_storage"]
    done = CliRunner().invoke(main, [*map(str, words), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    with xr.open_dataset(tmp_path / "out.nc") as found:
        for name in ("streamflow", "soil_water_storage"):
            np.testing.assert_array_equal(found[name], water[name])
