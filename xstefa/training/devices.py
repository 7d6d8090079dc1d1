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


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What to train on.

    Parameters
    ----------
    device : str
        Torch device; with several of them its kind, ``"cpu"`` or ``"cuda"``.
    count : int
        Devices of that kind; on CPUs processes.
    """

    device: str = "cpu"
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise OptionError(
                variable="devices",
                found=str(self.count),
                expected="a whole number of at least 1",
                fix="devices=1",
            )
        require_gpu(self.device)
        if self.count > 1 and ":" in self.device:
            raise OptionError(
                variable="device",
                found=f"{self.device!r} with devices={self.count}",
                expected=f"the kind alone, {self.device.partition(':')[0]!r}",
                fix="choose which with CUDA_VISIBLE_DEVICES",
            )

    def launch(self, function: Callable[[Runner], T]) -> T:
        """Run a function on the devices.

        Several devices get a process each, started afresh unless torchrun has started them already.
        Scripts that train so need ``if __name__ == "__main__":``.

        Parameters
        ----------
        function : callable
            From a `Runner` to something that can be pickled; what the first process returns is
            returned.

        Raises
        ------
        OptionError
            If torchrun started another number of processes.
        """
        if self.count == 1:
            with _undisturbed(self.device):
                return function(Runner(device=torch.device(self.device)))
        if "TORCHELASTIC_RUN_ID" in os.environ:
            world = int(os.environ["WORLD_SIZE"])
            if world != self.count:
                raise OptionError(
                    variable="devices",
                    found=f"devices={self.count} in one of {world} processes of torchrun",
                    expected="one device for each process",
                    fix=f"devices={world}",
                )
            if not distributed.is_initialized():
                distributed.init_process_group(self._backend, timeout=TIMEOUT)
            runner = self._runner(int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]))
            return runner.broadcast(_run(runner, function, get_options()))
        with TemporaryDirectory() as folder:
            arguments = (self, function, get_options(), Path(folder))
            spawn(_process, args=arguments, nprocs=self.count)
            found: T = pickle.loads((Path(folder) / "result").read_bytes())
            return found

    @property
    def _backend(self) -> str:
        return "nccl" if self.device == "cuda" else "gloo"

    def _runner(self, rank: int, local: int) -> Runner:
        device = torch.device(self.device)
        if self.device == "cuda":
            device = torch.device(self.device, local)
            torch.cuda.set_device(device)
        return Runner(device=device, rank=rank, world=self.count)


def default_device() -> str:
    """Return ``"cuda"`` if there is a GPU, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _process(
    rank: int, devices: Devices, function: Callable[[Runner], T], options: Options, folder: Path
) -> None:
    """Run in a process that was started for it; the first one writes the result to a file."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // devices.count))
    distributed.init_process_group(
        devices._backend,
        init_method=(folder / "rendezvous").as_uri(),
        rank=rank,
        world_size=devices.count,
        timeout=TIMEOUT,
    )
    runner = devices._runner(rank, rank)
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
