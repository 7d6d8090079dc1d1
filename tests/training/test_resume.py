"""An interrupted training goes on to the step, and ends with the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import xstefa
from tests.training.conftest import (
    ENCODER,
    HEAD,
    WINDOWS,
    Interruption,
    interrupted,
    make_basins,
)
from xstefa.errors import OptionError, TrainingError
from xstefa.model.architecture import HeadSize
from xstefa.splits.holdout import RandomGroups, RandomSites
from xstefa.training import loop
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.options import Schedule

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys, torch, xstefa
from tests.training.conftest import HEAD, make_basins
from xstefa.splits.holdout import RandomSites
from xstefa.model.architecture import HeadSize
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.options import Schedule
from dataclasses import replace
from pathlib import Path

foundation, folder, stop = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)

class Waiting(Schedule):
    def rate(self, step):
        if stop and step == stop:  # say that so many steps are saved, and wait to be killed
            print("stopped", flush=True)
            sys.stdin.read()
        return super().rate(step)

with xstefa.set_options(cache_dir=folder / "cache", device="cpu"):
    model = make_basins().stefa.finetune(
        "streamflow", model=foundation, head=replace(HEAD, dropout=0.5),
        schedule=Waiting(steps=12, batch_size=4), validation=RandomSites(0.25), patience=30,
        checkpoint=Checkpoint(path=folder / "state", minutes=0))
print(model.content_hash)
"""


def run(foundation: xstefa.Model, folder: Path, *, stop: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(foundation.path), str(folder), str(stop)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_and_resumed(foundation, tmp_path):
    undisturbed = run(foundation, tmp_path / "a")
    killed = run(foundation, tmp_path / "b", stop=5)
    state = tmp_path / "b" / "state.safetensors"
    assert killed.stdout is not None
    assert killed.stdout.readline() == "stopped\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(_losses(state)) == 5
    resumed = run(foundation, tmp_path / "b")
    expected, found = undisturbed.communicate()[0], resumed.communicate()[0]
    assert expected
    assert found == expected
    assert len(_losses(state)) == 12


def _losses(state: Path) -> list[float]:
    with safe_open(state, framework="np") as file:
        return json.loads(file.metadata()["xstefa_training"])["state"]["losses"]


@pytest.mark.parametrize(("at", "average"), [(1, 0.0), (4, 0.5)])
def test_pretraining_goes_on(basins, tmp_path, at, average):
    """Masks and dropout are drawn as if nothing had happened."""
    how = {"steps": 6, "batch_size": 4, "average": average}

    def pretrain(schedule, **more):
        return xstefa.pretrain(basins, size=ENCODER, windows=WINDOWS, schedule=schedule, **more)

    schedule = Schedule(**how)
    expected = pretrain(schedule)
    checkpoint = Checkpoint(path=tmp_path / "state", minutes=0)
    with pytest.raises(Interruption):
        pretrain(interrupted(at, **how), checkpoint=checkpoint)
    assert pretrain(schedule, checkpoint=checkpoint) == expected
    assert pretrain(schedule, checkpoint=checkpoint) == expected  # nothing is left to do


def test_mean_of_weights(basins, tmp_path, monkeypatch):
    """It is what is validated and kept; training itself goes on from the last weights."""
    saved, validated, loss = [], [], loop._loss

    def save(self, tensors, *others):
        saved.append({k[8:]: v.clone() for k, v in tensors.items() if k.startswith("network.")})

    def validate(objective, *others):
        validated.append({n: p.detach().clone() for n, p in objective.named_parameters()})
        return loss(objective, *others)

    monkeypatch.setattr(Checkpoint, "save", save)
    monkeypatch.setattr(loop, "_loss", validate)
    how = {"size": ENCODER, "windows": WINDOWS, "validation": RandomSites(0.25)}
    schedule = Schedule(steps=4, batch_size=4, average=0.3)
    last = xstefa.pretrain(basins, schedule=replace(schedule, average=0), **how)
    validated.clear()
    checkpoint = Checkpoint(path=tmp_path / "state", minutes=0)
    model = xstefa.pretrain(basins, schedule=schedule, checkpoint=checkpoint, **how)
    mean = saved[0]
    for weights, decay, looked in zip(saved, (0.1, 2 / 11, 0.25, 0.3), validated, strict=False):
        mean = {n: decay * mean[n] + (1 - decay) * value for n, value in weights.items()}
        torch.testing.assert_close(looked, mean)
    kept = {f"network.{n}": p for n, p in model.network().named_parameters()}
    torch.testing.assert_close({n: p.detach() for n, p in kept.items()}, mean)
    for name, value in last.network().named_parameters():
        assert torch.equal(value, saved[-1][f"network.{name}"])
    with pytest.raises(OptionError, match=r"'average'.*below 1"):
        Schedule(steps=1, average=1.0)


def test_stopped_early_stays_stopped(basins, foundation, tmp_path):
    how = {"head": HEAD, "steps": 30, "batch_size": 4, "learning_rate": 1.0}
    how |= {"validation": RandomSites(0.25), "patience": 2}
    checkpoint = Checkpoint(path=tmp_path / "state", minutes=0)
    models = [
        basins.stefa.finetune("streamflow", model=foundation, checkpoint=checkpoint, **how)
        for _ in range(2)
    ]
    assert models[0] == models[1] == basins.stefa.finetune("streamflow", model=foundation, **how)
    assert len(models[0].spec.provenance["learning_curve"]["training"]) < 30


def test_cross_validation_goes_on(basins, foundation, tmp_path):
    how = {"steps": 4, "batch_size": 4}

    def validate(schedule, **more):
        return basins.stefa.cross_validate(
            "streamflow",
            model=foundation,
            holdout=RandomGroups(3),
            head=HEAD,
            schedule=schedule,
            scores="nse",
            **more,
        )

    expected = validate(Schedule(**how))
    with pytest.raises(Interruption):  # in the second fold
        validate(interrupted(6, **how), checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fold-0.safetensors"]
    # The first fold is not trained again.
    assert validate(interrupted(8, **how), checkpoint=tmp_path).identical(expected)


def test_names_of_checkpoints(tmp_path):
    """A file next to the model's, and one for each run."""
    names = ["run", "run.1", "run.2", "run.safetensors"]
    paths = [Checkpoint(path=tmp_path / name).path.name for name in names]
    assert paths == [
        "run.safetensors", "run.1.safetensors", "run.2.safetensors", "run.safetensors"
    ]  # fmt: skip


def test_checkpoint_of_another_training(basins, foundation, tmp_path):
    how = {"steps": 2, "batch_size": 4, "checkpoint": tmp_path / "state"}
    basins.stefa.finetune("streamflow", model=foundation, head=HEAD, **how)
    for other in ({"seed": 1}, {"head": HeadSize(hidden=9, link="softplus")}):
        with pytest.raises(TrainingError, match=r"belongs to another training.*delete the file"):
            basins.stefa.finetune("streamflow", model=foundation, **{"head": HEAD, **how, **other})
    with pytest.raises(TrainingError, match="another model"):
        make_basins(seed=1).stefa.finetune("streamflow", model=foundation, head=HEAD, **how)


def test_damaged_checkpoint(basins, foundation, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"abc")
    with pytest.raises(TrainingError, match=r"damaged.*delete the file"):
        basins.stefa.finetune("streamflow", model=foundation, checkpoint=tmp_path / "state")


def test_no_pickle_in_the_file(basins, foundation, tmp_path):
    basins.stefa.finetune(
        "streamflow",
        model=foundation,
        head=HEAD,
        steps=2,
        batch_size=4,
        checkpoint=tmp_path / "state",
    )
    with safe_open(tmp_path / "state.safetensors", framework="np") as file:
        names = set(file.keys())
    assert "random.cpu" in names
    assert any(name.startswith("optimizer.0.") for name in names)
    assert not any(name.startswith("network.network.encoder") for name in names)  # frozen
