"""The layouts that the authors' fine-tuning script leaves: a fine-tuned model, an LSTM baseline.

The fine-tuned file holds the whole pretraining checkpoint under ``pretrained_model.`` beside an
adapter and a head; the baseline's holds the head only, and so no variable names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xstefa.errors import ModelError
from xstefa.model.architecture import Architecture, HeadSize
from xstefa.model.published_layout import Layout, Shape, Slot, pair, rearranged

if TYPE_CHECKING:
    from torch import Tensor

PRETRAINED = "pretrained_model."
MARK = "pre_lstm.weight"  # in both files, and in no pretraining checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunedLayout:
    """A head, with or without the pretraining checkpoint that it reads.

    Attributes
    ----------
    forcings, statics : tuple of str
    architecture : Architecture
    pretrained : Layout or None
        None for the baseline.
    """

    forcings: tuple[str, ...]
    statics: tuple[str, ...]
    architecture: Architecture
    pretrained: Layout | None

    @classmethod
    def recover(
        cls,
        shapes: Mapping[str, Shape],
        *,
        heads: int,
        variables: tuple[tuple[str, ...], tuple[str, ...]] | None,
    ) -> FinetunedLayout:
        """Read variables and sizes from keys and shapes.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
        heads : int
            Attention heads.
        variables : (forcings, statics), optional
            Names, needed for the baseline.
        """
        inner = {k.removeprefix(PRETRAINED): s for k, s in shapes.items() if _pretrained(k)}
        pretrained = Layout.recover(inner, heads=heads) if inner else None
        hidden, outputs = shapes[MARK][0], (shapes.get("projection.weight") or (1,))[0]
        head = HeadSize(kind="released", hidden=hidden, outputs=outputs, dropout=0.0)
        if pretrained is not None:
            return cls(
                forcings=pretrained.forcings,
                statics=pretrained.statics,
                architecture=replace(pretrained.architecture, heads=(head,)),
                pretrained=pretrained,
            )
        count = shapes[MARK][-1]
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
        return cls(forcings=forcings, statics=statics, architecture=architecture, pretrained=None)

    def state(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rearrange a checkpoint's tensors into our state; ModelError lists what does not fit."""
        unused: frozenset[str] = frozenset()
        slots = list(self._head())
        if self.pretrained is not None:
            unused = frozenset(PRETRAINED + key for key in self.pretrained.unused)
            slots += [
                replace(s, published=PRETRAINED + s.published) for s in self.pretrained.slots()
            ]
        return rearranged(tensors, slots, unused)

    def _head(self) -> Iterator[Slot]:
        (size,), own = self.architecture.heads, "heads.0"
        c, s, hidden = len(self.forcings), len(self.statics), size.hidden
        width = 0
        if self.architecture.encoder is not None:
            d = width = self.architecture.encoder.width
            adapter = f"{own}.adapter"
            yield from pair("adapter.time_transform.0", f"{adapter}.from_forcing", (d, c))
            yield from pair("adapter.static_transform.0", f"{adapter}.from_static", (d, s))
            yield from pair("adapter.combined_transform.0", f"{adapter}.linear1", (2 * d, 3 * d))
            yield from pair("adapter.combined_transform.3", f"{adapter}.linear2", (d, 2 * d))
            yield from pair("adapter.layer_norm1", f"{adapter}.norm1", (d,))
            yield from pair("adapter.layer_norm2", f"{adapter}.norm2", (d,))
        yield from pair("pre_lstm", f"{own}.before", (hidden, width + c + s))
        for gate in ("ih", "hh"):
            for mine, theirs, shape in (
                ("weight", "w", (4 * hidden, hidden)),
                ("bias", "b", (4 * hidden,)),
            ):
                yield Slot(
                    published=f"decoder.{theirs}_{gate}",
                    shape=shape,
                    own=f"{own}.lstm.{mine}_{gate}_l0",
                )
        yield from pair("post_lstm", f"{own}.after", (hidden, hidden + c + s))
        yield from pair("projection", f"{own}.output", (size.outputs, hidden))


def _pretrained(key: str) -> bool:
    return key.startswith(PRETRAINED)
