"""Options of training: how long, how fast, on what device, and how a head learns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from xstefa.arguments import check_fields, check_names
from xstefa.errors import OptionError
from xstefa.model.architecture import HeadSize
from xstefa.model.variants import EncoderUse
from xstefa.options import Options, Precision, resolve_options
from xstefa.schema import Needs, Tokens
from xstefa.splits.holdout import Holdout
from xstefa.typed import Count, Natural, Positive, Rule, Share
from xstefa.windows import WindowPolicy

USUAL_EPOCHS = 25
LEAST_STEPS = 500

Decay = Annotated[float, Rule("a number of at least 0 and below 1", lambda x: 0 <= x < 1)]
Probability = Annotated[float, Rule("a probability below 1", lambda p: 0 <= p < 1)]
SomeNeeds = Annotated[Needs, Rule("groups of names, (('precipitation',), ...)", bool)]


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

    steps: Count
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    weight_decay: float = 0.0
    warm_up: Share = 0.05
    clip: Positive = 1.0
    average: Decay = 0.0
    precision: Precision = "fp32"
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        begin = max(1, round(self.warm_up * self.steps))
        if step < begin:
            return self.learning_rate * (step + 1) / begin
        passed = (step - begin) / (self.steps - begin)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How long and how fast to train, and on what, as in `StefaAccessor.finetune`."""

    validation: Holdout | None = None
    patience: Count | None = None
    steps: Count | None = None
    epochs: Positive | None = None
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    seed: Natural = 0
    schedule: Schedule | None = None
    device: str | None = None
    devices: Count = 1
    precision: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def resolved(self) -> Options:
        """The session's options with device and precision of this run."""
        return resolve_options(device=self.device, precision=self.precision)

    def schedule_for(self, *, days: int, length: int) -> Schedule:
        """Return the schedule: as given, from steps, or from epochs and the amount of data.

        Parameters
        ----------
        days : int
            Known site-days. In an epoch as many days are seen. Without steps or epochs there are
            `USUAL_EPOCHS`, but at least `LEAST_STEPS` steps.
        length : int
            Days that count in a window.

        Raises
        ------
        OptionError
            If options contradict one another.
        """
        names = ("steps", "epochs", "seed", "schedule")
        said = [name for name in names if getattr(self, name)]
        if (self.schedule is not None and len(said) > 1) or {"steps", "epochs"} <= set(said):
            changed = "steps" if said[0] == "epochs" else said[0]
            raise OptionError(
                variable=said[0],
                found=f"{said[0]}= and {said[-1]}=",
                expected="one of them",
                fix="leave one out; to change a schedule, "
                f"schedule=dataclasses.replace(schedule, {changed}=...)",
            )
        if self.schedule is not None:
            return self.schedule
        steps = self.steps
        if steps is None:
            wanted = self.epochs or USUAL_EPOCHS
            steps = math.ceil(wanted * days / (length * self.batch_size))
            steps = steps if self.epochs else max(LEAST_STEPS, steps)
        return Schedule(
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            precision=self.resolved.precision or "fp32",
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRecipe:
    """How a head learns, beyond how long and how fast.

    Attributes
    ----------
    loss : {"nse", "mse"}, optional
        Squared errors weighted by ``1 / (std + scale)**2`` of each site's observations, so that
        every site counts (Kratzert et al. 2019), or by ``1 / scale**2``, so that every day counts.
        By default "nse", but "mse" for fractions, whose sites vary alike.
    scale : float
        In the unit of the target.
    centred : float
        Share of the loss that forgives a constant error; see `weighted_mse`.
    token_dropout : float
        Probability with which each token that can be done without is hidden from a window, so that
        the head also serves datasets with fewer tokens.
    group_dropout : float
        Probability with which a window is made one of a poorer dataset, which has precipitation and
        temperature only, say, or no attributes; see `xstefa.training.dropout.TokenDropout`.
    perturbation : float
        Probability with which the weather of a window is changed as products of it differ; see
        `xstefa.training.perturbation.Perturbation`.
    needs : tuple of tuple of str, optional
        Groups of forcings, of each of which a dataset has to have one: with ``(("precipitation",),
        ("temperature_mean", "potential_evapotranspiration"))`` rain and either of the others are
        enough. By default as the model that is fine-tuned, precipitation and temperature, and for
        the head "hbv" all three.
    windows : WindowPolicy, optional
        Windows that the head learns on, and how it reads records in prediction: a `SegmentPolicy`
        with an encoder that looks back only. By default those of the model that is fine-tuned.
    stride : int, optional
        Days between the windows of a site; by default as in prediction.
    cache : bool
        Let a frozen encoder read each window once, and keep its embeddings on disk.
    encoding : {"fp32", "bf16"}, optional
        Precision of the encoder and of what is kept, with `cache`; by default that of the schedule.
    """

    loss: Literal["nse", "mse"] | None = None
    scale: Positive = 0.1
    centred: Share = 0.0
    token_dropout: Probability = 0.0
    group_dropout: Share = 0.0
    perturbation: Share = 0.0
    needs: SomeNeeds | None = None
    windows: WindowPolicy | None = None
    stride: Count | None = None
    cache: bool = True
    encoding: Precision | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOptions(RunOptions):
    """How a head learns: keywords of `StefaAccessor.finetune`."""

    head: str | HeadSize | tuple[HeadSize, ...] | None = "resconn"
    encoder: EncoderUse | None = None
    recipe: HeadRecipe | None = None
    tokens: Tokens = ()

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Self:
        """Make it of keywords.

        Raises
        ------
        OptionError
            If one is not known.
        """
        check_names(cls, keywords)
        return cls(**keywords)
