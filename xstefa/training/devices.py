"""Where training runs: one process on one device, or several that share each batch."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from xstefa.errors import OptionError
from xstefa.model.arithmetic import autocast, default_float32, plain_float32
from xstefa.options import Options, get_options, require_gpu, set_options

T = TypeVar("T")

CPU = torch.device("cpu")
TIMEOUT = timedelta(hours=12)  # others wait while one reads windows or writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A process that trains, alone or with others.

    Attributes
    ----------
    device : torch.device
    rank, world : int
        Number of this process, and of processes.
    """

    device: torch.device = CPU
    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """Rows of a batch that this process computes: every `world`-th, from `rank`."""
        return slice(self.rank, None, self.world)

    def shared(self, module: nn.Module) -> nn.Module:
        """Return what to call in place of a module, so that gradients are means over processes."""
        if self.world == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        # Fills of inputs that a head does not read never have a gradient.
        return DistributedDataParallel(module, device_ids=devices, static_graph=True)

    def mean(self, tensor: Tensor) -> Tensor:
        """Average a tensor over the processes."""
        if self.world == 1:
            return tensor
        total = tensor.detach().float().clone()  # counts are whole numbers
        distributed.all_reduce(total)
        return total / self.world

    def gather(self, tensor: Tensor) -> Tensor:
        """Stack a tensor of all processes along a new first dimension."""
        if self.world == 1:
            return tensor.unsqueeze(0)
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        distributed.all_gather(parts, tensor)
        return torch.stack(parts)

    def broadcast(self, value: T) -> T:
        """Return the value that the first process has."""
        values = [value]
        if self.world > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            distributed.barrier()


def launch(function: Callable[[Runner], T], *, device: str | None, count: int) -> T:
    """Run a function on one device or several.

    Several devices get a process each, started afresh unless torchrun has started them already.
    Scripts that train so need ``if __name__ == "__main__":``.

    Parameters
    ----------
    function : callable
        From a `Runner` to something that can be pickled; what the first process returns is
        returned.
    device : str, optional
        Torch device, by default a GPU if there is one; with several of them its kind, ``"cpu"`` or
        ``"cuda"``.
    count : int
        Devices of that kind; on CPUs processes.

    Raises
    ------
    OptionError
        If there are no such devices, or torchrun started another number of processes.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    require_gpu(device)
    if count == 1:
        with _undisturbed(device):
            return function(Runner(device=torch.device(device)))
    if ":" in device:
        raise OptionError(
            variable="device",
            found=f"{device!r} with devices={count}",
            expected=f"the kind alone, {device.partition(':')[0]!r}",
            fix="choose which with CUDA_VISIBLE_DEVICES",
        )
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world = int(os.environ["WORLD_SIZE"])
        if world != count:
            raise OptionError(
                variable="devices",
                found=f"devices={count} in one of {world} processes of torchrun",
                expected="one device for each process",
                fix=f"devices={world}",
            )
        rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        runner = _join(device, rank=rank, world=world, local=local)
        return runner.broadcast(_run(runner, function, get_options()))
    with TemporaryDirectory() as folder:
        spawn(_process, args=(device, count, function, get_options(), Path(folder)), nprocs=count)
        found: T = pickle.loads((Path(folder) / "result").read_bytes())
        return found


def _join(device: str, *, rank: int, world: int, local: int, where: str | None = None) -> Runner:
    """Join the processes that train together, unless that is done."""
    if not distributed.is_initialized():
        distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=where,
            rank=rank,
            world_size=world,
            timeout=TIMEOUT,
        )
    own = torch.device(device)
    if device == "cuda":
        own = torch.device(device, local)
        torch.cuda.set_device(own)
    return Runner(device=own, rank=rank, world=world)


def _process(
    rank: int,
    device: str,
    count: int,
    function: Callable[[Runner], T],
    options: Options,
    folder: Path,
) -> None:
    """Run in a process that was started for it; the first one writes the result to a file."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    where = (folder / "rendezvous").as_uri()
    runner = _join(device, rank=rank, world=count, local=rank, where=where)
    result = _run(runner, function, options)
    if runner.is_first:
        (folder / "result").write_bytes(pickle.dumps(result))
    runner.barrier()
    distributed.destroy_process_group()


def _run(runner: Runner, function: Callable[[Runner], T], options: Options) -> T:
    """Run in one of several processes what was asked for in one, under the same settings."""
    progress = options.progress if runner.is_first else False
    settings = set_options(progress=progress, cache_dir=options.cache_dir)
    with settings, _undisturbed(runner.device.type):
        return function(runner)


@contextmanager
def _undisturbed(device: str) -> Iterator[None]:
    """Train as asked, whatever the process or the calling thread has set for torch."""
    with (
        plain_float32(),
        default_float32(),
        autocast(device, "fp32"),
        torch.inference_mode(False),
        torch.enable_grad(),
        # Costs time at every call of torch, so only where it is needed.
        nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu"),
    ):
        yield
