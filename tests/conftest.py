"""Settings of all tests, and a model small enough to run in any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (tests use .rio)
import xarray as xr
from hypothesis import settings

import xstefa
from xstefa.model.architecture import Architecture, EncoderSize, HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.distribution import LEVELS, Distribution, Measure, Regime, Scale
from xstefa.model.scaler import Moments, Scaler
from xstefa.windows import WindowPolicy

FORCINGS = {
    "precipitation": ("precipitation_flux", "mm d-1", 0.0, 20.0),
    "temperature_mean": ("air_temperature", "degC", -10.0, 25.0),
    "shortwave_down": ("surface_downwelling_shortwave_flux_in_air", "W m-2", 20.0, 300.0),
}

# Time says nothing here: runs share their cores. In CI a run can be repeated exactly.
settings.register_profile("xstefa", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("xstefa")


@pytest.fixture(scope="session")
def make_model(tmp_path_factory) -> Callable[..., Model]:
    """Make untrained models: ``make_model(encoder=False, members=2, name=..., seed=...)``.

    With ``foundation=True`` one that reconstructs, and has no head.
    """
    folder = tmp_path_factory.mktemp("models")

    def make(
        *,
        encoder: bool = True,
        foundation: bool = False,
        members: int = 1,
        windows: WindowPolicy | None = None,
        name: str = "tiny",
        seed: int = 0,
        width: int = 16,
        causal: bool = False,
        link: str = "logistic",
        **changes: object,
    ) -> Model:
        import torch

        from xstefa.model.network import StefaLand

        torch.manual_seed(seed)
        schema = xstefa.load_schema()
        size = EncoderSize(width=width, layers=1, heads=2, feedforward=32, hidden=8)
        if causal:
            size = replace(size, attention="causal", band=64, layers=2)
        spec = ModelSpec(
            name=name,
            target=None if foundation else "soil_moisture",
            support="any",
            architecture=Architecture(
                forcings=len(schema.forcings),
                statics=len(schema.statics),
                encoder=size if encoder else None,
                decoder=foundation,
                heads=()
                if foundation
                else (HeadSize(kind="resconn" if encoder else "lstm", hidden=width, link=link),)
                * members,
            ),
            schema=schema,
            scaler=Scaler(
                forcings={v.name: _moments(v.transform) for v in schema.forcings},
                statics={v.name: _moments(v.transform) for v in schema.statics},
            ),
            windows=windows or WindowPolicy(length=40, spin_up=10, blend=6),
            tokens=tuple(v.name for v in schema.tokens),
        )
        network = StefaLand(spec.architecture)
        with xstefa.set_options(cache_dir=folder):
            return create_model(replace(spec, **{"needs": (), **changes}), network.state_dict())

    return make


@pytest.fixture(scope="session")
def distribution() -> Distribution:
    """Errors of soil moisture that change with level, weather and texture, in two regimes."""
    shape = tuple(0.4 * (i - 8) for i in range(len(LEVELS)))
    sand = xstefa.load_schema().forcing_names, xstefa.load_schema().static_names
    sand = (*sand[0], *sand[1]).index("sand")
    moments = Moments(mean=0.0, std=1.0)
    return Distribution(
        scale=Scale(kind="logit", offset=0.001),
        shift=0.1,
        below=-1.0,
        above=-0.5,
        measures=(
            Measure(name="level", moments=moments, below=0.1, above=-0.1),
            Measure(name="change_of_week", moments=moments, above=0.3),
            Measure(name="disagreement", moments=moments, below=0.2, above=0.2),
            Measure(name="known_today", moments=moments, below=-1.0),
            Measure(name="precipitation_missing", moments=moments, below=0.5, above=0.5),
            Measure(name="weather_missing", moments=moments, below=0.3, above=0.3),
            Measure(name="precipitation", moments=moments, column=0, above=0.2),
            Measure(name="sand", moments=moments, column=sand, below=0.05),
        ),
        regimes=(
            Regime(name="sandy", within={"sand": (8.0, 1e9)}, sites=4, quantiles=shape),
            Regime(name="others", within={}, sites=6, quantiles=tuple(2 * q for q in shape)),
        ),
        sites=10,
    )


def _moments(transform: str) -> Moments:
    return Moments(mean=1.0, std=5.0, transform=transform)


@pytest.fixture(scope="session")
def tiny_model(make_model) -> Model:
    """An untrained model of soil moisture with an encoder and windows of 40 days."""
    return make_model()


@pytest.fixture(scope="session")
def make_dataset():
    """Make a map ``(time, lat, lon)`` of random weather, with some static attributes."""

    def make(*, days: int = 200, lat: int = 3, lon: int = 4, start: str = "2000-01-05", seed=0):
        random = np.random.default_rng(seed)
        dims, shape = ("time", "lat", "lon"), (days, lat, lon)
        ds = xr.Dataset(
            coords={
                "time": pd.date_range(start, periods=days),
                "lat": ("lat", np.linspace(60.0, 40.0, lat), {"units": "degrees_north"}),
                "lon": ("lon", np.linspace(5.0, 15.0, lon), {"units": "degrees_east"}),
            }
        )
        for name, (standard_name, units, low, high) in FORCINGS.items():
            attrs = {"standard_name": standard_name, "units": units, "cell_methods": "time: mean"}
            ds[name] = (dims, random.uniform(low, high, shape).astype(np.float32), attrs)
        for name, units, high in (("sand", "%", 90.0), ("catchment_area", "km2", 900.0)):
            values = random.uniform(1.0, high, shape[1:]).astype(np.float32)
            ds[name] = (dims[1:], values, {"units": units})
        return ds

    return make


@pytest.fixture(scope="session")
def dataset(make_dataset):
    """A map of 200 days and 12 cells; do not change it."""
    return make_dataset()
