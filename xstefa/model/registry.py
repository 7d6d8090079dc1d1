"""Which models there are: those that come with the package, and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from xstefa.errors import ModelError, did_you_mean
from xstefa.model.checkpoint import SUFFIX, Model, model_path
from xstefa.options import as_list


class ModelTable(list[str]):
    """Names of models, shown as a table of what each predicts and how well."""

    def to_pandas(self) -> pd.DataFrame:
        """Return a line for each model: target, units, support, needs, skill, size."""
        lines = [load_model(name).summary() for name in self]
        return pd.DataFrame(lines, index=pd.Index(self, name="model"))

    def __repr__(self) -> str:
        table = self.to_pandas().reset_index()
        columns = [[str(name), *values] for name, values in table.items()]
        widths = [max(map(len, column)) for column in columns]
        return "\n".join(
            "  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*columns, strict=True)
        )

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.to_pandas().reset_index().to_html(index=False)


ModelLike: TypeAlias = str | os.PathLike[str] | Model


def load_model(name_or_path: ModelLike) -> Model:
    """Load a bundled model by name, or any model from a file.

    Parameters
    ----------
    name_or_path : str or path-like
        A name of `list_models`, or the path of a file that `Model.save` wrote, with or without its
        ending ``.safetensors``.

    Raises
    ------
    ModelError
        If there is neither, naming the models there are.
    """
    if isinstance(name_or_path, Model):
        return name_or_path
    bundled = _bundled()
    if str(name_or_path) in bundled:
        return Model(bundled[str(name_or_path)])
    if isinstance(name_or_path, str | os.PathLike) and Path(name_or_path).name:
        for path in (Path(name_or_path), model_path(name_or_path)):
            if path.is_file():
                model = Model(path)
                model.spec  # noqa: B018  (reads and verifies the file)
                return model
    raise ModelError(
        variable=str(name_or_path),
        found="neither a bundled model nor a file",
        expected="one of " + ", ".join(bundled) + ", or a path",
        fix=did_you_mean(name_or_path, bundled) or "xstefa.list_models() names the bundled models",
    )


def list_models() -> ModelTable:
    """Return the names of the models that come with the package.

    Returns
    -------
    list of str
        Shown as a table; ``.to_pandas()`` returns it.
    """
    return ModelTable(_bundled())


def model_for(targets: str | Sequence[str], *, support: str) -> Model:
    """Return the bundled model that predicts all `targets` for data of this spatial support.

    Of several that do, the one that predicts the fewest others.

    Raises
    ------
    ModelError
        If no bundled model does, or more than one; with what each predicts.
    """
    names = as_list(targets)
    models = [m for m in (Model(path) for path in _bundled().values()) if m.spec.outputs]
    offering = [m for m in models if set(names) <= set(m.spec.outputs)]
    fitting = [m for m in offering if m.spec.support in (support, "any")]
    fewest = min((len(m.spec.outputs) for m in fitting), default=0)
    fitting = [m for m in fitting if len(m.spec.outputs) == fewest]
    if len(fitting) == 1:
        return fitting[0]
    known = sorted({name for m in models for name in m.spec.outputs})
    unknown = [name for name in names if name not in known]
    if files := [name for name in names if model_path(name).is_file()]:
        fix = f"model={files[0]!r} (--model in a terminal): a file is no target"
    elif offering:
        fix = "pass model= with a name of xstefa.list_models() or a file"
    elif not unknown:
        fix = f".stefa.predict({names[0]!r}), and each of the others by itself"
    else:
        fix = did_you_mean(unknown[0], known) or (
            f"predict one of {', '.join(known)}, or train it with .stefa.finetune({unknown[0]!r})"
        )
    raise ModelError(
        variable=", ".join(map(str, unknown or names)),
        found=f"{len(fitting)} bundled models for {support} data",
        expected="one that predicts "
        + ("it" if len(names) == 1 else "all of them")
        + "; bundled: "
        + "; ".join(f"{m.name} ({', '.join(m.spec.outputs)})" for m in models),
        fix=fix,
    )


def foundation_model(model: ModelLike | None, *, causal: bool) -> Model:
    """Return a model by name, path or itself; by default a bundled foundation model.

    Parameters
    ----------
    model : str, path-like, Model or None
    causal : bool
        Whether that one looks back only, to predict from, or both ways, to represent and fill in.

    Raises
    ------
    ModelError
        If none, or more than one, is bundled.
    """
    if model is not None:
        return load_model(model)
    bundled = [load_model(name) for name in list_models()]
    foundations = [found for found in bundled if found.spec.target is None]
    fitting = [found for found in foundations if found.spec.windows.causal == causal]
    if len(fitting or foundations) == 1:
        return (fitting or foundations)[0]
    raise ModelError(
        "which foundation model is meant is not clear",
        variable="model",
        found=f"{len(foundations)} bundled foundation models",
        expected="one",
        fix="model=<one of xstefa.list_models(), or a file>, or make one with xstefa.pretrain",
    )


def _bundled() -> dict[str, Path]:
    folder = Path(str(resources.files("xstefa"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda p: p.stem)}
