"""The physics as a head: water is conserved, nothing looks ahead, pieces make the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.benchmarks.physics import hbv_step
from xstefa.errors import OptionError
from xstefa.model.architecture import WATER, Driver, HeadSize
from xstefa.model.hbv import Forcing, Stores, route
from xstefa.model.heads import build_head
from xstefa.model.heads.hbv import HBV
from xstefa.model.scaler import Moments
from xstefa.training.losses import weighted_mse

C, S, WIDTH, SITES, DAYS = 5, 6, 8, 3, 420
# Rain is standardised as log(1 + x), and no driver lies where the physics has it.
DRIVERS = (
    Driver(column=3, moments=Moments(mean=0.6, std=0.9, transform="log1p")),
    Driver(column=0, moments=Moments(mean=8.0, std=9.0)),
    Driver(column=4, moments=Moments(mean=2.0, std=1.5)),
)


def weather(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return rain (mm d-1), temperature (degC) and evaporation (mm d-1), each (B, T)."""
    g = torch.Generator().manual_seed(seed)
    season = torch.sin(torch.arange(DAYS) * 2 * torch.pi / 365)
    warm = 6 + 12 * season + 4 * torch.randn(SITES, DAYS, generator=g)
    rain = 25 * (torch.rand(SITES, DAYS, generator=g) - 0.6).clamp(min=0)
    rain[0, 100] = 300.0
    return rain, warm, (0.2 * warm).clamp(min=0)


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rain, warm, evaporation = weather(seed)
    forcing = torch.randn(SITES, DAYS, C, generator=g)
    forcing[..., 3] = (rain.log1p() - 0.6) / 0.9
    forcing[..., 0] = (warm - 8) / 9
    forcing[..., 4] = (evaporation - 2) / 1.5
    static = torch.randn(SITES, S, generator=g)
    static[1, 2] = torch.nan
    return forcing, static, torch.randn(SITES, DAYS, WIDTH, generator=g)


@pytest.fixture
def head() -> HBV:
    torch.manual_seed(1)
    size = HeadSize(kind="hbv", hidden=8, drivers=DRIVERS)
    built = build_head(size, forcings=C, statics=S, width=WIDTH).eval()
    with torch.no_grad():  # sites and days that differ, as after training
        for layer in (built.output, built.site[-1]):
            layer.weight *= 30
    return built


def test_water_is_conserved_at_each_site_on_each_day(head: HBV) -> None:
    with torch.no_grad():
        water, _ = head.water(*inputs(), None)
        flow = head(*inputs())
    by_name = dict(zip(WATER, water.unbind(-1), strict=True))
    assert torch.equal(by_name["streamflow"], flow)
    stored = by_name["snow_water_equivalent"] + by_name["soil_water_storage"]
    stored = (stored + by_name["groundwater_storage"]).double()
    rain = weather()[0].double()
    gone = by_name["evapotranspiration"].double() + by_name["streamflow"]
    left = rain[:, 1:] - gone[:, 1:] - stored.diff(dim=1)
    assert left.abs().max() < 1e-3
    assert all((values >= 0).all() and values.max() > 0.1 for values in by_name.values())


def test_it_is_the_readable_step_with_what_the_network_says(head: HBV) -> None:
    forcing, static, days = inputs()
    with torch.no_grad():
        daily, _ = head._remember(forcing, static, days, None)
        p, routing = head._estimate(daily, static)
        stores, runoff = Stores.initial(p["fc"][0]), []
        for day in range(60):
            values = {n: v[day if len(v) > 1 else 0] for n, v in p.items()}
            drivers = Forcing(*(v[:, day, None] for v in weather()))
            stores, moved = hbv_step(stores, drivers, values)
            runoff.append(moved.runoff.mean(-1))
        known = route(torch.stack(runoff), routing).T
        found = head(forcing, static, days)[:, : len(runoff)]
    torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-5)
    assert {n for n, v in p.items() if len(v) > 1} == {"beta", "k0", "betaet"}


def test_no_day_looks_ahead_and_sites_have_parameters_without_days(head: HBV) -> None:
    forcing, static, days = inputs()
    with torch.no_grad():
        known = head.water(forcing, static, days, None)[0]
        for part in range(C):
            later = forcing.clone()
            later[:, 200:, part] += 1.0
            changed = head.water(later, static, days, None)[0]
            assert torch.equal(changed[:, :200], known[:, :200])
            assert not torch.equal(changed[:, 200:], known[:, 200:])
        days[:, 200:] += 1.0
        assert torch.equal(head.water(forcing, static, days, None)[0][:, :200], known[:, :200])


def test_pieces_with_carried_state_are_the_whole(head: HBV) -> None:
    forcing, static, days = inputs()
    forcing[0, 50:75, 0] = torch.nan
    with torch.no_grad():
        whole, last = head.water(forcing, static, days, None)
        # From the 19th day that is not known.
        assert whole[0, :, 0].isnan().nonzero()[0] == 68
        state, pieces = None, []
        for part in (slice(0, 7), slice(7, 8), slice(8, 250), slice(250, DAYS)):
            found, state = head.water(forcing[:, part], static, days[:, part], state)
            pieces.append(found)
    found = torch.cat(pieces, dim=1)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5, equal_nan=True)
    for name, value in state.items():
        torch.testing.assert_close(value, last[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("driver", range(3))
def test_what_is_not_known_is_no_answer(head: HBV, driver: int) -> None:
    forcing, static, days = inputs()
    column = DRIVERS[driver].column
    whole = forcing.clone()
    whole[1, 30:36, column] = torch.nan
    forcing[0, :, column] = torch.nan
    forcing[1, 200:, column] = torch.nan
    with torch.no_grad():
        answered = head(forcing, static, days).isfinite()
        bridged = head.water(whole, static, days, None)[0]
    assert not answered[0].any()
    # On day 218 it is missing on 19 of the last 365 days.
    assert answered[1, :218].all()
    assert not answered[1, 218:].any()
    assert answered[2].all()
    assert bridged.isfinite().all()


def test_missing_temperature_neither_melts_nor_freezes(head: HBV) -> None:
    forcing, static, days = inputs()
    column = DRIVERS[1].column
    forcing[:, :100, column] = -3.0  # a cold winter
    forcing[:, 100:105, column] = torch.nan
    forcing[:, 100:105, DRIVERS[0].column] = torch.nan
    with torch.no_grad():
        snow = head.water(forcing, static, days, None)[0][..., 2]
    assert (snow[:, 99] > 5).all()
    torch.testing.assert_close(snow[:, 104], snow[:, 99])


def test_physics_runs_in_single_precision(head: HBV) -> None:
    forcing, static, days = inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        water, state = head.water(forcing, static, days, None)
    assert water.dtype == state["stores"].dtype == torch.float32
    stored = water[..., 2:].sum(-1).double()
    left = weather()[0].double()[:, 1:] - water[..., :2].sum(-1)[:, 1:] - stored.diff(dim=1)
    assert left.abs().max() < 1e-3


def test_components_begin_apart_and_in_the_middle() -> None:
    torch.manual_seed(0)
    size = HeadSize(kind="hbv", hidden=8, drivers=DRIVERS)
    fresh = build_head(size, forcings=C, statics=S, width=WIDTH).eval()
    forcing, static, days = inputs()
    daily, _ = fresh._remember(forcing, static, days, None)
    p, _ = fresh._estimate(daily, static)
    for name, values in p.items():
        assert len(values[0, 0].unique()) == 16, name
    assert ((p["fc"] > 150) & (p["fc"] < 900)).all()


def test_every_weight_learns_something() -> None:
    torch.manual_seed(0)
    size = HeadSize(kind="hbv", hidden=8, drivers=DRIVERS, dropout=0.0)
    fresh = build_head(size, forcings=C, statics=S, width=WIDTH)
    forcing, static, days = inputs()
    forcing[2, 5, 1] = torch.nan
    flow = fresh(forcing, static, days)
    flow[:, 60:].square().mean().backward()
    for name, weight in fresh.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


def test_drivers_are_needed() -> None:
    with pytest.raises(OptionError, match="precipitation, temperature"):
        build_head(HeadSize(kind="hbv"), forcings=C, statics=S, width=WIDTH)


def test_it_learns_a_catchment_from_its_flow(head: HBV) -> None:
    forcing, static, days = inputs()
    with torch.no_grad():
        target = head(forcing, static, days)
    torch.manual_seed(5)
    size = HeadSize(kind="hbv", hidden=8, drivers=DRIVERS, dropout=0.0)
    learner = build_head(size, forcings=C, statics=S, width=WIDTH)
    hidden = forcing.clone()
    hidden[2, :, 4] = torch.nan  # a window without evaporation says nothing, and does no harm
    optimiser = torch.optim.Adam(learner.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        predicted = learner(hidden, static, days)
        loss = weighted_mse(predicted, target, torch.ones(SITES), spin_up=60)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0
    assert losses[-1] < 0.5 * losses[0]
