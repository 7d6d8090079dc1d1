"""One block of sites and days in, one block of answers out.

The network lives here, once per process and device, never in a dask graph.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from dask import threaded
from numpy.typing import NDArray

from xstefa.errors import OptionError, XstefaWarning, warn
from xstefa.model.architecture import ROWS
from xstefa.model.checkpoint import Model
from xstefa.model.ranges import bounded
from xstefa.options import require_gpu
from xstefa.windows import Days, Floats, Known, bridge, unbroken

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.network import StefaLand

# Large enough for the kernels, small enough that a batch's temporaries stay near the caches.
CPU_BATCH_SIZE = 16
GPU_BATCH_SIZE = 512
FEW_DAYS = 128
"""Of fewer days than these that go on from a state, up to eight times as many sites at once."""

_engines: dict[EngineKey, Engine] = {}
_gpu_lost = False  # a process cannot use a GPU that the process it was forked from has used


class MemoryWarning(XstefaWarning):
    """Fewer windows are answered at once, since memory ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(ABC):
    """What is taken from the network. Immutable, and as small as a name: it travels in graphs."""

    @property
    def daily(self) -> bool:
        """Whether there is a value for each day; else for each site, the mean over its windows."""
        return True

    @property
    def needs_required(self) -> bool:
        """Whether there is no answer without the tokens that the model needs.

        None on days before which too little of them is known (`WindowPolicy.spun_up`), and from
        windows with such days only; short gaps are bridged.
        """
        return True

    @property
    def needs_any(self) -> bool:
        """Whether windows without any known value go unanswered."""
        return True

    @abstractmethod
    def width(self, spec: ModelSpec) -> int:
        """Return the number of values for each day (or site)."""

    @abstractmethod
    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Answer a batch of windows.

        What can go on from a state takes it as fourth argument.

        Parameters
        ----------
        forcing : Tensor, shape (B, T, C)
        static : Tensor, shape (B, S)
            Standardised; NaN where missing.

        Returns
        -------
        Tensor, shape (B, T, width), or (B, width) if not `daily`
        """

    def ask(
        self,
        engine: Engine,
        forcing: Floats,
        static: Floats,
        *,
        days: Days,
        record: Days,
        out: Days,
        before: Before | None = None,
    ) -> tuple[Floats, Floats]:
        """Ask an engine for some days of some sites; what asks it more than once overrides this.

        Parameters and what is returned are those of `Engine.answer`.
        """
        return engine.answer(
            self, forcing, static, days=days, record=record, out=out, before=before
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Before:
    """What the days before a record have left; see `xstefa.inference.state`.

    Attributes
    ----------
    parts : mapping of str to ndarray, shape (place, ...)
        What the network goes on from, float32; and which forcings were ``known`` on the last days,
        bool, shape (place, day, C).
    places : ndarray of int64, shape (site,)
        Where the sites have theirs: members of an ensemble begin with the same.
    unknown : ndarray of bool, shape (place,)
        Where nothing was known, so that there is no state yet.
    """

    parts: Mapping[str, Floats | Known]
    places: NDArray[np.int64]
    unknown: Known

    @property
    def known(self) -> Known:
        """Which forcings were known, shape (site, day, C)."""
        return np.asarray(self.parts["known"][self.places], dtype=bool)

    def take(self, sites: NDArray[np.bool_] | NDArray[np.int64]) -> Before:
        """Return that of some sites."""
        return replace(self, places=self.places[sites])

    def at(self, site: int) -> Before:
        """Return that of one site alone."""
        place = self.places[site : site + 1]
        return Before(
            parts={name: values[place] for name, values in self.parts.items()},
            places=np.zeros(1, dtype=np.int64),
            unknown=self.unknown[place],
        )

    def of(self, sites: NDArray[np.int64]) -> dict[str, Floats | Known]:
        """Return what the network goes on from at some sites, without a copy if it is in order."""
        places = self.places[sites]
        chosen: slice | NDArray[np.int64] = places
        if (np.diff(places) == 1).all():
            chosen = slice(int(places[0]), int(places[-1]) + 1)
        return {name: values[chosen] for name, values in self.parts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """What distinguishes one loaded network from another, and travels in the graph instead of it.

    Attributes
    ----------
    model : Model
    device : str or None
        Torch device, e.g. ``"cpu"`` or ``"cuda:0"``. None is the first GPU of the process that
        runs the block if it has one, else its CPU.
    precision : {"fp32", "bf16"}
    batch_size : int or None
        Windows per call of the network, rounded up to a multiple of 16. None is 16 on a CPU and
        512 on a GPU.
    extrapolate : bool
        Read site attributes outside the range of training as they are, and not by the schema's
        rule.
    """

    model: Model
    device: str | None = None
    precision: str = "fp32"
    batch_size: int | None = None
    extrapolate: bool = False


def get_engine(key: EngineKey) -> Engine:
    """Return this process's engine, loading the weights at first use."""
    return _engines.setdefault(key, Engine(key))


class _Slots:
    """How many threads may compute on one device at once.

    On a CPU each slot is one thread of arithmetic: two of them beat one call that uses two
    threads, and no more than the cores run however many threads dask has. On a GPU there is one
    slot, shared by all models, so that concurrent tasks cannot exhaust its memory.
    """

    def __init__(self, device: str) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._cpu = device == "cpu"
        self._free = threading.Semaphore((cores or 1) if self._cpu else 1)
        self._lock = threading.Lock()
        self._users = 0
        self._threads = 1

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one slot."""
        with self._free, self._single_threaded():
            yield

    @contextmanager
    def _single_threaded(self) -> Iterator[None]:
        """Let torch use one thread, and give it back its own number when nobody computes."""
        if not self._cpu:
            yield
            return
        import torch

        with self._lock:
            if not self._users:
                self._threads = _threads_of_the_process()
            self._users += 1
        torch.set_num_threads(1)  # counts for the calling thread
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    torch.set_num_threads(self._threads)


def _threads_of_the_process() -> int:
    """Return torch's number of threads; a thread that has computed may still have only one.

    Asked in a new thread, which begins with the number that holds for all.
    """
    import torch

    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    asking.start()
    asking.join()
    return found[0]


_slots: dict[str, _Slots] = {}


def _slots_of(device: str) -> _Slots:
    return _slots.setdefault(device, _Slots(device))


def _start_anew() -> None:
    """Forget in a forked process what relies on the threads of its parent: it has none of them."""
    global _gpu_lost
    _gpu_lost = any(device != "cpu" for device in _slots)
    if _slots:
        import torch

        # More would be waited for forever: OpenMP does not start its threads anew.
        torch.set_num_threads(1)
    _engines.clear()
    _slots.clear()
    # Dask would give its tasks to a pool whose threads are not here.
    threaded.default_pool, threaded.pools_lock = None, threading.Lock()
    threaded.pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class Engine:
    """A network on its device.

    Parameters
    ----------
    key : EngineKey
    """

    def __init__(self, key: EngineKey) -> None:
        self.key = key
        self._loading = threading.Lock()
        self._shrinking = threading.Lock()

    @cached_property
    def device(self) -> str:
        """Torch device of this process that the key names, with its number."""
        named = self.key.device
        if _gpu_lost and named is None:
            return "cpu"
        if _gpu_lost and named != "cpu":
            raise OptionError(
                "a forked process cannot use a GPU that its parent has used",
                variable="device",
                found=repr(named),
                expected='"cpu", or a process that was started anew',
                fix="multiprocessing.get_context('spawn')",
            )
        if named is not None:
            require_gpu(named)
        if named not in (None, "cuda"):
            return named
        import torch

        if named is None and not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{torch.cuda.current_device()}"

    @cached_property
    def _rows(self) -> int:
        """Rows of a batch; halved when they do not fit the memory of the device."""
        size = self.key.batch_size or (CPU_BATCH_SIZE if self.device == "cpu" else GPU_BATCH_SIZE)
        return -(-size // ROWS) * ROWS

    def _network(self) -> StefaLand:
        with self._loading:
            return self._loaded

    @cached_property
    def _loaded(self) -> StefaLand:
        from xstefa.model.arithmetic import warn_of_emulation

        if self.key.precision == "bf16":
            warn_of_emulation(self.device.partition(":")[0])
        return self.key.model.network().to(self.device)

    def answer(
        self,
        answer: Answer,
        forcing: Floats,
        static: Floats,
        *,
        days: Days,
        record: Days,
        out: Days,
        before: Before | None = None,
    ) -> tuple[Floats, Floats]:
        """Answer for some days of some sites.

        Parameters
        ----------
        answer : Answer
        forcing : ndarray of float32, shape (site, day, C)
            Forcings in canonical units; NaN where missing. Day axis: `days`.
        static : ndarray of float32, shape (site, S)
        days : ndarray of int64
            Days of `forcing`, at least those that `WindowPolicy.needed` names for `out`.
        record : ndarray of int64
            Days of the whole record, which anchor the windows.
        out : ndarray of int64
            Days to answer for.
        before : Before, optional
            Of the days before the record, which is then read as their continuation.

        Returns
        -------
        values : ndarray of float32, shape (site, len(out), width), or (site, width) if not daily
            NaN where no window could be answered.
        coverage : ndarray of float32, shape (site, len(out)), or (site,)
            Share of the forcing values that the model knows how to read which were known in the
            windows that answer for the day; 0 without an answer.
        """
        spec = self.key.model.spec
        if not self.key.extrapolate:
            static = bounded(static, spec.schema, spec.ranges)
        policy = spec.windows
        windows, _, _ = policy.needed(out, record)
        ends = policy.ends(out, record)
        starts = [policy.start(k, **ends) for k in windows]
        forcing, days = unbroken(forcing, days)
        positions = [_positions(days, policy.reads(k, **ends)) for k in windows]

        readable = np.array([v.name in spec.tokens for v in spec.schema.forcings])
        # Each way to have one of each group; of no variable at all, every day is spun up.
        needs = spec.schema.columns(spec.needs if answer.needs_required else ())
        ways = [list(columns) for columns in product(*needs)]
        blend = [policy.weight(k, out) for k in windows]
        answerable = np.empty((len(forcing), len(windows)), dtype=bool)
        spun_up: list[Known] = []
        shares: list[Floats] = []
        known = np.isfinite(forcing)
        for column, (inside, where) in enumerate(positions):
            seen = known[:, where] & inside[:, None]
            used = np.flatnonzero(blend[column])
            asked = out[used] - starts[column]
            if before is not None:
                earlier = before.known
                seen = np.concatenate([earlier, seen], axis=1)
                asked += earlier.shape[1]
            shares.append(policy.coverage(seen[..., readable])[:, asked])
            ready = np.any([policy.spun_up(seen[..., way]) for way in ways], axis=0)
            spun_up.append(ready[:, asked])
            known_too = shares[column] > 0 if answer.needs_any else True
            answerable[:, column] = (spun_up[column] & known_too).any(axis=1)
        del known
        if answer.needs_required and not policy.causal:
            forcing = bridge(forcing)

        width = answer.width(spec)
        extent = (len(out),) if answer.daily else ()
        values = np.zeros((len(forcing), *extent, width), dtype=np.float32)
        weights = np.zeros((len(forcing), *extent), dtype=np.float32)
        coverage = np.zeros_like(weights)
        for column, weight in enumerate(blend):
            if answer.daily:
                used = np.flatnonzero(weight)
                coverage[:, used] += shares[column] * weight[used]
            else:
                coverage += shares[column].mean(axis=1) * weight.sum()
        coverage /= sum(weight if answer.daily else weight.sum() for weight in blend)

        for rows, batch in self._batches(answer, forcing, static, answerable, positions, before):
            for (site, column), result in zip(rows, batch, strict=True):
                weight = blend[column]
                if answer.daily:
                    used = np.flatnonzero(weight)
                    part = np.where(spun_up[column][site], weight[used], np.float32(0))
                    values[site, used] += part[:, None] * result[out[used] - starts[column]]
                    weights[site, used] += part
                else:
                    values[site] += weight.sum() * result
                    weights[site] += weight.sum()
        weights[weights == 0] = np.nan
        coverage[np.isnan(weights)] = 0
        values /= weights[..., None]
        return values, coverage

    def _batches(
        self,
        answer: Answer,
        forcing: Floats,
        static: Floats,
        answerable: Known,
        positions: list[tuple[Known, Days]],
        before: Before | None,
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Run windows in batches; yield the site and number of each, and their answers."""
        scaler = self.key.model.spec.scaler
        lengths = np.array([len(where) for _, where in positions])
        rows = np.argwhere(answerable)
        rows = rows[np.argsort(lengths[rows[:, 1]], kind="stable")]
        begin = 0
        while begin < len(rows):
            size = most = self._rows
            if before is not None and self.device == "cpu":
                size *= int(np.clip(FEW_DAYS // lengths[rows[begin, 1]], 1, 8))
            chosen = rows[begin : begin + size]
            # Windows of a batch have one length.
            chosen = chosen[lengths[chosen[:, 1]] == lengths[chosen[0, 1]]]
            sites = chosen[:, 0]
            inside = np.stack([positions[column][0] for column in chosen[:, 1]])
            where = np.stack([positions[column][1] for column in chosen[:, 1]])
            gathered = forcing[sites[:, None], where]
            gathered[~inside] = np.nan
            gathered, attributes = scaler.standardise(gathered, static[sites])
            # Kernels of a GPU differ with the number of rows, so there it is always the same; a
            # causal network takes care of the rows itself.
            filled = -(-len(chosen) // ROWS) * ROWS if self.device == "cpu" else size
            if self.device == "cpu" and self.key.model.spec.windows.causal:
                filled = len(chosen)
            state = {} if before is None else before.of(sites)
            inputs = (gathered, attributes, *state.values())
            try:
                result = self._run(answer, *(_pad(each, filled) for each in inputs), names=[*state])
            except (MemoryError, RuntimeError) as error:
                self._shrink(most, error)
                continue
            yield chosen, result[: len(chosen)]
            begin += len(chosen)

    def answer_sites(self, answer: Answer, static: Floats, *, rows: int) -> Floats:
        """Answer for sites by their attributes alone, shape (site, width).

        Parameters
        ----------
        answer : Answer
            Not daily, and without need of forcings.
        static : ndarray of float32, shape (site, S)
            Canonical units; NaN where missing.
        rows : int
            Sites that the network is given, to which they are filled up.
        """
        scaler = self.key.model.spec.scaler
        nothing = np.empty((rows, 0, len(scaler.forcings)), dtype=np.float32)
        _, static = scaler.standardise(nothing[: len(static)], static)
        return self._run(answer, nothing, _pad(static, rows), names=())[: len(static)]

    def _run(self, answer: Answer, *inputs: Floats, names: Sequence[str]) -> Floats:
        """Answer a batch: forcings, attributes, and parts of a state by these names, if any."""
        import torch

        from xstefa.model.arithmetic import autocast, plain_float32

        network = self._network()
        slot, exact = _slots_of(self.device).one(), plain_float32()
        with slot, exact, torch.inference_mode(), autocast(self.device, self.key.precision):
            forcing, static, *rest = (torch.from_numpy(b).to(self.device) for b in inputs)
            state = [dict(zip(names, rest, strict=True))] if names else []
            return answer.run(network, forcing, static, *state).float().cpu().numpy()

    def _shrink(self, size: int, error: MemoryError | RuntimeError) -> None:
        """Halve the batch if `error` says that memory ran out, else raise it again."""
        import torch

        text = str(error).lower()
        full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
        if not full or size <= ROWS:
            raise error
        with self._shrinking:
            if self._rows < size:
                return  # another thread has done it
            self._rows = max(ROWS, size // 2 // ROWS * ROWS)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        warn(
            MemoryWarning(
                f"{size} windows at once do not fit the memory of {self.device}; going on with "
                f"{self._rows}. Pass batch_size={self._rows} to start there."
            )
        )


def _positions(days: Days, wanted: Days) -> tuple[Known, Days]:
    """Where the days that a window reads lie in `days`: which are there, and their positions."""
    where = np.minimum(np.searchsorted(days, wanted), len(days) - 1)
    return days[where] == wanted, where


def _pad(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """Fill a batch up to `size` rows by repeating its last one."""
    if len(rows) == size:
        return np.ascontiguousarray(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
