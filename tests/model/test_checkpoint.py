"""A model file says the same after a round trip."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from xstefa.errors import ModelError
from xstefa.model.architecture import Architecture
from xstefa.model.checkpoint import Model, ModelSpec, content_hash_of, create_model
from xstefa.model.ranges import Range
from xstefa.model.scaler import Moments, Scaler
from xstefa.schema import load_schema
from xstefa.windows import WindowPolicy


def test_moments_keep_the_order_of_the_schema() -> None:
    schema = load_schema()
    spec = ModelSpec(
        name="order",
        target=None,
        support="any",
        architecture=Architecture(forcings=len(schema.forcings), statics=len(schema.statics)),
        schema=schema,
        scaler=Scaler(
            forcings={
                v.name: Moments(mean=float(i), std=1.0) for i, v in enumerate(schema.forcings)
            },
            statics={v.name: Moments(mean=float(i), std=1.0) for i, v in enumerate(schema.statics)},
        ),
        windows=WindowPolicy(),
        tokens=(),
    )
    read = ModelSpec.from_json(spec.to_json())
    assert read == spec
    assert list(read.scaler.forcings) == list(schema.forcing_names)
    assert list(read.scaler.statics) == list(schema.static_names)
    assert [m.mean for m in read.scaler.forcings.values()] == list(range(len(schema.forcings)))


@pytest.fixture(scope="module")
def saved(make_model) -> tuple[bytes, Model]:
    ranges = {"slope": Range(low=0.0, high=0.5, mean_low=0.0, mean_high=0.5)}
    model = make_model(name="damaged", provenance={"seed": 1}, ranges=ranges, card="# a card")
    return model.path.read_bytes(), model


def content_of(saved) -> dict:
    return json.loads(saved[1].spec.to_json())


def written(path: Path, content: object, weights: dict[str, np.ndarray]) -> Path:
    """Write a description that states the hash it has, as no damage can but a faulty writer may."""
    text = content if isinstance(content, str) else json.dumps(content)
    header = {"xstefa": text, "sha256": content_hash_of(text, weights)}
    path.write_bytes(save(weights, metadata=header))
    return path


def refusal(path: Path) -> ModelError:
    """Return what is raised by each way to an answer, all the same."""
    found = []
    for use in (
        lambda model: model.spec,
        lambda model: model.network(),
        lambda model: model.content_hash,
        lambda model: hash(model),
    ):
        with pytest.raises(ModelError) as caught:
            use(Model(path))
        found.append(caught.value)
    assert len(set(map(str, found))) == 1
    assert all((found[0].found, found[0].expected, found[0].fix))
    assert str(path) in str(found[0])
    return found[0]


def test_a_saved_model_is_whole(saved):
    _, model = saved
    assert Model(model.path).spec == model.spec
    assert set(model.network().state_dict()) == set(load(saved[0]))
    assert model.spec.ranges["slope"].high == 0.5


def test_no_flipped_bit_is_overlooked(saved, tmp_path):
    content, path = saved[0], tmp_path / "flipped.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    random = np.random.default_rng(0)
    spots = [*range(8), *random.integers(8, header, 60), *random.integers(header, len(content), 60)]
    for spot in map(int, spots):
        changed = bytearray(content)
        changed[spot] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        with pytest.raises(ModelError):
            _ = Model(path).spec


@pytest.mark.parametrize("size", [0, 7, 8, 100, 5000, -1])
def test_truncated_files_are_refused(saved, tmp_path, size):
    path = tmp_path / "short.safetensors"
    path.write_bytes(saved[0][:size])
    refusal(path)


def test_a_moved_scaler_is_noticed(saved, tmp_path):
    mean = b'\\"slope\\": {\\"mean\\": 1.0'
    assert saved[0].count(mean) == 1
    path = tmp_path / "moved.safetensors"
    path.write_bytes(saved[0].replace(mean, mean.replace(b"1.0", b"9.0")))
    assert refusal(path).variable == "sha256"


def test_a_file_of_the_first_format_says_what_to_do(saved, tmp_path):
    content = content_of(saved) | {"format": 1}
    path = tmp_path / "old.safetensors"
    path.write_bytes(save(load(saved[0]), metadata={"xstefa": json.dumps(content)}))
    error = refusal(path)
    assert (error.variable, error.found) == ("format", "1")
    assert "again" in error.fix


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(saved, tmp_path, value):
    weights = {name: array.copy() for name, array in load(saved[0]).items()}
    name = next(iter(weights))
    weights[name].flat[0] = value
    error = refusal(written(tmp_path / "a.safetensors", content_of(saved), weights))
    assert error.variable == name


def test_networks_that_ran_away_are_not_saved(saved):
    state = saved[1].network().state_dict()
    state[next(iter(state))] *= np.nan
    with pytest.raises(ModelError, match="not finite"):
        create_model(saved[1].spec, state)


def test_weights_of_another_architecture_are_refused(saved, tmp_path):
    weights = load(saved[0])
    for changed in (
        dict(list(weights.items())[1:]),
        weights | {"more": np.zeros(3, "f4")},
        {name: array.reshape(-1) for name, array in weights.items()},
    ):
        model = Model(written(tmp_path / "a.safetensors", content_of(saved), changed))
        with pytest.raises(ModelError, match="architecture"):
            model.network()


LATER = ("distribution", "neighbourhood", "distributions")


@pytest.mark.parametrize("name", [f.name for f in fields(ModelSpec) if f.name not in LATER])
def test_each_field_is_needed_and_of_its_type(saved, tmp_path, name):
    content = content_of(saved)
    missing = {key: value for key, value in content.items() if key != name}
    path = written(tmp_path / "a.safetensors", missing, load(saved[0]))
    assert refusal(path).variable == name
    wrong = 3.5 if name != "target" else ["soil_moisture"]
    written(path, content | {name: wrong}, load(saved[0]))
    assert refusal(path).variable == name


DAMAGE = {
    "scaler.statics.slope.std": [0, -1.0, "1", None, 1e-60, float("nan"), float("inf")],
    "scaler.forcings.precipitation.mean": [float("nan"), True, [], float("inf")],
    "scaler.statics.slope.transform": ["sqrt", 1],
    "architecture.encoder.width": [0, -16, 16.0, "16", None],
    "architecture.encoder.heads": [0, 3],
    "architecture.encoder.activation": ["tanh"],
    "architecture.encoder.positions": [2],
    "architecture.heads.0.kind": ["resnet", 2],
    "architecture.heads.0.link": ["exp"],
    "architecture.heads.0.scale": [0.0, float("nan")],
    "architecture.heads.0.drivers": [[{}], 2],
    "architecture.heads.0.dropout": [1.5],
    "architecture.heads": [[], None],
    "architecture.forcings": [1, 0, None],
    "windows.length": [0, 16, -40, 5000, 40.0],
    "windows.blend": [3, -2],
    "windows.spin_up": [-1, 200],
    "schema.forcing": [[], {}, None],
    "schema.name": [None],
    "support": ["planet"],
    "target": ["snow"],
    "name": [""],
    "tokens": [["rain"], "slope", [1]],
    "ranges": [{"rain": {}}, {"slope": {"low": 1}}],
    "ranges.slope.low": [0.9, float("nan"), "0"],
    "provenance": [[], "here"],
}


@pytest.mark.parametrize("field", DAMAGE)
def test_values_that_cannot_be_are_refused(saved, tmp_path, field):
    *parents, last = field.split(".")
    for value in DAMAGE[field]:
        content = content_of(saved)
        part = content
        for parent in parents:
            part = part[int(parent) if isinstance(part, list) else parent]
        part[last] = value
        model = Model(written(tmp_path / "a.safetensors", content, load(saved[0])))
        with pytest.raises(ModelError) as caught:
            model.network()
        assert all((caught.value.found, caught.value.expected, caught.value.fix))


def test_a_file_that_was_replaced_gives_no_answer_of_another(saved, make_model, tmp_path):
    model = saved[1].save(tmp_path / "model")
    assert model.spec.name == "damaged"
    make_model(name="another", seed=1).save(tmp_path / "model")
    with pytest.raises(ModelError, match="as when"):
        model.network()
    assert Model(model.path).spec.name == "another"
