"""Measure the released models on a GPU: speed against the card's, batches, agreement, training.

    python ci/benchmarks/gpu.py [--device cuda] [--days 3653] [--seconds 5]

A few minutes; prints Markdown tables with the card's name, for docs/scale.md. ``--device cpu``
tries the script where there is no GPU. Weather is random; speed does not depend on values.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import click
import numpy as np
import torch
from scale import table

import xstefa

MODELS = ("streamflow", "water-balance", "soil-moisture-grid", "soil-moisture-point")
ROWS = (16, 64, 256, 512, 1024)


def seconds(work: Callable[[], object], *, device: str, at_least: float) -> float:
    """Return how long one call takes, waiting for the device."""

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    work()
    wait()
    started, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < at_least or not calls:
        work()
        wait()
        calls += 1
    return spent / calls


def peaks(device: str, at_least: float) -> dict[str, float]:
    """Return the multiplications and additions a second of a large matrix product."""
    size = 8192 if device != "cpu" else 1024
    found = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = torch.randn(size, size, device=device, dtype=dtype)
        spent = seconds(lambda m=matrix: m @ m, device=device, at_least=at_least / 5)
        found[precision] = 2 * size**3 / spent
    return found


def weather(model: xstefa.Model, *, rows: int, days: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return standardised forcings and attributes of sites."""
    generator = torch.Generator().manual_seed(0)
    forcing = torch.randn(rows, days, len(model.schema.forcings), generator=generator)
    return forcing, torch.randn(rows, len(model.schema.statics), generator=generator)


def speed(device: str, days: int, at_least: float) -> list[dict[str, str]]:
    """Return site-days a second of each model, precision and number of sites at once."""
    fastest, rows_of_table = peaks(device, at_least), []
    for name in MODELS:
        model = xstefa.load_model(name)
        network = model.network().to(device).eval()
        # Each weight is used once a day, but for those of attributes, which are few.
        weights = sum(part.numel() for part in network.parameters() if part.dim() > 1)
        length = min(days, model.spec.windows.longest)
        for precision, peak in fastest.items():
            for rows in ROWS if device != "cpu" else ROWS[:1]:
                inputs = [part.to(device) for part in weather(model, rows=rows, days=length)]

                def work(inputs=inputs, network=network, precision=precision) -> torch.Tensor:
                    on = torch.autocast(
                        torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"
                    )
                    with torch.inference_mode(), on:
                        return network(*inputs)

                try:
                    spent = seconds(work, device=device, at_least=at_least)
                except torch.cuda.OutOfMemoryError:
                    break
                rate = rows * length / spent
                rows_of_table.append(
                    {
                        "model": name,
                        "precision": precision,
                        "sites at once": str(rows),
                        "site-days/s": f"{rate:,.0f}",
                        "of the peak": f"{2 * weights * rate / peak:.1%}",
                    }
                )
    return rows_of_table


def agreement(device: str) -> list[dict[str, str]]:
    """Compare predictions of the bundled samples with those of the CPU."""
    samples = {"streamflow": "camels_us", "water-balance": "camels_us"}
    found = []
    for name in MODELS:
        ds = xstefa.open_sample(samples.get(name, "fluxnet"))
        model = xstefa.load_model(name)
        cpu = ds.stefa.predict(model, device="cpu").values
        for precision in ("fp32", "bf16"):
            other = ds.stefa.predict(model, device=device, precision=precision).values
            apart = np.abs(other - cpu)
            found.append(
                {
                    "model": name,
                    "precision": precision,
                    "same days": str(bool((np.isnan(cpu) == np.isnan(other)).all())),
                    "largest difference": f"{np.nanmax(apart):.2g}",
                    "of the spread": f"{np.nanmax(apart) / np.nanstd(cpu):.1e}",
                }
            )
    return found


def training(device: str, steps: int) -> list[dict[str, str]]:
    """Fine-tune heads on the bundled basins; the frozen encoder is read before."""
    ds, found = xstefa.open_sample("camels_us"), []
    for head in ("resconn", "hbv", "lstm"):
        started = time.perf_counter()
        ds.stefa.finetune("streamflow", head=head, steps=2, batch_size=64, device=device)
        before, started = time.perf_counter() - started, time.perf_counter()
        ds.stefa.finetune("streamflow", head=head, steps=2 + steps, batch_size=64, device=device)
        spent = time.perf_counter() - started - before
        found.append({"head": head, "s / step": f"{spent / steps:.3f}", "else, s": f"{before:.1f}"})
    return found


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--days", default=3653, show_default=True, help="Days of a record.")
@click.option("--seconds", "at_least", default=5.0, show_default=True, help="For each number.")
@click.option("--steps", default=30, show_default=True, help="Of training.")
def main(device, days, at_least, steps):
    """Print all tables."""
    warnings.simplefilter("ignore", xstefa.errors.XstefaWarning)
    card = torch.cuda.get_device_name(device) if device != "cpu" else "CPU, to try the script"
    table(f"Network alone: {card}", speed(device, days, at_least))
    table(f"Agreement with the CPU: {card}", agreement(device))
    table(f"Training: {card}", training(device, steps))


if __name__ == "__main__":
    main()
