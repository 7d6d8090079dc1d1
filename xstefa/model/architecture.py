"""The sizes that make a network, as data that travels with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSize:
    """Keyword arguments of `xstefa.model.encoder.Encoder` beside the variable counts."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    feedforward: int = 512
    hidden: int = 64
    positions: int = 1000
    activation: str = "relu"
    static_masked_as: str = "vector"
    static_masked_rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSize:
    """How the representation becomes a target.

    Attributes
    ----------
    kind : str
        A name of `xstefa.model.heads.HEADS`.
    hidden : int
        Size of its LSTM.
    link : {"identity", "softplus", "logistic"}
        Maps the linear output into the target's range.
    kernel : int
        Days seen by the convolution of resconn.
    members : int
        Heads whose answers are averaged.
    scale, offset : float
        The target in its canonical unit is ``scale * output + offset``.
    outputs : int
        Targets predicted at once; more than one only for ``kind="released"``.
    dropout : float
        Before the last layer, while training.
    """

    kind: str = "resconn"
    hidden: int = 256
    link: str = "identity"
    kernel: int = 5
    members: int = 1
    scale: float = 1.0
    offset: float = 0.0
    outputs: int = 1
    dropout: float = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a network is made of.

    Without an encoder the head can only be a baseline; without a head the network only represents
    and, with a decoder, reconstructs. `recurrent` says whether the decoder has an LSTM.
    """

    forcings: int
    statics: int
    encoder: EncoderSize | None = None
    decoder: bool = False
    recurrent: bool = True
    head: HeadSize | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Architecture:
        """Read the form written by `to_dict`."""
        parts = dict(content)
        if parts["encoder"] is not None:
            parts["encoder"] = EncoderSize(**parts["encoder"])
        if parts["head"] is not None:
            # Files older than the choice of heads have none to say: with an encoder it is resconn.
            kind = "lstm" if parts["encoder"] is None else "resconn"
            parts["head"] = HeadSize(**({"kind": kind} | parts["head"]))
        return cls(**parts)
