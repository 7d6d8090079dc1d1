"""Scores of quantiles: against the library `scores`, and where they are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scores
import xarray as xr

from xstefa.errors import LayoutError, ModelError, OptionError
from xstefa.evaluation.probabilistic import LEVELS, PROBABILISTIC, coverage, crps, pit, sharpness
from xstefa.splits.leakage import LeakageWarning


@pytest.fixture(scope="module")
def case() -> tuple[xr.DataArray, xr.DataArray]:
    """Quantiles of a uniform distribution from 0 to 10 at three sites; some days are missing."""
    random = np.random.default_rng(0)
    obs = xr.DataArray(random.uniform(0, 10, (3, 4000)), dims=("site", "time"))
    obs = obs.where(random.random(obs.shape) > 0.1).assign_attrs(units="mm d-1")
    levels = xr.DataArray(list(LEVELS), dims="quantile", coords={"quantile": list(LEVELS)})
    return (10 * levels + xr.zeros_like(obs)).assign_attrs(units="mm d-1"), obs


def test_what_is_known_of_a_uniform_distribution(case) -> None:
    np.testing.assert_allclose(coverage(*case), 0.9, atol=0.02)
    np.testing.assert_allclose(sharpness(*case), 9, rtol=1e-6)
    np.testing.assert_allclose(crps(*case), 10 / 6, rtol=0.03)
    found = pit(*case)
    assert found.dims == ("quantile", "site")
    np.testing.assert_allclose(found, found["quantile"] + xr.zeros_like(found), atol=0.02)
    assert crps(*case).attrs["units"] == "mm d-1"
    assert coverage(*case).attrs["units"] == "1"


def test_as_the_library_has_it(case) -> None:
    pred, obs = case
    pinball = [
        scores.continuous.quantile_score(
            pred.sel(quantile=level), obs, alpha=level, preserve_dims=["site"]
        )
        for level in LEVELS
    ]
    np.testing.assert_allclose(crps(pred, obs), 2 * sum(pinball) / len(LEVELS), rtol=1e-9)


def test_levels_have_to_be_the_middles_of_equal_parts(case) -> None:
    pred, obs = case
    with pytest.raises(OptionError, match="middles of equal parts"):
        crps(pred.isel(quantile=[0, 4, 9]), obs)


@pytest.mark.parametrize("name", PROBABILISTIC)
def test_a_mean_has_no_quantiles(case, name) -> None:
    with pytest.raises(LayoutError, match="scores are of quantiles"):
        PROBABILISTIC[name](case[1], case[1])


def test_without_spread_it_is_the_absolute_error(case) -> None:
    pred, obs = case
    found = crps(xr.full_like(pred, 4.0), obs)
    np.testing.assert_allclose(found, abs(obs - 4).mean("time"))


def test_units_and_laziness(case) -> None:
    pred, obs = case
    metres = (pred / 1000).assign_attrs(units="m d-1")
    for score in PROBABILISTIC.values():
        np.testing.assert_allclose(score(metres, obs), score(pred, obs), rtol=1e-9)
        lazy = score(pred.chunk(site=1), obs.chunk(site=1))
        assert lazy.chunks
        xr.testing.assert_allclose(lazy.compute(), score(pred, obs))


def test_ends_of_the_interval_are_needed(case) -> None:
    pred, obs = case
    with pytest.raises(OptionError, match=r"quantiles=\[0.05, 0.95\]"):
        coverage(pred.sel(quantile=[0.25, 0.75]), obs)


@pytest.mark.filterwarnings("ignore::xstefa.inference.run.SpinUpWarning")
def test_evaluate(make_model, dataset, distribution) -> None:
    model = make_model(members=2, distribution=distribution)
    truth = dataset.stefa.predict(model, quantiles=0.75)[0]
    ds = dataset.assign(soil_moisture=truth.drop_vars("quantile").assign_attrs(units="m3 m-3"))
    names = ["nse", *PROBABILISTIC]
    found = ds.stefa.evaluate("soil_moisture", model=model, scores=names)
    assert set(found) == {*names, "days", "training", "calibration"}
    assert (found.coverage == 1).all()
    assert found.pit.sel(quantile=[0.65, 0.75, 0.85]).mean(("lat", "lon")).values.tolist() == [
        0,
        0.5,
        1,
    ]
    assert found.days.dims == ("lat", "lon")
    assert not found.calibration.any()
    with pytest.raises(ModelError, match="not calibrated"):
        ds.stefa.evaluate("soil_moisture", model=make_model(), scores="crps")
    with pytest.raises(OptionError, match="crps"):
        ds.stefa.evaluate("soil_moisture", model=model, scores="crpss")


@pytest.mark.filterwarnings("ignore::xstefa.inference.run.SpinUpWarning")
def test_sites_where_quantiles_were_learned_are_named(make_model, dataset, distribution) -> None:
    model = make_model(members=2, distribution=distribution)
    ds = dataset.stack(site=("lat", "lon")).reset_index("site")
    ds = ds.assign_coords(site=[f"tower_{i}" for i in range(ds.sizes["site"])])
    ds = ds.assign(soil_moisture=ds.stefa.predict(model).assign_attrs(units="m3 m-3"))
    known = {"calibration": {"sites": ["tower_1", "tower_2", "elsewhere"]}}
    taught = model.described(replace(model.spec, provenance=known))
    with pytest.warns(LeakageWarning, match=f"at 2 of {ds.sizes['site']} sites"):
        found = ds.stefa.evaluate("soil_moisture", model=taught, scores="coverage")
    assert found.calibration.values.nonzero()[0].tolist() == [1, 2]
    assert "calibration" not in ds.stefa.evaluate("soil_moisture", model=taught, scores="nse")
