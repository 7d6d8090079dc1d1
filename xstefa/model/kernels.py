"""The arithmetic of the encoder: `torch.nn.functional`, without copies where a CPU only infers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


def infers_on_cpu(tensor: Tensor) -> bool:
    """Whether work on this tensor is inference on a CPU, now: what was computed may be reused."""
    return (
        tensor.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def filled(rows: Tensor, part: slice) -> Tensor:
    """Return some rows, and rows of zeros where there are no more."""
    found = rows[part]
    missing = part.stop - part.start - len(found)
    return torch.cat([found, found.new_zeros((missing, *found.shape[1:]))]) if missing else found


def working_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype that autocast asks for, else the tensor's."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    activation: str = "none",
    add: Tensor | None = None,
) -> Tensor:
    """Return ``activation(x W^T + b)``, or ``x W^T + b + add``.

    Parameters
    ----------
    x : Tensor, shape (..., in)
    weight : Tensor, shape (out, in)
    bias : Tensor, shape (out,), optional
    activation : {"none", "relu", "gelu"}
        Not together with `add`.
    add : Tensor, shape (..., out), optional
    """
    product = functional.linear(x, weight, bias)
    if add is not None:
        return product.add_(add) if infers_on_cpu(x) else add + product
    if activation == "relu" and infers_on_cpu(x):
        return functional.relu_(product)
    return ACTIVATIONS[activation](product)


def apply(
    layer: nn.Linear, x: Tensor, *, activation: str = "none", add: Tensor | None = None
) -> Tensor:
    """Apply a linear layer and what follows it, see `linear`."""
    return linear(x, layer.weight, layer.bias, activation=activation, add=add)


def attention(qkv: Tensor, *, heads: int, length: int) -> Tensor:
    """Self-attention over the first `length` tokens; those behind them are padding.

    Parameters
    ----------
    qkv : Tensor, shape (B, L, 3 d)
        Queries, keys and values of all heads.
    heads, length : int

    Returns
    -------
    Tensor, shape (B, L, d)
        Rows behind `length` are meaningless.
    """
    batch, padded, triple = qkv.shape
    split = qkv.view(batch, padded, 3, heads, triple // (3 * heads))
    query, key, value = split.permute(2, 0, 3, 1, 4)
    mask = None
    if padded != length:
        behind = torch.arange(padded, device=qkv.device) >= length
        mask = torch.zeros(1, 1, 1, padded, dtype=qkv.dtype, device=qkv.device)
        mask = mask.masked_fill(behind, -torch.inf)
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return found.transpose(1, 2).reshape(batch, padded, triple // 3)


def banded_attention(
    query: Tensor, past: Tensor, site: Tensor, bias: Tensor, *, heads: int
) -> Tensor:
    """Attention of each day to itself, to a band of days before it and to the site.

    Days are taken in blocks: the queries of one block against the keys of the blocks that its band
    touches. The work grows linearly with the days.

    Parameters
    ----------
    query : Tensor, shape (B, T, d)
        Queries of all heads.
    past : Tensor, shape (B, band + T, 2 d)
        Keys and values of the band before the first day, and of the days. Without gradients its
        first day may be overwritten.
    site : Tensor, shape (B, 1, 2 d)
        Key and value of the site.
    bias : Tensor, shape (heads, block, band + block)
        Added to the scores of a block's queries (rows) with the site (first column) and the days
        after the first of the band; -inf forbids. The band is a whole number of blocks.
    heads : int

    Returns
    -------
    Tensor, shape (B, T, d)
    """
    batch, days, width = query.shape
    _, block, keys = bias.shape
    split = (heads, width // heads)
    if days < block:  # a few days that go on from a state: no block to fill
        keys += days - block
        if torch.is_grad_enabled():
            past = past.clone()
        past[:, :1] = site
        window = past.view(batch, keys, 2, *split)
        key, value = window.permute(2, 0, 3, 1, 4)
        asked = query.reshape(batch, days, *split).transpose(1, 2)
        mask = bias[:, :days, :keys].to(query.dtype)[None]
        found = functional.scaled_dot_product_attention(asked, key, value, attn_mask=mask)
        return found.transpose(1, 2).reshape(batch, days, width)
    blocks = -(-days // block)
    behind = blocks * block - days
    if behind:
        query = functional.pad(query, (0, 0, 0, behind))
        past = functional.pad(past, (0, 0, 0, behind))
    pieces = past.unflatten(1, (-1, block))
    shifts = keys // block
    # The first day of the band lies beyond it for all queries of the block: the site's place.
    windows = torch.cat(
        [
            site[:, None].expand(-1, blocks, -1, -1),
            pieces[:, :blocks, 1:],
            *(pieces[:, shift : shift + blocks] for shift in range(1, shifts)),
        ],
        dim=2,
    )
    asked = query.reshape(batch * blocks, block, *split).transpose(1, 2)
    key, value = windows.view(batch * blocks, keys, 2, *split).permute(2, 0, 3, 1, 4)
    found = functional.scaled_dot_product_attention(
        asked, key, value, attn_mask=bias.to(query.dtype)[None]
    )
    return found.transpose(1, 2).reshape(batch, blocks * block, width)[:, :days]
