"""The released network, stage by stage, against vectors made with the authors' modules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import xstefa
from xstefa.model.network import StefaLand
from xstefa.model.published_layout import PublishedLayout
from xstefa.training.losses import masked_mse, weighted_mse

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "pretrained.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> xstefa.Model:
    with xstefa.set_options(cache_dir=tmp_path_factory.mktemp("cache")):
        return xstefa.import_published(GOLDEN / "pretrained.pt")


@pytest.fixture
def network(model: xstefa.Model) -> StefaLand:
    return model.network()


def close(found: object, known: np.ndarray) -> None:
    np.testing.assert_allclose(
        torch.as_tensor(found).detach().numpy(), known, rtol=0, atol=TOLERANCE
    )


def inputs(golden: dict[str, np.ndarray], case: str) -> dict[str, np.ndarray | None]:
    clean = "_clean" if case == "unmasked" else ""
    masked = case.startswith("masked")
    return {
        "x": golden[f"in/x{clean}"],
        "c": golden[f"in/c{clean}"],
        "mask_x": golden["in/mask_dynamic"] if masked else None,
        "mask_c": golden["in/mask_static"] if masked else None,
    }


def tensors(golden: dict[str, np.ndarray], case: str) -> list[torch.Tensor | None]:
    return [v if v is None else torch.from_numpy(v) for v in inputs(golden, case).values()]


def test_recovers_names_and_sizes(model: xstefa.Model, golden: dict[str, np.ndarray]) -> None:
    config = json.loads(str(golden["in/config_json"]))
    size = model.spec.architecture.encoder
    assert (size.width, size.layers, size.feedforward) == (
        config["d_model"],
        config["num_enc_layers"],
        config["d_ffd"],
    )
    names = [*golden["in/dynamic_variables"], *golden["in/static_variables"]]
    assert set(model.spec.provenance["variables"]) == set(names)
    assert model.schema.forcing_names == ("precipitation", "temperature_mean", "srad")
    assert model.spec.provenance["units_unknown"] == ["srad"]
    assert "identity" in model.spec.provenance["scaler"]


@pytest.mark.parametrize("case", ["masked", "missing_only", "unmasked"])
def test_every_stage(network: StefaLand, golden: dict[str, np.ndarray], case: str) -> None:
    stages: dict[str, torch.Tensor] = {}

    def record(name: str):
        return lambda module, args, output: stages.__setitem__(name, output)

    encoder, decoder = network.encoder, network.decoder
    encoder.embed_forcing.register_forward_hook(record("embed_dynamic_sum"))
    encoder.embed_static.register_forward_hook(record("embed_static_sum"))
    for i, layer in enumerate(encoder.layers):
        layer.register_forward_hook(record(f"encoder_layer{i}"))
    encoder.norm.register_forward_hook(record("encoder_norm"))
    encoder.project.register_forward_hook(record("encoder_hidden"))
    decoder.lstm.register_forward_hook(
        lambda module, args, output: stages.__setitem__("decoder_lstm", output[0])
    )
    decoder.norm.register_forward_hook(record("decoder_norm"))
    # With gradients: without, small padded batches run through layers by other kernels.
    encoded = encoder(*tensors(golden, case), published_static_mask=True)
    found = decoder(encoded)
    stages |= {"outputs_time_series": found.forcing, "outputs_static": found.static}
    length = golden["in/x"].shape[1] + 1
    summed = torch.cat(
        [stages["embed_dynamic_sum"], stages["embed_static_sum"].unsqueeze(1)], dim=1
    )
    stages["tokens_plus_position"] = summed + encoder.position[:length]
    known = {
        key.removeprefix(f"{case}/")
        for key in golden
        if key.startswith(f"{case}/") and not key.endswith("_index")
    }
    assert known == set(stages)
    for name in known:
        close(stages[name], golden[f"{case}/{name}"])


@pytest.mark.parametrize("case", ["masked", "missing_only", "unmasked"])
def test_public_functions(model: xstefa.Model, golden: dict[str, np.ndarray], case: str) -> None:
    days, site = model.encode(**inputs(golden, case), published_static_mask=True)
    close(days, golden[f"{case}/encoder_hidden"][:, :-1])
    close(site, golden[f"{case}/encoder_hidden"][:, -1])
    x, c = model.reconstruct(**inputs(golden, case), published_static_mask=True)
    close(x, golden[f"{case}/outputs_time_series"])
    close(c, golden[f"{case}/outputs_static"])


def test_row_of_the_batch_matters_to_the_released_code_only(
    model: xstefa.Model, network: StefaLand, golden: dict[str, np.ndarray]
) -> None:
    ordered = inputs(golden, "masked")
    turned = {name: np.ascontiguousarray(value[::-1]) for name, value in ordered.items()}
    x, _ = model.reconstruct(**turned, published_static_mask=True)
    close(x[::-1].copy(), golden["masked_rowreversed/outputs_time_series"])
    known, mask = (torch.from_numpy(turned[name]) for name in ("c", "mask_c"))
    known = known.masked_fill(mask, torch.nan)
    embedded = network.encoder.embed_static(known, published_rows=True)
    close(embedded.flip(0), golden["masked_rowreversed/embed_static_sum"])
    close(model.reconstruct(**turned)[0][::-1].copy(), model.reconstruct(**ordered)[0])


def test_missing_values_need_no_masking_mode(
    model: xstefa.Model, golden: dict[str, np.ndarray]
) -> None:
    # The released code returns NaN for every window with a gap unless it masks; we never do.
    lost = golden["unmasked_nan/outputs_time_series_isnan"]
    gaps = np.isnan(golden["in/x"]).any((1, 2)) | np.isnan(golden["in/c"]).any(1)
    assert (lost.any((1, 2)) == gaps).all()
    x, _ = model.reconstruct(golden["in/x"], golden["in/c"], published_static_mask=True)
    close(x, golden["missing_only/outputs_time_series"])


@pytest.mark.parametrize("keep_norm", [True, False])
def test_without_decoder(
    golden: dict[str, np.ndarray], checkpoint: dict[str, object], keep_norm: bool, tmp_path: Path
) -> None:
    weights = checkpoint["model_state_dict"]
    left = {
        key: value
        for key, value in weights.items()
        if not key.startswith("decoder.") and (keep_norm or not key.startswith("decoder_norm."))
    }
    torch.save({"model_state_dict": left}, tmp_path / "nodec.pt")
    with xstefa.set_options(cache_dir=tmp_path):
        model = xstefa.import_published(tmp_path / "nodec.pt")
    x, c = model.reconstruct(**inputs(golden, "masked"), published_static_mask=True)
    close(x, golden["masked_nodec/outputs_time_series"])
    close(c, golden["masked_nodec/outputs_static"])


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, object]:
    from xstefa.model.published import read_checkpoint

    return read_checkpoint(GOLDEN / "pretrained.pt")


@pytest.fixture(scope="module", params=["finetune", "lstm_only"])
def finetuned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, xstefa.Model, dict[str, np.ndarray]]:
    kind = request.param
    with np.load(GOLDEN / "finetuned.npz") as file:
        known = dict(file)
    names = tuple(
        tuple(str(n) for n in known[f"{what}_variables"]) for what in ("dynamic", "static")
    )
    with xstefa.set_options(cache_dir=tmp_path_factory.mktemp("cache")):
        model = xstefa.import_published(
            GOLDEN / f"{kind}.pt", variables=names if kind == "lstm_only" else None
        )
    return kind, model, known


@pytest.mark.parametrize("case", ["clean", "nan"])
def test_finetuning_script(
    finetuned: tuple[str, xstefa.Model, dict[str, np.ndarray]], case: str
) -> None:
    kind, model, known = finetuned
    count = len(known["dynamic_variables"])
    inputs = known[f"{case}/xc_nn_norm"]
    x, c = inputs[..., :count], inputs[:, 0, count:]
    stages: dict[str, torch.Tensor] = {}

    def record(name: str, part: int | None = None):
        return lambda module, args, output: stages.__setitem__(
            name, output if part is None else output[part]
        )

    network = model.network()
    head = network.heads[0]
    head.before.register_forward_hook(record("pre_lstm"))
    head.lstm.register_forward_hook(record("lstm_out", 0))
    head.after.register_forward_hook(record("post_lstm"))
    if kind == "finetune":
        head.adapter.register_forward_hook(record("adapter"))
        network.encoder.project.register_forward_hook(record("encoder_hidden"))
    filled = [
        np.where(np.isnan(v), known[f"{case}/fill_{n}"], v).astype(np.float32)
        for v, n in ((x, "dynamic"), (c, "static"))
    ]
    network(*map(torch.from_numpy, filled))
    names = {k.rpartition("/")[2] for k in known if k.startswith(f"{case}/{kind}/")}
    assert names == {*stages, "output_TBN"}
    for name, found in stages.items():
        close(found, known[f"{case}/{kind}/{name}"])
    output = model.estimate(x, c, published_fill=True)
    close(output.swapaxes(0, 1), known[f"{case}/{kind}/output_TBN"])


def test_losses(network: StefaLand, golden: dict[str, np.ndarray]) -> None:
    x, c, mask_x, mask_c = tensors(golden, "masked")
    with torch.no_grad():
        encoded = network.encoder(x, c, mask_x, mask_c, published_static_mask=True)
        found = network.decoder(encoded)
        total = masked_mse(found, x, c, mask_x, mask_c)
        dynamic = masked_mse(found, x, c, mask_x, mask_c, static_weight=0)
    close(total, golden["loss/total"])
    close(dynamic, golden["loss/dynamic"])
    close(2 * (total - dynamic), golden["loss/static"])


def test_masked_nse(golden: dict[str, np.ndarray]) -> None:
    predicted, target = torch.from_numpy(golden["nse/pred"]), torch.from_numpy(golden["in/x"])
    std = torch.from_numpy(golden["nse/stds"])
    close(weighted_mse(predicted, target, (std + 0.1) ** -2, spin_up=0), golden["nse/loss"])
    plain = weighted_mse(predicted, target, torch.ones_like(std), spin_up=0)
    close(plain, golden["nse/loss_nostd"])


def test_gradients(
    network: StefaLand, golden: dict[str, np.ndarray], checkpoint: dict[str, object]
) -> None:
    x, c, mask_x, mask_c = tensors(golden, "masked")
    encoded = network.encoder(x, c, mask_x, mask_c, published_static_mask=True)
    masked_mse(network.decoder(encoded), x, c, mask_x, mask_c).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    shapes = {k: tuple(v.shape) for k, v in checkpoint["model_state_dict"].items()}
    norms = {}
    for key, place in PublishedLayout.recover(shapes, heads=4).places().items():
        gradient = gradients[place.own]
        norms[key] = float((gradient if place.row is None else gradient[place.row]).norm())
    known = dict(zip(golden["grad/keys"], golden["grad/l2"], strict=True))
    assert set(norms) == set(known)
    for key, value in known.items():
        assert norms[key] == pytest.approx(value, abs=TOLERANCE), key
    close(
        gradients["encoder.embed_forcing.masked"],
        golden["grad/time_series_embedding.masked_values"],
    )
    rows = golden["grad/positional_encoding_rows"]
    close(gradients["encoder.position"][: len(rows)], rows)
