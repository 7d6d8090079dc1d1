"""Settings: checked where they are made, restored where they end, overridden by keywords."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from xstefa.errors import OptionError, XstefaError
from xstefa.options import Options, get_options, resolve_options, set_options


@pytest.fixture(autouse=True)
def _defaults():
    """Give each test the defaults, whatever the one before it left."""
    names = [field.name for field in dataclasses.fields(Options)]
    with set_options(**dict.fromkeys(names)):
        yield


def test_everything_is_automatic_at_first():
    assert get_options() == Options()


def test_block_sets_and_restores():
    with set_options(device="cpu", batch_size=16):
        assert get_options() == Options(device="cpu", batch_size=16)
    assert get_options() == Options()


def test_call_without_block_holds():
    set_options(precision="bf16")
    assert get_options().precision == "bf16"


def test_blocks_nest():
    with set_options(batch_size=16):
        with set_options(batch_size=32, device="cpu"):
            assert get_options() == Options(device="cpu", batch_size=32)
        assert get_options() == Options(batch_size=16)


def test_block_restores_after_an_error():
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError), set_options(device="cpu"):
        fail()
    assert get_options().device is None


def test_block_leaves_what_it_did_not_set():
    with set_options(device="cpu"):
        set_options(batch_size=4)
    assert get_options() == Options(batch_size=4)


def test_none_returns_to_automatic():
    with set_options(device="cuda:1"), set_options(device=None):
        assert get_options().device is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "gpu"),
        ("device", "cuda:"),
        ("device", "cpu:0 "),
        ("device", 0),
        ("precision", "fp16"),
        ("precision", "float32"),
        ("precision", 16),
        ("batch_size", 0),
        ("batch_size", -1),
        ("batch_size", 2.0),
        ("batch_size", "64"),
        ("batch_size", True),
        ("progress", "yes"),
        ("progress", 1),
        ("cache_dir", 3),
    ],
)
def test_bad_value_names_option_and_fix(name, value):
    with pytest.raises(OptionError) as caught:
        set_options(**{name: value})
    message = str(caught.value)
    assert name in message
    assert repr(value) in message
    assert isinstance(caught.value, XstefaError)
    with pytest.raises(OptionError):
        resolve_options(**{name: value})


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:11", "xpu:1", "mps"])
def test_devices_of_torch_are_accepted(device):
    assert Options(device=device).device == device


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(OptionError, match="batch_size"):
        set_options(batchsize=3)


def test_nothing_changes_when_one_of_several_is_bad():
    with pytest.raises(OptionError):
        set_options(device="cpu", batch_size=0)
    assert get_options() == Options()


def test_keywords_win_and_none_means_not_given():
    with set_options(device="cpu", batch_size=8):
        assert resolve_options(batch_size=2, device=None) == Options(device="cpu", batch_size=2)
        assert get_options().batch_size == 8


def test_options_are_immutable_and_comparable():
    options = Options(device="cpu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.device = "cuda"
    assert hash(options) == hash(Options(device="cpu"))


def test_cache_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XSTEFA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Options().cache_path() == tmp_path / ".cache" / "xstefa"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Options().cache_path() == tmp_path / "xdg" / "xstefa"
    monkeypatch.setenv("XSTEFA_CACHE_DIR", str(tmp_path / "own"))
    assert Options().cache_path() == tmp_path / "own"
    assert Options(cache_dir="~/mine").cache_path() == tmp_path / "mine"
    assert isinstance(Options(cache_dir=str(tmp_path)).cache_dir, Path)
