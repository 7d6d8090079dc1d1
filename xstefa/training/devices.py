"""Where training runs: one device by itself, several through Lightning Fabric.

The loop speaks Fabric's language (`setup`, `backward`, `clip_gradients`, ...). One device needs so
few of its verbs that they are written out here, and training on it needs no extra package. The
arithmetic is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from xstefa.errors import OptionError, TrainingError
from xstefa.model.arithmetic import autocast, default_float32, plain_float32
from xstefa.options import Options, get_options, require_gpu, set_options

T = TypeVar("T")


class Runner(Protocol):
    """The part of `lightning_fabric.Fabric` that the loop uses."""

    @property
    def device(self) -> torch.device:
        """Device of this process."""

    @property
    def world_size(self) -> int:
        """Number of processes."""

    @property
    def global_rank(self) -> int:
        """Number of this process."""

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes the files."""

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any:
        """Move a module and its optimizers to the device; return what to call instead."""

    def backward(self, tensor: Tensor) -> None:
        """Compute gradients."""

    def clip_gradients(
        self, module: Any, optimizer: Any, *, max_norm: float, error_if_nonfinite: bool
    ) -> Any:
        """Scale the gradients so that their joint norm is at most `max_norm`."""

    def all_reduce(self, data: Tensor, *, reduce_op: str) -> Any:
        """Join a number of all processes."""

    def broadcast(self, obj: Any) -> Any:
        """Return the value that the first process has."""

    def barrier(self) -> None:
        """Wait for all processes."""


class OneDevice:
    """`Runner` for one process on one device.

    Parameters
    ----------
    device : str
        Torch device.
    """

    world_size = 1
    global_rank = 0
    is_global_zero = True

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any:
        """Move the module to the device."""
        return module.to(self.device), *optimizers

    def backward(self, tensor: Tensor) -> None:
        """Compute gradients."""
        tensor.backward()

    def clip_gradients(
        self, module: Any, optimizer: Any, *, max_norm: float, error_if_nonfinite: bool
    ) -> Any:
        """Scale the gradients of what the optimizer trains."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return nn.utils.clip_grad_norm_(parameters, max_norm, error_if_nonfinite=error_if_nonfinite)

    def all_reduce(self, data: Tensor, *, reduce_op: str) -> Any:
        """Return the number itself."""
        return data

    def broadcast(self, obj: Any) -> Any:
        """Return the value itself."""
        return obj

    def barrier(self) -> None:
        """Wait for nobody."""


def alone(tensor: Tensor) -> Tensor:
    """Return what a single process contributes: the tensor itself."""
    return tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which rows of a batch this process computes.

    Attributes
    ----------
    rank, world : int
        Number of this process, and of processes.
    mean : callable
        Averages a tensor over the processes.
    """

    rank: int = 0
    world: int = 1
    mean: Callable[[Tensor], Tensor] = alone

    @classmethod
    def of(cls, runner: Runner) -> Part:
        """Return the part of a runner's process."""
        if runner.world_size == 1:
            return cls()
        return cls(
            rank=runner.global_rank,
            world=runner.world_size,
            # Counts are whole numbers, which a mean in place would cut off.
            mean=lambda tensor: runner.all_reduce(tensor.float(), reduce_op="mean"),
        )

    def gather(self, tensor: Tensor) -> Tensor:
        """Stack a tensor of all processes along a new first dimension."""
        if self.world == 1:
            return tensor.unsqueeze(0)
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        torch.distributed.all_gather(parts, tensor)
        return torch.stack(parts)

    @property
    def rows(self) -> slice:
        """The rows: every `world`-th, from `rank`."""
        return slice(self.rank, None, self.world)


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

        Several devices get a process each, started afresh unless a launcher such as torchrun has
        started them already. Scripts that train so need ``if __name__ == "__main__":``.

        Parameters
        ----------
        function : callable
            From a `Runner` to something that can be pickled; what the first process returns is
            returned.

        Raises
        ------
        TrainingError
            If several devices are asked for and Lightning Fabric is not installed.
        """
        if self.count == 1:
            with _undisturbed(self.device):
                return function(OneDevice(self.device))
        fabric = _fabric()
        strategies = import_module("lightning_fabric.strategies")
        launched = "TORCHELASTIC_RUN_ID" in os.environ
        runner = fabric.Fabric(
            accelerator=self.device,
            devices=self.count,
            strategy=strategies.DDPStrategy(
                start_method="popen" if launched else "spawn",
                # Fills of inputs that a head does not read never have a gradient.
                static_graph=True,
                timeout=timedelta(hours=12),  # others wait while one reads windows or writes
            ),
        )
        options = get_options()
        if launched:
            runner.launch()
            return runner.broadcast(_in_process(runner, function=function, options=options))
        # A partial is opaque to Fabric, which would rewrite frozen dataclasses among arguments.
        return runner.launch(partial(_in_own_process, function=function, options=options))


def default_device() -> str:
    """Return ``"cuda"`` if there is a GPU, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


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


def _in_process(runner: Runner, *, function: Callable[[Runner], T], options: Options) -> T:
    """Run in a new process what was asked for in the old one, under the same settings."""
    progress = options.progress if runner.is_global_zero else False
    settings = set_options(progress=progress, cache_dir=options.cache_dir)
    with settings, _undisturbed(runner.device.type):
        return function(runner)


def _in_own_process(runner: Runner, *, function: Callable[[Runner], T], options: Options) -> T:
    """Run in a process that ends afterwards, and take leave of the others before."""
    result = _in_process(runner, function=function, options=options)
    runner.barrier()
    torch.distributed.destroy_process_group()
    return result


def _fabric() -> Any:
    try:
        return import_module("lightning_fabric")
    except ImportError as error:
        raise TrainingError(
            "training on several devices needs Lightning Fabric",
            variable="devices",
            found="no package lightning_fabric",
            expected="the extra 'train'",
            fix="pip install lightning-fabric, or train on one device with devices=1",
        ) from error
