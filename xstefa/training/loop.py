"""The training loop: small and explicit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xstefa.errors import TrainingError
from xstefa.model.arithmetic import autocast
from xstefa.progress import progress
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.devices import Runner
from xstefa.training.losses import Objective
from xstefa.training.options import Schedule
from xstefa.training.sampling import Feed, Sampler, Windows

# Several processes have to agree on when to save; asking each step would hold them up.
STEPS_BETWEEN_AGREEMENTS = 50
CURVE_POINTS = 500
VALIDATIONS = 40


@dataclass(slots=True, kw_only=True)
class History:
    """Training history.

    Attributes
    ----------
    losses : list of float
        Of each step.
    validation : list of (int, float)
        Steps done, and the loss at validation sites.
    best_step : int or None
        Steps of the weights that were kept, with early stopping.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int | None = None

    def curve(self) -> dict[str, Any]:
        """Return what a model carries along.

        Losses are averaged over as many steps as make about `CURVE_POINTS` points.
        """
        steps = -(-len(self.losses) // CURVE_POINTS) or 1
        means = [
            sum(self.losses[i : i + steps]) / len(self.losses[i : i + steps])
            for i in range(0, len(self.losses), steps)
        ]
        return {
            "steps_per_point": steps,
            "training": [float(f"{loss:.6g}") for loss in means],
            "validation": [[step, float(f"{loss:.6g}")] for step, loss in self.validation],
            "best_step": self.best_step,
        }

    def out_of_patience(self, patience: int) -> bool:
        """Whether none of the last `patience` validations had a lower loss than those before."""
        values = [loss for _, loss in self.validation]
        return len(values) > patience and min(values[-patience:]) >= min(values[:-patience])


def fit(
    objective: Objective,
    windows: Windows,
    *,
    shares: Sequence[float],
    schedule: Schedule,
    runner: Runner,
    description: str,
    encoded: Tensor | None = None,
    watched: Windows | None = None,
    patience: int | None = None,
    checkpoint: Checkpoint | None = None,
    recipe: Mapping[str, Any],
) -> History:
    """Minimise an objective over windows.

    Parameters
    ----------
    objective : Objective
        Its parameters that require a gradient are trained, in place.
    windows : Windows
    shares : sequence of float
        How often each record is drawn from.
    schedule : Schedule
    runner : Runner
    description : str
        What progress is reported of.
    encoded : Tensor, optional
        Embeddings of each window by the frozen encoder.
    watched : Windows, optional
        Those of validation sites, whose loss is computed `VALIDATIONS` times.
    patience : int, optional
        Training stops after so many validations in a row without a lower loss, and keeps the
        weights of the lowest. By default the loss is only recorded.
    checkpoint : Checkpoint, optional
        A file to save to, and to go on from.
    recipe : mapping
        JSON-able description of everything that determines the result; a checkpoint of another
        recipe is refused.

    Raises
    ------
    TrainingError
        If loss or gradient become infinite, or the checkpoint belongs to another recipe.
    """
    if runner.rank:
        torch.manual_seed(schedule.seed + runner.rank)  # dropout of its own
    module = runner.shared(objective.to(runner.device))
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    sampler = Sampler(windows, shares=shares, batch_size=schedule.batch_size, seed=schedule.seed)
    run = _Run(
        objective=objective,
        optimizer=optimizer,
        sampler=sampler,
        runner=runner,
        recipe={**recipe, "schedule": asdict(schedule), "processes": runner.world},
    )
    if checkpoint is not None and (state := checkpoint.load(run.recipe)) is not None:
        run.restore(*state)
    saved = time.monotonic()
    between = 1 if runner.world == 1 else STEPS_BETWEEN_AGREEMENTS
    interval = max(1, schedule.steps // VALIDATIONS)
    feed = Feed(windows, runner, encoded=encoded)
    validation = None if watched is None else Feed(watched, runner, encoded=encoded)
    objective.train()
    bar = progress(description, initial=run.step, total=schedule.steps, unit="steps")
    with bar:
        while run.step < schedule.steps and not run.stopped:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(run.step)
            with autocast(runner.device, schedule.precision):
                value = module(feed(sampler.draw()))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            _clip(parameters, schedule, run.step)
            optimizer.step()
            run.step += 1
            run.average_in(schedule.average)
            run.history.losses.append(float(runner.mean(value.detach())))
            bar.set_postfix(loss=f"{run.history.losses[-1]:.3f}", refresh=False)
            bar.update()
            if validation is not None and run.step % interval == 0:
                with run.averaged():
                    run.validated(_loss(objective, validation, runner, schedule), patience)
            if checkpoint is not None and run.step % between == 0:
                due = time.monotonic() - saved >= 60 * checkpoint.minutes
                if runner.broadcast(due):
                    run.save(checkpoint)
                    saved = time.monotonic()
    if checkpoint is not None:
        run.save(checkpoint)
    run.keep(run.average)
    run.keep(run.best)
    return run.history


@dataclass(kw_only=True)
class _Run:
    """The state of a run: what is saved and restored."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    runner: Runner
    recipe: Mapping[str, Any]
    history: History = field(default_factory=History)
    step: int = 0
    stopped: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.objective.named_parameters() if p.requires_grad}

    def validated(self, loss: float, patience: int | None) -> None:
        """Note a validation loss; keep the weights if none was lower; stop if patience is over."""
        history = self.history
        lowest = min((value for _, value in history.validation), default=math.inf)
        history.validation.append((self.step, loss))
        if patience is None:
            return
        if loss < lowest:
            history.best_step = self.step
            self.best = {n: p.detach().clone() for n, p in self.trained.items()}
        self.stopped = history.out_of_patience(patience)

    def average_in(self, decay: float) -> None:
        """Let the mean of the weights follow them; the first ones are soon forgotten."""
        if not decay:
            return
        weights = {n: p.detach() for n, p in self.trained.items()}
        self.average = self.average or {n: p.clone() for n, p in weights.items()}
        for name, mean in self.average.items():
            mean.lerp_(weights[name], 1 - min(decay, self.step / (self.step + 9)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the mean of the weights in their place, for a while."""
        last = {n: p.detach().clone() for n, p in self.trained.items() if n in self.average}
        self.keep(self.average)
        yield
        self.keep(last)

    def keep(self, weights: Mapping[str, Tensor]) -> None:
        """Go back to other weights: their mean, or those of the lowest validation loss."""
        with torch.no_grad():
            for name, value in weights.items():
                self.trained[name].copy_(value)

    def save(self, checkpoint: Checkpoint) -> None:
        """Save everything that determines the steps to come."""
        tensors = {f"network.{n}": p.detach() for n, p in self.trained.items()}
        tensors |= {f"best.{n}": p for n, p in self.best.items()}
        tensors |= {f"average.{n}": p for n, p in self.average.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        device = self.runner.device
        # Every process has random numbers of its own.
        tensors["random.cpu"] = self.runner.gather(torch.get_rng_state().to(device))
        if device.type == "cuda":
            tensors["random.cuda"] = self.runner.gather(torch.cuda.get_rng_state(device).to(device))
        if self.objective.generator is not None:
            tensors["random.objective"] = self.objective.generator.get_state()
        state = {
            "step": self.step,
            "stopped": self.stopped,
            "sampler": self.sampler.state(),
            "losses": self.history.losses,
            "validation": self.history.validation,
            "best_step": self.history.best_step,
        }
        if self.runner.is_first:
            checkpoint.save(tensors, state, self.recipe)
        self.runner.barrier()

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Go on from what `save` wrote."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[f"network.{name}"])
        optimizer: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            place, _, name = key.partition(".")
            if place == "optimizer":
                number, _, name = name.partition(".")
                optimizer.setdefault(int(number), {})[name] = value
            elif place in ("best", "average"):
                getattr(self, place)[name] = value.to(self.runner.device)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        rank = self.runner.rank
        # Copies: torch reads the state as a structure, which must begin where memory is aligned.
        torch.set_rng_state(tensors["random.cpu"][rank].clone())
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"][rank].clone(), self.runner.device)
        if self.objective.generator is not None:
            self.objective.generator.set_state(tensors["random.objective"])
        self.sampler.restore(state["sampler"])
        self.step, self.stopped = state["step"], state["stopped"]
        self.history = History(
            losses=list(state["losses"]),
            validation=[(step, loss) for step, loss in state["validation"]],
            best_step=state["best_step"],
        )


def _clip(parameters: Sequence[nn.Parameter], schedule: Schedule, step: int) -> None:
    try:
        nn.utils.clip_grad_norm_(parameters, schedule.clip, error_if_nonfinite=True)
    except RuntimeError as error:
        if "non-finite" not in str(error):
            raise
        raise TrainingError(
            "the gradient is not finite",
            variable="learning_rate",
            found=f"infinite or NaN values at step {step + 1}",
            expected="finite values",
            fix=f"a learning rate below {schedule.learning_rate:g}; see that the targets are in "
            "their units and have no absurd values",
        ) from error


def _loss(objective: Objective, feed: Feed, runner: Runner, schedule: Schedule) -> float:
    """Return the mean loss of all windows of `feed`, without dropout."""
    objective.eval()
    total, rows = torch.zeros((), device=runner.device), 0
    with torch.no_grad(), autocast(runner.device, schedule.precision):
        for picks in feed.windows.in_order(batch_size=schedule.batch_size):
            batch = feed(picks)
            if batch.size < runner.world:
                continue  # the last few windows would leave a process without any
            total += objective(batch).float() * batch.size
            rows += batch.size
    objective.train()
    return float(runner.mean(total)) / rows
