"""Several heads, of one kind or several, averaged: on one encoder, or without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from xstefa.errors import ModelError
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.neighbourhood import Neighbourhood
from xstefa.model.ranges import Ranges, join_ranges
from xstefa.schema import Needs
from xstefa.windows import SegmentPolicy, WindowPolicy


def ensemble(models: Sequence[Model], *, name: str) -> Model:
    """Join models that differ in their heads only into one whose answer is the heads' mean.

    Parameters
    ----------
    models : sequence of Model
        Trained on the same frozen encoder, for instance with different seeds, or without any.
    name : str
        Name of the joint model.

    Raises
    ------
    ModelError
        If encoder, schema, scaler, target or windows differ.

    Notes
    -----
    It answers where any of the models does, but for physics among others: its stores begin empty,
    so its heads do not count before they would have answered alone. Attributes count as within
    training where they are for each of the models: an encoder has often seen more than heads.
    """
    if not models:
        raise ModelError(
            variable="models",
            found="none",
            expected="at least one model",
            fix="ensemble([first, second], name='both')",
        )
    # The encoder of one is that of all.
    models = sorted(models, key=lambda model: model.spec.architecture.encoder is None)
    first, *others = specs = [model.spec for model in models]
    windows = min((spec.windows for spec in specs), key=lambda policy: policy.least)
    for other in others:
        for part in ("target", "support", "schema", "scaler", "tokens", "windows"):
            one, two = (_shared(getattr(spec, part)) for spec in (first, other))
            if one != two:
                raise ModelError(
                    variable=part,
                    found=f"{two!r:.80} of {other.name!r}, {one!r:.80} of {first.name!r}",
                    expected="models that differ in their heads only",
                    fix="train them on the same foundation model, sites and windows",
                )
    states = [model.network().state_dict() for model in models]
    joint = {key: value for key, value in states[0].items() if not key.startswith("heads.")}
    heads: list[HeadSize] = []
    for model, state in zip(models, states, strict=True):
        for key, value in state.items():
            if not key.startswith("heads."):
                if key not in joint or not torch.equal(value, joint[key]):
                    raise ModelError(
                        variable=key,
                        found=f"other values in {model.name!r} than in {first.name!r}",
                        expected="one frozen encoder",
                        fix="train them on the same foundation model",
                    )
                continue
            _, number, rest = key.split(".", 2)
            joint[f"heads.{len(heads) + int(number)}.{rest}"] = value
        spec = model.spec
        heads += [filled_first(s, spec.windows, windows) for s in spec.architecture.heads]
    architecture = replace(first.architecture, heads=tuple(heads))
    how = ("recipe", "schedule")
    provenance = {
        **{key: value for key, value in first.provenance.items() if key not in how},
        "members": [
            {"sha256": model.content_hash, **{k: model.spec.provenance.get(k) for k in how}}
            for model in models
        ],
    }
    spec = replace(
        first,
        name=name,
        windows=windows,
        architecture=architecture,
        provenance=provenance,
        needs=_least(specs),
        ranges=_narrowest(specs),
        distribution=None,  # of other answers than theirs
        distributions=(),
        neighbourhood=_unscored(first),
    )
    return create_model(spec, joint)


def stretched(model: Model, *, gain: float, power: float) -> Model:
    """Return the model that answers ``gain * answer ** power`` with each head.

    The mean of what may be varies less than what is, and that of several heads less again: floods
    come out too low. A power above one gives back some of it.

    Parameters
    ----------
    model : Model
        Of one target, which its heads give as 0 or more.
    gain, power : float
        In the target's canonical unit; found at sites that training did not see.

    Raises
    ------
    ModelError
        If the model conserves water, or a head may answer less than 0.
    """
    spec = model.spec
    heads = spec.architecture.heads
    if len(spec.outputs) > 1 or any(h.offset or not _positive(h) for h in heads):
        raise ModelError(
            variable=spec.name,
            found=f"outputs {', '.join(spec.outputs)} of {', '.join(h.kind for h in heads)}",
            expected="one target, of heads that answer 0 or more",
            fix="train heads with link='softplus'",
        )
    heads = tuple(replace(h, scale=gain * h.scale**power, power=power * h.power) for h in heads)
    spec = replace(
        spec,
        architecture=replace(spec.architecture, heads=heads),
        distribution=None,
        distributions=(),
        neighbourhood=_unscored(spec),
        provenance={**spec.provenance, "stretched": {"gain": gain, "power": power}},
    )
    return create_model(spec, model.network().state_dict())


def _unscored(spec: ModelSpec) -> Neighbourhood | None:
    """Return the training sites without scores, which are of other answers."""
    return None if spec.neighbourhood is None else replace(spec.neighbourhood, held_out=())


def _positive(size: HeadSize) -> bool:
    return size.kind == "hbv" or size.link in ("softplus", "logistic")


def filled_first(size: HeadSize, alone: WindowPolicy, joint: WindowPolicy) -> HeadSize:
    """Let physics fill its stores as long as it does `alone`, if `joint` windows ask for less."""
    if size.kind != "hbv" or alone.least <= joint.least:
        return size
    return replace(size, spin_up=max(size.spin_up, alone.least - 1))


def _narrowest(specs: Sequence[ModelSpec]) -> Ranges:
    """Return the ranges of the model that has seen nothing that another has not."""
    for spec in specs:
        if all(join_ranges(spec.ranges, other.ranges) == other.ranges for other in specs):
            return spec.ranges
    raise ModelError(
        variable="ranges",
        found=f"{specs[0].name!r} and others have seen different values of the same tokens",
        expected="ranges of one of the models within those of all others",
        fix="train them on the same foundation model and sites",
    )


def _shared(part: object) -> object:
    """Return what has to agree: on how long pieces of records one has learned does not matter."""
    if isinstance(part, SegmentPolicy):
        return replace(part, known=1.0, length=part.spin_up + 1)
    return part


def _least(specs: Sequence[ModelSpec]) -> Needs:
    """Return the needs of the model that answers wherever another does."""
    for spec in specs:
        if all(
            any(set(narrower) <= set(group) for narrower in other.needs)
            for other in specs
            for group in spec.needs
        ):
            return spec.needs
    raise ModelError(
        variable="needs",
        found="; ".join(f"{spec.name!r}: {spec.needs}" for spec in specs),
        expected="one of the models to answer wherever another does",
        fix="train one that needs less: recipe=HeadRecipe(needs=...)",
    )
