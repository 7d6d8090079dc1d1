"""Heads of several kinds on one encoder, and the mean of those that have an answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xstefa
from tests.training.conftest import HEAD
from xstefa.errors import MissingTokenError, ModelError
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import create_model
from xstefa.training.ensemble import ensemble

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
    with pytest.raises(MissingTokenError, match="potential_evapotranspiration"):
        unknown.stefa.predict(members[1])
    parts = xr.concat([unknown.stefa.predict(m) for m in (members[0], members[2])], dim="member")
    found = unknown.stefa.predict(joint)
    np.testing.assert_allclose(found, parts.mean("member"), rtol=1e-5)
    levels = unknown.stefa.predict(joint, quantiles=[0.0, 1.0])
    np.testing.assert_allclose(levels[0], parts.min("member"), rtol=1e-5)
    np.testing.assert_allclose(levels[1], parts.max("member"), rtol=1e-5)


def test_several_heads_are_trained_side_by_side(basins, foundation) -> None:
    heads = (HEAD, replace(HEAD, kind="residual"), HEAD)
    model = basins.stefa.finetune("streamflow", model=foundation, head=heads, **FAST)
    assert model.spec.architecture.heads == heads
    on = basins.stefa.finetune("streamflow", model=model, head=None, **FAST)
    assert on.spec.architecture.heads == heads
    assert on != model


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
