"""What a frozen encoder says once is what it says each time."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

import xstefa
from tests.training.conftest import HEAD, make_basins
from xstefa.binding import bind
from xstefa.errors import TrainingError
from xstefa.model.arithmetic import autocast
from xstefa.splits.holdout import RandomGroups
from xstefa.training import embeddings
from xstefa.training.devices import Runner
from xstefa.training.dropout import TokenDropout
from xstefa.training.embeddings import encode_windows
from xstefa.training.finetune import HeadRecipe
from xstefa.training.perturbation import Perturbation
from xstefa.training.records import Record
from xstefa.training.sampling import Feed, Windows

CPU = torch.device("cpu")


@pytest.fixture
def own_cache(tmp_path):
    with xstefa.set_options(cache_dir=tmp_path):
        yield tmp_path / "embeddings"


@pytest.fixture
def material(basins, foundation):
    binding = bind(basins, foundation.schema)
    record = Record.from_binding(binding, ids=list(basins.site.values), target="streamflow")
    record = record.standardised(foundation.spec.scaler)
    windows = Windows.find([record], length=40, spin_up=10, strides=[7])
    product = Perturbation(foundation.spec.scaler.forcings, probability=0.5, seed=0)
    dropout = TokenDropout(
        foundation.schema, probability=0.3, groups=0.3, perturbation=product, seed=0
    )
    return foundation.network(), windows, dropout


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kept_is_what_the_encoder_says(material, own_cache, precision):
    network, windows, dropout = material
    encoded = encode_windows(network, windows, dropout, precision=precision, device=CPU)
    assert encoded.shape == (len(windows), 40, 16)
    feed = Feed(windows, Runner(), encoded=encoded)
    random = np.random.default_rng(0)
    for size in (embeddings.ENCODED_AT_ONCE, 5):
        batch = feed([random.integers(len(windows), size=size)])
        with torch.inference_mode(), autocast(CPU, precision):
            again = network.represent(*dropout(batch))
        # The same batch size, or the rounding of another one.
        close = {"fp32": 1e-5, "bf16": 2e-2}[precision]
        torch.testing.assert_close(batch.days.float(), again.float(), rtol=close, atol=close)


def test_training_is_the_same(basins, foundation, own_cache):
    """Weights agree to rounding, whether windows are encoded once or at every step."""
    how = {"head": HEAD, "steps": 6, "batch_size": 5}
    models = [
        basins.stefa.finetune("streamflow", model=foundation, recipe=HeadRecipe(cache=cache), **how)
        for cache in (True, False)
    ]
    states = [model.network().state_dict() for model in models]
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-4, atol=1e-6)


def test_bit_by_bit_in_equal_batches(basins, foundation, own_cache, monkeypatch):
    """With as many windows at once as in a step, not even the rounding differs."""
    monkeypatch.setattr(embeddings.encode_windows, "__kwdefaults__", {"batch_size": 8})
    how = {"head": HEAD, "steps": 6, "batch_size": 8}
    curves = [
        basins.stefa.finetune("streamflow", model=foundation, recipe=HeadRecipe(cache=cache), **how)
        .network()
        .state_dict()
        for cache in (True, False)
    ]
    assert all(torch.equal(curves[0][name], curves[1][name]) for name in curves[0])


def test_found_again(material, own_cache, monkeypatch):
    network, windows, dropout = material
    how = {"precision": "bf16", "device": CPU}
    first = encode_windows(network, windows, dropout, **how)
    monkeypatch.setattr(network, "represent", lambda *args: pytest.fail("encoded again"))
    assert torch.equal(first, encode_windows(network, windows, dropout, **how))
    assert len(os.listdir(own_cache)) == 1


def test_anything_else_is_another_file(material, own_cache):
    network, windows, dropout = material

    def encode(network=network, windows=windows, dropout=dropout, precision="fp32"):
        encode_windows(network, windows, dropout, precision=precision, device=CPU)
        return len(os.listdir(own_cache))

    assert encode() == 1
    assert encode(precision="bf16") == 2
    record = windows.records[0]
    other = replace(record, forcing=record.forcing + np.float32(1e-6))
    assert encode(windows=replace(windows, records=[other])) == 3
    fewer = Windows.find(windows.records, length=40, spin_up=10, strides=[9])
    assert encode(windows=fewer) == 4
    schema = xstefa.load_schema()
    assert encode(dropout=TokenDropout(schema, probability=0.3, seed=1)) == 5
    with torch.no_grad():
        network.encoder.norm.bias += 1e-3
    assert encode() == 6
    dropout.perturbation.table[0, 0] += 1e-3
    assert encode() == 7
    wetter = replace(dropout.perturbation.moments["precipitation"], mean=9.0)
    dropout.perturbation.moments["precipitation"] = wetter
    assert encode() == 8


def test_folds_share_a_file(basins, foundation, own_cache):
    basins.stefa.cross_validate(
        "streamflow",
        model=foundation,
        holdout=RandomGroups(3),
        head=HEAD,
        steps=1,
        batch_size=4,
        scores=["nse"],
    )
    assert len(os.listdir(own_cache)) == 1


def test_interrupted_leaves_nothing(material, own_cache, monkeypatch):
    network, windows, dropout = material

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(network, "represent", fail)
    with pytest.raises(KeyboardInterrupt):
        encode_windows(network, windows, dropout, precision="fp32", device=CPU)
    assert os.listdir(own_cache) == []


def test_no_room(material, own_cache, monkeypatch):
    network, windows, dropout = material
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(TrainingError, match="cache=False"):
        encode_windows(network, windows, dropout, precision="fp32", device=CPU)


def test_tokens_are_hidden_the_same_each_time(basins, foundation):
    """The dropout of a window is drawn once; required tokens are never hidden."""
    dropout = TokenDropout(foundation.schema, probability=0.5, seed=0)
    required = [v.required for v in foundation.schema.forcings]
    assert not dropout.forcing[:, required].any()
    share = dropout.forcing[:, [not r for r in required]].float().mean()
    assert float(share) == pytest.approx(0.5, abs=0.02)
    model = make_basins().stefa.finetune(
        "streamflow",
        model=foundation,
        head=HEAD,
        steps=2,
        batch_size=4,
        recipe=HeadRecipe(token_dropout=0.5, group_dropout=0.4, perturbation=0.5),
    )
    assert model.spec.provenance["recipe"]["token_dropout"] == 0.5
