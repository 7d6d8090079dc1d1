"""Quantiles of static targets: learned from errors at sites that training did not see."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xstefa
from tests.static_sites import NAMES, make_sites
from tests.training.test_static_targets import FAST, SLIDE
from xstefa.errors import ModelError, OptionError, TrainingError
from xstefa.schema import Alias, Target
from xstefa.splits.holdout import RandomGroups, TimeBlocks

pytestmark = pytest.mark.filterwarnings("ignore:.* has never seen attributes like these")

FOLDS = RandomGroups(3)
KERNEL = {"head": "kernel", "validation": FOLDS}
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
CARBON = Target(
    name="carbon",
    static=True,
    units="g kg-1",
    long_name="organic carbon",
    valid_range=(0, 600),
    aliases=(Alias(name="carbon", source="test"),),
    depths=(0.1, 0.5),
)


def noisy(count: int, seed: int) -> xr.Dataset:
    """Make sites whose texture attributes do not tell all of, and carbon at two depths."""
    ds, rng = make_sites(count, seed), np.random.default_rng(seed)
    parts = {n: ds[n] * np.exp(rng.normal(0, 0.2, count)) for n in NAMES}
    total = sum(parts.values())
    parts = {n: (100 * p / total).assign_attrs(units="%") for n, p in parts.items()}
    deep = np.exp(0.01 * ds.sand.values[:, None] + rng.normal(0, [0.1, 0.4], (count, 2)))
    depth = ("depth", [0.1, 0.5], {"units": "m", "positive": "down"})
    carbon = (("site", "depth"), deep.astype("f4"), {"units": "g kg-1"})
    return ds.assign(parts).assign(carbon=carbon).assign_coords(depth=depth)


@pytest.fixture(scope="module")
def known():
    return noisy(150, 0)


@pytest.fixture(scope="module")
def new():
    return noisy(600, 1)


@pytest.fixture(scope="module")
def texture(known):
    return known.stefa.finetune("texture", **KERNEL)


def test_they_hold_at_new_sites(new, texture):
    found = new.stefa.predict(list(NAMES), model=texture, quantiles=LEVELS)
    for name in NAMES:
        each = found[name]
        assert each.dims == ("quantile", "site")
        assert float(each.min()) > 0
        assert float(each.max()) < 1
        assert (each.diff("quantile") > 0).all()
        below = (new[name] / 100 < each).mean("site")
        assert (abs(below - np.array(LEVELS)) < [0.07, 0.12, 0.14, 0.12, 0.07]).all()
    assert "150 sites" in found.sand.attrs["comment"]


def test_lazy_and_the_same_whatever_the_chunks(new, texture):
    how = {"model": texture, "quantiles": LEVELS, "coverage": True}
    found = new.stefa.predict("texture", **how)
    for size in (1, 70):
        part = new.isel(site=slice(90))
        lazy = part.chunk(site=size).stefa.predict("texture", **how)
        assert lazy.sand.chunks == ((5,), part.chunk(site=size).chunks["site"])
        xr.testing.assert_equal(lazy.compute(), found.isel(site=slice(90)))
    bare = new.drop_vars(["elevation", "p_mean", "slope"]).assign(elevation=new.elevation * np.nan)
    assert bare.stefa.predict("sand", **how).isnull().all()


def test_an_interval_is_two_of_them(new, texture):
    found = new.stefa.predict("clay", model=texture, interval=0.5, min_coverage=0.5)
    assert list(found) == ["lower", "upper"]
    expected = new.stefa.predict("clay", model=texture, quantiles=[0.25, 0.75])
    np.testing.assert_array_equal(found.lower, expected[0])
    np.testing.assert_array_equal(found.upper, expected[1])
    alone = new.isel(site=3).stefa.predict("clay", model=texture, interval=0.5)
    np.testing.assert_array_equal(alone.to_dataarray(), expected[:, 3])
    for outside in (-0.5, 0.0, 1.0, 90):
        with pytest.raises(OptionError, match="beyond these levels"):
            new.stefa.predict("clay", model=texture, interval=outside)
    with pytest.raises(OptionError, match="one target at a time"):
        new.stefa.predict("texture", model=texture, interval=0.9)


def test_each_depth_has_its_own(known, new):
    model = known.stefa.finetune(CARBON, **KERNEL)
    found = new.stefa.predict(model, quantiles=[0.05, 0.95])
    assert found.dims == ("quantile", "site", "depth")
    assert float(found.min()) >= 0
    inside = (new.carbon >= found[0]) & (new.carbon <= found[1])
    np.testing.assert_allclose(inside.mean("site"), 0.9, atol=0.06)
    width = (found[1] - found[0]).mean("site")
    assert float(width[1]) > 2 * float(width[0])


def test_they_are_scored(known, new, texture):
    scores = ["r2", "crps", "coverage"]
    found = new.stefa.evaluate("texture", model=texture, scores=scores)
    np.testing.assert_allclose(found.coverage, 0.9, atol=0.05)
    mae = new.stefa.evaluate("texture", model=texture, scores="mae").mae
    assert (found.crps < 0.85 * mae).all()
    folds = {"holdout": RandomGroups(2), "scores": scores}
    again = known.stefa.cross_validate("soil_ph", **folds, **KERNEL)
    np.testing.assert_allclose(again.coverage, 0.9, atol=0.1)
    assert again.crps.dims == ("target",)
    with pytest.raises(OptionError, match="without validation="):
        known.stefa.cross_validate("soil_ph", **folds, head="kernel")


def test_they_travel_with_the_model(known, texture, tmp_path):
    saved = xstefa.load_model(texture.save(tmp_path / "texture").path)
    assert saved.spec.distributions == texture.spec.distributions
    assert texture.spec.provenance["validation"] == FOLDS.to_dict()
    plain = known.stefa.finetune("texture", head="kernel")
    assert "distributions" not in plain.spec.to_json()  # older files keep their hash
    theirs = texture.network().state_dict()  # all sites are learned from
    assert all(theirs[name].equal(each) for name, each in plain.network().state_dict().items())


def test_who_knows_no_errors_says_what_to_do(known, texture):
    plain = known.stefa.finetune("texture", **FAST)
    with pytest.raises(ModelError, match="is not known") as caught:
        known.stefa.predict("clay", model=plain, quantiles=0.5)
    assert "validation=BlocksOfSpace()" in caught.value.fix
    slides = known.stefa.finetune(SLIDE, **FAST)
    with pytest.raises(OptionError, match="the probability says how often"):
        known.stefa.predict(slides, interval=0.9)
    with pytest.raises(OptionError, match="beyond these levels"):
        known.stefa.predict("clay", model=texture, quantiles=[0.0, 0.5])
    with pytest.raises(TrainingError, match="too few sites") as few:
        make_sites(12).stefa.finetune("texture", **KERNEL)
    assert "validation out" in few.value.fix  # no folds of 12 sites test 20
    with pytest.raises(TrainingError, match="too few sites") as few:
        known.stefa.finetune("texture", head="kernel", validation=RandomGroups(15).fold(0))
    assert "RandomGroups(5)" in few.value.fix
    with pytest.raises(TrainingError, match="2 days or more"):
        known.stefa.finetune("texture", head="kernel", validation=TimeBlocks(2))
