"""A tiny world: rain and temperature at eight sites, and a flow that follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import xstefa
from xstefa.model.architecture import EncoderSize, HeadSize
from xstefa.training.options import Schedule
from xstefa.windows import WindowPolicy

WINDOWS = WindowPolicy(length=40, spin_up=10, blend=4)
ENCODER = EncoderSize(width=16, layers=1, heads=2, feedforward=16, hidden=8, positions=41)
HEAD = HeadSize(hidden=8, link="softplus", dropout=0.0)


@pytest.fixture(autouse=True)
def _own_cache_and_thread(tmp_path_factory):
    """Keep what is cached apart, and arithmetic on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with xstefa.set_options(cache_dir=tmp_path_factory.getbasetemp() / "cache", device="cpu"):
        yield
    torch.set_num_threads(threads)


class Interruption(Exception):
    """Raised in the middle of a training."""


def interrupted(after: int, **how: Any) -> Schedule:
    """Return a schedule that stops all trainings together after so many steps."""
    left = iter(range(after))

    class Stopping(Schedule):
        def rate(self, step: int) -> float:
            if next(left, None) is None:
                raise Interruption
            return super().rate(step)

    return Stopping(**how)


def make_basins(sites: int = 8, days: int = 200, seed: int = 0) -> xr.Dataset:
    random = np.random.default_rng(seed)
    rain = random.gamma(0.4, 8.0, (sites, days)).astype("f4")
    warm = random.normal(10, 5, (sites, days)).astype("f4")
    area = random.uniform(20, 900, sites).astype("f4")
    store, flow = np.zeros(sites), np.empty((sites, days), dtype="f4")
    for day in range(days):
        store = 0.9 * store + rain[:, day]
        flow[:, day] = 0.1 * store
    flow[0, 50:60] = np.nan
    return xr.Dataset(
        {
            "pr": (("site", "time"), rain, {"standard_name": "lwe_precipitation_rate",
                                            "units": "mm d-1", "cell_methods": "time: mean"}),
            "tas": (("site", "time"), warm, {"standard_name": "air_temperature",
                                             "units": "degC", "cell_methods": "time: mean"}),
            "area": ("site", area, {"units": "km2", "long_name": "catchment area"}),
            "elevation": ("site", random.uniform(0, 2000, sites).astype("f4"), {"units": "m"}),
            "qobs": (("site", "time"), flow, {"units": "mm d-1"}),
            "region": ("site", np.arange(sites) // 2),
        },
        coords={
            "site": ("site", [f"gauge {i}" for i in range(sites)], {"cf_role": "timeseries_id"}),
            "time": pd.date_range("2001-01-01", periods=days),
            "lat": ("site", np.linspace(40, 50, sites), {"units": "degrees_north",
                                                         "standard_name": "latitude"}),
            "lon": ("site", np.linspace(-5, 20, sites), {"units": "degrees_east",
                                                         "standard_name": "longitude"}),
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def basins() -> xr.Dataset:
    return make_basins()


@pytest.fixture(scope="session")
def foundation(basins: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> xstefa.Model:
    folder: Path = tmp_path_factory.mktemp("foundation")
    with xstefa.set_options(cache_dir=folder):
        model = xstefa.pretrain(
            basins, size=ENCODER, windows=WINDOWS, steps=3, batch_size=4, device="cpu", name="tiny"
        )
        return model.save(folder / "tiny")
