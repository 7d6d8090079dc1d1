"""Models by name and by file, and how they are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

import xstefa
from xstefa.cli import main
from xstefa.errors import ModelError
from xstefa.model.checkpoint import create_model


@pytest.mark.parametrize("name", ["m", "m.safetensors", "version 1.2", "a/b.c"])
def test_a_model_is_found_under_the_name_that_it_was_saved_as(tiny_model, tmp_path, name) -> None:
    saved = tiny_model.save(tmp_path / name)
    assert xstefa.load_model(tmp_path / name) == saved == tiny_model
    assert saved.path.with_suffix(".md").read_text() == tiny_model.card
    assert name.removesuffix(".safetensors") + ".safetensors" in str(saved.path)


def test_a_name_that_is_nearly_right_is_corrected() -> None:
    dataset = xstefa.open_sample("camels_us").isel(basin=slice(0, 1), time=slice(0, 30))
    with pytest.raises(ModelError, match="did you mean 'streamflow'"):
        xstefa.load_model("streamfow")
    with pytest.raises(ModelError, match="did you mean 'soil_moisture'"):
        dataset.stefa.predict("soil_moistur")
    with pytest.raises(ModelError, match="did you mean 'streamflow'"):
        dataset.stefa.predict("streamfow")


def test_a_file_is_no_target(tiny_model, tmp_path) -> None:
    saved = tiny_model.save(tmp_path / "mine")
    dataset = xstefa.open_sample("camels_us").isel(basin=slice(0, 1), time=slice(0, 30))
    for path in (saved.path, saved.path.with_suffix("")):
        with pytest.raises(ModelError, match=r"model='.*mine.*' \(--model in a terminal\)"):
            dataset.stefa.predict(str(path))


def test_models_are_listed_as_names_and_shown_as_a_table() -> None:
    names = xstefa.list_models()
    assert names == sorted(names)
    assert "streamflow" in names
    table = names.to_pandas()
    assert list(table.index) == names
    assert table.loc["streamflow", ["target", "units"]].tolist() == ["streamflow", "mm d-1"]
    assert table.loc["water-balance", "units"] == "mm d-1, mm d-1, mm, mm, mm"
    assert table.loc["stefaland", "units"] == ""
    lines = repr(names).splitlines()
    assert len(lines) == 1 + len(names)
    assert all(name in line for name, line in zip(names, lines[1:], strict=True))
    assert names._repr_html_().count("<tr") == len(lines)
    printed = CliRunner().invoke(main, ["models"]).output.splitlines()
    assert printed == lines


def test_a_model_is_shown_with_what_it_predicts(tiny_model) -> None:
    skill = {"score": "ubrmse", "median": 0.02844, "low": 0.025, "high": 0.034, "sites": 35}
    spec = replace(tiny_model.spec, provenance={"skill": skill}, card="# sand < silt")
    model = create_model(spec, tiny_model.network().state_dict())
    assert model.summary()["skill"] == "ubrmse 0.028 (0.025 to 0.034), 35 sites"
    shown = model._repr_html_()
    for text in (model.name, "soil_moisture", "m3 m-3", model.content_hash[:12], "sand &lt; silt"):
        assert text in shown


def test_a_damaged_file_is_refused_when_it_is_loaded(tiny_model, tmp_path):
    path = tiny_model.save(tmp_path / "model").path
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        xstefa.load_model(path)


@pytest.mark.parametrize("name", ["", "."])
def test_a_name_that_is_none(name):
    with pytest.raises(ModelError, match="neither a bundled model nor a file"):
        xstefa.load_model(name)
