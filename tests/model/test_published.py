"""Importing the authors' checkpoints: any names and sizes, exact files only, nothing executed."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import xstefa
from tests.benchmarks.plain import PlainStefaLand
from xstefa.binding.binding import TokenWarning
from xstefa.errors import ModelError
from xstefa.model.published_layout import PublishedLayout
from xstefa.model.scaler import Moments, Scaler

KEYS = Path(__file__).parents[1] / "golden" / "keys.txt"
FORCINGS = ["prcp", "tmean", "odd name/1"]
STATICS = ["elev_mean", "mystery"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path):
    with xstefa.set_options(cache_dir=tmp_path / "cache"):
        yield


@pytest.fixture
def plain() -> PlainStefaLand:
    torch.manual_seed(0)
    sizes = {"width": 24, "layers": 3, "heads": 2, "feedforward": 40, "hidden": 16}
    return PlainStefaLand(FORCINGS, STATICS, **sizes, positions=50).eval()


def saved(path: Path, weights: dict[str, torch.Tensor], **more: object) -> Path:
    torch.save({"model_state_dict": weights, **more}, path)
    return path


def windows(seed: int = 0, days: int = 30) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, days, len(FORCINGS), generator=generator)
    c = torch.randn(4, len(STATICS), generator=generator)
    x[torch.rand(x.shape, generator=generator) < 0.1] = torch.nan
    c[0, 1] = torch.nan
    return [
        x,
        c,
        torch.rand(x.shape, generator=generator) < 0.3,
        torch.rand(c.shape, generator=generator) < 0.3,
    ]


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_equals_the_plain_network(tmp_path: Path, prefix: str, recurrent: bool) -> None:
    torch.manual_seed(1)
    sizes = {"width": 20, "layers": 1, "heads": 5, "feedforward": 12, "hidden": 8, "positions": 40}
    plain = PlainStefaLand(FORCINGS, STATICS, **sizes, recurrent=recurrent).eval()
    weights = {prefix + key: value for key, value in plain.state_dict().items()}
    path = saved(tmp_path / "a.pt", weights, epoch=np.int64(3), losses=[np.float64(1.5)])
    model = xstefa.import_published(path, heads=5)
    batch = windows()
    with torch.no_grad():
        tokens = plain.encode(*batch)
        found_x, found_c = plain.reconstruct(*batch)
    days, site = model.encode(*batch)
    torch.testing.assert_close(days, tokens[:, :-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(site, tokens[:, -1], atol=1e-5, rtol=0)
    x, c = model.reconstruct(*(b.numpy() for b in batch))
    assert isinstance(x, np.ndarray)
    torch.testing.assert_close(torch.from_numpy(x), found_x, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(c), found_c, atol=1e-5, rtol=0)
    assert model.spec.provenance["epoch"] == 3


def test_names_become_tokens_where_the_schema_knows_them(
    tmp_path: Path, plain: PlainStefaLand
) -> None:
    path = saved(tmp_path / "a.pt", plain.state_dict())
    model = xstefa.import_published(path, heads=2, units={"mystery": "m"})
    assert model.schema.forcing_names == ("precipitation", "temperature_mean", "odd name/1")
    assert model.schema.static_names == ("elevation", "mystery")
    assert model.schema["mystery"].units == "m"
    assert model.spec.provenance["units_unknown"] == ["odd name/1"]
    assert xstefa.Model(model.save(tmp_path / "b").path).spec == model.spec


def test_datasets_are_read_only_in_known_units(tmp_path: Path, plain: PlainStefaLand) -> None:
    path = saved(tmp_path / "a.pt", plain.state_dict())
    one = Moments(mean=0.0, std=1.0)
    scaler = Scaler(forcings=dict.fromkeys(FORCINGS, one), statics=dict.fromkeys(STATICS, one))
    days = np.arange("2000-01-01", "2000-06-01", dtype="datetime64[D]").astype("datetime64[ns]")
    random = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "prcp": (("time", "basin"), random.random((len(days), 2)), {"units": "mm/day"}),
            "tmean": (("time", "basin"), random.random((len(days), 2)), {"units": "degC"}),
            "mystery": ("basin", random.random(2), {"units": "m"}),
        },
        coords={"time": days, "basin": [1, 2]},
    )
    with pytest.warns(TokenWarning, match="import_published"):
        ds.stefa.embed(model=xstefa.import_published(path, scaler, heads=2))
    model = xstefa.import_published(path, scaler, heads=2, units={"mystery": "km"})
    assert ds.stefa.embed(model=model).shape == (2, 24)
    found = ds.stefa.reconstruct(["odd name/1"], model=model)
    assert found["odd name/1"].attrs["units"] == "unknown"


def test_two_names_of_one_token_stay_as_they_are(tmp_path: Path) -> None:
    plain = PlainStefaLand(["prcp", "tp"], ["elev_mean"], width=8, layers=1, positions=9)
    model = xstefa.import_published(saved(tmp_path / "a.pt", plain.state_dict()))
    assert model.schema.forcing_names == ("prcp", "tp")


def test_scaler_under_either_name(tmp_path: Path, plain: PlainStefaLand) -> None:
    path = saved(tmp_path / "a.pt", plain.state_dict())
    moments = [Moments(mean=float(i), std=2.0) for i in range(5)]
    scaler = Scaler(
        forcings=dict(zip(["odd name/1", "temperature_mean", "prcp"], moments, strict=False)),
        statics={"mystery": moments[3], "elev_mean": moments[4]},
    )
    model = xstefa.import_published(path, scaler, heads=2)
    assert [m.mean for m in model.spec.scaler.forcings.values()] == [2, 1, 0]
    assert list(model.spec.scaler.statics) == ["elevation", "mystery"]
    assert model.spec.provenance["scaler"] == "given"
    incomplete = Scaler(forcings=scaler.forcings, statics={"elevation": moments[0]})
    with pytest.raises(ModelError, match=r"missing: mystery; unknown: none"):
        xstefa.import_published(path, incomplete, heads=2)


def test_lists_every_tensor_that_is_wrong(tmp_path: Path, plain: PlainStefaLand) -> None:
    weights = dict(plain.state_dict())
    del weights["time_series_embedding.embeddings1.tmean.weight"]
    del weights["encoder.transformer_encoder.layers.0.linear1.weight"]
    weights["decoder.weight_ih_l1"] = torch.zeros(3)
    weights["encoder_norm.bias"] = torch.zeros(7)
    with pytest.raises(ModelError) as caught:
        xstefa.import_published(saved(tmp_path / "a.pt", weights), heads=2)
    text = str(caught.value)
    assert "missing: time_series_embedding.embeddings1.tmean.weight (16, 1)" in text
    assert "encoder.transformer_encoder.layers.0.linear1.weight (40, 24)" in text
    assert "extra: decoder.weight_ih_l1 (3,)" in text
    assert "misshapen: encoder_norm.bias (7,) instead of (24,)" in text


SMALL = {"width": 16, "layers": 2, "heads": 4, "feedforward": 8, "hidden": 4, "positions": 12}
SMALL_WEIGHTS = PlainStefaLand(FORCINGS, STATICS, **SMALL).state_dict()
# The rows of these are what the file says; any number will do.
FREE = {"static_embedding.masked_values", "positional_encoding.position_embedding"}


@pytest.mark.parametrize("key", SMALL_WEIGHTS)
def test_blames_the_tensor_that_is_wrong(key: str) -> None:
    good = SMALL_WEIGHTS[key]
    wrong = {
        "missing": None,
        "one number": good.flatten()[0],
        "one axis more": good.unsqueeze(0),
        "empty": good[:0],
        "a column more": torch.cat([good, good[..., :1]], -1),
    }
    if key not in FREE:
        wrong["a row more"] = torch.cat([good, good[:1]])
    for case, tensor in wrong.items():
        weights = {name: value for name, value in SMALL_WEIGHTS.items() if name != key}
        if tensor is not None:
            weights[key] = tensor
        shapes = {k: tuple(v.shape) for k, v in weights.items()}
        with pytest.raises(ModelError) as caught:
            PublishedLayout.recover(shapes, heads=4).state(weights)
        assert key in str(caught.value), case


def test_one_network_only(tmp_path: Path, plain: PlainStefaLand) -> None:
    weights = dict(plain.state_dict())
    weights["module.encoder_norm.bias"] = weights["encoder_norm.bias"] + 1.0
    with pytest.raises(ModelError, match=r"without the prefix module\.: encoder_norm.bias"):
        xstefa.import_published(saved(tmp_path / "a.pt", weights), heads=2)


def test_one_meaning_of_a_name(tmp_path: Path) -> None:
    weights = PlainStefaLand(["lai", "prcp"], ["lai"], **SMALL).state_dict()
    with pytest.raises(ModelError, match="both among the time series and among"):
        xstefa.import_published(saved(tmp_path / "a.pt", weights))


def test_arrays_of_any_layout(tmp_path: Path, plain: PlainStefaLand) -> None:
    model = xstefa.import_published(saved(tmp_path / "a.pt", plain.state_dict()), heads=2)
    x, c, mask_x, mask_c = (b.numpy() for b in windows())
    days, site = model.encode(x, c, mask_x, mask_c)
    turned = model.encode(x[::-1], c[::-1], mask_x[::-1], mask_c[::-1])
    np.testing.assert_array_equal(turned[0][::-1], days)
    np.testing.assert_array_equal(turned[1][::-1], site)
    locked = np.asfortranarray(x, dtype="f8")
    locked.flags.writeable = False
    np.testing.assert_array_equal(model.encode(locked, c, mask_x, mask_c)[0], days)
    assert model.encode(x[:0], c[:0])[0].shape == (0, 30, 24)
    assert model.reconstruct(x[:0], c[:0])[1].shape == (0, 2)


def test_refuses_what_it_cannot_know(tmp_path: Path, plain: PlainStefaLand) -> None:
    path = saved(tmp_path / "a.pt", plain.state_dict())
    for heads in (7, 0):
        with pytest.raises(ModelError, match="divisor of the width"):
            xstefa.import_published(path, heads=heads)
    with pytest.raises(ModelError, match="units for names"):
        xstefa.import_published(path, heads=2, units={"prcp": "m"})
    with pytest.raises(ModelError, match="no such file"):
        xstefa.import_published(tmp_path / "none.pt")
    with pytest.raises(ModelError, match="time_series_embedding"):
        xstefa.import_published(saved(tmp_path / "b.pt", {"weight": torch.zeros(2)}))
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(ModelError, match="a list"):
        xstefa.import_published(tmp_path / "c.pt")


class _Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": {}, "extra": _Bomb()}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="cannot be read safely"):
        xstefa.import_published(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ModelError, match="cannot be read safely"):
        xstefa.import_published(tmp_path / "b.pt")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("content", [b"", b"some notes", b"PK\x03\x04" + b"0" * 50])
def test_files_of_another_kind_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read safely"):
        xstefa.import_published(tmp_path / "a.pt")


def test_shapes_are_checked(tmp_path: Path, plain: PlainStefaLand) -> None:
    model = xstefa.import_published(saved(tmp_path / "a.pt", plain.state_dict()), heads=2)
    x, c, mask_x, mask_c = windows()
    for wrong, name in (
        ((x[..., :2], c, None, None), "x"),
        ((torch.zeros(4, 50, 3), c, None, None), "x"),
        ((x, c[:2], None, None), "c"),
        ((x, c, mask_x[:2], None), "mask_x"),
        ((x, c, None, mask_c.float()), "mask_c"),
    ):
        with pytest.raises(ModelError, match=f"'{name}'"):
            model.encode(*wrong)
    with pytest.raises(ModelError, match="at most 1000"):
        model.encode(x.repeat(300, 1, 1), c.repeat(300, 1), published_static_mask=True)


def test_full_size_layout() -> None:
    shapes = {}
    for line in KEYS.read_text().splitlines():
        key, _, shape = line.partition(" ")
        shapes[key] = tuple(int(n) for n in re.findall(r"\d+", shape))
    layout = PublishedLayout.recover(shapes, heads=4)
    assert {key: place.shape for key, place in layout.places().items()} == shapes
    assert (len(layout.forcings), len(layout.statics)) == (5, 48)
