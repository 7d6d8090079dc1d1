"""Reservoirs: monotone in water, falling without it, forgetful; pieces make the whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from xstefa.errors import OptionError
from xstefa.model.architecture import Driver, HeadSize
from xstefa.model.heads import build_head
from xstefa.model.heads.reservoirs import RESERVOIRS, Reservoirs
from xstefa.model.scaler import Moments

C, S, SITES, DAYS = 5, 6, 3, 900
RAIN, WARMTH, DEMAND = 3, 0, 4
DRIVERS = (
    Driver(column=RAIN, moments=Moments(mean=0.6, std=0.9, transform="log1p")),
    Driver(column=WARMTH, moments=Moments(mean=8.0, std=9.0)),
    Driver(column=DEMAND, moments=Moments(mean=2.0, std=1.5)),
)


@pytest.fixture
def head() -> Reservoirs:
    torch.manual_seed(1)
    size = HeadSize(kind="reservoirs", hidden=8, drivers=DRIVERS, link="logistic")
    built = build_head(size, forcings=C, statics=S, width=0).eval()
    with torch.no_grad():  # sites and days that differ, as after training
        built.rate.weight *= 30
        built.output.weight *= 30
    return built


def inputs(rain: Tensor, warmth: float | Tensor = 10.0) -> tuple[Tensor, Tensor]:
    """Return standardised forcings and attributes, some missing."""
    g = torch.Generator().manual_seed(0)
    forcing = torch.randn(SITES, DAYS, C, generator=g)
    forcing[..., RAIN] = (rain.log1p() - 0.6) / 0.9
    forcing[..., WARMTH] = (warmth - 8.0) / 9.0
    static = torch.randn(SITES, S, generator=g)
    static[1, 2] = torch.nan
    return forcing, static


def rain(seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return 25 * (torch.rand(SITES, DAYS, generator=g) - 0.6).clamp(min=0)


def moisture(head: Reservoirs, *given: Tensor) -> Tensor:
    with torch.no_grad():
        return head(*given, None)


def test_one_reservoir_by_hand(head: Reservoirs) -> None:
    """Without snow, the equations day by day."""
    forcing, static = inputs(rain(), 30.0)
    found = moisture(head, forcing, static)
    water = forcing[..., RAIN].mul(0.9).add(0.6).expm1()
    filled = torch.where(static.isnan(), head.fill_static, static)
    with torch.no_grad():
        site = head.site(filled)
        demand = forcing[..., DEMAND, None] * 1.5 + 2.0
        speed = math.log(2) * 2.0 + 0.1 * demand.clamp(min=0)
        rates = head._rates(forcing, site, speed)
        level, weights = head.output(site).split([1, RESERVOIRS], dim=-1)
    stores = torch.zeros(SITES, RESERVOIRS)
    for day in range(DAYS):
        stores = (stores + water[:, day, None]) * torch.exp(-rates[:, day])
        stored = torch.log(1 + stores / head.depth.detach().exp())
        answer = torch.sigmoid(
            level[:, 0] + (torch.nn.functional.softplus(weights) * stored).sum(-1)
        )
        torch.testing.assert_close(found[:, day], answer, rtol=1e-4, atol=1e-5)


def test_more_rain_makes_no_day_drier_and_none_before_it_different(head: Reservoirs) -> None:
    usual = rain()
    storm = usual.clone()
    storm[:, 400] += 60
    before, after = (moisture(head, *inputs(amount, -2.0)) for amount in (usual, storm))
    assert torch.equal(before[:, :400], after[:, :400])
    assert (after[:, 400:] - before[:, 400:]).min() > -1e-6
    assert (after[:, 401] > before[:, 401]).all()


def test_it_falls_without_rain_and_forgets(head: Reservoirs) -> None:
    wet, dry = torch.full((SITES, DAYS), 10.0), torch.full((SITES, DAYS), 0.0)
    stopped = wet.clone()
    stopped[:, 100:] = 0
    found = moisture(head, *inputs(stopped))
    assert (found[:, 101:].diff(dim=1) < 1e-7).all()
    never = moisture(head, *inputs(dry))
    # Water of 1,000 mm is left after 800 days to e**-2.2 at most.
    assert (found[:, -1] - never[:, -1] < 0.2 * (found[:, 99] - never[:, 99])).all()


def test_more_demand_makes_no_day_wetter(head: Reservoirs) -> None:
    forcing, static = inputs(rain())
    before = moisture(head, forcing, static)
    forcing[..., DEMAND] += 0.5
    change = moisture(head, forcing, static) - before
    assert change.max() < 1e-7
    assert (change.mean(1) < 0).all()


def test_what_falls_in_frost_arrives_when_it_thaws(head: Reservoirs) -> None:
    """As much water arrives as fell, later."""
    warmth = torch.where(torch.arange(DAYS) < 300, -15.0, 15.0).expand(SITES, DAYS)
    with torch.no_grad():
        water, left = head._thaw(rain()[..., None], warmth[..., None], None)
    assert water[:, :300].max() < 1e-3
    assert left.max() < 1e-3
    torch.testing.assert_close(water.sum(1)[:, 0], rain().sum(1), rtol=1e-4, atol=0.1)


def test_pieces_make_the_whole_to_the_bit(head: Reservoirs) -> None:
    forcing, static = inputs(rain(), 1.0)
    forcing[0, 50:60] = torch.nan
    whole = moisture(head, forcing, static)
    pieces, state = [], None
    with torch.no_grad():
        for piece in forcing.split(300, dim=1):
            answer, state = head.advance(piece, static, None, state)
            pieces.append(answer)
    assert torch.equal(torch.cat(pieces, dim=1), whole)


def test_every_weight_learns(head: Reservoirs) -> None:
    forcing, static = inputs(rain(), torch.linspace(-10, 20, DAYS))
    forcing[0, 5] = torch.nan
    head(forcing, static, None).square().mean().backward()
    for name, weight in head.named_parameters():
        assert weight.grad is not None, name
        assert 0 < weight.grad.abs().max() < torch.inf, name


def test_drivers_are_needed() -> None:
    with pytest.raises(OptionError, match="potential evapotranspiration"):
        build_head(HeadSize(kind="reservoirs"), forcings=C, statics=S, width=0)
