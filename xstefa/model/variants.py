"""What the paper compares, by name: a head, and what becomes of the pretrained encoder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from xstefa.errors import ModelError
from xstefa.model.architecture import WATER, Driver, HeadSize
from xstefa.model.checkpoint import ModelSpec
from xstefa.schema import Schema, Target, Variable

EncoderUse: TypeAlias = Literal["frozen", "tuned", "scratch", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to learn a target.

    Attributes
    ----------
    head : str
        A name of `xstefa.model.heads.HEADS`.
    encoder : {"frozen", "tuned", "scratch", "none"}
        As it was pretrained; trained on; trained from random weights; absent.
    """

    head: str
    encoder: EncoderUse = "frozen"


VARIANTS: dict[str, Variant] = {
    "resconn": Variant(head="resconn"),
    # adapters
    "feedforward": Variant(head="feedforward"),
    "bottleneck": Variant(head="bottleneck"),
    "gated": Variant(head="gated"),
    "mixture": Variant(head="mixture"),
    "residual": Variant(head="residual"),
    # physics inside
    "hbv": Variant(head="hbv"),
    "reservoirs": Variant(head="reservoirs", encoder="none"),
    # ablations
    "no_adapter": Variant(head="no_adapter"),
    "linear": Variant(head="linear"),
    "scratch": Variant(head="resconn", encoder="scratch"),
    "direct": Variant(head="direct", encoder="tuned"),
    # the authors' fine-tuning script
    "released": Variant(head="released"),
    # static targets
    "site": Variant(head="site", encoder="none"),
    "kernel": Variant(head="kernel", encoder="none"),
    # baseline
    "lstm": Variant(head="lstm", encoder="none"),
}

BASELINES = frozenset(name for name, variant in VARIANTS.items() if variant.encoder == "none")
"""Kinds of heads that read the inputs only."""


DEAF = frozenset({"linear", "no_adapter", "direct"})
"""Kinds of heads that read what the encoder makes of the inputs, and none of these themselves."""


def deaf_kind(head: str | HeadSize | tuple[HeadSize, ...] | None) -> str | None:
    """Return the first kind among heads, or the variant, that is `DEAF`."""
    if isinstance(head, str):
        kinds = [VARIANTS[head].head] if head in VARIANTS else []
    else:
        kinds = [size.kind for size in ((head,) if isinstance(head, HeadSize) else head or ())]
    return next((kind for kind in kinds if kind in DEAF), None)


def direct_size(size: HeadSize, *, spec: ModelSpec, target: str) -> HeadSize:
    """Return the head of kind "direct" that continues a foundation model's own decoder.

    Raises
    ------
    ModelError
        If the model was not pretrained with the target as its last forcing and a decoder LSTM.
    """
    encoder, architecture = spec.architecture.encoder, spec.architecture
    recurrent = architecture.decoder and architecture.recurrent
    if encoder is None or not recurrent or spec.schema.forcing_names[-1] != target:
        raise ModelError(
            variable=spec.name,
            found="a model whose last forcing is " + spec.schema.forcing_names[-1],
            expected=f"a foundation model pretrained with {target} as its last forcing",
            fix="pretrain on with_target_as_input(schema, target), or choose another head",
        )
    moments = spec.scaler.forcings[target]
    return replace(
        size, hidden=encoder.hidden, link="identity", scale=moments.std, offset=moments.mean
    )


DRIVERS = ("precipitation", "temperature_mean", "potential_evapotranspiration")
"""Tokens that heads of some kinds read in their units."""
DRIVEN = ("hbv", "reservoirs")


def completed(size: HeadSize, *, spec: ModelSpec, tokens: Collection[str], target: str) -> HeadSize:
    """Return a head with what its kind takes from the model under it."""
    if size.kind == "direct":
        return direct_size(size, spec=spec, target=target)
    if size.kind in DRIVEN:
        return driven_size(size, spec=spec, tokens=tokens, target=target)
    return size


def driven_size(
    size: HeadSize, *, spec: ModelSpec, tokens: Collection[str], target: str
) -> HeadSize:
    """Return the head that knows where a model's forcings hold its drivers.

    Parameters
    ----------
    size : HeadSize
        Of a kind that `DRIVEN` names.
    spec : ModelSpec
        Its schema says where they are, its scaler how they were standardised.
    tokens : collection of str
        Those that the training data have.
    target : str

    Raises
    ------
    ModelError
        If one of the drivers is not among the tokens, or physics has no such target.
    """
    names = spec.schema.forcing_names
    if missing := [name for name in DRIVERS if name not in names or name not in tokens]:
        hidden = missing[0] in spec.schema.target(target).hidden
        raise ModelError(
            f"the physics needs {missing[0]} in its unit",
            variable=missing[0],
            found=f"{target!r}, which hides it"
            if hidden
            else "training data without it"
            if missing[0] in names
            else f"{spec.name!r}, a model whose schema has no such token",
            expected=", ".join(DRIVERS),
            fix=("take it out of `hidden`" if hidden else "provide it")
            + ', or choose another head: head="resconn"',
        )
    size = replace(
        size,
        drivers=tuple(
            Driver(column=names.index(name), moments=spec.scaler.forcings[name]) for name in DRIVERS
        ),
    )
    if size.kind != "hbv":
        return size
    if target != WATER[0]:
        raise ModelError(
            variable=target,
            found='a target that the physics does not predict, with head="hbv"',
            expected=WATER[0],
            fix='choose another head: head="resconn"',
        )
    return replace(size, link="identity", scale=1.0, offset=0.0)


def with_target_as_input(schema: Schema, target: Target) -> Schema:
    """Return the schema with the target as one more forcing, the last: for the variant "direct".

    A model pretrained on it learns the target like any other variable; heads of kind "direct" then
    reconstruct it. The network hides it wherever it is to be predicted.
    """
    variable = Variable(
        name=target.name,
        kind="forcing",
        units=target.units,
        long_name=target.long_name,
        valid_range=target.valid_range,
        standard_names=target.standard_names,
        aliases=target.aliases,
    )
    return replace(schema, forcings=(*schema.forcings, variable))
