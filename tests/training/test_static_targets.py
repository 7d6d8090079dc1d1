"""Static targets: learned from the attributes of sites, predicted without a day."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xstefa
from tests.static_sites import NAMES, make_sites
from xstefa.errors import (
    LayoutError,
    MissingTokenError,
    ModelError,
    OptionError,
    RangeError,
    SchemaError,
    TrainingError,
    UnitsError,
)
from xstefa.model.architecture import HeadSize
from xstefa.schema import Alias, Target, Variable
from xstefa.splits.holdout import NamedSites, Period, RandomSites
from xstefa.splits.leakage import LeakageWarning
from xstefa.training.finetune import HeadRecipe, finetune
from xstefa.training.site_data import SumWarning
from xstefa.windows import SegmentPolicy

pytestmark = pytest.mark.filterwarnings(
    "ignore::xstefa.inference.extrapolation.ExtrapolationWarning"
)

WINDOWS = SegmentPolicy(length=40, spin_up=10)
SMALL = HeadSize(kind="site", hidden=16)
FAST = {"steps": 5, "head": SMALL}
LONG = {"steps": 250, "head": SMALL, "learning_rate": 1e-2}

SLIDE = Target(
    name="landslide",
    static=True,
    kind="class",
    units="1",
    long_name="probability of a landslide",
    valid_range=(0, 1),
    aliases=(Alias(name="slid", source="test"),),
)


@pytest.fixture(scope="module")
def sites():
    return make_sites()


@pytest.fixture(scope="module")
def texture(sites):
    return sites.stefa.finetune("texture", holdout=RandomSites(0.3), **LONG)


def r2(predicted, observed):
    return 1 - float(
        ((predicted - observed) ** 2).sum() / ((observed - observed.mean()) ** 2).sum()
    )


def test_learns_a_composition(sites, texture):
    assert texture.spec.outputs == NAMES
    found = sites.stefa.predict(list(NAMES), model=texture)
    trained = texture.spec.provenance["datasets"]["data"]["trained"]
    new = ~sites.site.isin(trained)
    assert new.sum() == 18
    for name in NAMES:
        assert r2(found[name][new], sites[name][new] / 100) > 0.8
        assert found[name].dims == ("site",)
        assert found[name].attrs["units"] == "1"
        assert "cell_methods" not in found[name].attrs
        assert float(found[name].min()) > 0
    total = found.sand + found.silt + found.clay
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert {"lat", "lon", "site"} <= set(found.coords)


def test_what_tells_the_texture_is_hidden(sites, texture):
    assert texture.spec.tokens == ("elevation", "slope", "p_mean")
    changed = sites.assign({name: 0 * sites[name] + 33 for name in (*NAMES, "soil_porosity")})
    without = sites.drop_vars([*NAMES, "soil_porosity"])
    expected = sites.stefa.predict("clay", model=texture)
    assert changed.stefa.predict("clay", model=texture).equals(expected)
    assert without.stefa.predict("clay", model=texture).equals(expected)


def test_a_rename_cannot_give_it_away(sites):
    given = sites.rename(sand="sand_frac")
    with pytest.raises(TrainingError, match="must not read what is an observation of it"):
        given.stefa.finetune("texture", rename={"sand_frac": "forest_fraction"}, **FAST)


def test_a_target_with_the_name_of_a_token(sites):
    """Its observations are found by its name, and are that token's values, too."""
    height = Target(
        name="elevation", static=True, units="m", long_name="height", valid_range=(-500, 9000)
    )
    with pytest.raises(TrainingError, match=r"the token 'elevation'.*hidden=\('elevation',\)"):
        sites.stefa.finetune(height, **FAST)
    model = sites.stefa.finetune(replace(height, hidden=("elevation",)), **FAST)
    assert "elevation" not in model.spec.tokens
    changed = sites.assign(elevation=0 * sites.elevation)
    xr.testing.assert_equal(changed.stefa.predict(model), sites.stefa.predict(model))


def test_one_part_is_predicted_like_all(sites, texture):
    whole = sites.stefa.predict("texture", model=texture)
    assert isinstance(whole, xr.Dataset)
    assert list(whole) == [*NAMES]
    assert sites.stefa.predict("silt", model=texture).identical(whole.silt)
    assert sites.stefa.predict(texture).identical(whole)
    assert finetune(sites, "sand", **FAST).spec.outputs == NAMES


@pytest.mark.parametrize("size", [1, 7, 60])
def test_no_answer_depends_on_chunks(sites, texture, size):
    lazy = sites.chunk(site=size).stefa.predict("texture", model=texture)
    assert lazy.sand.chunks is not None
    xr.testing.assert_equal(lazy.compute(), sites.stefa.predict("texture", model=texture))


def test_any_support(sites, texture):
    order = sites.isel(site=np.arange(60)).drop_vars(["site", "lat", "lon"])
    grid = xr.Dataset(
        {n: (("lat", "lon"), order[n].values.reshape(6, 10), order[n].attrs) for n in order},
        coords={"lat": np.arange(6, 0, -1.0), "lon": np.arange(10.0)},
    )
    grid["elevation"] = grid.elevation.where(grid.lon > 0)
    for name in ("p_mean", "slope"):
        grid[name] = grid[name].where(grid.lon > 0)
    found = grid.chunk(lat=4, lon=3).stefa.predict("sand", model=texture).load()
    assert found.dims == ("lat", "lon")
    assert found.isel(lon=0).isnull().all()  # the sea: nothing is known
    expected = sites.stefa.predict("sand", model=texture).values.reshape(6, 10)
    np.testing.assert_array_equal(found.values[:, 1:], expected[:, 1:])


def test_days_do_not_matter(sites, texture):
    days = xr.date_range("2001-01-01", periods=3)
    rain = (("time", "site"), np.ones((3, 60)), {"units": "mm d-1"})
    daily = sites.assign(precipitation=rain).assign_coords(time=days)
    found = daily.stefa.predict("sand", model=texture)
    assert found.equals(sites.stefa.predict("sand", model=texture))
    with pytest.raises(OptionError, match="no days"):
        daily.stefa.predict("sand", model=texture, period="2001")


def test_says_how_much_is_known(sites, texture):
    some = sites.assign(slope=sites.slope.where(sites.slope > 0.1))
    found = some.stefa.predict("sand", model=texture, coverage=True, min_coverage=0.9)
    missing = some.slope.isnull()
    np.testing.assert_allclose(found.coverage, np.where(missing, 2 / 3, 1), rtol=1e-6)
    assert (found.isnull() == missing).all()


def test_a_number_and_its_depths(sites):
    deep = xr.concat([sites.ph_h2o, sites.ph_h2o - 1], "depth").T
    deep = deep.assign_coords(depth=("depth", [0.1, 0.5], {"units": "m", "positive": "down"}))
    known = xstefa.load_schema().target("soil_ph")
    data = sites.assign(ph_h2o=deep.assign_attrs(sites.ph_h2o.attrs))
    model = data.stefa.finetune(replace(known, depths=(0.1, 0.5)), **LONG)
    found = sites.stefa.predict("soil_ph", model=model)
    assert found.dims == ("site", "depth")
    assert found.depth.attrs["units"] == "m"
    assert found.depth.values.tolist() == [0.1, 0.5]
    np.testing.assert_allclose(found.isel(depth=0) - found.isel(depth=1), 1, atol=0.5)
    assert r2(found.isel(depth=0), sites.ph_h2o) > 0.8
    assert sites.stefa.finetune("soil_ph", **FAST).spec.architecture.heads[0].levels == 1
    with pytest.raises(LayoutError, match="depths of soil_ph that are not in the dataset"):
        data.stefa.finetune(replace(known, depths=(0.3,)), **FAST)


def test_a_class_is_a_probability(sites):
    model = sites.stefa.finetune(SLIDE, **LONG)
    found = sites.stefa.predict(model)
    assert found.name == "landslide"
    assert (
        float(found.where(sites.slid == 1).min()) > 0.4 > float(found.where(sites.slid == 0).min())
    )
    assert r2(found, sites.slid) > 0.5
    with pytest.raises(TrainingError, match="the labels of a class are 0 and 1"):
        sites.assign(slid=sites.slope).stefa.finetune(SLIDE, **FAST)


def test_says_why_labels_are_none(sites):
    words = sites.assign(slid=("site", np.where(sites.slid == 1, "yes", "no")))
    with pytest.raises(TrainingError, match="'slid' has <U3 along") as caught:
        words.stefa.finetune(SLIDE, **FAST)
    assert caught.value.fix == "ds['slid'] = (ds['slid'] == <class>).astype('f4')"
    exec(caught.value.fix.replace("<class>", "'yes'"), {"ds": words})
    assert words.stefa.finetune(SLIDE, **FAST).spec.outputs == ("landslide",)
    plain = replace(SLIDE, aliases=())
    with pytest.raises(TrainingError, match="Expected one of landslide"):
        sites.stefa.finetune(plain, **FAST)
    assert sites.rename(slid="landslide").stefa.finetune(plain, **FAST)


def test_labels_are_two_and_both_are_there(sites):
    other = sites.assign(slid=sites.slid + 1)
    with pytest.raises(RangeError, match="labels of a class are 0 and 1") as caught:
        other.stefa.finetune(SLIDE, **FAST)
    assert caught.value.fix.startswith("ds['slid'] = (ds['slid'] == <label>)")
    exec(caught.value.fix.partition(", NaN")[0].replace("<label>", "2"), {"ds": other})
    xr.testing.assert_equal(other.slid, sites.slid)
    for label in (0, 1):
        with pytest.raises(TrainingError, match=f"60 sites to learn from, all labeled {label}"):
            sites.assign(slid=0 * sites.slid + label).stefa.finetune(SLIDE, **FAST)
    with pytest.raises(TrainingError, match="labels of a class") as caught:
        sites.assign(slid=sites.slope).stefa.finetune(SLIDE, **FAST)
    assert caught.value.fix.startswith("ds['slid'] = (ds['slid'] > <threshold>)")


def test_what_would_give_it_away(sites):
    with pytest.raises(TrainingError, match="by its name it is 'soil_porosity'"):
        sites.stefa.finetune("texture", rename={"soil_porosity": "forest_fraction"}, **FAST)
    with pytest.raises(TrainingError, match="an attribute that does not tell it"):
        sites[[*NAMES, "soil_porosity"]].stefa.finetune("texture", **FAST)
    extra = Variable(
        name="extra", kind="static", units="%", long_name="e", valid_range=(-1, 200), length=2
    )
    noise = np.random.default_rng(0).uniform(0, 100, 60)
    for told in (100 - sites.clay, sites.sand + sites.silt):
        pair = (("site", "band"), np.stack([noise, told], axis=1), {"units": "%"})
        with pytest.warns(LeakageWarning, match="extra tells clay all but exactly"):
            sites.assign(extra=pair).stefa.finetune("texture", tokens=extra, **FAST)


def test_odd_vectors(sites):
    picture = Variable(
        name="picture", kind="static", units="1", long_name="p", valid_range=(-50, 50), length=3
    )
    values = np.random.default_rng(0).integers(-9, 9, (60, 3))
    values[:, 1] = 4 * sites.ph_h2o

    def given(array, *dims, **coords):
        attrs = {"units": "1"}
        return sites.assign(picture=(dims or ("site", "band"), array, attrs)).assign_coords(coords)

    model = given(values).stefa.finetune("soil_ph", tokens=picture, head="kernel")
    expected = given(values).stefa.predict("soil_ph", model=model)
    for same in (
        given(values.astype("f8")),
        given(values.T, "band", "site").chunk(site=9, band=1),
        given(values, band=["A0", "A1", "A10"]),
    ):
        np.testing.assert_array_equal(same.stefa.predict("soil_ph", model=model), expected)
    turned = given(values[:, ::-1], band=["A2", "A1", "A0"])
    with pytest.raises(LayoutError, match="in the order in which they stand") as caught:
        turned.stefa.predict("soil_ph", model=model, strict=True)
    assert caught.value.fix == "ds = ds.sortby('band')"
    found = turned.sortby("band").stefa.predict("soil_ph", model=model, strict=True)
    np.testing.assert_array_equal(found, expected)
    ds = given(values[:, [0, 2, 1]], band=["A1", "A10", "A2"])  # in the order of text
    with pytest.raises(LayoutError, match="in the order in which they stand") as caught:
        ds.stefa.predict("soil_ph", model=model, strict=True)
    by_number = {"ds": ds}
    exec(caught.value.fix, by_number)
    found = by_number["ds"].stefa.predict("soil_ph", model=model, strict=True)
    np.testing.assert_array_equal(found, expected)
    gone = np.where(np.arange(3) == 1, np.nan, values)
    with pytest.raises(MissingTokenError, match="known nowhere"):
        given(gone).stefa.finetune("soil_ph", tokens=picture, **FAST)
    without = sites.stefa.predict("soil_ph", model=model)
    for unknown in (gone, np.nan * values):
        np.testing.assert_array_equal(given(unknown).stefa.predict("soil_ph", model=model), without)


@pytest.mark.parametrize("kind", ["bool", "int8"])
def test_labels_may_be_flags(sites, kind):
    flags = sites.slid.astype(kind).assign_attrs(flag_values=[0, 1], flag_meanings="stable slid")
    model = sites.assign(slid=flags).stefa.finetune(SLIDE, **FAST)
    expected = sites.stefa.finetune(SLIDE, **FAST)
    assert model.content_hash == expected.content_hash


def test_reads_vectors_beside_the_attributes_of_the_encoder(sites, make_model):
    rng = np.random.default_rng(0)
    vector = rng.normal(size=(60, 3)).astype("f4")
    vector[:, 1] = sites.ph_h2o
    vector[5, 2] = np.nan  # with a gap it is not known
    data = sites.assign(picture=(("site", "band"), vector, {"units": "1"}))
    picture = Variable(
        name="picture",
        kind="static",
        units="1",
        long_name="picture",
        valid_range=(-100, 100),
        length=3,
    )
    model = data.drop_vars(["p_mean", "clay"]).stefa.finetune("soil_ph", tokens=picture, **LONG)
    assert "picture" in model.spec.tokens
    found = data.stefa.predict("soil_ph", model=model, coverage=True)
    assert r2(found, sites.ph_h2o) > 0.7
    lazy = data.chunk(site=7, band=2).stefa.predict("soil_ph", model=model)
    np.testing.assert_array_equal(lazy, found)
    without = data.assign(picture=data.picture.where(data.site != "s005"))
    np.testing.assert_array_equal(without.stefa.predict("soil_ph", model=model), found)
    assert float(found.coverage[5]) < float(found.coverage[6])
    alone = data[["picture", "ph_h2o"]]  # nothing else says what the sites are
    only = alone.stefa.finetune("soil_ph", tokens=picture, **LONG)
    assert alone.stefa.predict(only).dims == ("site",)
    assert r2(alone.stefa.predict(only).fillna(sites.ph_h2o.mean()), sites.ph_h2o) > 0.7
    foundation = make_model(foundation=True, causal=True, windows=WINDOWS)
    with_site = data.stefa.finetune(
        "soil_ph", tokens=picture, model=foundation, encoder="frozen", **FAST
    )
    assert data.stefa.predict(with_site).notnull().all()


def test_the_encoder_gives_the_site(make_model, sites):
    foundation = make_model(foundation=True, causal=True, windows=WINDOWS)
    made = {
        use: sites.stefa.finetune("texture", model=foundation, encoder=use, **FAST)
        for use in ("frozen", "tuned", "scratch", "none")
    }
    before = foundation.network().encoder.state_dict()
    for use, model in made.items():
        encoder = model.network().encoder
        assert (encoder is None) == (use == "none")
        if encoder is not None:
            after = encoder.state_dict()
            assert (use == "frozen") == all(before[k].equal(after[k]) for k in before)
    assert len({model.content_hash for model in made.values()}) == 4
    assert made["frozen"].spec.provenance["foundation"]["name"] == "tiny"


def test_what_is_solved_and_what_descends_are_averaged(sites):
    both = sites.stefa.finetune("texture", steps=5)
    assert [size.kind for size in both.spec.architecture.heads] == ["site", "kernel"]
    kernel = sites.stefa.finetune("texture", head="kernel", holdout=RandomSites(0.3))
    found = sites.stefa.predict("clay", model=kernel)
    new = ~sites.site.isin(kernel.spec.provenance["datasets"]["data"]["trained"])
    assert r2(found[new], sites.clay[new] / 100) > 0.8
    assert len(kernel.spec.provenance["learning_curve"]["training"]) == 1


def test_same_seed_same_file(sites):
    made = [sites.stefa.finetune("texture", seed=seed, **FAST) for seed in (1, 1, 2)]
    assert made[0].content_hash == made[1].content_hash != made[2].content_hash


def test_parts_have_to_sum_to_one(sites):
    wrong = sites.assign(clay=0.5 * sites.clay.assign_attrs(units="%"))
    wrong.clay.attrs["units"] = "%"
    with pytest.raises(TrainingError, match="the parts of a texture do not sum to 1"):
        wrong.stefa.finetune("texture", **FAST)
    many = make_sites(200)
    many["clay"] = many.clay.where(many.site != "s000", 0.0).assign_attrs(units="%")
    with pytest.warns(SumWarning, match="1 of 200"):
        model = many.stefa.finetune("texture", **FAST)
    assert "s000" not in model.spec.provenance["datasets"]["data"]["trained"]


def test_units_are_never_guessed(sites):
    bare = sites.assign(sand=sites.sand.drop_attrs())
    with pytest.raises(UnitsError, match="no units"):
        bare.stefa.finetune("texture", **FAST)
    fractions = sites.assign({n: (sites[n] / 100).assign_attrs(units="1") for n in NAMES})
    expected = sites.stefa.finetune("texture", **FAST)
    answers = fractions.stefa.predict(fractions.stefa.finetune("texture", **FAST))
    xr.testing.assert_allclose(answers.drop_attrs(), sites.stefa.predict(expected).drop_attrs())


def test_refuses_what_is_about_days(sites):
    for how in (
        {"recipe": HeadRecipe(perturbation=0.5)},
        {"patience": 3},
        {"checkpoint": "somewhere"},
    ):
        with pytest.raises(OptionError, match="learned from all sites at once"):
            sites.stefa.finetune("texture", **{"steps": 5, **how})
    for how in ({"head": "lstm"}, {"steps": 5, "epochs": 1}):
        with pytest.raises(OptionError):
            sites.stefa.finetune("texture", **{"steps": 5, **how})
    with pytest.raises((OptionError, TrainingError)):
        sites.stefa.finetune("texture", holdout=Period("1990-01-01", "1990-12-31"), **FAST)
    with pytest.raises(OptionError, match="one target, or the parts of one composition"):
        sites.stefa.finetune(["sand", "soil_ph"], **FAST)
    with pytest.raises(TrainingError, match="nothing to learn from"):
        sites.stefa.finetune("texture", holdout=NamedSites(tuple(sites.site.values)), **FAST)


@pytest.mark.parametrize("head", ["site", SMALL])
def test_a_daily_target_has_no_static_head(head):
    with pytest.raises(OptionError, match="for sites, not for days"):
        xstefa.open_sample("camels_us").stefa.finetune("streamflow", head=head, steps=1)


def test_says_what_is_missing(sites, texture):
    with pytest.raises(LookupError, match="no attribute of the sites that a model reads"):
        sites[["ph_h2o"]].stefa.predict("sand", model=texture)
    with pytest.raises(ModelError, match="a model of sand, silt, clay"):
        sites.stefa.predict("soil_ph", model=texture)
    with pytest.raises(TrainingError, match="no variable of the dataset that observes it"):
        sites.drop_vars("sand").stefa.finetune("texture", **FAST)


def test_targets_come_from_files(sites, tmp_path):
    text = """
    [[target]]
    name = "landslide"
    static = true
    kind = "class"
    units = "1"
    long_name = "probability of a landslide"
    valid_range = [0, 1]
    aliases = [{ name = "slid", source = "test" }]
    """
    (tmp_path / "mine.toml").write_text(text)
    same = replace(SLIDE, valid_range=(0.0, 1.0))
    made = [sites.stefa.finetune(one, **FAST) for one in (tmp_path / "mine.toml", same)]
    assert made[0].content_hash == made[1].content_hash
    (tmp_path / "none.toml").write_text("[[static]]")
    with pytest.raises(SchemaError, match="such entries"):
        sites.stefa.finetune(str(tmp_path / "none.toml"), **FAST)


def test_the_bundled_model_needs_no_arguments():
    basins = xstefa.open_sample("camels_us").isel(basin=slice(3), time=slice(10))
    found = basins.stefa.predict(list(NAMES))
    assert found.sand.attrs["model_name"] == "soil-texture"
    np.testing.assert_allclose(found.sand + found.silt + found.clay, 1, atol=1e-6)
    bounds = basins.stefa.predict("sand", interval=0.9)
    assert ((bounds.lower < found.sand) & (found.sand < bounds.upper)).all()
    scores = (100 * found.sand - basins.sand_frac).compute()
    assert float(abs(scores).mean()) < 15
    assert xstefa.load_model("soil-texture").path.stat().st_size < 1.5e6


def test_a_target_that_is_no_static_one():
    for wrong in ({"kind": "class"}, {"composition": "texture"}, {"depths": (0.1,)}):
        with pytest.raises(ValueError, match="only a static target"):
            replace(SLIDE, static=False, **{"kind": "number", **wrong})
    with pytest.raises(ValueError, match="range 0 to 1"):
        replace(SLIDE, valid_range=(0, 2))


def test_what_an_attribute_is_derived_from_says_what_the_sites_are(sites):
    angle = np.rad2deg(np.arctan(sites.slope)).assign_attrs(units="degree")
    alone = xr.Dataset({"slope": angle, "slid": sites.slid})
    model = alone.stefa.finetune(SLIDE, **FAST)
    assert model.spec.tokens == ("slope",)
    assert model.spec.ranges["slope"].high == pytest.approx(float(sites.slope.max()), rel=1e-5)
