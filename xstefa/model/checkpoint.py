"""A model as one file: weights, schema, scaler, windows, provenance and card travel together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xstefa.errors import ModelError
from xstefa.inference.windows import WindowPolicy
from xstefa.model.architecture import Architecture
from xstefa.model.scaler import Scaler
from xstefa.options import get_options
from xstefa.schema import Schema, Target

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.network import StefaLand
    from xstefa.model.tensors import A, M

FORMAT = 1
SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything about a model but its weights.

    Attributes
    ----------
    name : str
        Short name, as in ``load_model(name)``.
    target : str or None
        Name of the schema target the heads predict; None for a foundation model.
    support : {"grid", "point", "any"}
        Spatial support of the observations it was trained on. A target that several bundled models
        predict is served by the one whose support is that of the dataset.
    tokens : tuple of str
        Tokens that its training data had. Others of the schema are hidden from it: weights that
        no training value ever reached would answer with noise.
    """

    name: str
    target: str | None
    support: str
    architecture: Architecture
    schema: Schema
    scaler: Scaler
    windows: WindowPolicy
    tokens: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""

    def to_json(self) -> str:
        """Return the canonical JSON text."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "target": self.target,
            "support": self.support,
            "architecture": self.architecture.to_dict(),
            "schema": self.schema.to_dict(),
            "scaler": self.scaler.to_dict(),
            "windows": asdict(self.windows),
            "tokens": list(self.tokens),
            "provenance": dict(self.provenance),
            "card": self.card,
        }
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read the text written by `to_json`."""
        content = json.loads(text)
        if (found := content.pop("format", None)) != FORMAT:
            raise ModelError(
                variable="format",
                found=found,
                expected=f"format {FORMAT}",
                fix="load it with the xstefa version that wrote it, or upgrade xstefa",
            )
        schema = Schema.from_dict(content.pop("schema"))
        # The text is sorted by name; networks read variables in the order of the schema.
        scaler = Scaler.from_dict(content.pop("scaler")).ordered(schema)
        return cls(
            architecture=Architecture.from_dict(content.pop("architecture")),
            schema=schema,
            scaler=scaler,
            windows=WindowPolicy(**content.pop("windows")),
            tokens=tuple(content.pop("tokens")),
            **content,
        )


class Model:
    """A trained model: a reference to an immutable file, identified by its content.

    It holds no weights. It is cheap to pickle and to put into a dask graph, and each process that
    predicts with it reads the weights once. Equal content means equal models.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file written by `Model.save` or by training.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        if not self.path.is_file():
            raise ModelError(
                variable=str(path),
                found="no such file",
                expected=f"a model file ending in {SUFFIX}",
                fix="see xstefa.list_models() for the models that come with the package",
            )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def spec(self) -> ModelSpec:
        """Description stored in the file's header; reads no weights."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="numpy") as file:
                header = file.metadata() or {}
        except SafetensorError as error:
            raise ModelError(
                variable=str(self.path),
                found=f"a file that is not safetensors ({error})",
                expected="a model saved by xstefa",
                fix="for the authors' .pt checkpoints use xstefa.import_published(path)",
            ) from error
        if "xstefa" not in header:
            raise ModelError(
                variable=str(self.path),
                found="safetensors without the xstefa description",
                expected="a model saved by xstefa",
                fix="save it with Model.save(path)",
            )
        return ModelSpec.from_json(header["xstefa"])

    @property
    def name(self) -> str:
        """Short name."""
        return self.spec.name

    @cached_property
    def schema(self) -> Schema:
        """Tokens the model reads, with all sources known today: see `Schema.current`."""
        return self.spec.schema.current()

    @property
    def target(self) -> Target | None:
        """Target the model predicts, None for a foundation model."""
        return None if self.spec.target is None else self.schema.target(self.spec.target)

    @property
    def card(self) -> str:
        """Model card (Markdown): data, sites, licences, recipe, skill, limits."""
        return self.spec.card

    def network(self) -> StefaLand:
        """Build the network and read the weights into it, on the CPU, in evaluation mode."""
        import torch
        from safetensors.torch import load_file

        from xstefa.model.network import StefaLand

        # Whatever the process has made the default for new tensors.
        network = StefaLand(self.spec.architecture).to(torch.float32)
        # Released weights are stored in half precision; arithmetic is done in single precision.
        weights = {name: value.to(torch.float32) for name, value in load_file(self.path).items()}
        network.load_state_dict(weights, strict=True)
        return network.eval()

    def encode(
        self,
        x: A,
        c: A,
        mask_x: M | None = None,
        mask_c: M | None = None,
        *,
        published_static_mask: bool = False,
    ) -> tuple[A, A]:
        """Represent windows of standardised values: the tensor-level door to the encoder.

        Parameters
        ----------
        x : ndarray or Tensor of float, shape (B, T, C)
            Forcings, variables as in ``model.schema.forcing_names``, each ``(x - mean) / std`` as
            in ``model.spec.scaler``. NaN is missing.
        c : ndarray or Tensor of float, shape (B, S)
            Site attributes, as in ``model.schema.static_names``. NaN is missing.
        mask_x, mask_c : ndarray or Tensor of bool, optional
            Shapes of `x` and `c`; True hides a known value, which is then as good as missing.
        published_static_mask : bool
            Reproduce a bug of the released code in models imported from it: the value that stands
            for a hidden static variable depends on the row of the batch. By default row 0 stands
            for all, so that no answer depends on its neighbours.

        Returns
        -------
        days : ndarray or Tensor, shape (B, T, d)
        site : ndarray or Tensor, shape (B, d)
            Of the kind of `x` (a tensor stays on its device), in single precision, and finite
            whatever is missing. The released code only does this in its masking mode and else
            returns NaN for every window with a missing value.

        Raises
        ------
        ModelError
            If a shape does not fit, or the model has no encoder.
        """
        from xstefa.model import tensors

        return tensors.encode(
            self, x, c, mask_x, mask_c, published_static_mask=published_static_mask
        )

    def reconstruct(
        self,
        x: A,
        c: A,
        mask_x: M | None = None,
        mask_c: M | None = None,
        *,
        published_static_mask: bool = False,
    ) -> tuple[A, A]:
        """Reconstruct every variable, hidden or not, from what is known.

        Parameters are those of `encode`.

        Returns
        -------
        x : ndarray or Tensor, shape (B, T, C)
        c : ndarray or Tensor, shape (B, S)
            Standardised values.

        Raises
        ------
        ModelError
            If a shape does not fit, or the model has no decoder.
        """
        from xstefa.model import tensors

        return tensors.reconstruct(
            self, x, c, mask_x, mask_c, published_static_mask=published_static_mask
        )

    def estimate(self, x: A, c: A, *, published_fill: bool = False) -> A:
        """Run encoder and heads on windows of standardised values.

        Parameters
        ----------
        x : ndarray or Tensor of float, shape (B, T, C)
        c : ndarray or Tensor of float, shape (B, S)
            As for `encode`. NaN is missing.
        published_fill : bool
            Fill missing forcings with one median over the whole batch, and missing statics with
            another, as the authors' fine-tuning scripts do. The answer then depends on the batch;
            it serves comparison with those scripts only.

        Returns
        -------
        ndarray or Tensor, shape (B, T), or (B, T, K) for a head with K targets
            In the target's unit, of the kind of `x`.

        Raises
        ------
        ModelError
            If a shape does not fit, or the model has no head.
        """
        from xstefa.model import tensors

        return tensors.estimate(self, x, c, published_fill=published_fill)

    def save(self, path: str | os.PathLike[str]) -> Model:
        """Copy the model to `path`, with its card beside it as Markdown.

        Parameters
        ----------
        path : path-like
            With or without the ending ``.safetensors``; `load_model` finds it either way.

        Returns
        -------
        Model
            The saved model, equal to this one.
        """
        target = model_path(path)
        _write_atomically(target, self.path.read_bytes())
        _write_atomically(target.with_suffix(".md"), self.card.encode())
        return Model(target)

    def summary(self) -> dict[str, str]:
        """Return what tables of models show: target, units, support, skill at held-out sites, size.

        Skill is the score that decided, as a median over sites with its interval, where the
        provenance states one.
        """
        target, skill = self.target, self.spec.provenance.get("skill")
        return {
            "target": "none (foundation)" if target is None else target.name,
            "units": "" if target is None else target.units,
            "support": self.spec.support,
            "skill": "{score} {median:.3f} ({low:.3f} to {high:.3f}), {sites} sites".format(**skill)
            if skill
            else "",
            "size": f"{self.path.stat().st_size / 1e6:.1f} MB",
        }

    def _repr_html_(self) -> str:
        facts = {"model": self.name, **self.summary(), "hash": self.content_hash[:12]}
        rows = "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in facts.items() if v)
        card = f"<details><summary>card</summary><pre>{escape(self.card)}</pre></details>"
        return f"<div><table>{rows}</table>{card}</div>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_verified, (self.path, self.content_hash)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__qualname__, self.content_hash

    def __repr__(self) -> str:
        spec = self.spec
        parts = "foundation" if spec.target is None else f"{spec.target}, {spec.support} support"
        return f"<xstefa.Model {spec.name!r} ({parts}) {self.content_hash[:12]}>"


def model_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a model file, whose ending may be left out."""
    path = Path(path)
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def create_model(spec: ModelSpec, weights: Mapping[str, Tensor], *, half: bool = False) -> Model:
    """Write a model into the cache folder under its content hash.

    Parameters
    ----------
    spec : ModelSpec
    weights : mapping of str to Tensor
        State of the `StefaLand` network that ``spec.architecture`` describes.
    half : bool
        Store in half precision (released weights).

    Returns
    -------
    Model
    """
    import torch
    from safetensors.torch import save

    dtype = torch.float16 if half else torch.float32
    content = save(
        {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()},
        metadata={"xstefa": spec.to_json()},
    )
    digest = hashlib.sha256(content).hexdigest()
    path = get_options().cache_path() / "models" / f"{digest}{SUFFIX}"
    if not path.exists():
        _write_atomically(path, content)
    return Model(path)


def _load_verified(path: Path, content_hash: str) -> Model:
    """Unpickle: the file must be here, and be the same."""
    model = Model(path)
    if model.content_hash != content_hash:
        raise ModelError(
            variable=str(path),
            found=f"content {model.content_hash[:12]}",
            expected=f"content {content_hash[:12]}, as when the prediction was planned",
            fix="every worker must see the same file; save the model to a shared folder",
        )
    return model


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_bytes(content)
    temporary.replace(path)
