"""What a model must not see, it is not shown."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xstefa
from tests.training.conftest import ENCODER, HEAD, WINDOWS
from tests.training.test_finetune import weights_equal
from xstefa.binding import bind
from xstefa.errors import RangeError, TrainingError, XstefaWarning
from xstefa.schema import Alias, StandardName, Target
from xstefa.splits.holdout import (
    FewSites,
    HashedSites,
    NamedSites,
    Period,
    RandomGroups,
    RandomSites,
    Regions,
    held_out,
)
from xstefa.splits.leakage import LeakageWarning
from xstefa.splits.sites import Sites
from xstefa.training.finetune import HeadRecipe, finetune

FAST = {"head": HEAD, "steps": 1, "batch_size": 4}
REGIONS = (("0",), ("1",), ("2",), ("3",))


@pytest.fixture
def leaky(basins):
    """A mean of the observed flow among the attributes, as in CAMELS."""
    return basins.assign(q_mean=("site", np.nanmean(basins.qobs, axis=1), {"units": "mm d-1"}))


def test_computed_from_the_target(leaky, foundation):
    rename = {"q_mean": "p_mean"}
    with pytest.raises(TrainingError, match=r"q_mean.*computed from it.*leave 'q_mean' out"):
        leaky.stefa.finetune("streamflow", model=foundation, rename=rename, **FAST)
    with pytest.raises(TrainingError, match="computed from it"):
        leaky.stefa.cross_validate(
            "streamflow", model=foundation, holdout=RandomGroups(2), rename=rename, **FAST
        )
    with pytest.raises(TrainingError, match="computed from it"):
        xstefa.pretrain(leaky, size=ENCODER, windows=WINDOWS, steps=1, rename=rename)
    # Unasked, matching leaves it alone.
    model = leaky.stefa.finetune("streamflow", model=foundation, **FAST)
    assert "p_mean" not in model.spec.tokens


def test_the_target_itself(basins, foundation):
    with pytest.raises(TrainingError, match="an observation of it"):
        basins.stefa.finetune("streamflow", model=foundation, rename={"qobs": "lai"}, **FAST)
    hidden = basins.rename(qobs="x")
    hidden.x.attrs["standard_name"] = "water_volume_transport_in_river_channel"
    with pytest.raises(TrainingError, match="an observation of it"):
        hidden.stefa.finetune("streamflow", model=foundation, rename={"x": "lai"}, **FAST)


@pytest.mark.parametrize("by", ["name", "standard_name"])
def test_a_target_that_is_read_as_a_token(basins, foundation, by):
    """A target of the user's own may be what some token finds, too."""
    named = by == "standard_name"
    warmth = Target(
        name="warmth",
        units="degC",
        long_name="air temperature",
        cell_methods="time: mean",
        valid_range=(-60, 60),
        aliases=() if named else (Alias(name="tas", source="own"),),
        standard_names=(StandardName(name="air_temperature"),) if named else (),
    )
    basins = basins.copy(deep=True)
    if not named:
        del basins.tas.attrs["standard_name"]
    with pytest.raises(TrainingError, match=r"'tas'.*provides the token 'temperature_mean'"):
        basins.stefa.finetune(warmth, model=foundation, **FAST)


def test_a_target_with_the_name_of_a_token(basins, foundation):
    """Its observations are found by its name, and are that token's values, too."""
    wet = Target(
        name="precipitation",
        units="mm d-1",
        long_name="rain",
        cell_methods="time: mean",
        valid_range=(0, 2000),
    )
    basins = basins.rename(pr="precipitation")
    del basins.precipitation.attrs["standard_name"]
    with pytest.raises(TrainingError, match=r"the token 'precipitation'.*hidden=\('precipita"):
        basins.stefa.finetune(wet, model=foundation, **FAST)
    dry = {"model": foundation, "recipe": HeadRecipe(needs=(("temperature_mean",),)), **FAST}
    model = basins.stefa.finetune(replace(wet, hidden=("precipitation",)), **dry)
    assert "precipitation" not in model.spec.tokens
    expected = basins.stefa.predict(model)
    changed = basins.assign(precipitation=0 * basins.precipitation)
    xr.testing.assert_equal(changed.stefa.predict(model), expected)


def test_a_prediction_in_place_of_an_observation(basins, foundation):
    model = basins.stefa.finetune("streamflow", model=foundation, **FAST)
    back = basins.drop_vars("qobs").assign(streamflow=basins.stefa.predict(model))
    with pytest.warns(XstefaWarning, match="'streamflow' is taken for an observation") as caught:
        back.stefa.evaluate(model)
    assert any(model.name in str(each.message) for each in caught)
    del back["streamflow"].attrs["model_hash"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*taken for an observation")
        back.stefa.evaluate(model)


def test_names_to_hold_out_that_no_dataset_has(basins, foundation):
    parts = {"first": basins.isel(site=slice(4)), "second": basins.isel(site=slice(4, 8))}
    how = {"model": foundation, "head": HEAD, "steps": 1, "batch_size": 4}
    with pytest.warns(LeakageWarning, match=r"1 of 3 .*'guage 7'.*'gauge 0', 'gauge 1'"):
        finetune(parts, "streamflow", holdout=NamedSites(("gauge 1", "gauge 6", "guage 7")), **how)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeakageWarning)
        finetune(parts, "streamflow", holdout=NamedSites(("gauge 1", "gauge 6")), **how)


def test_a_site_in_two_datasets(basins, foundation):
    """Random groups of each dataset could put a gauge on both sides."""
    parts = {"one": basins, "two": basins.isel(site=slice(2, 7))}
    how = {"model": foundation, **FAST}
    for rule in (RandomGroups(3).fold(0), RandomSites(0.3), Regions("region").fold(1)):
        with pytest.raises(TrainingError, match=r"held out of one dataset.*HashedSites"):
            finetune(parts, "streamflow", holdout=rule, **how)
        with pytest.raises(TrainingError, match="held out of one dataset"):
            xstefa.pretrain(parts, size=ENCODER, windows=WINDOWS, steps=1, holdout=rule)
    for rule in (HashedSites(0.4), Regions("region", REGIONS).fold(1), PERIOD):
        assert finetune(parts, "streamflow", holdout=rule, **how)
    # A dataset of which the hash holds out nothing is learned from as a whole.
    out = held_out(basins.site.values, fraction=0.4)
    more = finetune(
        {"one": basins, "none": basins.isel(site=~out)},
        "streamflow",
        holdout=HashedSites(0.4),
        **how,
    )
    assert more.spec.provenance["datasets"]["none"]["sites"] == (~out).sum()


PERIOD = Period("2001-04-01", "2001-05-15", gap=3)


@pytest.mark.parametrize(
    "rule",
    [
        RandomSites(0.25),
        PERIOD,
        RandomSites(0.25) & PERIOD,
        FewSites(Regions("region").fold(1) & PERIOD, 3),
    ],
    ids=lambda rule: type(rule).__name__,
)
@pytest.mark.parametrize("watched", [False, True])
def test_what_is_held_out_moves_no_weight(basins, foundation, rule, watched):
    """Whatever was observed where a holdout tests, or not at all: the weights are the same."""
    more = {"validation": RandomSites(0.3), "patience": 2} if watched else {}
    how = {"model": foundation, "head": HEAD, "steps": 4, "batch_size": 4, **more}
    fold = rule.folds(Sites.of(basins, bind(basins, foundation.schema).layout))[0]
    told = fold.train_sites[:, None] & fold.train_days
    random = np.random.default_rng(0)
    noise = random.gamma(1, 50, told.shape).astype("f4")
    noise[random.random(told.shape) < 0.3] = np.nan
    other = basins.copy(deep=True)
    other.qobs.values = np.where(told, basins.qobs, noise)
    models = [d.stefa.finetune("streamflow", holdout=rule, **how) for d in (basins, other)]
    assert weights_equal(*models)
    tests = [
        d.stefa.cross_validate("streamflow", holdout=rule, scores="nse", **how)
        for d in (basins, other)
    ]
    np.testing.assert_array_equal(tests[0].predicted, tests[1].predicted)


def test_rename_of_nothing(basins, foundation):
    with pytest.raises(TrainingError, match="rename names a variable that no dataset has"):
        basins.stefa.finetune("streamflow", model=foundation, rename={"rain": "lai"}, **FAST)


@pytest.mark.parametrize("mark", [-999.0, -99.0, np.inf])
def test_marks_of_missing_observations(basins, foundation, mark):
    marked = basins.copy(deep=True)
    marked.qobs[3, 7] = mark
    with pytest.raises(RangeError, match=f"1 values, e.g. {mark:g}"):
        marked.stefa.finetune("streamflow", model=foundation, **FAST)
    for data in (marked, marked.chunk(site=1)):
        with pytest.raises(RangeError, match=f"1 values, e.g. {mark:g}"):
            data.stefa.evaluate("streamflow", scores="nse").compute()
    slightly = basins.copy(deep=True)
    slightly.qobs[3, 7] = -0.01
    assert slightly.stefa.finetune("streamflow", model=foundation, **FAST)


def test_infinite_inputs(basins, foundation):
    marked = basins.copy(deep=True)
    marked.tas[2, 5] = np.inf
    with pytest.raises(RangeError, match=r"'tas'.*infinite"):
        marked.stefa.finetune("streamflow", model=foundation, **FAST)


def test_impossible_values(basins, foundation):
    kelvin = basins.assign(tas=basins.tas + 273.15)
    kelvin.tas.attrs = basins.tas.attrs
    with pytest.raises(xstefa.XstefaError, match="tas"):
        kelvin.stefa.finetune("streamflow", model=foundation, **FAST)
