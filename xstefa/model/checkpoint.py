"""A model as one file: weights, schema, scaler, windows, provenance and card travel together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache, reduce
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.errors import ModelError, XstefaError
from xstefa.model.architecture import STATIC, WATER, Architecture
from xstefa.model.distribution import Distribution
from xstefa.model.neighbourhood import Neighbourhood
from xstefa.model.ranges import Ranges
from xstefa.model.scaler import Scaler
from xstefa.options import get_options
from xstefa.schema import Needs, Schema, Target
from xstefa.typed import LATER, Name, Rule, build, plain
from xstefa.windows import WindowPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.network import StefaLand
    from xstefa.model.tensors import A, M

FORMAT = 3
_SUPPORTS = ("grid", "point", "any")
Support: TypeAlias = Annotated[str, Rule(" or ".join(map(repr, _SUPPORTS)), _SUPPORTS.__contains__)]
Weights: TypeAlias = Mapping[str, NDArray[Any]]

SUFFIX = ".safetensors"

# Of a part that a model lacks: what it is without, what is expected, and the fix.
_LACKING = {
    "encoder": (
        "a model without an encoder",
        "a StefaLand model",
        "choose one of xstefa.list_models() that is no baseline",
    ),
    "decoder": (
        "a model without the pretraining decoder",
        "a foundation model",
        "use the model that it was fine-tuned from",
    ),
    "heads": (
        "a foundation model, which predicts nothing by itself",
        "a model with a target",
        "fine-tune it, or choose one of xstefa.list_models()",
    ),
    "days": (
        "a model of static targets, which answers for sites and not for days",
        "a model of a daily target",
        "predict its targets, or choose another of xstefa.list_models()",
    ),
}

_ANEW = "copy the file anew, or train the model again"

_NEW = ("distribution", "neighbourhood", "distributions")


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
    ranges : mapping of str to Range
        What the training data held of each of them; empty where that is not known.
    needs : tuple of tuple of str
        Groups of forcings, of each of which one has to be known on half of the days up to the one
        that is answered for. By default each of `tokens` that the schema requires.
    distribution : Distribution, optional
        What may be observed around the answers of `target`: see `StefaAccessor.calibrate`.
    distributions : tuple of Distribution
        Of static targets: around those of each of `outputs`, at each depth; none if not learned.
    neighbourhood : Neighbourhood, optional
        Its training sites, by which `StefaAccessor.trust` tells how far to trust another.
    """

    name: Name
    target: str | None
    support: Support
    architecture: Architecture
    schema: Schema
    scaler: Scaler
    windows: WindowPolicy
    tokens: tuple[str, ...]
    ranges: Ranges = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    needs: Needs = ()
    distribution: Distribution | None = None
    neighbourhood: Neighbourhood | None = None
    distributions: tuple[Distribution, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        if not self.needs:
            needs = tuple(group for group in self.schema.needs if set(group) <= set(self.tokens))
            object.__setattr__(self, "needs", needs)
        names = (*self.schema.forcing_names, *self.schema.site_columns)
        encoder, architecture = self.architecture.encoder, self.architecture
        placed = encoder is not None and not encoder.causal
        longest = encoder.positions - 1 if encoder and placed else self.windows.length
        targets = {None, *(target.name for target in self.schema.targets)}
        rules = {
            "architecture.forcings": architecture.forcings == len(self.schema.forcings),
            "architecture.statics": architecture.statics == len(self.schema.statics),
            "scaler.forcings": tuple(self.scaler.forcings) == self.schema.forcing_names,
            "architecture.extras": architecture.extras
            == tuple(token.length for token in self.schema.extras),
            "scaler.statics": tuple(self.scaler.statics) == tuple(self.schema.site_columns),
            "windows": encoder is None or self.windows.causal == encoder.causal,
            "windows.length": self.windows.length <= longest,
            "tokens": set(self.tokens) <= {token.name for token in self.schema.tokens},
            "ranges": set(self.ranges) <= set(names),
            "architecture.heads": all(
                driver.moments == dict(enumerate(self.scaler.forcings.values())).get(driver.column)
                for size in architecture.heads
                for driver in size.drivers
            ),
            "needs": self.schema.allows(self.needs, self.tokens),
            "target": self.target in targets,
            "distribution": self.distribution is None
            or all(
                measure.column is None
                or names[measure.column : measure.column + 1] == (measure.name,)
                for measure in self.distribution.measures
            ),
            "distributions": len(self.distributions)
            in (0, *(size.outputs * size.levels for size in architecture.heads if self.static)),
        }
        for part, holds in rules.items():
            if not holds:
                raise ModelError(
                    "the parts of this description do not fit each other",
                    variable=part,
                    found=repr(reduce(getattr, part.split("."), self)),
                    expected={
                        "windows": "segments for an encoder that looks back only, else windows",
                        "windows.length": f"at most {longest} days, which the encoder can place",
                    }.get(part, "what the model's schema has, in its order"),
                    fix=_ANEW,
                )

    @property
    def static(self) -> bool:
        """Whether it predicts sites from their attributes alone, and no days."""
        return any(size.kind in STATIC for size in self.architecture.heads)

    @property
    def days(self) -> bool:
        """Whether it answers for days; a foundation model represents them."""
        return not self.static

    @property
    def outputs(self) -> tuple[str, ...]:
        """Targets that each of the heads predicts, all in one pass; the first is `target`.

        Physics that begins anew in each window, and fades into the next, conserves nothing: only
        models that look back say where the water is.
        """
        if self.target is None:
            return ()
        if self.static:
            target = self.schema.target(self.target)
            return tuple(part.name for part in self.schema.parts_of(target))
        kinds = {size.kind for size in self.architecture.heads}
        return WATER if kinds == {"hbv"} and self.windows.causal else (self.target,)

    def to_json(self) -> str:
        """Return the canonical JSON text."""
        return json.dumps({"format": FORMAT, **plain(self)})

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read the text written by `to_json`.

        Raises
        ------
        ModelError
            Naming the field that is missing, or holds what it cannot.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or (found := content.pop("format", None)) != FORMAT:
            raise ModelError(
                variable="format",
                found="no JSON table" if not isinstance(content, dict) else repr(found),
                expected=f"{FORMAT}, the format of this version of xstefa",
                fix="train or import the model again, or load it with the xstefa that wrote it",
            )
        for name in (f.name for f in fields(cls)):
            # Files of before there were these have none.
            if name not in content and name not in _NEW:
                raise ModelError(variable=name, found="nothing", expected="this field", fix=_ANEW)
        return build(cls, content, error=ModelError, fix=_ANEW)


class Model:
    """A trained model: a reference to an immutable file, identified by its content.

    It holds no weights. It is cheap to pickle and to put into a dask graph, and each process that
    predicts with it reads the weights once. Equal content means equal models. The file states the
    hash of its content, which each process verifies before it takes anything from it.

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

    @property
    def content_hash(self) -> str:
        """SHA-256 of the description and the weights: what the file states, and has."""
        return self._content[1]

    @property
    def spec(self) -> ModelSpec:
        """Description stored in the file's header."""
        return self._content[0]

    @cached_property
    def _content(self) -> tuple[ModelSpec, str]:
        with _reading(self.path):
            state = self.path.stat()
        return _described(self.path, state.st_mtime_ns, state.st_size, state.st_ino)

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
        """Model card (Markdown): data, sites, licences, recipe, skill, limits.

        That beside the file, if there is one: it can say more than was known at first.
        """
        beside = self.path.with_suffix(".md")
        return beside.read_text(encoding="utf-8") if beside.is_file() else self.spec.card

    def require(self, part: Literal["encoder", "decoder", "heads", "target", "days"]) -> None:
        """Raise ModelError, with what to use instead, if the model lacks a part."""
        owner = self.spec if part in ("target", "days") else self.spec.architecture
        if not getattr(owner, part):
            found, expected, fix = _LACKING["heads" if part == "target" else part]
            raise ModelError(variable=self.name, found=found, expected=expected, fix=fix)

    def network(self) -> StefaLand:
        """Build the network and read the weights into it, on the CPU, in evaluation mode."""
        import torch

        from xstefa.model.network import StefaLand

        spec, sha256, weights = _read(self.path)
        if sha256 != self.content_hash:
            raise _changed(self.path, sha256, self.content_hash)
        try:
            # Whatever the process has made the default for new tensors.
            network = StefaLand(spec.architecture).to(torch.float32)
            # Released weights are stored in half precision; arithmetic is in single precision.
            state = {name: torch.from_numpy(w).to(torch.float32) for name, w in weights.items()}
            network.load_state_dict(state, strict=True)
        except (XstefaError, RuntimeError) as error:
            raise ModelError(
                f"the weights in {self.path} are not those of its architecture",
                variable="architecture",
                found=" ".join(str(error).split()),
                expected="a tensor of the right shape for each weight, and no other",
                fix=_ANEW,
            ) from error
        return network.eval()

    def described(self, spec: ModelSpec) -> Model:
        """Return a model of the same weights and another description, in the cache folder."""
        return _created(spec, _read(self.path)[2])

    def _network_beside(self, values: Tensor | NDArray[Any]) -> StefaLand:
        """Return the network, read once a process, on the device of some values."""
        return self.network_on(str(getattr(values, "device", "cpu")))

    def network_on(self, device: str) -> StefaLand:
        """Return the network on a device, read once a process: not to be changed."""
        return _network_on(self, device)

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

        self.require("encoder")
        network = self._network_beside(x)
        return tensors.encode(network, x, c, mask_x, mask_c, published_static_mask)

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

        self.require("decoder")
        network = self._network_beside(x)
        return tensors.reconstruct(network, x, c, mask_x, mask_c, published_static_mask)

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

        self.require("heads")
        return tensors.estimate(self._network_beside(x), x, c, published_fill)

    @checked
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
        """Return what tables of models show: target, units, support, needs, skill, size.

        Skill is the score that decided, as a median over sites that were held out with its
        interval, where the provenance states one.
        """
        skill = self.spec.provenance.get("skill")
        units = [self.schema.target(name).units for name in self.spec.outputs]
        return {
            "target": ", ".join(self.spec.outputs) or "none (foundation)",
            "units": ", ".join(units),
            "support": self.spec.support,
            "needs": ", ".join(map(" or ".join, self.spec.needs)),
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

    dtype = torch.float16 if half else torch.float32
    arrays = {
        name: value.detach().to("cpu", dtype).contiguous().numpy()
        for name, value in weights.items()
    }
    return _created(spec, arrays)


def _created(spec: ModelSpec, arrays: Weights) -> Model:
    from safetensors.numpy import save

    text = spec.to_json()
    sha256 = content_hash_of(text, arrays)
    content = save(dict(arrays), metadata={"xstefa": text, "sha256": sha256})
    path = get_options().cache_path() / "models" / f"{sha256}{SUFFIX}"
    _parsed(content)  # what cannot be read is not written
    if not path.exists():
        _write_atomically(path, content)
    return Model(path)


def content_hash_of(text: str, weights: Weights) -> str:
    """Return the SHA-256 of a description and of weights, with their names, types and shapes."""
    digest = hashlib.sha256(text.encode())
    for name, values in sorted(weights.items()):
        digest.update(f"\0{name} {values.dtype.str} {values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _described(path: Path, *state: int) -> tuple[ModelSpec, str]:
    """Return the description and hash of a file, read and verified once while it stays as it is."""
    return _read(path)[:2]


def _read(path: Path) -> tuple[ModelSpec, str, Weights]:
    """Return description, hash and weights of a file, all of which has been verified.

    Raises
    ------
    ModelError
    """
    with _reading(path):
        return _parsed(path.read_bytes())


def _parsed(content: bytes) -> tuple[ModelSpec, str, Weights]:
    from safetensors.numpy import load

    weights = load(content)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    if "xstefa" not in header:
        raise ModelError(
            variable="xstefa",
            found="safetensors without the xstefa description",
            expected="a model saved by xstefa",
            fix="save it with Model.save(path)",
        )
    text, stated = header["xstefa"], header.get("sha256")
    if stated is None:  # older than the hash, or damaged
        ModelSpec.from_json(text)
    if (found := content_hash_of(text, weights)) != stated:
        raise ModelError(
            "the content is not what it was when it was saved",
            variable="sha256",
            found=f"content {found[:12]}",
            expected=f"content {str(stated)[:12]}",
            fix=_ANEW,
        )
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise ModelError(
                "weights that are not finite",
                variable=name,
                found=f"{np.count_nonzero(~np.isfinite(values))} of {values.size}",
                expected="finite numbers",
                fix="train again, with a lower learning rate",
            )
    return ModelSpec.from_json(text), found, weights


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in what goes wrong while it is read."""
    try:
        yield
    except ModelError as error:
        message = f"{path}: {error.message or 'this model file is damaged'}"
        texts = {k: getattr(error, k) for k in ("variable", "found", "expected", "fix")}
        raise ModelError(message, **texts) from error
    except Exception as error:  # what safetensors raises depends on the bytes it meets
        raise ModelError(
            variable=str(path),
            found=f"a file that is not safetensors, or damaged ({error})",
            expected="a model saved by xstefa",
            fix=f"{_ANEW}; for the authors' .pt checkpoints use xstefa.import_published(path)",
        ) from error


@lru_cache(maxsize=4)
def _network_on(model: Model, device: str) -> StefaLand:
    return model.network().to(device)


def _load_verified(path: Path, content_hash: str) -> Model:
    """Unpickle: the file must be here, and be the same."""
    model = Model(path)
    if model.content_hash != content_hash:
        raise _changed(path, model.content_hash, content_hash)
    return model


def _changed(path: Path, found: str, expected: str) -> ModelError:
    return ModelError(
        variable=str(path),
        found=f"content {found[:12]}",
        expected=f"content {expected[:12]}, as when the prediction was planned",
        fix="every worker must see the same file; save the model to a shared folder",
    )


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_bytes(content)
    temporary.replace(path)
