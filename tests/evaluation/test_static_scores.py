"""Scores and cross-validation of static targets, and blocks of space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from tests.static_sites import NAMES, make_sites
from tests.training.test_static_targets import FAST, LONG, SLIDE, SMALL, WINDOWS
from xstefa.cli import main
from xstefa.errors import LayoutError, ModelError, OptionError, TrainingError
from xstefa.evaluation.sites import CLASSES
from xstefa.splits.holdout import BlocksOfSpace, Holdout, RandomGroups, TimeBlocks
from xstefa.training.ensemble import ensemble

pytestmark = pytest.mark.filterwarnings("ignore:.* has never seen attributes like these")


@pytest.fixture(scope="module")
def sites():
    return make_sites()


@pytest.fixture(scope="module")
def texture(sites):
    return sites.stefa.finetune("texture", **LONG)


def test_scores_are_those_of_the_formulas(sites, texture):
    found = sites.stefa.evaluate("texture", model=texture)
    xr.testing.assert_identical(found.training.site.variable, sites.site.variable)
    predicted = sites.stefa.predict("clay", model=texture)
    error = predicted - sites.clay / 100
    clay = found.sel(target="clay")
    np.testing.assert_allclose(clay.rmse, np.sqrt((error**2).mean()), rtol=1e-4)
    np.testing.assert_allclose(clay.mae, abs(error).mean(), rtol=1e-4)
    np.testing.assert_allclose(clay.bias, error.mean(), atol=1e-6)
    np.testing.assert_allclose(clay.r2, 1 - (error**2).mean() / (sites.clay / 100).var(), rtol=1e-4)
    assert found.sites.values.tolist() == [60] * 3
    assert (found.training == 1).all()
    lazy = sites.chunk(site=11).stefa.evaluate(["sand", "clay"], model=texture)
    assert lazy.r2.chunks is not None
    np.testing.assert_allclose(lazy.r2, found.r2.sel(target=["sand", "clay"]), rtol=1e-5)
    assert sites.stefa.evaluate(texture, scores="r2").r2.dims == ("target",)
    with pytest.raises(OptionError, match="r2"):
        sites.stefa.evaluate(texture, scores="kge")


def test_scores_of_a_class():
    label = xr.DataArray([0.0, 0, 1, 1, 1, np.nan], dims="site")
    sure = xr.DataArray([0.1, 0.4, 0.4, 0.8, 0.9, 0.5], dims="site")
    assert float(CLASSES["auc"](sure, label, dim="site")) == pytest.approx(5.5 / 6)
    brier = np.mean([0.01, 0.16, 0.36, 0.04, 0.01])
    assert float(CLASSES["brier"](sure, label, dim="site")) == pytest.approx(brier)
    gaps = 0.1 + abs(0.4 + 0.4 - 1) + abs(0.8 - 1) + abs(0.9 - 1)
    assert float(CLASSES["reliability"](sure, label, dim="site")) == pytest.approx(gaps / 5)
    assert np.isnan(CLASSES["auc"](sure, 0 * label, dim="site"))


def test_cross_validates_a_class(sites):
    found = sites.stefa.cross_validate(SLIDE, holdout=RandomGroups(3), **LONG)
    assert float(found.auc.squeeze()) > 0.8
    assert set(found.fold.values.tolist()) == {0, 1, 2}
    assert found.predicted.notnull().all()
    assert found.predicted.sel(target="landslide").dims == ("site",)


def test_cross_validates_a_composition_at_depths(sites, make_model):
    parts = xr.concat([sites[list(NAMES)]] * 2, "depth").transpose("site", "depth")
    parts = parts.assign_coords(depth=("depth", [0.1, 0.5], {"units": "m", "positive": "down"}))
    data = sites.assign(parts)
    data["sand"] = data.sand.where(data.site != "s007")
    schema = make_model().schema
    deep = [replace(schema.target(name), depths=(0.1, 0.5)) for name in NAMES]
    how = {"holdout": RandomGroups(2), "steps": 3, "head": SMALL}
    found = data.stefa.cross_validate(deep, **how)
    assert found.r2.dims == ("target", "depth")
    assert found.sites.values.tolist() == [[59, 59]] * 3
    assert found.predicted.isel(site=7).isnull().all()
    total = found.predicted.sum("target").where(found.fold >= 0)
    np.testing.assert_allclose(total.dropna("site"), 1, atol=1e-6)
    foundation = make_model(foundation=True, causal=True, windows=WINDOWS)
    known = sites.stefa.cross_validate("sand", model=foundation, encoder="frozen", **how)
    assert "pretraining" in known
    assert "pretraining" not in found
    with pytest.raises((TrainingError, OptionError)):
        sites.stefa.cross_validate("sand", **how | {"holdout": TimeBlocks(2)})


def test_the_same_fold_is_what_finetune_would_learn(sites):
    blocks = BlocksOfSpace(degrees=20, groups=3)
    found = sites.stefa.cross_validate("texture", holdout=blocks, **FAST)
    model = sites.stefa.finetune("texture", holdout=blocks.fold(1), **FAST)
    out = found.fold.values == 1
    expected = sites.stefa.predict("silt", model=model)
    np.testing.assert_allclose(found.predicted.sel(target="silt")[out], expected[out], rtol=1e-6)


def test_blocks_have_no_neighbours(sites):
    holdout = BlocksOfSpace(degrees=10, groups=4, buffer=800)
    assert Holdout.from_dict(holdout.to_dict()) == holdout
    model = sites.stefa.finetune("texture", holdout=holdout.fold(0), **FAST)
    trained = sites.site.isin(model.spec.provenance["datasets"]["data"]["trained"]).values
    up, along = np.radians(sites.lat.values), np.radians(sites.lon.values)
    cosine = np.sin(up)[:, None] * np.sin(up) + np.cos(up)[:, None] * np.cos(up) * np.cos(
        along[:, None] - along
    )
    distance = 6371 * np.arccos(cosine.clip(-1, 1))
    folds = sites.stefa.cross_validate("texture", holdout=holdout, **FAST).fold.values
    assert trained.any()
    assert distance[np.ix_(trained, folds == 0)].min() > 800
    seen = np.bincount(folds)
    assert seen.sum() == 60
    assert seen.min() >= 60 / 4 - 8
    with pytest.raises(LayoutError, match="needs the latitude of every site"):
        sites.drop_vars("lat").stefa.finetune("texture", holdout=holdout.fold(0), **FAST)
    with pytest.raises(TrainingError, match="above 0"):
        sites.stefa.finetune("texture", holdout=BlocksOfSpace(degrees=0).fold(0), **FAST)


def test_blocks_do_not_depend_on_longitudes_conventions(sites):
    holdout, how = BlocksOfSpace(degrees=20, groups=2), FAST
    turned = sites.assign_coords(lon=sites.lon % 360)
    turned.lon.attrs = sites.lon.attrs
    one, two = (d.stefa.cross_validate("texture", holdout=holdout, **how) for d in (sites, turned))
    assert one.fold.equals(two.fold)


def test_embeds_sites_without_days(sites, make_model):
    foundation = make_model(foundation=True, causal=True, windows=WINDOWS)
    found = sites.stefa.embed(model=foundation)
    assert found.dims == ("site", "feature")
    assert found.sizes["feature"] == 16
    lazy = sites.chunk(site=13).stefa.embed(model=foundation)
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, found)
    changed = sites.assign(elevation=sites.elevation + 100).stefa.embed(model=foundation)
    assert not changed.equals(found)


def test_daily_methods_refuse_a_static_model(sites, texture):
    days = xr.date_range("2001-01-01", periods=400)
    names = {"precipitation": "mm d-1", "temperature_mean": "degC"}
    rows = {n: (("time", "site"), np.ones((400, 60)), {"units": u}) for n, u in names.items()}
    daily = sites.assign(rows).assign_coords(time=days)
    for method in ("spin_up", "trust", "reconstruct"):
        with pytest.raises(ModelError):
            getattr(daily.stefa, method)(model=texture)
    for data in (daily, sites):
        with pytest.raises(ModelError, match="of static targets"):
            data.stefa.probe(texture)
        with pytest.raises(ModelError, match="of static targets"):
            data.stefa.explain("sand", model=texture, day="2002-01-01")


def test_no_site_has_no_answer_and_no_score(sites, texture):
    none = sites.isel(site=[])
    for data in (none, none.chunk()):
        assert data.stefa.predict("texture", model=texture).sand.load().shape == (0,)
    with pytest.raises(LayoutError, match="no site to score"):
        none.stefa.evaluate("texture", model=texture)


def test_models_are_averaged(sites):
    one, two = (sites.stefa.finetune("texture", seed=seed, **FAST) for seed in (0, 1))
    both = ensemble([one, two], name="both")
    found = [sites.stefa.predict("clay", model=model) for model in (one, two, both)]
    np.testing.assert_allclose(found[2], (found[0] + found[1]) / 2, rtol=1e-5)


def test_in_a_terminal(sites, texture, tmp_path):
    path, model = tmp_path / "sites.nc", tmp_path / "texture"
    sites.to_netcdf(path)
    run = CliRunner().invoke

    def typed(*words):
        result = run(main, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    typed("finetune", path, model, "--target", "texture", "--steps", 3)
    parts = [f"--target={name}" for name in NAMES]
    typed("predict", path, tmp_path / "out.nc", *parts, "--model", model)
    written = xr.open_dataset(tmp_path / "out.nc")
    np.testing.assert_allclose(written.sand + written.silt + written.clay, 1, atol=1e-6)
    assert "coverage" in written.variables
    typed("embed", path, tmp_path / "vectors.nc")
    assert xr.open_dataset(tmp_path / "vectors.nc").embedding.dims == ("site", "feature")
    folds = ["--holdout", "BlocksOfSpace(degrees=20, groups=2)", "--validation", "RandomGroups(2)"]
    folds += ["--head", "kernel", "--score", "r2", "--score", "coverage"]
    said = typed("cross-validate", path, tmp_path / "folds.nc", "--target", "soil_ph", *folds)
    assert "coverage" in said
    assert set(xr.open_dataset(tmp_path / "folds.nc").fold.values.tolist()) == {0, 1}
    typed("finetune", path, model, "--target", "soil_ph", *folds[2:6], "--overwrite")
    typed(
        "predict", path, tmp_path / "ph.nc", "--target=soil_ph", "--model", model, "--interval=.9"
    )
    written = xr.open_dataset(tmp_path / "ph.nc")
    assert (written.soil_ph_lower < written.soil_ph_upper).all()
    typed("finetune", path, model, "--target", "texture", "--steps", 3, "--overwrite")
    said = typed("evaluate", path, *parts, "--model", model)
    assert "r2" in said
    assert "silt" in said
