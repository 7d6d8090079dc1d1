"""HBV 1.1p: snow, soil and two groundwater boxes in many components, differentiable.

Equations: Bergström (1976), Seibert & Vis (doi:10.5194/hess-16-3315-2012); components, dynamic
parameters and gamma routing: Feng et al. (doi:10.1029/2022WR032404); capillary rise: Song et al.
(doi:10.22541/essoar.172304428.82707157). The floors that create water in the published form are
left out, so that the balance closes: P = ET + runoff + change of the stores.

Shapes: ``T`` days, ``B`` sites, ``M`` components. A step is one day, so mm and mm d-1 are the same
number. Everything here is a pure function of its arguments, in their dtype and on their device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Soil moisture never falls below it: powers of zero have no gradient.
FLOOR = 1e-5
INITIAL_STORE = 0.001
ROUTING_DAYS = 15

BOUNDS: Mapping[str, tuple[float, float]] = {
    "beta": (1.0, 6.0),  # recharge exponent
    "fc": (50.0, 1000.0),  # soil capacity, mm
    "k0": (0.05, 0.9),  # quick outlet of the upper box above uzl, 1/day
    "k1": (0.01, 0.5),  # outlet of the upper box, 1/day
    "k2": (0.001, 0.2),  # outlet of the lower box, 1/day
    "lp": (0.2, 1.0),  # share of fc above which evaporation is potential
    "perc": (0.0, 10.0),  # largest percolation, mm/day
    "uzl": (0.0, 100.0),  # threshold of the quick outlet, mm
    "tt": (-2.5, 2.5),  # threshold of snow and melt, degC
    "cfmax": (0.5, 10.0),  # degree-day factor, mm/degC/day
    "cfr": (0.0, 0.1),  # refreezing factor
    "cwh": (0.0, 0.2),  # liquid water the snow can hold
    "betaet": (0.3, 5.0),  # shape of the reduction of evaporation
    "c": (0.0, 1.0),  # capillary rise, 1/day
}
"""Bounds of the parameters, in the order of the network's output."""

ROUTING_BOUNDS: Mapping[str, tuple[float, float]] = {"shape": (0.0, 2.9), "scale": (0.0, 6.5)}
"""Bounds of the gamma distribution's parameters (the scale in days), before their offsets."""


class Stores(NamedTuple):
    """Water in each store at the end of a day, mm, each of shape (B, M)."""

    snow: Tensor
    meltwater: Tensor
    soil: Tensor
    upper: Tensor
    lower: Tensor

    @classmethod
    def initial(cls, like: Tensor) -> Stores:
        """Return nearly empty stores of the shape, dtype and device of a tensor."""
        return cls(*(torch.full_like(like, INITIAL_STORE) for _ in cls._fields))


class Fluxes(NamedTuple):
    """What moved during a day, mm d-1 (`evaporation_factor`: 1), each of shape (..., B, M)."""

    quick_runoff: Tensor
    interflow: Tensor
    baseflow: Tensor
    evapotranspiration: Tensor
    recharge: Tensor
    excess: Tensor
    infiltration: Tensor
    outflow_of_snow: Tensor
    evaporation_factor: Tensor
    percolation: Tensor
    capillary_rise: Tensor

    @property
    def runoff(self) -> Tensor:
        """Runoff of all outlets, before routing."""
        return self.quick_runoff + self.interflow + self.baseflow


class Forcing(NamedTuple):
    """Precipitation (mm d-1), mean temperature (degC) and potential evapotranspiration (mm d-1).

    Each of shape (T, B, 1), physical values without gaps.
    """

    precipitation: Tensor
    temperature: Tensor
    evaporation: Tensor


def bounded(raw: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Map a network's output into the bounds of a parameter by a sigmoid."""
    low, high = bounds
    return low + (high - low) * torch.sigmoid(raw)


def unit_hydrograph(raw: Tensor) -> Tensor:
    """Return the daily weights of the gamma distribution, cut at 15 days.

    Parameters
    ----------
    raw : Tensor, shape (B, 2)
        Shape and scale as the network gives them.

    Returns
    -------
    Tensor, shape (B, 15)
        They sum to 1.
    """
    return gamma_weights(
        bounded(raw[:, 0], ROUTING_BOUNDS["shape"]), bounded(raw[:, 1], ROUTING_BOUNDS["scale"])
    )


def gamma_weights(shape: Tensor, scale: Tensor) -> Tensor:
    """Return the weights (B, 15) for a shape and a scale (B,) within `ROUTING_BOUNDS`."""
    days = torch.arange(ROUTING_DAYS, dtype=shape.dtype, device=shape.device) + 0.5
    # The density in the middle of each day; its normalisation cancels.
    return torch.softmax(
        (shape[:, None] + 0.1 - 1) * days.log() - days / (scale[:, None] + 0.5), dim=-1
    )


def route(runoff: Tensor, weights: Tensor, before: Tensor | None = None) -> Tensor:
    """Delay runoff by the unit hydrograph.

    Parameters
    ----------
    runoff : Tensor, shape (T, B)
    weights : Tensor, shape (B, 15)
    before : Tensor, shape (14, B), optional
        Runoff of the days before, which is still under way; by default none.

    Returns
    -------
    Tensor, shape (T, B)
    """
    days, sites = runoff.shape
    if before is None:
        before = runoff.new_zeros(ROUTING_DAYS - 1, sites)
    series = torch.cat([before, runoff]).T[None]
    return functional.conv1d(series, weights.flip(-1)[:, None], groups=sites)[0].T[:days]
