"""Number formats: what a device multiplies in, whatever the process has set.

Settings of torch belong to the process, and other packages change them. What is computed here
depends on the precision that was asked for, and on nothing else.
"""

from __future__ import annotations

import functools
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch

from xstefa.errors import OptionError, XstefaWarning, warn


class PrecisionWarning(XstefaWarning):
    """A number format is slow on this device."""


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """Return the context of a forward pass in ``"fp32"`` or ``"bf16"``.

    It keeps no rounded weights: torch forgets those that it keeps only when the outermost of nested
    contexts ends, and in training the weights have changed by then.
    """
    return torch.autocast(
        torch.device(device).type,
        torch.bfloat16,
        enabled=precision == "bf16",
        cache_enabled=False,
    )


class _Aside:
    """Change a setting of the process while any thread is in here.

    The first thread that enters changes it, the last that leaves sets it back.

    Parameters
    ----------
    change : callable
        Changes the setting and returns what sets it back.
    """

    def __init__(self, change: Callable[[], Callable[[], object]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._users = 0
        if hasattr(os, "register_at_fork"):
            # No forked process may inherit a lock whose holder it lacks.
            release = self._lock.release
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=release, after_in_child=release
            )

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._set_back = self._change()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._set_back()


def _multiply_in_float32() -> Callable[[], object]:
    backends: Any = torch.backends
    before: list[Callable[[], object]] = []

    def remember(owner: Any, name: str, value: object) -> None:
        before.append(lambda: setattr(owner, name, value))

    # The older settings, which must agree with the newer, else torch raises where it reads them.
    with suppress(RuntimeError):  # they disagree already
        precision = torch.get_float32_matmul_precision()
        before.append(lambda: torch.set_float32_matmul_precision(precision))
    with suppress(RuntimeError):
        remember(backends.cudnn, "allow_tf32", backends.cudnn.allow_tf32)
    operations: list[Any] = []
    if hasattr(backends.mkldnn, "matmul"):  # from torch 2.9 on
        for backend, matmul in (
            (backends.mkldnn, backends.mkldnn.matmul),
            (backends.cudnn, backends.cuda.matmul),
        ):
            for operation in (matmul, backend.conv, backend.rnn):
                own = operation.fp32_precision
                follows = own == backend.fp32_precision
                remember(operation, "fp32_precision", "none" if follows else own)
                operations.append(operation)
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    for operation in operations:
        operation.fp32_precision = "ieee"
    return lambda: [set_back() for set_back in before]


def _make_float32() -> Callable[[], object]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    return lambda: torch.set_default_dtype(before)


# Multiply single precision in single precision: `torch.set_float32_matmul_precision` and
# `torch.backends...fp32_precision` let CPUs with bfloat16 instructions, and GPUs, multiply in less.
plain_float32 = _Aside(_multiply_in_float32)

# Make new tensors in single precision. Training alone does: other threads would notice.
default_float32 = _Aside(_make_float32)


@functools.cache
def bfloat16_is_native(kind: str) -> bool:
    """Whether a kind of device multiplies bfloat16 faster than single precision.

    CPUs need AVX512-BF16 or AMX (or, on ARM, BF16) and GPUs of Nvidia compute capability 8.0;
    others emulate it. Where torch cannot tell (all capabilities of CPUs came with torch 2.10), it
    counts as native.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return True
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # Environment variables of torch may forbid what the CPU can do.
    if x86 and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    found = _capabilities()
    if x86 and found:
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return bool(found.get("bf16", True))


def _capabilities() -> Mapping[str, object]:
    asked = getattr(torch.cpu, "get_capabilities", None)
    return asked() if asked else {}


def require_bfloat16(device: str | None, *precisions: str | None) -> None:
    """Refuse bfloat16 where a device only emulates it.

    Parameters
    ----------
    device : str or None
        Torch device; None is the first GPU if there is one, else the CPU.
    *precisions : {"fp32", "bf16"} or None
        What would be used.

    Raises
    ------
    OptionError
    """
    kind = (device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0]
    if "bf16" in precisions and not bfloat16_is_native(kind):
        raise OptionError(
            "here bfloat16 is emulated, several times slower than single precision",
            variable="precision",
            found=f"'bf16' on a {_emulator(kind)}",
            expected="'fp32', or a device that computes in bfloat16",
            fix='precision="fp32"',
        )


@functools.cache
def warn_of_emulation(kind: str) -> None:
    """Warn, once a process, that bfloat16 is slow on a kind of device."""
    if not bfloat16_is_native(kind):
        warn(
            PrecisionWarning(
                "precision='bf16' is several times slower than 'fp32' here: it is emulated on a "
                f"{_emulator(kind)}. Pass precision='fp32'."
            )
        )


def _emulator(kind: str) -> str:
    if kind == "cuda":
        return f"GPU of compute capability below 8.0 ({torch.cuda.get_device_name()})"
    name = _capabilities().get("cpu_name", platform.machine())
    return f"CPU without AVX512-BF16 or AMX ({name})"
