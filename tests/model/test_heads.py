"""Heads, adapters and ablations: one interface, by name, and what each may look at."""

from __future__ import annotations

import pytest
import torch

import xstefa
from tests.training.conftest import make_basins
from xstefa.errors import ModelError, OptionError
from xstefa.model.adapters import ADAPTERS
from xstefa.model.architecture import STATIC, Architecture, Driver, EncoderSize, HeadSize
from xstefa.model.heads import HEADS, build_head
from xstefa.model.heads.direct import TargetDecoder
from xstefa.model.network import StefaLand
from xstefa.model.scaler import Moments
from xstefa.model.variants import DRIVEN, VARIANTS, direct_size, with_target_as_input
from xstefa.schema import load_schema
from xstefa.windows import WindowPolicy

ENCODER = EncoderSize(width=16, layers=1, heads=2, feedforward=16, hidden=8, positions=60)
C, S, DAYS = 4, 4, 40
WEATHER = tuple(Driver(column=i, moments=Moments(mean=5.0, std=5.0)) for i in range(3))


DAILY = [kind for kind in HEADS if kind not in STATIC]


def network(kind: str, members: int = 1, **size: object) -> StefaLand:
    torch.manual_seed(0)
    architecture = Architecture(
        forcings=C,
        statics=S,
        encoder=None if kind == "lstm" else ENCODER,
        heads=(HeadSize(kind=kind, hidden=8, drivers=WEATHER if kind in DRIVEN else (), **size),)
        * members,
    )
    return StefaLand(architecture).eval()


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, DAYS, C, generator=generator)
    c = torch.randn(5, S, generator=generator)
    x[0, 3, 1] = c[1, 2] = torch.nan
    return x, c


@pytest.mark.parametrize("kind", DAILY)
def test_shape_gaps_and_gradients(kind: str) -> None:
    model = network(kind)
    predicted = model(*batch())
    assert predicted.shape == (5, DAYS)
    assert predicted.isfinite().all()
    predicted.sum().backward()
    missing = [n for n, p in model.heads.named_parameters() if p.grad is None]
    # Fills of inputs that a head does not read have nothing to learn.
    assert all(name.partition(".")[2].startswith("fill_") for name in missing)


@pytest.mark.parametrize("kind", DAILY)
def test_rows_and_members(kind: str) -> None:
    model = network(kind)
    x, c = batch()
    order = torch.tensor([3, 1, 4, 0, 2])
    with torch.no_grad():
        torch.testing.assert_close(model(x, c)[order], model(x[order], c[order]))
        several = network(kind, members=2, scale=2.0, offset=1.0)
        days = several.represent(x, c)
        parts = [head(x, c, days) for head in several.heads]
    assert not torch.equal(parts[0], parts[1])
    with torch.no_grad():
        torch.testing.assert_close(several(x, c), (parts[0] + parts[1]) + 1.0)


@pytest.mark.parametrize("kind", [k for k in DAILY if k != "direct"])
def test_no_head_sees_the_future_of_its_own_inputs(kind: str) -> None:
    model = network(kind)
    x, c = batch()
    days = None if model.encoder is None else torch.randn(5, DAYS, ENCODER.width)
    later = x.clone()
    later[:, 20:] += 1.0
    with torch.no_grad():
        before, after = (model.heads[0](v, c, days) for v in (x, later))
    torch.testing.assert_close(before[:, :20], after[:, :20])
    reads_inputs = kind not in ("no_adapter", "linear")
    # The bottleneck starts as the identity.
    assert (not torch.equal(before, after)) == (reads_inputs and kind != "bottleneck")


def test_direct_hides_the_target() -> None:
    model = network("direct")
    x, c = batch()
    other = x.clone()
    other[..., -1] += 5.0
    with torch.no_grad():
        assert torch.equal(model(x, c), model(other, c))


def test_wrong_names() -> None:
    with pytest.raises(OptionError, match="resconn"):
        build_head(HeadSize(kind="resnet"), forcings=C, statics=S, width=8)
    with pytest.raises(OptionError, match=r"link.*softplus"):
        HeadSize(link="relu")
    with pytest.raises(OptionError, match=r"hidden.*whole number above 0"):
        EncoderSize(hidden=0)
    with pytest.raises(OptionError, match="without an encoder"):
        build_head(HeadSize(kind="linear"), forcings=C, statics=S, width=0)


def test_variants_name_heads() -> None:
    assert {v.head for v in VARIANTS.values()} == set(HEADS)
    assert set(ADAPTERS) <= set(VARIANTS)


@pytest.fixture(scope="module")
def knowing() -> xstefa.Model:
    """A foundation model with streamflow among its forcings."""
    schema = load_schema()
    with xstefa.set_options(device="cpu"):
        return xstefa.pretrain(
            make_basins(),
            with_target_as_input(schema, schema.target("streamflow")),
            size=ENCODER,
            windows=WindowPolicy(length=DAYS, spin_up=10, blend=4),
            steps=1,
            batch_size=4,
        )


def test_direct_needs_the_target_among_the_forcings(knowing: xstefa.Model) -> None:
    size = direct_size(HeadSize(kind="direct"), spec=knowing.spec, target="streamflow")
    assert size.scale == knowing.spec.scaler.forcings["streamflow"].std
    with pytest.raises(ModelError, match="as its last forcing"):
        direct_size(HeadSize(kind="direct"), spec=knowing.spec, target="soil_moisture")


def test_direct_starts_as_the_decoder(knowing: xstefa.Model) -> None:
    network = knowing.network()
    forcings, statics = len(knowing.schema.forcings), len(knowing.schema.statics)
    head = TargetDecoder(
        HeadSize(kind="direct", hidden=ENCODER.hidden),
        forcings=forcings,
        statics=statics,
        width=ENCODER.width,
    )
    head.start_from(network.decoder)
    x, c = torch.randn(5, DAYS, forcings), torch.randn(5, statics)
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[..., -1] = True
    with torch.no_grad():
        encoded = network.encoder(x, c, mask)
        expected = network.decoder(encoded).forcing[..., -1]
        torch.testing.assert_close(head(x, c, encoded.days), expected)
