"""The training loop: small and explicit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from xstefa.errors import OptionError, TrainingError
from xstefa.model.arithmetic import autocast
from xstefa.progress import progress
from xstefa.training.checkpoints import Checkpoint, Timer
from xstefa.training.devices import Runner
from xstefa.training.objectives import Objective
from xstefa.training.sampling import Feed, Sampler, Windows

# Several processes have to agree on when to save; asking each step would hold them up.
STEPS_BETWEEN_AGREEMENTS = 50
CURVE_POINTS = 500

_NUMBER = (int, float, np.integer, np.floating)


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
    average : float
        Of the weights that are validated and kept: how much of their mean over the steps so far
        stays at each step, 0.999, say, for a memory of 1000 steps. By default they are the last.
    precision : {"fp32", "bf16"}
        Arithmetic of the forward pass; weights stay in single precision.
    seed : int

    Raises
    ------
    OptionError
        If a number makes no sense.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warm_up: float = 0.05
    clip: float = 1.0
    average: float = 0.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if not (isinstance(value, _NUMBER) and value > 0):
                raise OptionError(variable=name, found=repr(value), expected="more than 0")
        for name, least in (("steps", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if not (isinstance(value, _NUMBER) and value >= least and value % 1 == 0):
                raise OptionError(
                    variable=name,
                    found=repr(value),
                    expected=f"a whole number of at least {least}",
                )
        if not (isinstance(self.average, _NUMBER) and 0 <= self.average < 1):
            raise OptionError(
                variable="average", found=repr(self.average), expected="at least 0 and below 1"
            )
        if not isinstance(self.precision, str) or self.precision not in ("fp32", "bf16"):
            raise OptionError(
                variable="precision", found=repr(self.precision), expected='"fp32" or "bf16"'
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        begin = max(1, round(self.warm_up * self.steps))
        if step < begin:
            return self.learning_rate * (step + 1) / begin
        passed = (step - begin) / (self.steps - begin)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))


def make_schedule(
    given: Schedule | None,
    *,
    steps: int | None,
    epochs: float | None,
    days: int,
    length: int,
    batch_size: int,
    learning_rate: float,
    precision: str,
    seed: int,
    usual_epochs: float = 25,
    least_steps: int = 500,
) -> Schedule:
    """Return a schedule: as given, from steps, or from epochs and the amount of data.

    Parameters
    ----------
    given : Schedule, optional
        It has its own steps and seed.
    steps : int, optional
    epochs : float, optional
        In an epoch as many days are seen as there are known ones. Without both, `usual_epochs`, but
        at least `least_steps` steps.
    days : int
        Known site-days.
    length : int
        Days that count in a window.

    Raises
    ------
    OptionError
        If one thing is said twice, or a number makes no sense.
    """
    if given is not None:
        twice = {"steps": steps, "epochs": epochs, "seed": seed or None}
        for name, value in twice.items():
            if value is not None:
                raise OptionError(
                    variable=name,
                    found=f"{name}={value} and schedule=",
                    expected="one of them",
                    fix=f"dataclasses.replace(schedule, {name}=...)"
                    if name != "epochs"
                    else "leave epochs= out",
                )
        return given
    if steps is not None and epochs is not None:
        raise OptionError(
            variable="steps",
            found=f"steps={steps} and epochs={epochs}",
            expected="one of them",
            fix="leave the other out",
        )
    if steps is None:
        wanted = usual_epochs if epochs is None else epochs
        if not (isinstance(wanted, _NUMBER) and 0 < wanted < math.inf):
            raise OptionError(variable="epochs", found=repr(epochs), expected="more than 0")
        per_step = length * batch_size if isinstance(batch_size, _NUMBER) and batch_size > 0 else 1
        steps = math.ceil(wanted * days / per_step)
        if epochs is None:
            steps = max(least_steps, steps)
    return Schedule(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """When the loss at sites outside training is looked at, and what follows from it.

    Parameters
    ----------
    interval : int
        Steps between looks.
    patience : int, optional
        Training stops after this many looks in a row without a lower loss, and keeps the weights of
        the lowest. By default the loss is only recorded.
    """

    interval: int = 100
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise OptionError(
                variable="patience",
                found=str(self.patience),
                expected="at least 1 look without a lower loss, or None",
            )


def looks(
    holdout: object | None, patience: int | None, schedule: Schedule, *, count: int = 40
) -> Validation | None:
    """Return when to look at validation sites: `count` times in a full run.

    Raises
    ------
    OptionError
        If training is to stop early and there are no validation sites.
    """
    if holdout is not None:
        return Validation(interval=max(1, schedule.steps // count), patience=patience)
    if patience is not None:
        raise OptionError(
            variable="patience",
            found=f"patience={patience} without validation sites",
            expected="sites whose loss says when to stop",
            fix="validation=RandomSites(0.1)",
        )
    return None


@dataclass(slots=True, kw_only=True)
class History:
    """What a run looked like.

    Attributes
    ----------
    losses : list of float
        Of each step.
    validation : list of (int, float)
        Steps done, and the loss at validation sites.
    best_step : int or None
        Steps of the weights that were kept, with early stopping.
    seconds : float
        Time spent, interrupted runs included.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int | None = None
    seconds: float = 0.0

    def curve(self) -> dict[str, Any]:
        """Return what a model carries along: all but the time, which differs from run to run.

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

    def out_of_patience(self, validation: Validation) -> bool:
        """Whether the last looks brought nothing."""
        if validation.patience is None or len(self.validation) <= validation.patience:
            return False
        values = [loss for _, loss in self.validation]
        return min(values[-validation.patience :]) >= min(values[: -validation.patience])


class Supply(Protocol):
    """Training windows, of which some or all are in memory at a step."""

    def at(self, step: int) -> Windows:
        """Return the windows in memory at a step; the same object until they change."""


def fit(
    objective: Objective,
    supply: Supply,
    *,
    schedule: Schedule,
    runner: Runner,
    description: str,
    encoded: Tensor | None = None,
    validation: Validation | None = None,
    validation_windows: Windows | None = None,
    checkpoint: Checkpoint | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> History:
    """Minimise an objective over windows.

    Parameters
    ----------
    objective : Objective
        Its parameters that require a gradient are trained, in place.
    supply : Supply
        Where windows are drawn from.
    schedule : Schedule
    runner : Runner
    encoded : Tensor, optional
        What the frozen encoder says of each window.
    validation : Validation, optional
    validation_windows : Windows, optional
        Goes with `validation`.
    checkpoint : Checkpoint, optional
        A file to save to, and to go on from.
    recipe : mapping, optional
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
    sampler = Sampler(batch_size=schedule.batch_size, seed=schedule.seed)
    run = _Run(
        objective=objective,
        optimizer=optimizer,
        sampler=sampler,
        runner=runner,
        recipe={**(recipe or {}), "schedule": asdict(schedule), "processes": runner.world},
    )
    if checkpoint is not None and (saved := checkpoint.load(run.recipe)) is not None:
        run.restore(*saved)
    timer = None if checkpoint is None else Timer(checkpoint.minutes)
    started = time.monotonic() - run.history.seconds

    windows = supply.at(run.step)
    feed = Feed(windows, runner, encoded=encoded)
    look = None
    if validation is not None and validation_windows is not None:
        look = Feed(validation_windows, runner, encoded=encoded)
    objective.train()
    bar = progress(description, initial=run.step, total=schedule.steps, unit="steps")
    with bar:
        while run.step < schedule.steps and not run.stopped:
            if supply.at(run.step) is not windows:
                windows = supply.at(run.step)
                feed = Feed(windows, runner, encoded=encoded)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(run.step)
            with autocast(runner.device, schedule.precision):
                value = module(feed(sampler.draw(windows)))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            _clip(parameters, schedule, run.step)
            optimizer.step()
            run.step += 1
            run.average_in(schedule.average)
            run.history.losses.append(float(runner.mean(value.detach())))
            bar.set_postfix(loss=f"{run.history.losses[-1]:.3f}", refresh=False)
            bar.update()
            if validation is not None and look is not None and run.step % validation.interval == 0:
                with run.averaged():
                    run.validate(_loss(objective, look, runner, schedule), validation)
            if checkpoint is not None and timer is not None and _due(timer, runner, run.step):
                run.history.seconds = time.monotonic() - started
                run.save(checkpoint)
    run.history.seconds = time.monotonic() - started
    if checkpoint is not None:
        run.save(checkpoint)
    run.keep(run.average)
    run.keep(run.best)
    return run.history


class _Run:
    """The state of a run: what is saved and restored."""

    def __init__(
        self,
        *,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        sampler: Sampler,
        runner: Runner,
        recipe: Mapping[str, Any],
    ) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self.sampler = sampler
        self.runner = runner
        self.recipe = recipe
        self.history = History()
        self.step = 0
        self.stopped = False
        self.best: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.objective.named_parameters() if p.requires_grad}

    def validate(self, loss: float, validation: Validation) -> None:
        """Note a validation loss; keep the weights if none was lower; stop if patience is over."""
        history = self.history
        lowest = min((value for _, value in history.validation), default=math.inf)
        history.validation.append((self.step, loss))
        if validation.patience is None:
            return
        if loss < lowest:
            history.best_step = self.step
            self.best = {n: p.detach().clone() for n, p in self.trained.items()}
        self.stopped = history.out_of_patience(validation)

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
            "seconds": self.history.seconds,
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
            seconds=state["seconds"],
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


def _due(timer: Timer, runner: Runner, step: int) -> bool:
    """Whether it is time to save; all processes get the same answer."""
    if runner.world == 1:
        return timer.due()
    return step % STEPS_BETWEEN_AGREEMENTS == 0 and bool(runner.broadcast(timer.due()))
