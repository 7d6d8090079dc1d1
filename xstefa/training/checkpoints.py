"""The state of an unfinished training in one file: tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from xstefa.errors import TrainingError

HEADER = "xstefa_training"
ENDING = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where and how often the state is saved; where training goes on if it was interrupted.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file; other names get that ending. If it is there, training goes on
        from it.
    minutes : float
        Time between saves.
    """

    path: Path
    minutes: float = 10.0

    def __post_init__(self) -> None:
        path = Path(self.path)
        if path.suffix != ENDING:
            # Appended: "run.1" and "run.2" are two runs, and "run" may be where a model is saved.
            object.__setattr__(self, "path", path.with_name(path.name + ENDING))

    def load(self, recipe: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and other state of an interrupted run of the same recipe, if there is one.

        Raises
        ------
        TrainingError
            If the file belongs to another recipe, or is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
                # A copy: the file must not stay mapped while it is replaced.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise TrainingError(
                "the checkpoint is damaged",
                variable=str(self.path),
                found=str(error),
                expected="a file that a training wrote",
                fix="delete the file to start anew",
            ) from error
        found, wanted = header.get("recipe"), json.loads(json.dumps(recipe))
        if found != wanted:
            differs = sorted(
                key
                for key in wanted
                if not isinstance(found, dict) or found.get(key) != wanted[key]
            )
            raise TrainingError(
                "the checkpoint belongs to another training",
                variable=str(self.path),
                found=f"another {', '.join(differs) or 'recipe'}",
                expected="the same data, sizes, schedule and seed",
                fix="give another checkpoint=, or delete the file to start anew",
            )
        return tensors, header["state"]

    def save(
        self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], recipe: Mapping[str, Any]
    ) -> None:
        """Replace the file, never leaving half of one."""
        content = save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            metadata={HEADER: json.dumps({"recipe": recipe, "state": state})},
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")  # a run that is killed here leaves one at most
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.path)


def as_checkpoint(checkpoint: str | os.PathLike[str] | Checkpoint | None) -> Checkpoint | None:
    """Return a checkpoint given as such or as the path of its file."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    return Checkpoint(path=Path(checkpoint))
