"""The authors' checkpoint layout: which tensor, of which shape, becomes which part of ours.

Their networks hold one pair of linear layers per variable, ours the same numbers stacked, so that
all variables run as one matrix product. Nothing is dropped or padded: a checkpoint has exactly
these tensors or is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

from xstefa.errors import ModelError
from xstefa.model.architecture import Architecture, EncoderSize

if TYPE_CHECKING:
    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]
Arrange: TypeAlias = "Callable[[Tensor], Tensor]"

POSITIONS = "positional_encoding.position_embedding"
MASKED_STATICS = "static_embedding.masked_values"
LAYER = "encoder.transformer_encoder.layers."
# Sections with one entry per variable: (embedding, projection) x (first, second linear layer).
FORCING_SECTIONS = tuple(
    f"time_series_{part}.embeddings{i}." for part in ("embedding", "projection") for i in (1, 2)
)
STATIC_SECTIONS = tuple(
    f"static_{part}.numerical_embeddings{i}."
    for part in ("embedding", "projection")
    for i in (1, 2)
)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _column(weight: Tensor) -> Tensor:
    return weight[:, 0]


def _transposed(weight: Tensor) -> Tensor:
    return weight.T


def _only(weight: Tensor) -> Tensor:
    return weight[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A tensor of the published layout, and its place in `xstefa.model.network.StefaLand`.

    Attributes
    ----------
    published : str
        Key in the checkpoint.
    shape : tuple of int
    own : str
        Key in our state.
    row : int, optional
        The variable's row, where ours is stacked over variables.
    arrange : callable
        From their orientation to ours.
    """

    published: str
    shape: Shape
    own: str
    row: int | None = None
    arrange: Arrange = _same


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the keys and shapes of a checkpoint say: its variables, in order, and its sizes."""

    forcings: tuple[str, ...]
    statics: tuple[str, ...]
    architecture: Architecture

    @classmethod
    def recover(cls, shapes: Mapping[str, Shape], *, heads: int) -> Layout:
        """Read variables and sizes from keys and shapes.

        The number of attention heads leaves no trace in the shapes.

        Raises
        ------
        ModelError
            If the keys are not those of a published checkpoint.
        """
        forcings = _variables(shapes, FORCING_SECTIONS)
        statics = _variables(shapes, STATIC_SECTIONS)
        positions = shapes.get(POSITIONS, ())
        if not forcings or not statics or len(positions) != 2:
            raise ModelError(
                variable="checkpoint",
                found="keys such as " + (", ".join(sorted(shapes)[:3]) or "none"),
                expected=f"{FORCING_SECTIONS[0]}<name>.weight, {STATIC_SECTIONS[0]}<name>.weight "
                f"and {POSITIONS} (rows, width)",
                fix="give the authors' pretraining checkpoint; for a model saved by xstefa use "
                "xstefa.load_model(path)",
            )
        width = _most_common(
            shapes,
            (POSITIONS, 1),
            ("encoder_norm.weight", 0),
            ("encoder_norm.bias", 0),
            ("enc_2_dec_embedding.bias", 0),
        )
        if heads < 1 or width % heads:
            raise ModelError(
                variable="heads",
                found=f"{heads} heads for a width of {width}",
                expected="a divisor of the width, as in the training configuration",
                fix="import_published(path, heads=...)",
            )
        layers = [
            int(m[1]) for key in shapes if (m := re.match(rf"{re.escape(LAYER)}(\d+)\.", key))
        ]
        masked = shapes.get(MASKED_STATICS, (1,))
        architecture = Architecture(
            forcings=len(forcings),
            statics=len(statics),
            encoder=EncoderSize(
                width=width,
                layers=max(layers, default=-1) + 1,
                heads=heads,
                feedforward=_most_common(
                    shapes,
                    (f"{LAYER}*.linear1.weight", 0),
                    (f"{LAYER}*.linear1.bias", 0),
                    (f"{LAYER}*.linear2.weight", 1),
                ),
                hidden=_most_common(
                    shapes,
                    *((f"{FORCING_SECTIONS[i]}*.weight", i) for i in (0, 1)),
                    *((f"{STATIC_SECTIONS[i]}*.weight", i) for i in (0, 1)),
                ),
                # A window is at least a day and the site; the table of scalars has a row 0.
                positions=max(2, positions[0]),
                static_masked_as="scalar",
                static_masked_rows=max((1, *masked[:1])),
            ),
            decoder=True,
            recurrent=any(key.startswith("decoder.") for key in shapes),
        )
        return cls(forcings=forcings, statics=statics, architecture=architecture)

    def slots(self) -> Iterator[Slot]:
        """Yield every tensor that a checkpoint of this layout holds."""
        size = self.architecture.encoder
        assert size is not None
        d, hidden = size.width, size.hidden
        yield Slot(
            published="time_series_embedding.masked_values",
            shape=(len(self.forcings), d),
            own="encoder.embed_forcing.masked",
        )
        yield Slot(
            published=MASKED_STATICS,
            shape=(size.static_masked_rows, len(self.statics)),
            own="encoder.embed_static.masked",
        )
        yield Slot(published=POSITIONS, shape=(size.positions, d), own="encoder.position")
        for names, sections, kind in (
            (self.forcings, FORCING_SECTIONS, "forcing"),
            (self.statics, STATIC_SECTIONS, "static"),
        ):
            embed1, embed2, project1, project2 = sections
            for row, name in enumerate(names):
                own = f"encoder.embed_{kind}"
                yield from _linear(f"{embed1}{name}", own, "1", (hidden, 1), row, _column)
                yield from _linear(f"{embed2}{name}", own, "2", (d, hidden), row, _transposed)
                own = f"decoder.project_{kind}"
                yield from _linear(f"{project1}{name}", own, "1", (hidden, d), row, _transposed)
                yield from _linear(f"{project2}{name}", own, "2", (1, hidden), row, _only)
        for i in range(size.layers):
            yield from _layer(f"{LAYER}{i}", f"encoder.layers.{i}", d, size.feedforward)
        yield from pair("encoder_norm", "encoder.norm", (d,))
        yield from pair("enc_2_dec_embedding", "encoder.project", (d, d))
        if self.architecture.recurrent:
            yield from pair("decoder_norm", "decoder.norm", (d,))
            for gate in ("ih", "hh"):
                for part, shape in (("weight", (4 * d, d)), ("bias", (4 * d,))):
                    name = f"{part}_{gate}_l0"
                    yield Slot(published=f"decoder.{name}", shape=shape, own=f"decoder.lstm.{name}")

    @property
    def unused(self) -> frozenset[str]:
        """Keys that may be there and are never read: a decoder norm without a decoder."""
        if self.architecture.recurrent:
            return frozenset()
        return frozenset({"decoder_norm.weight", "decoder_norm.bias"})

    def state(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rearrange a checkpoint's tensors into our state.

        Raises
        ------
        ModelError
            If tensors are missing, left over or misshapen; all are listed.
        """
        return rearranged(tensors, list(self.slots()), self.unused)


def rearranged(
    tensors: Mapping[str, Tensor], slots: Sequence[Slot], unused: frozenset[str]
) -> dict[str, Tensor]:
    """Put tensors into their places; ModelError lists all that are missing, extra or misshapen."""
    import torch

    _require_exact(tensors, slots, unused)
    state: dict[str, Tensor] = {}
    stacks: dict[str, list[Tensor]] = {}
    for slot in slots:
        value = slot.arrange(tensors[slot.published].to(torch.float32))
        if slot.row is None:
            state[slot.own] = value
        else:
            stacks.setdefault(slot.own, []).append(value)
    return state | {own: torch.stack(rows) for own, rows in stacks.items()}


def _variables(shapes: Mapping[str, Shape], sections: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the entries, in the order of the first section that has them."""
    names = {
        key.removeprefix(section).rpartition(".")[0]: None
        for section in sections
        for key in shapes
        if key.startswith(section)
    }
    return tuple(names)


def _most_common(shapes: Mapping[str, Shape], *places: tuple[str, int]) -> int:
    """Return the size that most tensors have at these places: pattern of the key, axis.

    One tensor alone would do, but if that is the one that is misshapen, all others would be blamed.
    """
    votes = Counter(
        shape[axis]
        for pattern, axis in places
        for key, shape in shapes.items()
        if fnmatchcase(key, pattern) and len(shape) > axis
    )
    return max(votes, key=votes.__getitem__, default=0)


def _linear(
    published: str, own: str, number: str, shape: Shape, row: int, arrange: Arrange
) -> Iterator[Slot]:
    """Yield weight and bias of one variable's linear layer."""
    yield Slot(
        published=f"{published}.weight",
        shape=shape,
        own=f"{own}.weight{number}",
        row=row,
        arrange=arrange,
    )
    yield Slot(
        published=f"{published}.bias",
        shape=shape[:1],
        own=f"{own}.bias{number}",
        row=row,
        # A layer with one output: a number in ours, a vector of length one in theirs.
        arrange=_only if arrange is _only else _same,
    )


def pair(published: str, own: str, shape: Shape) -> Iterator[Slot]:
    """Yield weight and bias of a layer that we keep as it is."""
    yield Slot(published=f"{published}.weight", shape=shape, own=f"{own}.weight")
    yield Slot(published=f"{published}.bias", shape=shape[:1], own=f"{own}.bias")


def _layer(published: str, own: str, d: int, feedforward: int) -> Iterator[Slot]:
    """Yield a `torch.nn.TransformerEncoderLayer`."""
    attention = f"{published}.self_attn.in_proj_"
    yield Slot(published=f"{attention}weight", shape=(3 * d, d), own=f"{own}.project_in.weight")
    yield Slot(published=f"{attention}bias", shape=(3 * d,), own=f"{own}.project_in.bias")
    yield from pair(f"{published}.self_attn.out_proj", f"{own}.project_out", (d, d))
    yield from pair(f"{published}.linear1", f"{own}.linear1", (feedforward, d))
    yield from pair(f"{published}.linear2", f"{own}.linear2", (d, feedforward))
    yield from pair(f"{published}.norm1", f"{own}.norm1", (d,))
    yield from pair(f"{published}.norm2", f"{own}.norm2", (d,))


def _require_exact(
    tensors: Mapping[str, Tensor], slots: Sequence[Slot], unused: frozenset[str]
) -> None:
    expected = {slot.published: slot.shape for slot in slots}
    missing = [f"{key} {shape}" for key, shape in expected.items() if key not in tensors]
    extra = [
        f"{key} {tuple(value.shape)}"
        for key, value in tensors.items()
        if key not in expected and key not in unused
    ]
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    if missing or extra or misshapen:
        lists = {"missing": missing, "extra": extra, "misshapen": misshapen}
        raise ModelError(
            "the tensors are not those of a published checkpoint",
            variable="checkpoint",
            found="; ".join(f"{what}: {', '.join(keys)}" for what, keys in lists.items() if keys),
            expected=f"exactly {len(expected)} tensors",
            fix="import the file as the authors' training script wrote it",
        )
