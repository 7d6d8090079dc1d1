"""Number formats: what a device multiplies in, whatever the process has set.

Settings of torch belong to the process, and other packages change them. What is computed here
depends on the precision that was asked for, and on nothing else.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from xstefa.errors import OptionError

_lock = threading.Lock()
_users = 0
_previous: list[str] = []


class PrecisionWarning(UserWarning):
    """A number format is slow on this device."""


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """Return the context of a forward pass in ``"fp32"`` or ``"bf16"``."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def plain_float32() -> Iterator[None]:
    """Multiply single precision in single precision.

    `torch.set_float32_matmul_precision` and ``torch.backends...fp32_precision`` let CPUs with
    bfloat16 instructions, and GPUs, multiply in less. The setting is that of the process: the
    first thread that enters puts it aside, the last that leaves puts it back.
    """
    global _users, _previous
    with _lock:
        if not _users:
            _previous = _set_precision(["ieee"] * len(_operations()))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _set_precision(_previous)


def _start_anew() -> None:
    """Forget in a forked process the threads of its parent: it has none of them."""
    global _lock, _users
    _lock = threading.Lock()
    if _users:
        _set_precision(_previous)
        _users = 0
    # GNU OpenMP would wait forever for the threads of the parent's team.
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _operations() -> list[Any]:
    """Return what has a precision of its own; torch before 2.9 has one for all."""
    backends: Any = torch.backends
    if not hasattr(backends.mkldnn, "matmul"):
        return [None]
    oneapi, cuda, cudnn = backends.mkldnn, backends.cuda, backends.cudnn
    return [oneapi.matmul, oneapi.conv, oneapi.rnn, cuda.matmul, cudnn.conv, cudnn.rnn]


def _set_precision(wanted: list[str]) -> list[str]:
    """Set the precision of each operation; return those before."""
    before = []
    for operation, precision in zip(_operations(), wanted, strict=True):
        if operation is None:
            before.append(torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest" if precision == "ieee" else precision)
        else:
            before.append(operation.fp32_precision)
            operation.fp32_precision = precision
    return before


@contextmanager
def default_float32() -> Iterator[None]:
    """Make new tensors in single precision; for what has the process to itself, as training has."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@functools.cache
def bfloat16_is_native(kind: str) -> bool:
    """Whether a kind of device multiplies bfloat16 faster than single precision.

    CPUs need AVX512-BF16 or AMX (or, on ARM, BF16); others emulate it. Where torch cannot tell (CPU
    capabilities came with torch 2.10), it counts as native.
    """
    asked = getattr(torch.cpu, "get_capabilities", None)
    if kind != "cpu" or asked is None:
        return True
    found = asked()
    if found.get("architecture") == "x86_64":
        # Environment variables of torch may forbid what the CPU can do.
        allowed = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        return allowed and bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return bool(found.get("bf16", True))


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
            "this CPU emulates bfloat16, several times slower than single precision",
            variable="precision",
            found=f"'bf16' on a CPU without AVX512-BF16 or AMX ({_cpu_name()})",
            expected="'fp32', or a device that computes in bfloat16",
            fix='precision="fp32"',
        )


@functools.cache
def warn_of_emulation(kind: str) -> None:
    """Warn, once a process, that bfloat16 is slow on a kind of device."""
    if not bfloat16_is_native(kind):
        warnings.warn(
            f"precision='bf16' is several times slower than 'fp32' here: this CPU ({_cpu_name()}) "
            "has neither AVX512-BF16 nor AMX and emulates it. Pass precision='fp32'.",
            PrecisionWarning,
            stacklevel=2,
        )


def _cpu_name() -> str:
    return str(torch.cpu.get_capabilities().get("cpu_name", "unknown"))
