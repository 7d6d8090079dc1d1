"""What training minimises, against sums worked out by hand, and what never enters it."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
import torch

from tests.training.conftest import HEAD, WINDOWS
from xstefa.errors import TrainingError
from xstefa.model.decoder import Reconstructed
from xstefa.model.masking import GroupMasking
from xstefa.training.devices import Runner
from xstefa.training.losses import MaskedReconstruction, masked_mse, weighted_mse
from xstefa.training.sampling import Batch


def test_hidden_and_observed_values_count_and_those_of_sites_half() -> None:
    found = Reconstructed(forcing=torch.zeros(1, 3, 2), static=torch.zeros(1, 3))
    forcing = torch.tensor([[[1.0, 2.0], [3.0, 2.0], [99.0, nan]]])
    hidden = torch.tensor([[[True, True], [True, True], [False, True]]])
    static, hidden_static = torch.tensor([[1.0, 5.0, 99.0]]), torch.tensor([[True, True, False]])
    # (1 + 9) / 2 of one variable, (4 + 4) / 2 of the other, (1 + 25) / 2 of the static ones.
    loss = masked_mse(found, forcing, static, hidden, hidden_static)
    assert loss.item() == pytest.approx(5 + 4 + 0.5 * 13)


def test_pretraining_weighs_forcings_and_statics_alike_so(foundation) -> None:
    """A network that says 0 of ones is wrong by 1 in every forcing, and in the static values."""
    network = foundation.network()
    for parameter in network.parameters():
        parameter.data.zero_()
    forcings, statics = len(foundation.schema.forcings), len(foundation.schema.statics)
    masking = GroupMasking.from_schema(foundation.schema)
    objective = MaskedReconstruction(network, runner=Runner(), masking=masking, seed=0)
    ones = torch.ones(64, WINDOWS.length, forcings), torch.ones(64, statics)
    loss = objective(Batch(torch.arange(64), *ones, size=64))
    assert loss.item() == pytest.approx(forcings + 0.5)


@pytest.mark.parametrize(("centred", "expected"), [(0.0, 15 / 4), (0.5, 8.5 / 4)])
def test_known_days_after_the_spin_up_count_by_site(centred: float, expected: float) -> None:
    predicted = torch.tensor([[9.0, 1.0, 2.0, 9.0], [9.0, 3.0, nan, 1.0]])
    target = torch.tensor([[0.0, 0.0, 0.0, nan], [0.0, 0.0, 0.0, 0.0]])
    # Errors 1 and 2 weigh 2, errors 3 and 1 a half; about their means, 0.5 twice and 1 twice.
    loss = weighted_mse(predicted, target, torch.tensor([2.0, 0.5]), spin_up=1, centred=centred)
    assert loss.item() == pytest.approx(expected)


def test_a_single_day_is_its_own_mean() -> None:
    one, target, weight = (torch.tensor(v) for v in ([[3.0, 9.0]], [[1.0, nan]], [2.0]))
    assert weighted_mse(one, target, weight, spin_up=0).item() == 8
    assert weighted_mse(one, target, weight, spin_up=0, centred=1.0).item() == 0


def test_days_of_the_spin_up_are_not_learned_from(basins, foundation) -> None:
    """Of records as long as one window, the order of what is observed in its spin-up is nothing."""
    short = basins.isel(time=slice(WINDOWS.length))

    def curve(turned: slice) -> list[float]:
        ds = short.copy(deep=True)
        ds.qobs[:, turned] = short.qobs.values[:, turned][:, ::-1]
        how = {"head": HEAD, "steps": 2, "batch_size": 4}
        model = ds.stefa.finetune("streamflow", model=foundation, **how)
        return model.spec.provenance["learning_curve"]["training"]

    as_observed = curve(slice(0))
    np.testing.assert_allclose(curve(slice(WINDOWS.spin_up)), as_observed, rtol=1e-4)
    assert not np.allclose(curve(slice(WINDOWS.spin_up, 20)), as_observed, rtol=1e-4)


def test_what_is_observed_in_the_spin_up_alone_makes_no_window(basins, foundation) -> None:
    short = basins.isel(time=slice(WINDOWS.length))
    early = short.assign(qobs=short.qobs.where(np.arange(WINDOWS.length) < WINDOWS.spin_up))
    with pytest.raises(TrainingError, match="no window of 40 days"):
        early.stefa.finetune("streamflow", model=foundation, head=HEAD, steps=1)
