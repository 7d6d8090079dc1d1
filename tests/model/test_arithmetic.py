"""Numbers depend on the precision that was asked for, not on what the process has set."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import pytest
import torch

import xstefa
from xstefa.inference.engine import EngineKey, get_engine
from xstefa.model import arithmetic
from xstefa.model.arithmetic import PrecisionWarning, bfloat16_is_native, plain_float32

native = pytest.mark.skipif(not bfloat16_is_native("cpu"), reason="this CPU emulates bfloat16")
emulated = pytest.mark.skipif(bfloat16_is_native("cpu"), reason="this CPU computes in bfloat16")


def matmul_precision() -> str:
    """Return the precision in force on this CPU, as torch itself reports it."""
    return torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]


@pytest.fixture
def basins():
    return xstefa.open_sample("camels_us").isel(basin=slice(0, 2), time=slice(0, 400)).load()


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (
            lambda: torch.set_float32_matmul_precision("medium"),
            lambda: torch.set_float32_matmul_precision("highest"),
        ),
        (
            lambda: torch.set_default_dtype(torch.float64),
            lambda: torch.set_default_dtype(torch.float32),
        ),
        (lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1)),
    ],
    ids=["matmul", "dtype", "threads"],
)
def test_settings_of_the_process_change_no_bit(
    basins, change: Callable[[], object], back: Callable[[], object], tmp_path
) -> None:
    expected = basins.stefa.predict("streamflow")
    # A model of its own, so that its weights are loaded under the setting too.
    model = xstefa.load_model("streamflow").save(tmp_path / "copy")
    change()
    try:
        found = basins.stefa.predict("streamflow", model=model)
        embedded = basins.stefa.embed()
    finally:
        back()
    assert found.equals(expected)
    assert embedded.equals(basins.stefa.embed())


def test_multiplied_as_asked_and_set_back() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        before = matmul_precision()
        with plain_float32():
            assert matmul_precision() == "ieee"
        assert matmul_precision() == before != "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_last_thread_sets_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with plain_float32():
            entered.set()
            leave.wait()

    torch.set_float32_matmul_precision("medium")
    try:
        thread = threading.Thread(target=stay)
        thread.start()
        entered.wait()
        with plain_float32():
            pass
        assert matmul_precision() == "ieee"
        leave.set()
        thread.join()
        assert matmul_precision() == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


@emulated
def test_training_in_emulated_bfloat16_is_refused(basins) -> None:
    how = {"precision": "bf16", "steps": 2}
    with pytest.raises(xstefa.XstefaError, match=r"'precision'.*AVX512-BF16.*precision=.fp32."):
        basins.stefa.finetune("streamflow", **how)
    with pytest.raises(xstefa.XstefaError, match="'precision'"):
        xstefa.pretrain(basins, **how)


@emulated
def test_predicting_in_emulated_bfloat16_warns_once(basins) -> None:
    arithmetic.warn_of_emulation.cache_clear()
    with pytest.warns(PrecisionWarning, match="several times slower"):
        basins.stefa.predict("streamflow", precision="bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        basins.stefa.predict("streamflow", precision="bf16")
        get_engine(EngineKey(model=xstefa.load_model("streamflow"), precision="bf16"))


@native
def test_no_word_where_bfloat16_is_native(basins) -> None:
    arithmetic.warn_of_emulation.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        basins.stefa.predict("streamflow", precision="bf16")
