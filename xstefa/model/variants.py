"""What the paper compares, by name: a head, and what becomes of the pretrained encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

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
    # ablations
    "no_adapter": Variant(head="no_adapter"),
    "linear": Variant(head="linear"),
    "scratch": Variant(head="resconn", encoder="scratch"),
    "direct": Variant(head="direct", encoder="tuned"),
    # the authors' fine-tuning script
    "released": Variant(head="released"),
    # baseline
    "lstm": Variant(head="lstm", encoder="none"),
}


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
