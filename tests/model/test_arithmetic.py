"""Numbers depend on the precision that was asked for, not on what the process has set."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

import xstefa
from tests.training.conftest import HEAD, make_basins
from xstefa.errors import OptionError
from xstefa.model import arithmetic
from xstefa.model.arithmetic import (
    PrecisionWarning,
    bfloat16_is_native,
    default_float32,
    plain_float32,
)

native = pytest.mark.skipif(not bfloat16_is_native("cpu"), reason="this CPU emulates bfloat16")
emulated = pytest.mark.skipif(bfloat16_is_native("cpu"), reason="this CPU computes in bfloat16")
per_operation = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="operations share one precision"
)


def of_operations() -> list[str]:
    """Return the precisions in force, as torch itself reports them."""
    one, gpu, gpus = torch.backends.mkldnn, torch.backends.cuda, torch.backends.cudnn
    operations = [one.matmul, one.conv, one.rnn, gpu.matmul, gpus.conv, gpus.rnn]  # type: ignore[attr-defined]
    return [operation.fp32_precision for operation in operations]


def older() -> tuple[str, bool, bool]:
    """Return the older settings; torch raises where they contradict those of the operations."""
    backends = torch.backends
    return (
        torch.get_float32_matmul_precision(),
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
    )


@contextmanager
def setting(change: Callable[..., object], value: object, usual: object):
    change(value)
    try:
        yield
    finally:
        change(usual)


@contextmanager
def matmul(precision: str = "medium"):
    with setting(torch.set_float32_matmul_precision, precision, "highest"):
        yield
    for backend in (torch.backends.mkldnn, torch.backends.cuda):
        if hasattr(torch.backends.mkldnn, "matmul"):
            backend.matmul.fp32_precision = "none"


def all_operations():
    return setting(partial(setattr, torch.backends, "fp32_precision"), "tf32", "none")


def dtype():
    return setting(torch.set_default_dtype, torch.float64, torch.float32)


def device():
    return setting(torch.set_default_device, "meta", None)


def threads():
    return setting(torch.set_num_threads, 2, 1)


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


Ambient = Callable[[], AbstractContextManager[object]]
AMBIENT = [
    matmul,
    pytest.param(all_operations, marks=per_operation),
    dtype,
    device,
    autocast,
    torch.inference_mode,
]


@pytest.fixture(scope="module")
def basins() -> xr.Dataset:
    return make_basins(sites=3, days=120)


@pytest.fixture(scope="module")
def foundation(make_model):
    return make_model(foundation=True)


@pytest.mark.parametrize("ambient", [*AMBIENT, threads])
def test_no_setting_of_the_process_changes_an_answer(
    basins, make_model, foundation, ambient: Ambient, tmp_path
) -> None:
    models = [make_model(), make_model(encoder=False)]

    def answers(models, foundation):
        return [
            *(basins.stefa.predict(model, device="cpu") for model in models),
            basins.stefa.embed(model=foundation, device="cpu"),
            basins.stefa.reconstruct(model=foundation, device="cpu").to_dataarray(),
        ]

    expected = answers(models, foundation)
    # Copies, so that weights are loaded under the setting too.
    copies = [m.save(tmp_path / m.content_hash) for m in (*models, foundation)]
    with ambient():
        found = answers(copies[:-1], copies[-1])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("ambient", AMBIENT)
def test_no_setting_of_the_process_changes_physics(ambient: Ambient) -> None:
    basins = xstefa.open_sample("camels_us").isel(basin=slice(2), time=slice(500))
    expected = basins.stefa.predict("streamflow", device="cpu")
    with ambient():
        found = basins.stefa.predict("streamflow", device="cpu")
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("ambient", AMBIENT)
def test_no_setting_of_the_process_changes_training(
    basins, foundation, ambient: Ambient, tmp_path
) -> None:
    how = {"model": foundation, "head": HEAD, "steps": 2, "batch_size": 2, "device": "cpu"}
    with xstefa.set_options(cache_dir=tmp_path / "a"):
        expected = basins.stefa.finetune("streamflow", **how)
    with xstefa.set_options(cache_dir=tmp_path / "b"), ambient():
        assert basins.stefa.finetune("streamflow", **how) == expected


@per_operation
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_multiplied_as_asked_and_set_back(precision: str) -> None:
    with matmul(precision):
        before = of_operations(), older()
        with plain_float32():
            assert set(of_operations()) == {"ieee"}
            assert older() == ("highest", False, False)
        assert (of_operations(), older()) == before


@per_operation
def test_what_followed_a_common_setting_follows_it_still() -> None:
    with all_operations():
        before = of_operations()
        with plain_float32():
            assert set(of_operations()) == {"ieee"}
        assert of_operations() == before
        torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
        assert set(of_operations()) == {"ieee"}


def test_the_last_thread_sets_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with plain_float32(), default_float32():
            entered.set()
            leave.wait()

    def found() -> tuple[str, torch.dtype]:
        return torch.get_float32_matmul_precision(), torch.get_default_dtype()

    with matmul(), dtype():
        thread = threading.Thread(target=stay)
        thread.start()
        entered.wait()
        with plain_float32(), default_float32():
            pass
        assert found() == ("highest", torch.float32)
        leave.set()
        thread.join()
        assert found() == ("medium", torch.float64)


@emulated
def test_training_in_emulated_bfloat16_is_refused(basins, foundation) -> None:
    how = {"precision": "bf16", "steps": 2, "device": "cpu"}
    with pytest.raises(OptionError, match=r"'precision'.*AVX512-BF16.*precision=.fp32."):
        basins.stefa.finetune("streamflow", model=foundation, **how)
    with pytest.raises(OptionError, match="'precision'"):
        xstefa.pretrain(basins, **how)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_word_once_where_bfloat16_is_emulated(basins, make_model, precision: str) -> None:
    arithmetic.warn_of_emulation.cache_clear()
    said = []
    for seed in (1, 2):  # another model, another engine
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            basins.stefa.predict(make_model(seed=seed), precision=precision, device="cpu")
        said.append([w for w in caught if w.category is PrecisionWarning])
    expected = precision == "bf16" and not bfloat16_is_native("cpu")
    assert [len(s) for s in said] == [expected, 0]
    assert not expected or "several times slower" in str(said[0][0].message)


def test_gpus_before_ampere_emulate_bfloat16(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    bfloat16_is_native.cache_clear()
    try:
        with pytest.raises(OptionError, match="Tesla T4"):
            arithmetic.require_bfloat16("cuda:0", "bf16")
    finally:
        bfloat16_is_native.cache_clear()


def test_rounded_weights_follow_training() -> None:
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    with arithmetic.autocast("cpu", "fp32"):  # what is outside may last as long as the training
        for factor in (1.0, 2.0):
            with torch.no_grad():
                layer.weight.fill_(factor)
            with arithmetic.autocast("cpu", "bf16"):
                found = layer(x)
            assert found.dtype == torch.bfloat16
            expected = factor * x.sum(1, keepdim=True) + layer.bias
            torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.02)
