"""Heads of several kinds on one encoder, and the mean of those that have an answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xstefa
from tests.training.conftest import HEAD
from xstefa.errors import MissingTokenError, ModelError
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.model.checkpoint import create_model
from xstefa.training.ensemble import ensemble, stretched
from xstefa.training.finetune import HeadRecipe
from xstefa.windows import SegmentPolicy

FAST = {"steps": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def members(basins, foundation) -> list[xstefa.Model]:
    return [
        basins.stefa.finetune("streamflow", model=foundation, head=head, **FAST)
        for head in (HEAD, "hbv", HeadSize(kind="residual", hidden=4, link="softplus", scale=3.0))
    ]


def test_the_answer_is_the_mean_of_all_kinds(basins, members) -> None:
    joint = ensemble(members, name="family")
    assert [size.kind for size in joint.spec.architecture.heads] == ["resconn", "hbv", "residual"]
    assert len(members[1].spec.needs) == 3  # evaporation as well
    assert joint.spec.needs == members[0].spec.needs
    # Physics in windows that fade into each other conserves nothing.
    assert members[1].spec.outputs == joint.spec.outputs == ("streamflow",)
    parts = xr.concat([basins.stefa.predict(model) for model in members], dim="member")
    np.testing.assert_allclose(basins.stefa.predict(joint), parts.mean("member"), rtol=1e-5)
    again = ensemble([joint, members[0]], name="larger")
    assert len(again.spec.architecture.heads) == 4


def test_a_member_without_an_answer_does_not_count(basins, members) -> None:
    joint = ensemble(members, name="family")
    unknown = basins.drop_vars("lat")  # without which evaporation cannot be estimated
    with pytest.raises(MissingTokenError, match="temperature_mean and latitude"):
        unknown.stefa.predict(members[1])
    parts = xr.concat([unknown.stefa.predict(m) for m in (members[0], members[2])], dim="member")
    found = unknown.stefa.predict(joint)
    np.testing.assert_allclose(found, parts.mean("member"), rtol=1e-5)


def test_several_heads_are_trained_side_by_side(basins, foundation) -> None:
    heads = (HEAD, replace(HEAD, kind="residual"), HEAD)
    model = basins.stefa.finetune("streamflow", model=foundation, head=heads, **FAST)
    assert model.spec.architecture.heads == heads
    on = basins.stefa.finetune("streamflow", model=model, head=None, **FAST)
    assert on.spec.architecture.heads == heads
    assert on != model


def test_a_member_without_an_encoder_narrows_the_ranges(basins, foundation, members) -> None:
    low = foundation.spec.ranges["elevation"]
    seen = {**foundation.spec.ranges, "elevation": replace(low, low=low.low - 500)}
    wider = create_model(
        replace(members[0].spec, ranges={**members[0].spec.ranges, **seen}),
        members[0].network().state_dict(),
    )
    bare = basins.stefa.finetune("streamflow", model=foundation, head="lstm", **FAST)
    joint = ensemble([bare, wider], name="family")
    assert [size.kind for size in joint.spec.architecture.heads] == ["resconn", "lstm"]
    assert joint.spec.ranges == bare.spec.ranges
    mean = (basins.stefa.predict(wider) + basins.stefa.predict(bare)) / 2
    np.testing.assert_allclose(basins.stefa.predict(joint), mean, rtol=1e-5)
    on = basins.stefa.finetune("streamflow", model=joint, head=None, **FAST)
    assert on.spec.architecture.heads == joint.spec.architecture.heads
    other = replace(low, low=low.low + 1, high=low.high + 1000, mean_low=low.low + 1)
    elsewhere = create_model(
        replace(bare.spec, ranges={**bare.spec.ranges, "elevation": other}),
        bare.network().state_dict(),
    )
    with pytest.raises(ModelError, match="ranges"):
        ensemble([wider, elsewhere, members[0]], name="family")


@pytest.fixture(scope="module")
def looking_back(basins) -> xstefa.Model:
    encoder = EncoderSize(
        attention="causal", band=64, width=16, layers=1, heads=2, feedforward=16, hidden=8
    )
    windows = SegmentPolicy(length=60, spin_up=20)
    return xstefa.pretrain(basins, size=encoder, windows=windows, steps=2, batch_size=4)


def test_physics_among_others_fills_its_stores_first(basins, looking_back) -> None:
    longer = HeadRecipe(windows=SegmentPolicy(length=90, spin_up=20))
    network, physics = (
        basins.stefa.finetune("streamflow", model=looking_back, head=head, recipe=recipe, **FAST)
        for head, recipe in ((HEAD, None), ("hbv", longer))
    )
    assert (network.spec.windows.known, physics.spec.windows.known) == (0.5, 0.95)
    joint = ensemble([physics, network], name="family")
    assert joint.spec.windows.known == 0.5
    members = [basins.stefa.predict(model) for model in (physics, network, joint)]
    # 10 and 19 of the 20 days before are known; between them the other member answers alone.
    assert [int(m.notnull().any("site").argmax("time")) for m in members] == [19, 10, 10]
    mean = xr.concat(members[:2], dim="member").mean("member")
    np.testing.assert_allclose(members[2], mean, rtol=1e-5)
    # Trained side by side it is the same.
    heads = (HEAD, HeadSize(kind="hbv", hidden=8))
    both = basins.stefa.finetune("streamflow", model=looking_back, head=heads, **FAST)
    assert both.spec.windows == network.spec.windows
    assert [size.spin_up for size in both.spec.architecture.heads] == [0, 19]


def test_a_model_is_stretched_head_by_head(basins, foundation, members) -> None:
    family = [member for member in members if member.spec.architecture.heads[0].kind != "resconn"]
    joint = stretched(
        stretched(ensemble(family, name="family"), gain=0.9, power=1.2), gain=1.1, power=1.05
    )
    parts = [1.1 * (0.9 * basins.stefa.predict(model) ** 1.2) ** 1.05 for model in family]
    mean = xr.concat(parts, dim="member").mean("member")
    assert float(mean.max()) > 0
    # Windows that fade into each other do so after the power, here before it.
    np.testing.assert_allclose(basins.stefa.predict(joint), mean, rtol=1e-3)
    assert joint.spec.provenance["stretched"] == {"gain": 1.1, "power": 1.05}
    signed = replace(HEAD, link="identity")
    any_sign = basins.stefa.finetune("streamflow", model=foundation, head=signed, **FAST)
    with pytest.raises(ModelError, match="heads that answer 0 or more"):
        stretched(any_sign, gain=1.0, power=1.1)


def test_of_nothing_there_is_no_ensemble() -> None:
    with pytest.raises(ModelError, match="at least one model"):
        ensemble([], name="nothing")


def test_other_answers_have_another_distribution() -> None:
    model = xstefa.load_model("streamflow")
    assert model.spec.distribution is not None
    assert stretched(model, gain=1.0, power=1.1).spec.distribution is None
    assert ensemble([model], name="alone").spec.distribution is None


def test_a_water_balance_is_not_stretched() -> None:
    with pytest.raises(ModelError, match="one target"):
        stretched(xstefa.load_model("water-balance"), gain=1.0, power=1.1)


def test_what_is_joined_cuts_records_alike(basins, looking_back) -> None:
    recipe = HeadRecipe(windows=SegmentPolicy(length=60, spin_up=30))
    models = [
        basins.stefa.finetune("streamflow", model=looking_back, head=HEAD, recipe=how, **FAST)
        for how in (None, recipe)
    ]
    with pytest.raises(ModelError, match=r"'windows'.*spin_up=30.*spin_up=20"):
        ensemble(models, name="family")


def test_what_is_joined_shares_an_encoder(basins, foundation, members) -> None:
    tuned = basins.stefa.finetune(
        "streamflow", model=foundation, head=HEAD, encoder="tuned", **FAST
    )
    with pytest.raises(ModelError, match="one frozen encoder"):
        ensemble([members[0], tuned], name="family")
    other = create_model(
        replace(members[0].spec, support="grid"), members[0].network().state_dict()
    )
    with pytest.raises(ModelError, match="support"):
        ensemble([members[0], other], name="family")
