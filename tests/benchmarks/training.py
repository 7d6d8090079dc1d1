"""How fast a head learns: with the frozen encoder's windows kept, and with re-encoding each step.

    python -m tests.benchmarks.training [--batch 64] [--width 256] [--hidden 256] [--rounds 5]

One thread, random inputs of the real shape (365 days, 5 forcings, 22 attributes). A step is
forward, backward, clipping, AdamW. Rounds are interleaved and timed in CPU seconds; reported is the
median over rounds of the ratio to re-encoding at every step, by the plain network (as the authors'
script does) and by ours, both in single precision.
"""

from __future__ import annotations

import time
from statistics import median

import click
import torch
from torch import Tensor, nn

from tests.benchmarks.plain import PlainStefaLand
from xstefa.model.architecture import Architecture, EncoderSize, HeadSize
from xstefa.model.arithmetic import autocast
from xstefa.model.network import StefaLand
from xstefa.training.devices import Runner
from xstefa.training.dropout import TokenDropout
from xstefa.training.losses import Estimation
from xstefa.training.sampling import Batch
from xstefa.windows import WindowPolicy

DAYS, FORCINGS, STATICS = 365, 5, 22
WINDOWS = WindowPolicy(length=DAYS, spin_up=150, blend=30)
CPU = torch.device("cpu")


class AuthorsEncoder(nn.Module):
    """The plain network in the place of ours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        names = [f"x{i}" for i in range(FORCINGS)], [f"c{i}" for i in range(STATICS)]
        self.plain = PlainStefaLand(*names, width=width)

    def forward(self, forcing: Tensor, static: Tensor) -> Tensor:
        return self.plain.encode(forcing, static)[:, :-1]


def build(width: int, hidden: int) -> StefaLand:
    torch.manual_seed(0)
    size = EncoderSize(width=width, feedforward=2 * width, positions=DAYS + 1)
    network = StefaLand(
        Architecture(
            forcings=FORCINGS,
            statics=STATICS,
            encoder=size,
            head=HeadSize(hidden=hidden, link="softplus"),
        )
    )
    assert network.encoder is not None
    network.encoder.requires_grad_(False)
    return network


class NoDropout(TokenDropout):
    """Nothing is hidden: the benchmark is of encoding."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.forcing, batch.static


class Trainer:
    """A head with its optimizer, stepped on one batch."""

    def __init__(self, network: StefaLand, batch: Batch, precision: str) -> None:
        self.objective = Estimation(
            network,
            runner=Runner(),
            encoder="frozen",
            windows=WINDOWS,
            dropout=NoDropout(),
            centred=0.0,
        )
        self.parameters = [p for p in network.heads.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)
        self.batch, self.precision = batch, precision

    def seconds(self) -> float:
        """Return the CPU time of a step."""
        self.objective.train()
        started = time.process_time()
        with autocast(CPU, self.precision):
            loss = self.objective(self.batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return time.process_time() - started


@click.command()
@click.option("--batch", default=64)
@click.option("--width", default=256)
@click.option("--hidden", default=256)
@click.option("--rounds", default=5)
def main(batch: int, width: int, hidden: int, rounds: int) -> None:
    torch.set_num_threads(1)
    windows = Batch(
        number=torch.arange(batch),
        forcing=torch.randn(batch, DAYS, FORCINGS),
        static=torch.randn(batch, STATICS),
        target=torch.rand(batch, DAYS),
        weight=torch.ones(batch),
        days=None,
        size=batch,
    )
    kept = windows._replace(days=torch.randn(batch, DAYS, width))
    half = windows._replace(days=torch.randn(batch, DAYS, width).bfloat16())
    authors = build(width, hidden)
    authors.represent = AuthorsEncoder(width).eval().forward  # type: ignore[method-assign]
    ways = {
        "plain network at every step, fp32": Trainer(authors, windows, "fp32"),
        "ours at every step, fp32": Trainer(build(width, hidden), windows, "fp32"),
        "ours at every step, bf16": Trainer(build(width, hidden), windows, "bf16"),
        "kept, fp32": Trainer(build(width, hidden), kept, "fp32"),
        "kept in bf16, head in fp32": Trainer(build(width, hidden), half, "fp32"),
        "kept, bf16": Trainer(build(width, hidden), half, "bf16"),
    }
    for trainer in ways.values():
        trainer.seconds()
    taken = {name: [] for name in ways}
    for _ in range(rounds):
        for name, trainer in ways.items():
            taken[name].append(trainer.seconds())
    print(f"batch {batch}, width {width}, hidden {hidden}, one thread, {rounds} rounds")
    for name, own in taken.items():
        ratios = [
            median(b / t for b, t in zip(base, own, strict=True))
            for base in list(taken.values())[:2]
        ]
        print(
            f"{name:36s} {batch / median(own):7.1f} windows per CPU second  "
            f"{ratios[0]:5.2f} x plain  {ratios[1]:5.2f} x ours"
        )


if __name__ == "__main__":
    main()
