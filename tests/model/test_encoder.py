"""What must not change a result: order of variables and of the batch, padding, kernels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.plain import Embeddings
from xstefa.model import encoder as encoder_module
from xstefa.model import kernels
from xstefa.model.architecture import EncoderSize
from xstefa.model.embedding import VariableEmbedding
from xstefa.model.encoder import Encoder, Representation

C, S, WIDTH = 4, 6, 32
EXACT = {"rtol": 0, "atol": 0}
ROUNDED = {"rtol": 0, "atol": 2e-5}


def build(seed: int = 0, **size: object) -> Encoder:
    torch.manual_seed(seed)
    arguments = {"width": WIDTH, "layers": 2, "heads": 4, "feedforward": 48, "hidden": 16}
    return Encoder(EncoderSize(**(arguments | size)), forcings=C, statics=S).eval()


def windows(rows: int, days: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, days, C, generator=generator)
    c = torch.randn(rows, S, generator=generator)
    for tensor in (x, c):
        tensor[torch.rand(tensor.shape, generator=generator) < 0.1] = torch.nan
    return [
        x,
        c,
        torch.rand(x.shape, generator=generator) < 0.3,
        torch.rand(c.shape, generator=generator) < 0.3,
    ]


def infer(encoder: Encoder, *inputs: torch.Tensor, bf16: bool = False) -> Representation:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return encoder(*inputs)


def assert_same(one: Representation, two: Representation, **tolerance: float) -> None:
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("masked_as", ["vector", "scalar"])
@settings(deadline=None, max_examples=8)
@given(rows=st.integers(1, 13), days=st.integers(1, 50))
def test_fast_kernels_agree_with_plain_ones(
    activation: str, masked_as: str, rows: int, days: int
) -> None:
    encoder = build(activation=activation, static_masked_as=masked_as)
    inputs = windows(rows, days)
    assert_same(infer(encoder, *inputs), encoder(*inputs), **ROUNDED)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(C)), st.permutations(range(S)))
def test_order_of_variables(forcings: list[int], statics: list[int]) -> None:
    encoder, other = build(), build()
    state = encoder.state_dict()
    for name, order in (("embed_forcing", forcings), ("embed_static", statics)):
        for part in ("weight1", "bias1", "weight2", "bias2", "masked"):
            state[f"{name}.{part}"] = state[f"{name}.{part}"][order]
    other.load_state_dict(state)
    x, c, mask_x, mask_c = windows(3, 20)
    permuted = (x[..., forcings], c[:, statics], mask_x[..., forcings], mask_c[:, statics])
    assert_same(infer(encoder, x, c, mask_x, mask_c), infer(other, *permuted), **ROUNDED)


@pytest.mark.parametrize("bf16", [False, True])
@settings(deadline=None, max_examples=15)
@given(st.permutations(range(9)), st.integers(1, 40))
def test_order_of_the_batch_and_neighbours(bf16: bool, order: list[int], days: int) -> None:
    encoder, inputs = build(), windows(9, days)
    found = infer(encoder, *inputs, bf16=bf16)
    moved = infer(encoder, *(i[order] for i in inputs), bf16=bf16)
    assert_same(Representation(*(part[order] for part in found)), moved, **EXACT)
    strangers = windows(9, days, seed=1)
    mixed = [torch.cat([i[:1], s[1:]]) for i, s in zip(inputs, strangers, strict=True)]
    alone = infer(encoder, *mixed, bf16=bf16)
    torch.testing.assert_close(alone.days[0], found.days[0], **EXACT)


@pytest.mark.parametrize("small", [1, 2, 4, 8])
def test_size_of_small_batches(monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    encoder, inputs = build(), windows(7, 30)
    expected = infer(encoder, *inputs)
    monkeypatch.setattr(encoder_module, "SMALL_BATCH", small)
    assert_same(infer(encoder, *inputs), expected, **ROUNDED)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(1, 64))
def test_padding(days: int, block: int) -> None:
    encoder, inputs = build(), windows(2, days)
    expected = infer(encoder, *inputs)
    before = encoder_module.TOKEN_BLOCK
    encoder_module.TOKEN_BLOCK = block
    try:
        assert_same(infer(encoder, *inputs), expected, **ROUNDED)
    finally:
        encoder_module.TOKEN_BLOCK = before


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("masked_as", ["vector", "scalar"])
def test_masked_equals_missing(masked_as: str, bf16: bool) -> None:
    encoder = build(static_masked_as=masked_as)
    x, c, mask_x, mask_c = windows(5, 30)
    missing_x, missing_c = x.masked_fill(mask_x, torch.nan), c.masked_fill(mask_c, torch.nan)
    masked = infer(encoder, x, c, mask_x, mask_c, bf16=bf16)
    assert_same(masked, infer(encoder, missing_x, missing_c, bf16=bf16), **EXACT)
    # and what is hidden cannot leak
    other_x = torch.where(mask_x, torch.randn_like(x), x)
    other_c = torch.where(mask_c, torch.randn_like(c), c)
    assert_same(masked, infer(encoder, other_x, other_c, mask_x, mask_c, bf16=bf16), **EXACT)


def test_everything_missing_is_finite() -> None:
    encoder = build()
    nothing = torch.full((2, 20, C), torch.nan), torch.full((2, S), torch.nan)
    found = infer(encoder, *nothing)
    assert found.days.isfinite().all()
    assert found.site.isfinite().all()


def test_bfloat16_is_close_and_asked_for() -> None:
    encoder, inputs = build(), windows(6, 40)
    single, half = infer(encoder, *inputs), infer(encoder, *inputs, bf16=True)
    assert single.days.dtype == torch.float32
    assert half.days.dtype == torch.bfloat16
    off = half.days.float() - single.days
    assert off.square().mean().sqrt() < 0.02 * single.days.std()


def test_same_seed_same_encoder() -> None:
    inputs = windows(3, 20)
    assert_same(infer(build(3), *inputs), infer(build(3), *inputs), **EXACT)
    assert not torch.equal(infer(build(3), *inputs).site, infer(build(4), *inputs).site)


def test_longer_than_the_table() -> None:
    encoder = build(positions=21)
    assert infer(encoder, *windows(1, 20)).days.shape == (1, 20, WIDTH)
    with pytest.raises(ValueError, match="at most 20 days"):
        infer(encoder, *windows(1, 21))


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_of_the_fused_embedding(masked: bool) -> None:
    names = [f"v{i}" for i in range(C)]
    torch.manual_seed(0)
    plain = Embeddings(names, WIDTH, 16).double()
    fused = VariableEmbedding(variables=C, width=WIDTH, hidden=16).double()
    first, second = plain.embeddings1, plain.embeddings2
    fused.load_state_dict(
        {
            "weight1": torch.stack([first[n].weight[:, 0] for n in names]),
            "bias1": torch.stack([first[n].bias for n in names]),
            "weight2": torch.stack([second[n].weight.T for n in names]),
            "bias2": torch.stack([second[n].bias for n in names]),
            "masked": fused.masked.detach(),
        }
    )
    x, _, mask, _ = windows(3, 20)
    x, hide = x.double(), (x.isnan() | mask) if masked else x.isnan()
    weights = torch.randn(3, 20, WIDTH, dtype=torch.float64)
    vectors = fused.masked.detach().clone().requires_grad_()
    parts = [
        torch.where(hide[..., i : i + 1], vectors[i], plain.embed(n, x[..., i].nan_to_num()))
        for i, n in enumerate(names)
    ]
    (torch.stack(parts).sum(0) * weights).sum().backward()
    (fused(x.masked_fill(hide, torch.nan)) * weights).sum().backward()
    torch.testing.assert_close(fused.masked.grad, vectors.grad)
    for i, n in enumerate(names):
        torch.testing.assert_close(fused.weight1.grad[i], first[n].weight.grad[:, 0])
        torch.testing.assert_close(fused.bias1.grad[i], first[n].bias.grad)
        torch.testing.assert_close(fused.weight2.grad[i], second[n].weight.grad.T)
        torch.testing.assert_close(fused.bias2.grad[i], second[n].bias.grad)


def test_numerical_gradient_of_the_fused_embedding() -> None:
    torch.manual_seed(0)
    fused = VariableEmbedding(variables=2, width=3, hidden=4).double()
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 3, 2) < 0.3
    assert torch.autograd.gradcheck(lambda v: fused(v.masked_fill(mask, torch.nan)), x)


@pytest.mark.parametrize("rows", [1, 2, 4, 7])
def test_small_batches_are_one_pass(rows: int) -> None:
    encoder = build().double()
    inputs = [i.double() if i.is_floating_point() else i for i in windows(rows, 20)]
    with torch.no_grad():
        found = encoder(*inputs)
    assert found.days.dtype == torch.float64
    assert_same(found, encoder(*inputs), rtol=0, atol=1e-12)


def test_a_window_alone_is_a_window_among_others() -> None:
    encoder, (x, c) = build(), windows(7, 30)[:2]
    together = infer(encoder, x, c)
    for row in range(len(x)):
        alone = infer(encoder, x[row : row + 1], c[row : row + 1])
        assert_same(alone, Representation(*(p[row : row + 1] for p in together)), **EXACT)


def test_training_and_gpus_use_plain_arithmetic() -> None:
    layer = torch.nn.Linear(8, 8)
    with torch.no_grad():
        assert not kernels.infers_on_cpu(torch.zeros(1, device="meta"))
    assert not kernels.infers_on_cpu(torch.zeros(1))
    torch.testing.assert_close(kernels.apply(layer, torch.ones(1, 8)), layer(torch.ones(1, 8)))
