"""What a model must not see, it is not shown."""

from __future__ import annotations

import numpy as np
import pytest

import xstefa
from tests.training.conftest import ENCODER, HEAD, WINDOWS
from xstefa.errors import TrainingError
from xstefa.evaluation.holdout import RandomGroups

FAST = {"head": HEAD, "steps": 1, "batch_size": 4}


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


def test_rename_of_nothing(basins, foundation):
    with pytest.raises(TrainingError, match="rename names a variable that no dataset has"):
        basins.stefa.finetune("streamflow", model=foundation, rename={"rain": "lai"}, **FAST)


def test_impossible_values(basins, foundation):
    kelvin = basins.assign(tas=basins.tas + 273.15)
    kelvin.tas.attrs = basins.tas.attrs
    with pytest.raises(xstefa.XstefaError, match="tas"):
        kelvin.stefa.finetune("streamflow", model=foundation, **FAST)
