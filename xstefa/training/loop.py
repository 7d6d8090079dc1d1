"""The training loop: small and explicit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from xstefa.options import get_options
from xstefa.training.samples import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Parameters
    ----------
    steps, batch_size : int
    learning_rate : float
        Peak; reached after `warm_up` of the steps, then decayed to zero along a cosine.
    weight_decay : float
    clip : float
        Largest norm of the gradient.
    precision : {"fp32", "bf16"}
        Arithmetic of the forward pass; weights stay in single precision.
    seed : int
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warm_up: float = 0.05
    clip: float = 1.0
    precision: str = "bf16"
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        begin = max(1, round(self.warm_up * self.steps))
        if step < begin:
            return self.learning_rate * (step + 1) / begin
        passed = (step - begin) / (self.steps - begin)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a finished run looked like."""

    losses: list[float]
    seconds: float


def fit(
    network: nn.Module,
    batches: Iterator[Batch],
    loss: Callable[[Batch], Tensor],
    *,
    schedule: Schedule,
    description: str,
    every: Callable[[int], None] | None = None,
    interval: int = 1000,
) -> Progress:
    """Minimise `loss` over `batches`.

    Parameters
    ----------
    network : nn.Module
        Its parameters that require a gradient are trained, in place.
    batches : iterator
        One item per step.
    loss : callable
        From a batch to the scalar loss.
    schedule : Schedule
    every : callable, optional
        Called with the step number every `interval` steps (validation, checkpoints).
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    device = parameters[0].device.type
    losses: list[float] = []
    started = time.monotonic()
    network.train()
    bar = tqdm(range(schedule.steps), desc=description, disable=not get_options().show_progress())
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        with torch.autocast(device, torch.bfloat16, enabled=schedule.precision == "bf16"):
            value = loss(next(batches))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimizer.step()
        losses.append(float(value.detach()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        if every is not None and (step + 1) % interval == 0:
            every(step + 1)
            network.train()
    return Progress(losses=losses, seconds=time.monotonic() - started)
