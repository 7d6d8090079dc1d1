"""The encoder that looks back only, against plain attention with a mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xstefa.model import kernels
from xstefa.model.architecture import Architecture, EncoderSize, HeadSize
from xstefa.model.causal import BLOCK, CausalEncoder, fading
from xstefa.model.encoder import Representation
from xstefa.model.network import StefaLand

SIZE = EncoderSize(attention="causal", band=64, width=16, layers=2, feedforward=32, hidden=8)


def encoder() -> CausalEncoder:
    torch.manual_seed(0)
    return CausalEncoder(SIZE, forcings=3, statics=2).eval()


def inputs(days: int, sites: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    forcing = torch.randn(sites, days, 3, generator=generator)
    forcing[0, 5:9, 1] = torch.nan
    return forcing, torch.randn(sites, 2, generator=generator)


@pytest.mark.parametrize("days", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("band", [64, 128])
def test_banded_attention_is_attention_with_a_mask(days: int, band: int) -> None:
    generator = torch.Generator().manual_seed(days)
    heads, width = 2, 8
    query = torch.randn(3, days, width, generator=generator)
    past = torch.randn(3, band + days, 2 * width, generator=generator)
    site = torch.randn(3, 1, 2 * width, generator=generator)
    found = kernels.banded_attention(query, past, site, fading(heads, band), heads=heads)

    both = torch.cat([site, past], dim=1)
    key, value = both.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    lag = torch.arange(days)[:, None] + band - torch.arange(band + days)
    slopes = torch.tensor([2.0**-4, 2.0**-8])
    bias = (-slopes[:, None, None] * lag).masked_fill((lag < 0) | (lag >= band), -torch.inf)
    bias = functional.pad(bias, (1, 0))
    scores = query.unflatten(-1, (heads, -1)).transpose(1, 2) @ key.transpose(-1, -2)
    weights = (scores / (width / heads) ** 0.5 + bias).softmax(dim=-1)
    plain = (weights @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_a_day_reaches_as_far_back_as_the_band_a_layer_and_never_ahead() -> None:
    forcing, static = inputs(300)
    changed = forcing.clone()
    changed[:, 100, 0] += 3
    with torch.no_grad():
        first, second = (encoder()(x, static).days for x in (forcing, changed))
    touched = (first != second).any(-1).any(0).nonzero().flatten()
    assert touched[0] == 100
    # Two layers, each 63 days back.
    assert 100 + 63 < touched[-1] <= 100 + 2 * 63


def test_the_site_knows_the_attributes_only() -> None:
    forcing, static = inputs(70)
    with torch.no_grad():
        assert encoder()(forcing, static).site.equal(encoder()(forcing + 1, static).site)
        assert not encoder()(forcing, static).site.equal(encoder()(forcing, static + 1).site)


@pytest.mark.parametrize("pieces", [[300], [64, 236], [100, 1, 150, 49]])
def test_pieces_that_carry_the_state_are_the_whole(pieces: list[int]) -> None:
    forcing, static = inputs(300)
    model = encoder()
    with torch.no_grad():
        whole = model(forcing, static)
        state, found = None, []
        for piece in forcing.split(pieces, dim=1):
            encoded, state = model.advance(piece, static, state)
            found.append(encoded.days)
    torch.testing.assert_close(torch.cat(found, dim=1), whole.days, rtol=1e-5, atol=1e-5)


def test_inference_and_training_are_the_same_numbers() -> None:
    forcing, static = inputs(150)
    learned = encoder()(forcing, static)
    with torch.no_grad():
        inferred = encoder()(forcing, static)
    assert isinstance(inferred, Representation)
    torch.testing.assert_close(learned.days, inferred.days, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(learned.site, inferred.site, rtol=1e-5, atol=1e-5)


def test_every_weight_learns() -> None:
    forcing, static = inputs(BLOCK + 3)
    network = StefaLand(
        Architecture(forcings=3, statics=2, encoder=SIZE, heads=(HeadSize(hidden=8),) * 2)
    )
    mask = torch.rand(forcing.shape) < 0.3
    assert network.encoder is not None
    encoded = network.encoder(forcing, static, mask)
    (network(forcing, static).square().sum() + encoded.days.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.encoder.parameters())


def test_a_network_reads_a_long_record_in_pieces() -> None:
    forcing, static = inputs(900)
    network = StefaLand(
        Architecture(forcings=3, statics=2, encoder=SIZE, heads=(HeadSize(hidden=8),) * 2)
    ).eval()
    whole = network.members(forcing, static).detach()
    with torch.no_grad():
        torch.testing.assert_close(network.members(forcing, static), whole, rtol=1e-5, atol=1e-5)
        # To the bit whichever sites are beside it.
        one = network.members(forcing[3:4], static[3:4])
        assert one.equal(network.members(forcing, static)[3:4])
        again, state = network.advance(forcing[:, :500], static, None)
        then, _ = network.advance(forcing[:, 500:], static, state)
        torch.testing.assert_close(torch.cat([again, then], 1), whole, rtol=1e-5, atol=1e-5)


def test_a_band_is_whole_blocks() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        EncoderSize(attention="causal", band=100)
