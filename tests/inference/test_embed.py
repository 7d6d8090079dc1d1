"""Embeddings and reconstructions: labels, laziness, what is hidden, physical units."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr

import xstefa
from xstefa.errors import ModelError, OptionError
from xstefa.model.checkpoint import create_model


@pytest.fixture(scope="session")
def foundation(make_model):
    """An untrained foundation model."""
    return make_model(foundation=True, name="tiny foundation")


@pytest.fixture(scope="session")
def gappy(dataset):
    """The map with a gap in its weather, a cell without sand, and a cell of sea."""
    ds = dataset.copy(deep=True)
    ds["shortwave_down"][40:60, 0, 1] = np.nan
    ds["sand"][1, 1] = np.nan
    ds["precipitation"][:, 2, 3] = np.nan
    return ds


def test_sites(gappy, foundation) -> None:
    found = gappy.stefa.embed(model=foundation)
    assert found.dims == ("lat", "lon", "feature")
    assert found.shape == (3, 4, foundation.spec.architecture.encoder.width)
    xr.testing.assert_identical(found.lat, gappy.lat)
    assert "time" not in found.coords
    assert found.attrs["model_hash"] == foundation.content_hash
    known = np.isfinite(found).all("feature")
    assert not known[2, 3]
    assert int(known.sum()) == 11


def test_days(gappy, foundation) -> None:
    found = gappy.stefa.embed(level="day", model=foundation)
    assert found.dims == ("time", "lat", "lon", "feature")
    xr.testing.assert_identical(found.time, gappy.time)
    one = gappy.isel(lat=[1], lon=[2]).stefa.embed(level="day", model=foundation)
    np.testing.assert_array_equal(one, found.isel(lat=[1], lon=[2]))


def test_days_are_those_of_the_encoder(dataset, foundation) -> None:
    record = dataset.isel(time=slice(40), lat=[0], lon=[0])  # one window, as it lies
    found = record.stefa.embed(level="day", model=foundation).squeeze(["lat", "lon"])
    binding = xstefa.binding.bind(record, foundation.schema)
    scaler = foundation.spec.scaler
    x = np.full((1, 40, len(foundation.schema.forcings)), np.nan, np.float32)
    c = np.full((1, len(foundation.schema.statics)), np.nan, np.float32)
    for i, (name, moments) in enumerate(scaler.forcings.items()):
        if name in binding.forcing:
            x[0, :, i] = moments.standardise(binding.forcing[name].values[:, 0, 0])
    for i, (name, moments) in enumerate(scaler.statics.items()):
        if name in binding.static:
            c[0, i] = moments.standardise(binding.static[name].values[0, 0])
    days, site = foundation.encode(x, c)
    np.testing.assert_allclose(found[5:], days[0][5:], atol=2e-5)
    embedded = record.stefa.embed(model=foundation).squeeze(["lat", "lon"])
    np.testing.assert_allclose(embedded, site[0], atol=2e-5)


@pytest.mark.parametrize("level", ["site", "day"])
def test_chunks_do_not_matter(gappy, foundation, level) -> None:
    chunked = gappy.chunk({"time": 70, "lat": 2, "lon": 3})
    with dask.config.set(scheduler="sync"):
        lazy = chunked.stefa.embed(level=level, model=foundation)
        assert lazy.chunks is not None
        xr.testing.assert_identical(
            lazy.compute(), gappy.stefa.embed(level=level, model=foundation)
        )


def test_absent_tokens(gappy, foundation) -> None:
    found = gappy.stefa.reconstruct(model=foundation)
    present = set(gappy.stefa.tokens().matched)
    assert present.isdisjoint(found)
    assert set(found) == {v.name for v in foundation.schema.tokens} - present
    assert found["wind_speed"].dims == ("time", "lat", "lon")
    assert found["clay"].dims == ("lat", "lon")
    assert found["wind_speed"].attrs["units"] == "m s-1"
    assert found.attrs["model_name"] == "tiny foundation"


def test_gaps_are_filled_and_the_rest_stands(gappy, foundation) -> None:
    names = ["shortwave_down", "sand"]
    found = gappy.stefa.reconstruct(names, model=foundation)
    assert list(found) == names
    for name in names:
        known = gappy[name].notnull()
        xr.testing.assert_equal(found[name].where(known), gappy[name])
        assert np.isfinite(found[name].where(~known, 0)).all()
        assert found[name].dims == gappy[name].dims


@pytest.mark.parametrize("name", ["shortwave_down", "sand"])
def test_skill_never_looks(gappy, foundation, name) -> None:
    blind = gappy.stefa.reconstruct([name], only_missing=False, model=foundation)[name]
    other = gappy.assign({name: gappy[name] * 0.5 + 10})
    again = other.stefa.reconstruct([name], only_missing=False, model=foundation)[name]
    xr.testing.assert_identical(blind, again)
    assert float(abs(blind - gappy[name]).max()) > 0


def test_the_group_is_hidden_too(gappy, foundation) -> None:
    with_clay = gappy.assign(clay=(gappy.sand.dims, 90 - gappy.sand.values, {"units": "%"}))
    blind = gappy.stefa.reconstruct(["sand"], only_missing=False, model=foundation)
    again = with_clay.stefa.reconstruct(["sand"], only_missing=False, model=foundation)
    xr.testing.assert_identical(blind.sand, again.sand)
    assert not gappy.stefa.reconstruct(["silt"], model=foundation).silt.equals(
        with_clay.stefa.reconstruct(["silt"], model=foundation).silt
    )


def test_reconstruction_is_lazy_and_the_same(gappy, foundation) -> None:
    chunked = gappy.chunk({"time": 90, "lat": 2})
    for arguments in ({}, {"variables": ["sand", "shortwave_down"]}):
        lazy = chunked.stefa.reconstruct(model=foundation, **arguments)
        assert all(array.chunks is not None for array in lazy.values())
        with dask.config.set(scheduler="sync"):
            xr.testing.assert_identical(
                lazy.compute(), gappy.stefa.reconstruct(model=foundation, **arguments)
            )


def test_physical_units(gappy, foundation) -> None:
    found = gappy.stefa.reconstruct(["catchment_area"], only_missing=False, model=foundation)
    assert foundation.spec.scaler.statics["catchment_area"].transform == "log"
    values = found.catchment_area.values
    assert (values[np.isfinite(values)] > 0).all()


def test_refusals(gappy, foundation, tiny_model, make_model, tmp_path) -> None:
    with pytest.raises(OptionError, match="level"):
        gappy.stefa.embed(level="month", model=foundation)
    with pytest.raises(OptionError, match="PRCP"):
        gappy.stefa.reconstruct(["PRCP"], model=foundation)
    with pytest.raises(ModelError, match="without the pretraining decoder"):
        gappy.stefa.reconstruct(model=tiny_model)
    with pytest.raises(ModelError, match="without an encoder"):
        gappy.stefa.embed(model=make_model(encoder=False))
    unscaled = replace(foundation.spec, provenance={"scaler": "identity: none was given"})
    with xstefa.set_options(cache_dir=tmp_path):
        model = create_model(unscaled, foundation.network().state_dict())
    with pytest.raises(ModelError, match="scaler="):
        gappy.stefa.embed(model=model)


def test_the_bundled_foundation_model_is_the_default() -> None:
    ds = xstefa.open_sample("camels_us").isel(basin=slice(0, 2), time=slice(0, 400))
    assert ds.stefa.embed().sizes == {"basin": 2, "feature": 128}
    found = ds.stefa.reconstruct(["snow_fraction"], only_missing=False)
    assert float(abs(found.snow_fraction - ds.frac_snow).max()) < 0.3
