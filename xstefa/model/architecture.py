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
    """Keyword arguments of `xstefa.model.heads.ResConn`; `members` heads are averaged."""

    hidden: int = 256
    link: str = "identity"
    kernel: int = 5
    members: int = 1
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a network is made of.

    Without an encoder the head is the plain LSTM baseline; without a head the network only
    represents and, with a decoder, reconstructs. `recurrent` says whether the decoder has an LSTM.
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
            parts["head"] = HeadSize(**parts["head"])
        return cls(**parts)
