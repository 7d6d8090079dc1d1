"""Settings of all tests, and a model small enough to run in any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import rioxarray  # noqa: F401  (tests use .rio)
from hypothesis import settings

import xstefa
from xstefa.model.architecture import Architecture, EncoderSize, HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.scaler import Moments, Scaler
from xstefa.windows import WindowPolicy

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


def _moments(transform: str) -> Moments:
    return Moments(mean=1.0, std=5.0, transform=transform)


@pytest.fixture(scope="session")
def tiny_model(make_model) -> Model:
    """An untrained model of soil moisture with an encoder and windows of 40 days."""
    return make_model()
