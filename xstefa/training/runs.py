"""The frame of a training run: random numbers before it, the model after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    spec = replace(spec, provenance=provenance, card=spec.card or card(spec, history))
    model: Model | None = None
    if runner.is_first:
        model = create_model(spec, network.state_dict())
    found = runner.broadcast(model)
    assert found is not None
    return found, history


def versions() -> dict[str, str]:
    """Return the versions on which a result depends."""
    from xstefa import __version__

    return {"xstefa": __version__, "torch": torch.__version__, "numpy": np.__version__}


def card(spec: ModelSpec, history: History) -> str:
    """Return a model card (Markdown) of what is known of a model when it has been trained."""
    content = spec.provenance
    foundation = content.get("foundation")
    target = spec.schema.target(spec.target) if spec.target is not None else None
    lines = [f"# {spec.name}", ""]
    if target is None:
        lines.append("A foundation model: it represents and reconstructs, and predicts no target.")
    else:
        lines.append(f"Predicts {target.long_name} [{target.units}], support: {spec.support}.")
    if isinstance(foundation, Mapping):
        lines.append(f"Fine-tuned from {foundation['name']} ({foundation['sha256'][:12]}).")
    lines += ["", "## Data", ""]
    lines += [
        f"- {name}: {data['sites']} sites" for name, data in content.get("datasets", {}).items()
    ]
    lines += [
        f"- held out: {content['held_out']}" if content.get("held_out") else "- nothing held out",
        f"- tokens: {', '.join(spec.tokens)}",
        f"- needs: {', '.join(map(' or '.join, spec.needs))}",
        "",
        "## Training",
        "",
        f"- {len(history.losses)} steps, last loss {history.losses[-1]:.4g}",
        *(f"- {key}: {value}" for key, value in content.get("schedule", {}).items()),
        *(f"- {key} {value}" for key, value in content.get("versions", {}).items()),
        "",
        "## Skill",
        "",
        "Not stated: see `ds.stefa.evaluate` and `ds.stefa.cross_validate`.",
    ]
    return "\n".join(lines) + "\n"
