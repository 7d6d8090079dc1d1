"""A training run: data, model and schedule in, a model with its history out."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xstefa.errors import OptionError
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.data import Split
from xstefa.training.devices import Runner
from xstefa.training.loop import History, fit
from xstefa.training.losses import Objective
from xstefa.training.neighbourhood import around
from xstefa.training.options import Schedule
from xstefa.training.records import Record
from xstefa.training.sampling import Windows
from xstefa.version import __version__


@dataclass(frozen=True, kw_only=True, eq=False)
class Training(ABC):
    """All that a process has to know to train; called with its `Runner`, it does.

    Attributes
    ----------
    records : sequence of Record
        As the network reads them.
    splits : sequence of Split
        Which sites and days of each record train and validate.
    strides : sequence of int
        Days between the windows of a site of each record.
    shares : sequence of float
        How often each record is drawn from.
    spec : ModelSpec
        The model to be.
    schedule : Schedule
    patience : int, optional
        See `fit`.
    checkpoint : Checkpoint, optional

    Raises
    ------
    OptionError
        If training is to stop early and there are no validation sites.
    """

    records: Sequence[Record]
    splits: Sequence[Split]
    strides: Sequence[int]
    shares: Sequence[float]
    spec: ModelSpec
    schedule: Schedule
    patience: int | None = None
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and not self.validates:
            raise OptionError(
                variable="patience",
                found=f"patience={self.patience} without validation sites",
                expected="sites whose loss says when to stop",
                fix="validation=RandomSites(0.1)",
            )

    @property
    def validates(self) -> bool:
        """Whether there are sites whose loss is watched."""
        return any(split.validate.any() for split in self.splits)

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the result, as JSON."""
        return {
            "model": json.loads(self.spec.to_json()),
            "shares": list(self.shares),
            "strides": list(self.strides),
        }

    @abstractmethod
    def objective(self, runner: Runner) -> Objective:
        """Build the network and what is minimised, on the device."""

    @abstractmethod
    def windows(self) -> Windows:
        """List the windows of all records."""

    def encoded(self, objective: Objective, windows: Windows, runner: Runner) -> Tensor | None:
        """Return the embeddings of all windows, if the encoder need not read them at each step."""
        return None

    def __call__(self, runner: Runner) -> Model:
        """Train under a seed of its own; the model has the learning curve in its provenance.

        The first process writes it; the others wait.
        """
        on_gpu = runner.device.type == "cuda"
        with torch.random.fork_rng(devices=[runner.device.index or 0] if on_gpu else []):
            torch.manual_seed(self.schedule.seed)
            objective = self.objective(runner)
            found = self.windows()
            encoded = self.encoded(objective, found, runner)
            counted = [
                None if split.days is None else record.columns(split.days)
                for record, split in zip(self.records, self.splits, strict=True)
            ]
            watched = None
            if self.validates:
                watched = found.restricted([split.validate for split in self.splits], counted)
            history = fit(
                objective,
                found.restricted([split.train for split in self.splits], counted),
                shares=self.shares,
                schedule=self.schedule,
                runner=runner,
                description=f"{'pre' * (self.spec.target is None)}training {self.spec.name}",
                encoded=encoded,
                watched=watched,
                patience=self.patience,
                checkpoint=self.checkpoint,
                recipe=self.recipe,
            )
        provenance = {**self.spec.provenance, "learning_curve": history.curve()}
        card = self.spec.card or card_of(self.spec, history)
        neighbourhood = None
        if self.spec.target is not None:
            trained = [split.train for split in self.splits]
            neighbourhood = around(objective.network, self.records, trained)
        spec = replace(self.spec, provenance=provenance, card=card, neighbourhood=neighbourhood)
        model = create_model(spec, objective.network.state_dict()) if runner.is_first else None
        model = runner.broadcast(model)
        assert model is not None
        return model


def versions() -> dict[str, str]:
    """Return the versions on which a result depends."""
    return {"xstefa": __version__, "torch": torch.__version__, "numpy": np.__version__}


def card_of(spec: ModelSpec, history: History) -> str:
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
