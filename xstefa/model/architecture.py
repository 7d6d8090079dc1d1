"""The sizes that make a network, as data that travels with its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from xstefa.arguments import check_fields
from xstefa.model.scaler import Moments
from xstefa.typed import LATER, Count, Finite, Natural, Positive, Share

# Rows of a batch come in multiples of this. Matrix kernels compute the last few rows of an array by
# another routine than the others, and vector kernels its last few elements (a register holds at
# most 16); with whole multiples there are no such leftovers, and no row depends on its place.
ROWS = 16

WATER = (
    "streamflow",
    "evapotranspiration",
    "snow_water_equivalent",
    "soil_water_storage",
    "groundwater_storage",
)
"""What heads of kind "hbv" predict: where the precipitation went, and where it is."""


STATIC = ("site", "kernel")
"""Kinds of heads of static targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSize:
    """Sizes of the encoder.

    Attributes
    ----------
    attention : {"bidirectional", "causal"}
        `xstefa.model.encoder.Encoder`, that of the paper, reads a window as a whole and places its
        days by a table of `positions`; `xstefa.model.causal.CausalEncoder` looks back only, over a
        `band` of days.
    """

    attention: Literal["bidirectional", "causal"] = "bidirectional"
    band: Count = 128
    width: Count = 256
    layers: Count = 4
    heads: Count = 4
    feedforward: Count = 512
    hidden: Count = 64
    positions: Count = 1000
    activation: Literal["relu", "gelu"] = "relu"
    static_masked_as: Literal["vector", "scalar"] = "vector"
    static_masked_rows: Count = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be shared by {self.heads} heads")
        if self.band % 64:
            raise ValueError(f"band must be a multiple of 64 days, found {self.band}")

    @property
    def causal(self) -> bool:
        """Whether no day sees later ones."""
        return self.attention == "causal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A forcing that the physics reads in its own unit.

    Attributes
    ----------
    column : int
        Where the network's forcings hold it.
    moments : Moments
        How it was standardised there.
    """

    column: Natural
    moments: Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSize:
    """How the representation becomes a target.

    Attributes
    ----------
    kind : str
        A name of `xstefa.model.heads.HEADS`.
    hidden : int
        Size of its LSTM, or of what sets the rates of its reservoirs; of ``kind="kernel"`` the
        training sites that it keeps.
    link : {"identity", "softplus", "logistic", "softmax"}
        Maps the linear output into the target's range; the last makes `outputs` that sum to 1.
    kernel : int
        Days seen by the convolution of resconn.
    scale, offset, power : float
        The target in its canonical unit is ``scale * output ** power + offset``.
    outputs : int
        Targets predicted at once; more than one only for ``kind="released"`` and parts of a whole.
    levels : int
        Depths of each, for static targets.
    members : int
        Networks side by side that are averaged, for ``kind="site"``.
    dropout : float
        Before the last layer, while training.
    drivers : tuple of Driver
        Precipitation, temperature and potential evapotranspiration, for kinds that read them in
        their units: see `xstefa.model.variants.DRIVEN`.
    spin_up : int
        Days of a record, of at most 365, before its first answer, for ``kind="hbv"``: beside heads
        that answer earlier, it fills its stores first.
    """

    kind: str = "resconn"
    hidden: Count = 256
    link: Literal["identity", "softplus", "logistic", "softmax"] = "identity"
    kernel: Count = 5
    scale: Positive = 1.0
    offset: Finite = 0.0
    power: Positive = 1.0
    outputs: Count = 1
    levels: Count = field(default=1, metadata=LATER)
    members: Count = field(default=1, metadata=LATER)
    dropout: Share = 0.4
    drivers: tuple[Driver, ...] = ()
    spin_up: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a network is made of.

    Without an encoder heads can only be baselines; without a head the network only represents and,
    with a decoder, reconstructs. `recurrent` says whether the decoder has an LSTM. The answers of
    several heads, of whatever kinds, are averaged. The first `statics` numbers of a site are read
    by all; behind them stand tokens of which `extras` are the lengths, which heads alone read.
    """

    forcings: Count
    statics: Natural
    encoder: EncoderSize | None = None
    decoder: bool = False
    recurrent: bool = True
    heads: tuple[HeadSize, ...] = ()
    extras: tuple[Count, ...] = field(default=(), metadata=LATER)
