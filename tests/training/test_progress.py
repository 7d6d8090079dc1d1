"""What long calls say while they run."""

from __future__ import annotations

import io
import re

import pytest

import xstefa
from tests.training.conftest import ENCODER, HEAD, WINDOWS
from xstefa import progress as module
from xstefa.splits.holdout import RandomGroups
from xstefa.splits.leakage import LeakageWarning

pytestmark = pytest.mark.filterwarnings(f"ignore::{LeakageWarning.__module__}.LeakageWarning")
SHORT = {"head": HEAD, "steps": 3, "batch_size": 4}


def everything(basins, foundation, folder):
    """Do all that may take long."""
    xstefa.set_options(cache_dir=folder)  # where nothing is encoded yet
    model = basins.stefa.finetune("streamflow", model=foundation, **SHORT)
    basins.stefa.predict(model)
    xstefa.to_zarr(basins.chunk().stefa.predict(model), folder / "out.zarr")
    basins.stefa.cross_validate(
        "streamflow", model=foundation, holdout=RandomGroups(2), scores="nse", **SHORT
    )
    xstefa.pretrain(basins, size=ENCODER, windows=WINDOWS, steps=3, batch_size=4, name="new")


SAID = ("training streamflow", "encoding windows", "predicting", "writing out.zarr",
        "cross-validating", "pretraining new")  # fmt: skip


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def watch(monkeypatch):
    """Replace the error stream; not before the test runs, when pytest replaces it itself."""

    def replace(stream):
        monkeypatch.setattr(module, "_DELAY", 0)
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return replace


def test_a_screen_shows_bars(basins, foundation, tmp_path, watch):
    stream = watch(Screen())
    everything(basins, foundation, tmp_path)
    for text in SAID:
        assert re.search(rf"{text}[^\r]*: 100%", stream.getvalue()), text


def test_nothing_is_shown_to_who_wants_nothing(basins, foundation, tmp_path, watch):
    stream = watch(Screen())
    with xstefa.set_options(progress=False):
        everything(basins, foundation, tmp_path)
    assert stream.getvalue() == ""


def test_a_log_gets_nothing_unasked_or_from_what_is_soon_over(basins, foundation, tmp_path, watch):
    stream = watch(io.StringIO())
    everything(basins, foundation, tmp_path)
    with xstefa.set_options(progress=True):
        basins.stefa.predict(basins.stefa.finetune("streamflow", model=foundation, **SHORT))
    assert stream.getvalue() == ""


def test_a_log_gets_whole_lines(basins, foundation, tmp_path, watch, monkeypatch):
    stream = watch(io.StringIO())
    monkeypatch.setattr(module, "SECONDS", 0)
    with xstefa.set_options(progress=True):
        everything(basins, foundation, tmp_path)
    lines = stream.getvalue().splitlines()
    for text in SAID:
        assert any(line.startswith(text) for line in lines), text
    shape = re.compile(r"[^\r]+: (\d+) of (\d+) \w+ after [\d:]+, [\d:?]+ to go(, loss=[\d.]+)?")
    assert all(map(shape.fullmatch, lines)), lines


def test_a_line_every_ten_seconds(watch, monkeypatch):
    stream = watch(io.StringIO())
    now = module.monotonic() + 100
    monkeypatch.setattr(module, "monotonic", lambda: now)
    with xstefa.set_options(progress=True), module.progress("counting", total=25) as outer:
        for _ in range(25):
            now += 1
            outer.update()
            with module.progress("inside", total=1, unit="steps") as inner:
                inner.update()
    lines = stream.getvalue().splitlines()
    assert [line.partition(" after")[0] for line in lines] == [
        "counting: 10 of 25 it",
        "counting: 20 of 25 it",
    ]


def test_a_notebook_is_a_screen(monkeypatch):
    """Its error stream is no terminal; tqdm.auto chooses what it shows."""
    IPython = type("IPython", (), {"get_ipython": staticmethod(lambda: Kernel)})
    Kernel = type("Shell", (), {"config": {"IPKernelApp": {}}})
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert module.progress("counting", total=2).disable
    monkeypatch.setitem(__import__("sys").modules, "IPython", IPython)
    bar = module.progress("counting", total=2)
    assert not bar.disable
    assert not isinstance(bar, module._Lines)
    bar.close()
