"""The frame of a training run: random numbers before it, the model after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.network import StefaLand
from xstefa.training.devices import Runner
from xstefa.training.loop import History


@contextmanager
def seeded(seed: int, runner: Runner) -> Iterator[None]:
    """Seed torch's random numbers for a run, and give the caller's own back after it."""
    on_gpu = runner.device.type == "cuda"
    devices = [runner.device.index or 0] if on_gpu else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def finished(
    spec: ModelSpec, network: StefaLand, history: History, runner: Runner
) -> tuple[Model, History]:
    """Return the trained model, with its learning curve in the provenance.

    The first process writes it; the others wait.
    """
    provenance = {**spec.provenance, "learning_curve": history.curve()}
    spec = replace(spec, provenance=provenance)
    model = None
    if runner.is_global_zero:
        model = create_model(spec, network.state_dict())
    return runner.broadcast(model), history


def versions() -> dict[str, str]:
    """Return the versions on which a result depends."""
    from xstefa import __version__

    return {"xstefa": __version__, "torch": torch.__version__, "numpy": np.__version__}
