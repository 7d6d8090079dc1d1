"""Time the network against the plain one: `python -m tests.benchmarks.model`.

Rounds are interleaved, so that both see the same machine, and timed in CPU seconds, so that its
other users count less. Reported is the median over rounds of the ratio of their times, with the
standard error of that median. Memory is what a call needs beyond weights, inputs and outputs,
measured in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

import xstefa
from tests.benchmarks.plain import PlainStefaLand
from xstefa.model.architecture import HeadSize
from xstefa.model.arithmetic import bfloat16_is_native
from xstefa.model.network import StefaLand

FORCINGS = [f"forcing{i}" for i in range(5)]
STATICS = [f"static{i}" for i in range(22)]
DAYS = 365
Result: TypeAlias = Tensor | tuple[Tensor, ...]
HEAD = HeadSize(kind="resconn", hidden=256)


class Plain(nn.Module):
    """The plain encoder, with the same head."""

    def __init__(self, encoder: PlainStefaLand, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def encode(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder.encode(x, c)
        return tokens[:, :-1], tokens[:, -1]

    def predict(self, x: Tensor, c: Tensor) -> Tensor:
        return self.head(x, c, self.encoder.encode(x, c)[:, :-1])


class Ours(nn.Module):
    """The package's network, in one precision."""

    def __init__(self, network: StefaLand, precision: str) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    def encode(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            return self.network.encoder(x, c)

    def predict(self, x: Tensor, c: Tensor) -> Tensor:
        with self._autocast():
            return self.network(x, c)


def networks() -> tuple[Plain, StefaLand]:
    """Return the plain network and the package's, with the same weights."""
    torch.manual_seed(0)
    plain = PlainStefaLand(FORCINGS, STATICS).eval()
    with tempfile.TemporaryDirectory() as folder, xstefa.set_options(cache_dir=folder):
        path = Path(folder) / "plain.pt"
        torch.save({"model_state_dict": plain.state_dict()}, path)
        model = xstefa.import_published(path)
        network = StefaLand(replace(model.spec.architecture, heads=(HEAD,)))
        network.load_state_dict(model.network().state_dict(), strict=False)
    network.eval()
    return Plain(plain, network.heads[0]).eval(), network


def flat(result: Result) -> Tensor:
    """Return all numbers of a result in single precision."""
    parts = (result,) if isinstance(result, Tensor) else result
    return torch.cat([part.float().flatten() for part in parts])


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    """Return standardised windows with a tenth of the values missing."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, DAYS, len(FORCINGS), generator=generator)
    c = torch.randn(batch, len(STATICS), generator=generator)
    for tensor in (x, c):
        tensor[torch.rand(tensor.shape, generator=generator) < 0.1] = torch.nan
    return x, c


def ratio(
    reference: Callable[[], object], candidate: Callable[[], object], *, rounds: int
) -> tuple[float, float, float]:
    """Return reference time over candidate time, its standard error, and the candidate's time."""
    reference(), candidate()
    ratios, times = [], []
    for _ in range(rounds):
        begin = time.process_time()
        reference()
        middle = time.process_time()
        candidate()
        times.append(time.process_time() - middle)
        ratios.append((middle - begin) / times[-1])
    error = 1.2533 * statistics.stdev(ratios) / rounds**0.5
    return statistics.median(ratios), error, statistics.median(times)


def extra_memory(kind: str, batch: int) -> float:
    """Return MiB that encoding takes beyond weights and inputs, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_extra_memory, (kind, batch))


def _extra_memory(kind: str, batch: int) -> float:
    torch.set_num_threads(1)
    plain, network = networks()
    model = {
        "plain": plain,
        "fp32": Ours(network, "fp32"),
        "bf16": Ours(network, "bf16"),
    }[kind]
    x, c = inputs(batch)
    with torch.inference_mode():
        model.encode(x[:1], c[:1])
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _status("VmRSS")
        found = model.encode(x, c)
    output = sum(part.numel() * part.element_size() for part in found)
    return _status("VmHWM") - before - output / 2**20


def _status(field: str) -> float:
    """Return a size that Linux keeps of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plain, network = networks()
    precisions = ("fp32", "bf16") if bfloat16_is_native("cpu") else ("fp32",)

    def load() -> str:
        return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"

    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{options.threads} thread(s), {options.rounds} rounds, {load()}\n"
    )
    print("| what | batch | precision | times faster | ms a window | max error | rms error / std |")
    print("|---|---|---|---|---|---|---|")
    for batch in options.batches:
        x, c = inputs(batch)
        for what in ("encode", "predict"):
            for precision in precisions:
                ours = Ours(network, precision)

                def reference(what: str = what, x: Tensor = x, c: Tensor = c) -> Result:
                    return getattr(plain, what)(x, c)

                def candidate(
                    what: str = what, x: Tensor = x, c: Tensor = c, ours: Ours = ours
                ) -> Result:
                    return getattr(ours, what)(x, c)

                with torch.inference_mode():
                    times, error, seconds = ratio(reference, candidate, rounds=options.rounds)
                    known, found = flat(reference()), flat(candidate())
                off = found - known
                rms = float(off.square().mean().sqrt() / known.std())
                print(
                    f"| {'encoder' if what == 'encode' else 'encoder and head'} | {batch} "
                    f"| {precision} | {times:.2f} ± {error:.2f} | {1e3 * seconds / batch:.1f} "
                    f"| {float(off.abs().max()):.1e} | {rms:.2%} |",
                    flush=True,
                )
    print()
    print("| batch | plain MiB | fp32 MiB | bf16 MiB |")
    print("|---|---|---|---|")
    for batch in options.batches:
        found = [extra_memory(kind, batch) for kind in ("plain", "fp32", "bf16")]
        print(f"| {batch} | " + " | ".join(f"{m:.0f}" for m in found) + " |", flush=True)
    print(f"\nat the end: {load()}")


if __name__ == "__main__":
    main()
