"""Arrays in, arrays out: the network without datasets, units or windows."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xstefa.errors import ModelError
from xstefa.model.arithmetic import plain_float32
from xstefa.model.encoder import Encoder, Representation
from xstefa.model.network import StefaLand

A = TypeVar("A", Tensor, NDArray[np.float32])
M = TypeVar("M", Tensor, NDArray[np.bool_])


def encode(
    network: StefaLand, x: A, c: A, mask_x: M | None, mask_c: M | None, published_static_mask: bool
) -> tuple[A, A]:
    """Encode windows; see `Model.encode`."""
    encoded = _encoded(network, x, c, mask_x, mask_c, published_static_mask)
    return _like(encoded.days, x), _like(encoded.site, x)


def reconstruct(
    network: StefaLand, x: A, c: A, mask_x: M | None, mask_c: M | None, published_static_mask: bool
) -> tuple[A, A]:
    """Reconstruct windows; see `Model.reconstruct`."""
    encoded = _encoded(network, x, c, mask_x, mask_c, published_static_mask)
    assert network.decoder is not None
    with torch.no_grad(), plain_float32():
        found = network.decoder(encoded)
    return _like(found.forcing, x), _like(found.static, x)


def estimate(network: StefaLand, x: A, c: A, published_fill: bool) -> A:
    """Run encoder and heads; see `Model.estimate`."""
    forcing, static = _tensor(x), _tensor(c)
    _check(network, forcing, static, None, None, attributes=network.attributes)
    if published_fill:
        forcing = torch.where(forcing.isnan(), forcing.nanmedian(), forcing)
        static = torch.where(static.isnan(), static.nanmedian(), static)
    with torch.no_grad(), plain_float32():
        return _like(network(forcing.to(torch.float32), static.to(torch.float32)), x)


def _encoded(
    network: StefaLand, x: A, c: A, mask_x: M | None, mask_c: M | None, published_static_mask: bool
) -> Representation:
    forcing, static = _tensor(x), _tensor(c)
    masks = [None if mask is None else _tensor(mask) for mask in (mask_x, mask_c)]
    _check(network, forcing, static, *masks, attributes=network.statics)
    encoder = network.encoder
    assert encoder is not None
    published: dict[str, bool] = {}
    if isinstance(encoder, Encoder):
        published = {"published_static_mask": published_static_mask}
        if published_static_mask and len(static) > (most := len(encoder.embed_static.masked)):
            raise ModelError(
                variable="published_static_mask",
                found=f"a batch of {len(static)} rows",
                expected=f"at most {most}: the table has a row per sample",
                fix="call it with smaller batches",
            )
    with torch.no_grad(), plain_float32():
        return encoder(forcing.to(torch.float32), static.to(torch.float32), *masks, **published)


def _check(
    network: StefaLand,
    x: Tensor,
    c: Tensor,
    mask_x: Tensor | None,
    mask_c: Tensor | None,
    *,
    attributes: int,
) -> None:
    """Compare shapes and kinds with what the model reads."""
    forcings, encoder = network.forcings, network.encoder
    longest = len(encoder.position) - 1 if isinstance(encoder, Encoder) else math.inf
    limit = f" with T at most {longest}" if isinstance(encoder, Encoder) else ""
    expected = {
        "x": (x, f"(B, T, {forcings}){limit}"),
        "c": (c, f"({len(x)}, {attributes})"),
        "mask_x": (mask_x, f"{tuple(x.shape)} of bool"),
        "mask_c": (mask_c, f"{tuple(c.shape)} of bool"),
    }
    fits = {
        "x": x.ndim == 3 and x.shape[2] == forcings and x.shape[1] <= longest,
        "c": c.shape == (len(x), attributes),
        "mask_x": mask_x is None or (mask_x.shape == x.shape and mask_x.dtype == torch.bool),
        "mask_c": mask_c is None or (mask_c.shape == c.shape and mask_c.dtype == torch.bool),
    }
    for name, (tensor, wanted) in expected.items():
        if not fits[name] and tensor is not None:
            raise ModelError(
                "this shape does not fit the model",
                variable=name,
                found=f"{tuple(tensor.shape)} of {tensor.dtype}".replace("torch.", ""),
                expected=wanted,
                fix="order variables as model.schema.forcing_names and model.schema.site_columns",
            )


def _tensor(values: Tensor | NDArray[np.generic]) -> Tensor:
    """Return values as a tensor; arrays are copied only if torch cannot share them."""
    if isinstance(values, Tensor):
        return values
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def _like(tensor: Tensor, example: A) -> A:
    return tensor if isinstance(example, Tensor) else tensor.numpy()
