"""What is hidden and changed of training windows: poorer datasets, other products of weather."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xstefa
from xstefa.model.scaler import Moments
from xstefa.training import perturbation
from xstefa.training.dropout import POOR, TokenDropout
from xstefa.training.perturbation import Perturbation
from xstefa.training.sampling import Batch

SCHEMA = xstefa.load_schema()
NAMES = SCHEMA.forcing_names


def test_windows_of_poor_datasets():
    needs = (("precipitation",), ("temperature_mean", "potential_evapotranspiration"))
    rows = TokenDropout(SCHEMA, probability=0, groups=1, needs=needs, seed=0)
    kinds = {("precipitation", *kept) for kept in POOR} | {NAMES}
    found, counts = np.unique(~rows.forcing.numpy(), axis=0, return_counts=True)
    assert {tuple(np.array(NAMES)[kept]) for kept in found} == {
        tuple(name for name in NAMES if name in kept) for kept in kinds
    }
    assert (counts / len(rows.forcing) > 0.13).all()
    assert float(rows.static.all(dim=1).float().mean()) == pytest.approx(0.5, abs=0.03)
    # Of the others, any number of attributes is as common as any other.
    left = (~rows.static).sum(dim=1)
    counts = torch.bincount(left[left > 0], minlength=len(SCHEMA.statics) + 1)[1:]
    assert counts.min() > 0.4 * counts.float().mean()
    assert counts.max() < 2 * counts.float().mean()
    some = TokenDropout(SCHEMA, probability=0, groups=0.3, seed=0)
    assert float(some.static.all(dim=1).float().mean()) == pytest.approx(0.15, abs=0.02)
    # What is hidden by itself is that, whatever else is.
    alone = TokenDropout(SCHEMA, probability=0.2, seed=3)
    assert (
        TokenDropout(SCHEMA, probability=0.2, groups=0.3, seed=3).forcing >= alone.forcing
    ).all()


@pytest.mark.parametrize("transform", ["identity", "log1p"])
def test_weather_of_another_product(transform):
    """Changed in physical units, whatever the network reads; unknown days stay unknown."""
    moments = {name: Moments(mean=1.5, std=2.0) for name in NAMES}
    moments["precipitation"] = Moments(mean=0.7, std=1.3, transform=transform)
    random = np.random.default_rng(0)
    values = random.gamma(1.0, 5.0, (8, 30, len(NAMES))).astype("f4")
    values[:, :4, 0] = 0
    values[:, 20, 0] = np.nan
    forcing = np.stack(
        [m.standardise(values[..., i]) for i, m in enumerate(moments.values())], axis=-1
    )
    product = Perturbation(moments, probability=1, seed=0)
    number = torch.arange(8) + len(product.table)
    changed = product(number, torch.from_numpy(forcing)).numpy()
    assert (changed == product(torch.arange(8), torch.from_numpy(forcing)).numpy())[:, :20].all()
    rain, evaporation, warming, share = product.table[:8].numpy().T[..., None]
    tomorrow = np.concatenate([values[:, 1:, 0], values[:, -1:, 0]], axis=1)
    tomorrow[:, 19] = values[:, 19, 0]
    expected = values.copy()
    expected[..., 0] = rain * ((1 - share) * values[..., 0] + share * tomorrow)
    for name in perturbation.TEMPERATURES:
        expected[..., NAMES.index(name)] += warming
    expected[..., NAMES.index("potential_evapotranspiration")] *= evaporation
    for i, m in enumerate(moments.values()):
        np.testing.assert_allclose(m.restore(changed[..., i]), expected[..., i], atol=2e-4)


def test_products_differ_as_said():
    table = Perturbation({}, probability=0.5, seed=1).table
    same = (table == torch.tensor([1.0, 1.0, 0.0, 0.0])).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(0.5, abs=0.03)
    rain, evaporation, warming, share = table[~same].T
    spreads = [float(x.std()) for x in (rain.log(), evaporation.log(), warming)]
    assert spreads == pytest.approx([0.1, 0.15, 0.7], rel=0.06)
    assert float((share > 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert share.max() <= 0.4
    assert float(share[share > 0].mean()) == pytest.approx(0.2, abs=0.01)


def test_changed_first_then_hidden():
    moments = {name: Moments(mean=0.0, std=1.0) for name in NAMES}
    dropout = TokenDropout(
        SCHEMA, probability=0.3, seed=0, perturbation=Perturbation(moments, probability=1, seed=0)
    )
    forcing = torch.ones(16, 5, len(NAMES))
    static = torch.ones(16, len(SCHEMA.statics))
    number = torch.arange(16)
    batch = Batch(number, forcing, static, size=16)
    got, _ = dropout(batch)
    assert (got.isnan() == dropout.forcing[:16, None].expand_as(got)).all()
    changed = dropout.perturbation(number, forcing)
    assert torch.equal(got[~got.isnan()], changed[~got.isnan()])
