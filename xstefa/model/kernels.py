"""The arithmetic of the encoder: `torch.nn`'s, and faster kernels where a CPU only infers.

Where no gradient is asked for and the tensors lie on a CPU, linear layers run through oneDNN, whose
kernels take what follows (an activation, a residual) into the same pass. Elsewhere, in training, on
a GPU or under `torch.compile`, the same functions are plain `torch.nn.functional`. Results agree to
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "gelu": functional.gelu,
}

# A sum of a thousand powers of two up to this one, times a value, is a number of bfloat16.
FAR = 100

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_DTYPES = {torch.float32} if _ONEDNN else set()
if _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _DTYPES.add(torch.bfloat16)


def infers_on_cpu(tensor: Tensor) -> bool:
    """Whether the faster kernels may be used for work on this tensor, now."""
    return (
        tensor.device.type == "cpu"
        and working_dtype(tensor) in _DTYPES
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


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
    if infers_on_cpu(x):
        dtype = working_dtype(x)
        x, weight = x.to(dtype), _in_dtype(weight, dtype)
        bias = None if bias is None else _in_dtype(bias, dtype)
        if add is not None:
            add = add.to(dtype)
            return torch.ops.mkldnn._linear_pointwise.binary(x, add, weight, bias, "add")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    product = ACTIVATIONS[activation](functional.linear(x, weight, bias))
    return product if add is None else add + product


# Of parameters in another dtype: their version when they were rounded, and the rounded ones.
_rounded: MutableMapping[Tensor, tuple[int, Tensor]] = WeakTensorKeyDictionary()


def _in_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight in a dtype; parameters are rounded once, not at every call."""
    if weight.dtype == dtype:
        return weight
    if not isinstance(weight, nn.Parameter) or weight.is_inference():
        return weight.to(dtype)
    version, rounded = _rounded.get(weight, (-1, weight))
    if version != weight._version or rounded.dtype != dtype:
        rounded = weight.detach().to(dtype)
        _rounded[weight] = weight._version, rounded
    return rounded


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
    if qkv.dtype == torch.bfloat16 and infers_on_cpu(qkv):
        found = _attention_in_products(query, key, value, length)
    else:
        mask = None
        if padded != length:
            behind = torch.arange(padded, device=qkv.device) >= length
            mask = torch.zeros(1, 1, 1, padded, dtype=qkv.dtype, device=qkv.device)
            mask = mask.masked_fill(behind, -torch.inf)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return found.transpose(1, 2).reshape(batch, padded, triple // 3)


def _attention_in_products(query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
    """Attention in bfloat16 as two batched products: much faster than torch's fused one on CPUs.

    The weights are powers of two of scores in units of log 2. Scores near zero, the usual ones,
    need not be made relative to the largest of their row first, which would take as long again.
    """
    batch, heads, padded, size = query.shape
    flat = (batch * heads, padded, size)
    scores = torch.baddbmm(
        query.new_empty(1),
        query.reshape(flat),
        key.reshape(flat).transpose(1, 2),
        beta=0,
        alpha=size**-0.5 / math.log(2),
    )
    # Window by window, so that what is computed of one does not depend on those beside it.
    for window in scores.view(batch, -1, padded):
        low, high = torch.aminmax(window)
        if max(-low, high) > FAR:
            known = window[:, :length]
            known.copy_(_centred(known.float()))
    scores[..., length:] = -torch.inf
    weights = torch.exp2(scores, out=scores)
    found = torch.bmm(weights, value.reshape(flat)).view(query.shape)
    total = weights.sum(-1).view(batch, heads, padded, 1)
    side_by_side = query.new_empty((batch, padded, heads, size)).transpose(1, 2)
    return torch.div(found, total, out=side_by_side)


def _centred(scores: Tensor) -> Tensor:
    """Subtract the largest of each row; what vanishes beside it may not become subnormal: slow."""
    return scores.sub_(scores.amax(-1, keepdim=True)).clamp_(min=-FAR)
