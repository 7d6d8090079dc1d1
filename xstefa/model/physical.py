"""Standardised tensors in their units, and back; of arrays, see `xstefa.model.scaler`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from xstefa.model.scaler import Moments

_FORWARD: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "log": lambda x: x.clamp(min=1e-6).log(),
    "log1p": lambda x: x.clamp(min=0).log1p(),
}
_INVERSE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "log": torch.exp,
    "log1p": torch.expm1,
}


def physical(values: Tensor, moments: Moments) -> Tensor:
    """Return standardised values in their unit.

    By way of double precision, with the moments that were used: 1e-7 of heavy rain is left.
    """
    mean, std = torch.tensor([moments.mean, moments.std], dtype=torch.float32).double().tolist()
    return _INVERSE[moments.transform](values.double() * std + mean).to(values.dtype)


def standardised(values: Tensor, moments: Moments) -> Tensor:
    """Return physical values as a network reads them."""
    return (_FORWARD[moments.transform](values) - moments.mean) / moments.std
