"""One block of sites and days in, one block of predictions out.

The network lives here, once per process and device, never in a dask graph.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from xstefa.inference.windows import Days, Floats, WindowPolicy
from xstefa.model.checkpoint import Model

if TYPE_CHECKING:
    import torch

    from xstefa.model.network import StefaLand

_engines: dict[EngineKey, Engine] = {}
_engines_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """What distinguishes one loaded network from another, and travels in the graph instead of it.

    Attributes
    ----------
    model : Model
    device : str
        Torch device, e.g. ``"cpu"`` or ``"cuda:0"``.
    precision : {"fp32", "bf16"}
    batch_size : int
        Windows per call of the network. Fixed: the last batch is padded, since matrix kernels
        round differently for different sizes.
    """

    model: Model
    device: str
    precision: str
    batch_size: int


def get_engine(key: EngineKey) -> Engine:
    """Return this process's engine, loading the weights at first use."""
    with _engines_lock:
        if key not in _engines:
            _engines[key] = Engine(key)
        return _engines[key]


class Engine:
    """A network on its device, and as many slots as may use it at once.

    On a CPU each slot is one thread of arithmetic: two of them beat one call that uses two threads.
    On a GPU there is one slot, so that concurrent tasks cannot exhaust its memory.
    """

    def __init__(self, key: EngineKey) -> None:
        self.key = key
        slots = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._loading = threading.Lock()
        self._slots = threading.Semaphore((slots or 1) if key.device == "cpu" else 1)

    def _network(self) -> StefaLand:
        with self._loading:
            return self._loaded

    @cached_property
    def _loaded(self) -> StefaLand:
        return self.key.model.network().to(self.key.device)

    def predict(
        self, forcing: Floats, static: Floats, *, days: Days, record: Days, out: Days
    ) -> Floats:
        """Predict some days of some sites.

        Parameters
        ----------
        forcing : ndarray of float32, shape (site, day, C)
            Forcings in canonical units; NaN where missing. Day axis: `days`.
        static : ndarray of float32, shape (site, S)
        days : ndarray of int64
            Days of `forcing`, at least those that `WindowPolicy.needed` names for `out`.
        record : ndarray of int64
            Days of the whole record, which anchor the windows.
        out : ndarray of int64
            Days to predict.

        Returns
        -------
        ndarray of float32, shape (site, len(out))
            NaN at sites without any forcing, which are not computed.
        """
        spec = self.key.model.spec
        result = np.full((len(forcing), len(out)), np.nan, dtype=np.float32)
        present = np.isfinite(forcing).any(axis=(1, 2))
        if not present.any() or not len(out):
            return result
        forcing, static = forcing[present], static[present]
        for i, moments in enumerate(spec.scaler.forcings.values()):
            forcing[..., i] = moments.standardise(forcing[..., i])
        for i, moments in enumerate(spec.scaler.statics.values()):
            static[..., i] = moments.standardise(static[..., i])

        windows, _, _ = spec.windows.needed(out, record)
        gathered = np.stack(
            [_gather(forcing, days, k, spec.windows, record) for k in windows], axis=1
        )
        answers = self._run(
            gathered.reshape(-1, *gathered.shape[2:]), np.repeat(static, len(windows), axis=0)
        ).reshape(len(forcing), len(windows), -1)
        total = np.zeros((len(forcing), len(out)), dtype=np.float32)
        weights = np.zeros(len(out), dtype=np.float32)
        for column, k in enumerate(windows):
            weight = spec.windows.weight(k, out)
            used = weight > 0
            start = spec.windows.start(k, first=int(record[0]), last=int(record[-1]))
            total[:, used] += weight[used] * answers[:, column, out[used] - start]
            weights += weight
        result[present] = total / weights
        return result

    def _run(self, forcing: Floats, static: Floats) -> Floats:
        """Run windows (row, T, C) and their sites (row, S) in batches of one fixed size."""
        import torch

        network, size = self._network(), self.key.batch_size
        answers = np.empty(forcing.shape[:2], dtype=np.float32)
        for begin in range(0, len(forcing), size):
            rows = slice(begin, begin + size)
            batch = [_pad(forcing[rows], size), _pad(static[rows], size)]
            with self._slots, torch.inference_mode(), self._autocast():
                if self.key.device == "cpu":
                    torch.set_num_threads(1)
                tensors = [torch.from_numpy(b).to(self.key.device) for b in batch]
                answer = network(*tensors).float().cpu().numpy()
            answers[rows] = answer[: len(answers[rows])]
        return answers

    def _autocast(self) -> torch.autocast:
        import torch

        kind = torch.device(self.key.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.key.precision == "bf16")


def _gather(
    forcing: Floats, days: Days, window: int, policy: WindowPolicy, record: Days
) -> Floats:
    """Return window number `window` of every site, (site, T, C); NaN on days not in the record."""
    start = policy.start(window, first=int(record[0]), last=int(record[-1]))
    inside = (days >= start) & (days < start + policy.length)
    gathered = np.full(
        (len(forcing), policy.length, forcing.shape[2]), np.nan, dtype=np.float32
    )
    gathered[:, days[inside] - start] = forcing[:, inside]
    return gathered


def _pad(rows: Floats, size: int) -> Floats:
    """Fill a batch up to `size` rows by repeating its last one."""
    if len(rows) == size:
        return np.ascontiguousarray(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
