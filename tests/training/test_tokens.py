"""Tokens beside those of the encoder: numbers and vectors that heads read."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import xstefa
from tests.training.conftest import HEAD
from xstefa.binding.value_checks import ValuesWarning
from xstefa.errors import (
    LayoutError,
    MissingTokenError,
    OptionError,
    SchemaError,
    TrainingError,
)
from xstefa.schema import Variable
from xstefa.splits.holdout import RandomSites
from xstefa.training.options import HeadRecipe

ALPHAEARTH = Path(__file__).parents[3] / "shared/data/world/alphaearth_points.nc"
FAST = {"steps": 3, "batch_size": 4, "head": HEAD}
PATCH = Variable(
    name="patch", kind="static", units="1", long_name="patch", valid_range=(-10, 10), length=5
)
CURVATURE = Variable(
    name="curvature", kind="static", units="m-1", long_name="curvature", valid_range=(-1, 1)
)
BOTH = (PATCH, CURVATURE)


@pytest.fixture(scope="module")
def told(basins):
    """The basins with a vector and a number more."""
    random = np.random.default_rng(1)
    return basins.assign(
        patch=(("site", "band"), random.normal(0, 1, (8, 5)).astype("f4")),
        curvature=("site", random.normal(0, 0.1, 8).astype("f4"), {"units": "m-1"}),
    )


@pytest.fixture(scope="module")
def model(told, foundation):
    return told.stefa.finetune("streamflow", model=foundation, tokens=BOTH, **FAST)


def quietly(dataset, model, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dataset.stefa.predict(model, **how)


def test_a_model_states_what_its_heads_read(told, model, foundation):
    schema, scaler = model.schema, model.spec.scaler.statics
    assert [token.name for token in schema.extras] == ["patch", "curvature"]
    assert model.spec.tokens[-2:] == ("patch", "curvature")
    assert list(schema.site_columns)[-6:] == [*(f"patch[{i}]" for i in range(5)), "curvature"]
    assert scaler["patch[3]"].mean == pytest.approx(float(told.patch[:, 3].mean()), abs=1e-6)
    assert scaler["curvature"].std == pytest.approx(float(told.curvature.std()), abs=1e-6)
    assert model.spec.ranges["patch[0]"].high == told.patch[:, 0].max()
    assert {k: v for k, v in scaler.items() if k in foundation.spec.scaler.statics} == (
        foundation.spec.scaler.statics
    )
    again = xstefa.Model(model.path)
    assert again.schema.extras == schema.extras


def test_moments_are_those_of_training_sites(told, foundation):
    holdout = RandomSites(0.5)
    model = told.stefa.finetune(
        "streamflow", model=foundation, tokens=PATCH, holdout=holdout, **FAST
    )
    sites = model.spec.provenance["datasets"]["data"]["trained"]
    assert 0 < len(sites) < 8
    moments = model.spec.scaler.statics["patch[0]"]
    assert moments.mean == pytest.approx(float(told.patch.sel(site=sites)[:, 0].mean()), abs=1e-6)


def test_each_number_of_a_vector_counts_and_the_encoder_reads_none(told, model):
    base = quietly(told, model)
    for i in (0, 4):
        moved = told.assign(patch=told.patch + 0.5 * (told.patch.band == i))
        assert float(abs(quietly(moved, model, extrapolate=True) - base).max()) > 0
    moved = told.assign(curvature=told.curvature + 0.1)
    assert float(abs(quietly(moved, model) - base).max()) > 0
    moved = told.assign(patch=-told.patch)
    assert np.array_equal(told.stefa.embed(model=model), moved.stefa.embed(model=model))


def test_a_head_learns_from_a_vector(basins, foundation):
    """Sites differ by nothing but the third number of a vector."""
    level = np.linspace(0.5, 4.0, 8).astype("f4")
    patch = np.random.default_rng(0).normal(0, 1, (8, 5)).astype("f4")
    patch[:, 2] = level
    one = basins.isel(site=0, drop=True)[["pr", "tas", "area", "elevation"]]
    ds = one.expand_dims(site=basins.site).assign(
        qobs=(("site", "time"), np.repeat(level[:, None], 200, axis=1), {"units": "mm d-1"}),
        patch=(("site", "band"), patch),
    )
    how = {"model": foundation, "steps": 60, "batch_size": 8, "head": HEAD, "learning_rate": 0.02}
    seen = quietly(ds, ds.stefa.finetune("streamflow", tokens=PATCH, **how)).mean("time")
    blind = quietly(ds, ds.stefa.finetune("streamflow", **how)).mean("time")
    assert np.corrcoef(seen, level)[0, 1] > 0.9
    assert float(blind.std()) < 1e-3


def test_a_missing_vector_is_not_known(told, model):
    without = told.drop_vars("patch")
    unknown = told.assign(patch=told.patch * np.nan)
    answer = quietly(without, model)
    assert np.isfinite(answer.isel(time=-1)).all()
    np.testing.assert_array_equal(answer, quietly(unknown, model))
    assert float(abs(answer - quietly(told, model)).max()) > 0


def test_a_vector_with_gaps_is_not_known_and_told(told, model):
    gap = told.patch.where((told.site != "gauge 2") | (told.patch.band != 3))
    whole = told.patch.where(told.site != "gauge 2")
    with pytest.warns(ValuesWarning, match=r"patch .* NaN among its 5 numbers"):
        broken = told.assign(patch=gap).stefa.predict(model)
    np.testing.assert_array_equal(broken, quietly(told.assign(patch=whole), model))


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.transpose("band", ...),
        lambda ds: ds.rename(band="embedding"),
        lambda ds: ds.chunk(site=3, band=2),
        lambda ds: ds.chunk(site=2, time=50).transpose("band", "time", "site"),
        lambda ds: ds.assign(patch=ds.patch.expand_dims(time=ds.time)),
        lambda ds: ds.isel(site=slice(None, None, -1)),
    ],
    ids=["band first", "another name", "chunked", "chunked, band first", "repeated", "reversed"],
)
def test_order_names_and_chunks_do_not_matter(told, model, change):
    found = quietly(change(told), model).transpose("site", "time").sel(site=told.site)
    np.testing.assert_array_equal(found, quietly(told, model))


def test_one_site_needs_no_dimension(told, model):
    one = quietly(told.isel(site=3), model)
    np.testing.assert_array_equal(one, quietly(told, model).isel(site=3))


def test_by_rename_and_by_alias(told, model, foundation):
    other = told.rename(patch="emb")
    found = quietly(other, model, rename={"emb": "patch"})
    np.testing.assert_array_equal(found, quietly(told, model))
    assert other.stefa.tokens(model.schema)["patch"].variables == ()
    how = {"tokens": PATCH, "rename": {"emb": "patch"}, **FAST}
    assert "patch" in other.stefa.finetune("streamflow", model=foundation, **how).spec.tokens


def test_the_table_shows_a_vector_as_one(told, model):
    table = told.stefa.tokens(model.schema)
    row = table["patch"]
    assert (row.variables, row.kind, row.known) == (("patch",), "static", 1.0)
    assert (row.low, row.high) == (float(told.patch.min()), float(told.patch.max()))
    assert [each.token for each in table.rows].count("patch") == 1
    assert "patch" in repr(table)


@pytest.mark.parametrize(
    ("patch", "found", "fix"),
    [
        (lambda ds: ds.patch[:, :4], "4 along 'band'", "length=4"),
        (lambda ds: ds.patch[:, 0], "one number at each site", "to_dataarray"),
        (
            lambda ds: ds.patch.expand_dims(year=[2020, 2021]),
            "2 along 'year' and 5 along 'band'",
            "isel(year=0)",
        ),
        (
            lambda ds: ds.patch.expand_dims(again=5),
            "5 along 'again' and 5 along 'band'",
            "isel(",
        ),
        (
            lambda ds: ds.patch.isel(site=0, drop=True).expand_dims(lat=[1.0, 2], lon=[3.0, 4]),
            "along 'lat'",
            "attach",
        ),
    ],
    ids=["short", "a number", "years", "twice", "a map"],
)
def test_refuses_what_is_no_vector_of_this_length(told, foundation, model, patch, found, fix):
    plain = told.drop_vars(["lat", "lon"])
    wrong = plain.drop_vars("patch").assign(patch=patch(plain))
    with pytest.raises(LayoutError) as caught:
        wrong.stefa.finetune("streamflow", model=foundation, tokens=PATCH, **FAST)
    error = caught.value
    assert error.variable == "patch"
    assert found in error.found
    assert "5 numbers at each site" in error.expected
    assert fix in error.fix
    with pytest.raises(LayoutError, match="patch"):
        wrong.stefa.predict(model, strict=True)


def test_refuses_tokens_that_cannot_be_learned(told, basins, foundation, model):
    def tuned(ds, **how):
        return ds.stefa.finetune("streamflow", model=foundation, **FAST | how)

    with pytest.raises(MissingTokenError, match="patch"):
        tuned(basins, tokens=PATCH)
    with pytest.raises(TrainingError, match="patch"):
        tuned(told.assign(patch=told.patch * np.nan), tokens=PATCH)
    with pytest.raises(OptionError, match="linear"):
        tuned(told, tokens=PATCH, head="linear")
    with pytest.raises(OptionError, match="head=None"):
        told.stefa.finetune("streamflow", model=model, head=None, steps=1, tokens=replace(
            CURVATURE, name="other"))  # fmt: skip
    with pytest.raises(SchemaError, match="elevation"):
        tuned(told, tokens=replace(CURVATURE, name="elevation"))
    with pytest.raises(SchemaError, match="kind"):
        tuned(told, tokens=replace(CURVATURE, kind="forcing"))


def test_its_own_heads_are_trained_on(told, model):
    further = told.stefa.finetune("streamflow", model=model, head=None, steps=2, batch_size=4)
    assert further.schema.extras == model.schema.extras
    assert further.spec.scaler == model.spec.scaler


@pytest.mark.parametrize("head", ["lstm", "feedforward", "resconn"])
def test_all_heads_that_read_attributes_read_them(told, foundation, head):
    how = {"model": foundation, "steps": 2, "batch_size": 4, "tokens": PATCH, "head": head}
    model = told.stefa.finetune("streamflow", **how)
    base, moved = (quietly(ds, model) for ds in (told, told.assign(patch=-told.patch)))
    assert float(abs(base - moved).max()) > 0


def test_whole_vectors_are_dropped_in_training(told, foundation):
    from xstefa.training.dropout import TokenDropout

    schema = foundation.schema.with_extras((PATCH,))
    hidden = TokenDropout(schema, probability=0.5, seed=0).static[:, -5:]
    assert 0.4 < hidden.float().mean() < 0.6
    assert torch.equal(hidden, hidden[:, :1].expand(-1, 5))
    recipe = HeadRecipe(token_dropout=0.5, group_dropout=0.5)
    told.stefa.finetune("streamflow", model=foundation, tokens=PATCH, recipe=recipe, **FAST)


def test_trust_knows_vectors(told, model):
    found = told.stefa.trust(model)
    assert not found.outside.any()
    far = told.assign(patch=told.patch.where(told.site != "gauge 2", 9.0))
    assert far.stefa.trust(model).outside.values.tolist() == [i == 2 for i in range(8)]
    lazy = far.chunk(site=3, band=2).stefa.trust(model)
    xr.testing.assert_equal(lazy.compute(), far.stefa.trust(model))


def test_cross_validation_fits_moments_in_each_fold(told, foundation):
    from xstefa.splits.holdout import RandomGroups

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = told.stefa.cross_validate(
            "streamflow", holdout=RandomGroups(2), model=foundation, tokens=BOTH, **FAST
        )
    assert np.isfinite(found.predicted.isel(time=-1)).all()


def test_an_embedding_is_a_token(told, foundation):
    own = told.stefa.embed(model=foundation)
    token = replace(PATCH, name="embedding", length=own.sizes["feature"], valid_range=(-1e3, 1e3))
    ready = told.assign(embedding=own)
    model = ready.stefa.finetune("streamflow", model=foundation, tokens=token, **FAST)
    assert "embedding" in model.spec.tokens


def test_a_vector_is_explained_as_one(told, model):
    found = quietly_explained(told, model)
    assert found.attribute.values.tolist()[-2:] == ["patch", "curvature"]
    parts = found.contribution_static.sum("attribute") + found.contribution.sum(["token", "lag"])
    total = found.baseline + found.contribution_earlier + parts
    np.testing.assert_allclose(total, found.prediction, rtol=1e-4)
    assert (abs(found.contribution_static.sel(attribute="patch")) > 0).all()


def quietly_explained(dataset, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dataset.stefa.explain(
            model, day="2001-06-01", site=["gauge 1"], lags=(1,), attributes="each", samples=2
        )


@pytest.mark.skipif(not ALPHAEARTH.exists(), reason="no ../shared/data")
def test_alphaearth_vectors_of_real_points(basins, foundation):
    """Format and engine only: these points have no weather; that of the tiny world is lent."""
    points = xr.open_dataset(ALPHAEARTH).isel(point=slice(0, 40))
    lent = basins.isel(site=np.arange(40) % 8).drop_vars(["site", "lat", "lon"])
    lent = lent.rename(site="point").assign_coords(point=points.point)
    ready = lent.assign(points[["embedding"]])
    how = {"rename": {"embedding": "alphaearth"}, "tokens": "alphaearth", **FAST}
    model = ready.stefa.finetune("streamflow", model=foundation, **how)
    moments = model.spec.scaler.statics["alphaearth[63]"]
    assert moments.mean == pytest.approx(float(points.embedding[:, 63].mean()), abs=1e-5)
    found = quietly(ready, model, rename={"embedding": "alphaearth"})
    assert np.isfinite(found.isel(time=-1)).all()
