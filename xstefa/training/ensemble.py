"""Several heads on one encoder, of one kind or several, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from xstefa.errors import ModelError
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.schema import Needs


def ensemble(models: Sequence[Model], *, name: str) -> Model:
    """Join models that differ in their heads only into one whose answer is the heads' mean.

    Parameters
    ----------
    models : sequence of Model
        Trained on the same frozen encoder, for instance with different seeds.
    name : str
        Name of the joint model.

    Raises
    ------
    ModelError
        If encoder, schema, scaler, windows or target differ.
    """
    first, *others = (model.spec for model in models)
    for other in others:
        for part in ("target", "support", "schema", "scaler", "windows", "tokens", "ranges"):
            if getattr(other, part) != getattr(first, part):
                raise ModelError(
                    variable=part,
                    found=f"{other.name!r} differs from {first.name!r}",
                    expected="models that differ in their heads only",
                    fix="train them on the same foundation model and sites",
                )
    states = [model.network().state_dict() for model in models]
    joint = {key: value for key, value in states[0].items() if not key.startswith("heads.")}
    heads: list[HeadSize] = []
    for model, state in zip(models, states, strict=True):
        for key, value in state.items():
            if not key.startswith("heads."):
                if not torch.equal(value, joint[key]):
                    raise ModelError(
                        variable=key,
                        found=f"other values in {model.name!r} than in {first.name!r}",
                        expected="one frozen encoder",
                        fix="train them on the same foundation model",
                    )
                continue
            _, number, rest = key.split(".", 2)
            joint[f"heads.{len(heads) + int(number)}.{rest}"] = value
        heads += model.spec.architecture.heads
    architecture = replace(first.architecture, heads=tuple(heads))
    provenance = {**first.provenance, "members": [model.content_hash for model in models]}
    spec = replace(
        first,
        name=name,
        architecture=architecture,
        provenance=provenance,
        needs=_least([model.spec for model in models]),
    )
    return create_model(spec, joint)


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
