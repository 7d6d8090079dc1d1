"""Two processes compute what one computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import xstefa
from tests.training.conftest import HEAD
from xstefa.errors import OptionError, TrainingError
from xstefa.model.masking import GroupMasking
from xstefa.splits.holdout import RandomSites
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.devices import Runner
from xstefa.training.losses import MaskedReconstruction
from xstefa.training.sampling import Batch

ROOT = Path(__file__).parents[2]


def close(one: xstefa.Model, two: xstefa.Model) -> None:
    a, b = one.network().state_dict(), two.network().state_dict()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=2e-5)


def test_two_processes_train_as_one(basins, foundation, tmp_path):
    how = {"head": HEAD, "steps": 5, "batch_size": 6, "seed": 3}
    how |= {"validation": RandomSites(0.25)}
    one = basins.stefa.finetune("streamflow", model=foundation, **how)
    two = basins.stefa.finetune(
        "streamflow", model=foundation, devices=2, checkpoint=tmp_path / "state", **how
    )
    close(one, two)
    for part in ("training", "validation"):
        torch.testing.assert_close(
            torch.tensor(one.spec.provenance["learning_curve"][part]),
            torch.tensor(two.spec.provenance["learning_curve"][part]),
            rtol=1e-4,
            atol=1e-5,
        )
    # The file of two processes is not for one.
    with pytest.raises(TrainingError, match="another processes"):
        basins.stefa.finetune("streamflow", model=foundation, checkpoint=tmp_path / "state", **how)


def test_masks_are_those_of_one_process(foundation, monkeypatch):
    """Each process hides what a single one would hide in its rows."""
    monkeypatch.setattr(Runner, "mean", lambda self, tensor: tensor)
    torch.manual_seed(0)
    network = foundation.network()
    forcing = torch.randn(6, 40, len(foundation.schema.forcings))
    static = torch.randn(6, len(foundation.schema.statics))
    seen = []
    network.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[2:]))
    masking = GroupMasking.from_schema(foundation.schema)
    for runner in (Runner(), Runner(rank=0, world=2), Runner(rank=1, world=2)):
        objective = MaskedReconstruction(network, runner=runner, masking=masking, seed=4)
        rows = runner.rows
        objective(Batch(torch.arange(6)[rows], forcing[rows], static[rows], size=6))
    for whole, first, second in zip(*seen, strict=True):
        assert torch.equal(whole[0::2], first)
        assert torch.equal(whole[1::2], second)


def test_wrong_devices(basins, foundation):
    for wrong in ({"devices": 0}, {"devices": 2, "device": "cuda:1"}):
        with pytest.raises(OptionError):
            basins.stefa.finetune("streamflow", model=foundation, head=HEAD, steps=1, **wrong)


TORCHRUN = """
import gc, sys, torch, xstefa
from pathlib import Path
from tests.training.conftest import HEAD, make_basins
from xstefa.training import loop
from xstefa.training.checkpoints import Checkpoint

foundation, folder = sys.argv[1], Path(sys.argv[2])
loop.STEPS_BETWEEN_AGREEMENTS = 1
clip, seen = loop._clip, []

def fail(*args):
    seen.append(args)
    if len(seen) == 3:
        raise KeyboardInterrupt
    clip(*args)

def train(checkpoint=None):
    return make_basins().stefa.finetune(
        "streamflow", model=foundation, head=HEAD, steps=4, batch_size=6, devices=2,
        checkpoint=checkpoint)

torch.set_num_threads(1)
with xstefa.set_options(cache_dir=folder / "cache", device="cpu"):
    undisturbed = train()
    checkpoint = Checkpoint(path=folder / "state", minutes=0)
    loop._clip = fail
    try:
        train(checkpoint)
    except KeyboardInterrupt:
        loop._clip = clip
    assert train(checkpoint) == undisturbed
    (folder / f"rank{torch.distributed.get_rank()}").write_text(undisturbed.content_hash)
# As the documentation asks: gloo's threads may abort a process that ends without.
gc.collect()
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_resumed_under_torchrun(basins, foundation, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TORCHRUN)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
         str(script), str(foundation.path), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    hashes = {(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)}
    one = basins.stefa.finetune("streamflow", model=foundation, head=HEAD, steps=4, batch_size=6)
    assert len(hashes) == 1
    close(one, xstefa.load_model(tmp_path / "cache" / "models" / f"{hashes.pop()}.safetensors"))


def test_checkpoint_takes_a_path_without_suffix(tmp_path):
    assert Checkpoint(path=tmp_path / "a").path.name == "a.safetensors"
