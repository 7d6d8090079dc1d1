"""The authors' checkpoint layouts: which of their tensors is which of ours.

Their networks hold one pair of linear layers per variable, ours the same numbers stacked, so that
all variables run as one matrix product. Nothing is dropped or padded: a checkpoint has exactly the
tensors of the network that its keys and shapes describe, or is refused.

Pretraining leaves an encoder and a decoder. Fine-tuning leaves them under ``pretrained_model.``,
beside an adapter and a head; its LSTM baseline is the head alone, and so without variable names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from xstefa.errors import ModelError
from xstefa.model.architecture import Architecture, EncoderSize, HeadSize

if TYPE_CHECKING:
    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]
Names: TypeAlias = tuple[str, ...]

POSITIONS = "positional_encoding.position_embedding"
MASKED_STATICS = "static_embedding.masked_values"
LAYERS = "encoder.transformer_encoder.layers."
PRETRAINED = "pretrained_model."
BEFORE_LSTM = "pre_lstm.weight"  # in both files of fine-tuning, and in none of pretraining

# Beginnings of our keys, and what they are in a checkpoint. The first that fits counts.
RENAMED: dict[str, str] = {
    "encoder.embed_forcing.masked": "time_series_embedding.masked_values",
    "encoder.embed_static.masked": MASKED_STATICS,
    "encoder.position": POSITIONS,
    r"encoder.layers.(\d+).project_in.": rf"{LAYERS}\1.self_attn.in_proj_",
    r"encoder.layers.(\d+).project_out.": rf"{LAYERS}\1.self_attn.out_proj.",
    r"encoder.layers.": LAYERS,
    "encoder.norm.": "encoder_norm.",
    "encoder.project.": "enc_2_dec_embedding.",
    "decoder.norm.": "decoder_norm.",
    "decoder.lstm.": "decoder.",
    "heads.0.adapter.from_forcing.": "adapter.time_transform.0.",
    "heads.0.adapter.from_static.": "adapter.static_transform.0.",
    "heads.0.adapter.linear1.": "adapter.combined_transform.0.",
    "heads.0.adapter.linear2.": "adapter.combined_transform.3.",
    r"heads.0.adapter.norm(\d)": r"adapter.layer_norm\1",
    "heads.0.before.": "pre_lstm.",
    r"heads.0.lstm.(\w)\w+_(ih|hh)_l0": r"decoder.\1_\2",
    "heads.0.after.": "post_lstm.",
    "heads.0.output.": "projection.",
}

# What we stack over variables; in a checkpoint the number and the name of the variable follow.
STACKED: dict[str, dict[str, str]] = {
    "forcing": {
        "encoder.embed": "time_series_embedding.embeddings",
        "decoder.project": "time_series_projection.embeddings",
    },
    "static": {
        "encoder.embed": "static_embedding.numerical_embeddings",
        "decoder.project": "static_projection.numerical_embeddings",
    },
}
_STACKED_KEY = re.compile(r"(encoder\.embed|decoder\.project)_(forcing|static)\.(weight|bias)(\d)")


class Place(NamedTuple):
    """Where a tensor of a checkpoint belongs.

    Attributes
    ----------
    own : str
        Key in the state of `xstefa.model.network.StefaLand`.
    row : int or None
        The variable's row, where ours is stacked over variables.
    shape : tuple of int
        In the checkpoint.
    own_shape : tuple of int
        In our state, there of the row.
    """

    own: str
    row: int | None
    shape: Shape
    own_shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLayout:
    """What the keys and shapes of a checkpoint say: its variables, in order, and its sizes."""

    forcings: Names
    statics: Names
    architecture: Architecture

    @classmethod
    def recover(
        cls,
        shapes: Mapping[str, Shape],
        *,
        heads: int,
        variables: tuple[Names, Names] | None = None,
    ) -> PublishedLayout:
        """Read variables and sizes from keys and shapes.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
        heads : int
            Attention heads, which leave no trace in the shapes.
        variables : (forcings, statics), optional
            Names, needed for the baseline.

        Raises
        ------
        ModelError
            If the keys are not those of a published checkpoint.
        """
        if BEFORE_LSTM not in shapes:
            return _recover_pretrained(shapes, heads)
        head = HeadSize(
            kind="released",
            hidden=_most_common(shapes, (BEFORE_LSTM, 0), ("post_lstm.*", 0)),
            outputs=_most_common(shapes, ("projection.*", 0)),
            dropout=0.0,
        )
        inner = {
            key.removeprefix(PRETRAINED): shape
            for key, shape in shapes.items()
            if key.startswith(PRETRAINED)
        }
        if inner:
            found = _recover_pretrained(inner, heads)
            return replace(found, architecture=replace(found.architecture, heads=(head,)))
        count = _most_common(shapes, (BEFORE_LSTM, 1))
        if variables is None or len(variables[0]) + len(variables[1]) != count:
            raise ModelError(
                variable="variables",
                found="no names" if variables is None else f"{sum(map(len, variables))} names",
                expected=f"{count} names: those of the forcings, then those of the statics",
                fix="the baseline's file does not name its inputs: "
                "import_published(path, variables=([...], [...]))",
            )
        forcings, statics = variables
        architecture = Architecture(forcings=len(forcings), statics=len(statics), heads=(head,))
        return cls(forcings=forcings, statics=statics, architecture=architecture)

    def places(self) -> dict[str, Place]:
        """Return where every tensor of such a checkpoint belongs, by its key."""
        import torch

        from xstefa.model.network import StefaLand

        with torch.device("meta"):
            state = StefaLand(self.architecture).state_dict()
        places = {}
        for own, tensor in state.items():
            shape = tuple(tensor.shape)
            inner = self.architecture.heads and not own.startswith("heads.")
            prefix = PRETRAINED if inner else ""
            if stacked := _STACKED_KEY.fullmatch(own):
                part, kind, what, number = stacked.groups()
                section = f"{prefix}{STACKED[kind][part]}{number}."
                theirs = _unstacked(shape[1:], part, what)
                names = self.forcings if kind == "forcing" else self.statics
                for row, name in enumerate(names):
                    places[f"{section}{name}.{what}"] = Place(own, row, theirs, shape[1:])
            else:
                places[prefix + _renamed(own)] = Place(own, None, shape, shape)
        return places

    @property
    def unused(self) -> frozenset[str]:
        """Keys that may be there and are never read: a decoder norm without a decoder."""
        if self.architecture.recurrent:
            return frozenset()
        prefix = PRETRAINED if self.architecture.heads else ""
        return frozenset(f"{prefix}decoder_norm.{part}" for part in ("weight", "bias"))

    def state(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rearrange a checkpoint's tensors into our state.

        Raises
        ------
        ModelError
            If tensors are missing, left over or misshapen; all are listed.
        """
        import torch

        places = self.places()
        _require_exact({k: tuple(v.shape) for k, v in tensors.items()}, places, self.unused)
        state: dict[str, Tensor] = {}
        rows: dict[str, list[Tensor]] = {}
        for key, place in places.items():
            values = tensors[key].to(torch.float32)
            if place.row is None:
                state[place.own] = values
            else:
                # Theirs map from columns to rows, ours from rows to columns.
                rows.setdefault(place.own, []).append(values.t().reshape(place.own_shape))
        return state | {own: torch.stack(stacked) for own, stacked in rows.items()}


def _recover_pretrained(shapes: Mapping[str, Shape], heads: int) -> PublishedLayout:
    forcings, statics = (_variables(shapes, sections) for sections in STACKED.values())
    positions = shapes.get(POSITIONS, ())
    if not forcings or not statics or len(positions) != 2:
        first, second = (sections["encoder.embed"] for sections in STACKED.values())
        raise ModelError(
            variable="checkpoint",
            found="keys such as " + (", ".join(sorted(shapes)[:3]) or "none"),
            expected=f"{first}1.<name>.weight, {second}1.<name>.weight and {POSITIONS} "
            "(rows, width)",
            fix="give the authors' pretraining checkpoint; for a model saved by xstefa use "
            "xstefa.load_model(path)",
        )
    width = _most_common(
        shapes, (POSITIONS, 1), ("encoder_norm.*", 0), ("enc_2_dec_embedding.bias", 0)
    )
    if heads < 1 or width % heads:
        raise ModelError(
            variable="heads",
            found=f"{heads} heads for a width of {width}",
            expected="a divisor of the width, as in the training configuration",
            fix="import_published(path, heads=...)",
        )
    embeddings = [f"{sections['encoder.embed']}{{}}.*.weight" for sections in STACKED.values()]
    encoder = EncoderSize(
        width=width,
        layers=len({m[0] for key in shapes if (m := re.match(rf"{re.escape(LAYERS)}\d+\.", key))}),
        heads=heads,
        feedforward=_most_common(
            shapes,
            (f"{LAYERS}*.linear1.weight", 0),
            (f"{LAYERS}*.linear1.bias", 0),
            (f"{LAYERS}*.linear2.weight", 1),
        ),
        hidden=_most_common(
            shapes, *((key.format(number), number - 1) for key in embeddings for number in (1, 2))
        ),
        # A window is at least a day and the site; the table of scalars has a row 0.
        positions=max(2, positions[0]),
        static_masked_as="scalar",
        static_masked_rows=max((1, *shapes.get(MASKED_STATICS, (1,))[:1])),
    )
    architecture = Architecture(
        forcings=len(forcings),
        statics=len(statics),
        encoder=encoder,
        decoder=True,
        recurrent=any(key.startswith("decoder.") for key in shapes),
    )
    return PublishedLayout(forcings=forcings, statics=statics, architecture=architecture)


def _variables(shapes: Mapping[str, Shape], sections: Mapping[str, str]) -> Names:
    """Return the names of the variables, in the order of the first section that has them."""
    names = {
        key.removeprefix(f"{section}{number}.").rpartition(".")[0]: None
        for section in sections.values()
        for number in (1, 2)
        for key in shapes
        if key.startswith(f"{section}{number}.")
    }
    return tuple(names)


def _most_common(shapes: Mapping[str, Shape], *places: tuple[str, int]) -> int:
    """Return the size, at least 1, that most tensors have: pattern of the key, axis.

    One tensor alone would do, but if that is the one that is misshapen, all others would be blamed.
    """
    votes = Counter(
        shape[axis]
        for pattern, axis in places
        for key, shape in shapes.items()
        if fnmatchcase(key, pattern) and len(shape) > axis
    )
    return max(1, max(votes, key=votes.__getitem__, default=1))


def _renamed(own: str) -> str:
    """Return the key in a checkpoint of a tensor that both hold alike."""
    for ours, theirs in RENAMED.items():
        pattern = ours.replace(".", r"\.")
        if re.match(pattern, own):
            return re.sub(f"^{pattern}", theirs, own)
    raise KeyError(own)


def _unstacked(row: Shape, part: str, what: str) -> Shape:
    """Return the shape of one variable's layer in a checkpoint, (out, in) or (out,)."""
    if what == "bias":
        return row or (1,)
    # From the variable's one value, or to it, ours has no axis.
    whole = row if len(row) == 2 else (1, *row) if part == "encoder.embed" else (*row, 1)
    return whole[::-1]


def _require_exact(
    shapes: Mapping[str, Shape], places: Mapping[str, Place], unused: frozenset[str]
) -> None:
    lists = {
        "missing": [f"{key} {p.shape}" for key, p in places.items() if key not in shapes],
        "extra": [f"{key} {shapes[key]}" for key in shapes if key not in {*places, *unused}],
        "misshapen": [
            f"{key} {shapes[key]} instead of {p.shape}"
            for key, p in places.items()
            if key in shapes and shapes[key] != p.shape
        ],
    }
    if any(lists.values()):
        raise ModelError(
            "the tensors are not those of a published checkpoint",
            variable="checkpoint",
            found="; ".join(f"{what}: {', '.join(keys)}" for what, keys in lists.items() if keys),
            expected=f"exactly {len(places)} tensors",
            fix="import the file as the authors' training script wrote it",
        )
