"""What training minimises; missing values never enter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xstefa.model.decoder import Reconstruction


def alone(tensor: Tensor) -> Tensor:
    """Return what a single process contributes: the tensor itself."""
    return tensor


def masked_mse(
    reconstruction: Reconstruction,
    forcing: Tensor,
    static: Tensor,
    mask_forcing: Tensor,
    mask_static: Tensor,
    *,
    static_weight: float = 0.5,
    mean: Callable[[Tensor], Tensor] = alone,
) -> Tensor:
    """Squared error on hidden values only (appendix A.2).

    Per dynamic variable the mean over values that are hidden and observed, summed over variables;
    static variables pooled.

    Parameters
    ----------
    reconstruction : Reconstruction
    forcing : Tensor, shape (B, T, C)
    static : Tensor, shape (B, S)
        Standardised; NaN where never observed.
    mask_forcing, mask_static : Tensor of bool
        True where hidden from the encoder.
    mean : callable
        Averages counts over processes that each hold some rows, so that the mean of their losses
        is the loss of all rows.
    """
    dynamic = _mean_where(reconstruction.forcing, forcing, mask_forcing, (0, 1), mean).sum()
    pooled = _mean_where(reconstruction.static, static, mask_static, (0, 1), mean)
    return dynamic + static_weight * pooled


def _mean_where(
    found: Tensor,
    known: Tensor,
    mask: Tensor,
    dim: tuple[int, ...],
    mean: Callable[[Tensor], Tensor],
) -> Tensor:
    counted = mask & known.isfinite()
    error = torch.where(counted, found.float() - known.nan_to_num(), 0.0).square()
    return error.sum(dim) / mean(counted.sum(dim)).clamp(min=1)


def weighted_mse(
    predicted: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    spin_up: int,
    centred: float = 0.0,
    mean: Callable[[Tensor], Tensor] = alone,
) -> Tensor:
    """Squared error after the spin-up, each site weighted.

    With ``weight = 1 / (std + 0.1)**2`` of the site's observations this is the basin-averaged NSE
    loss of Kratzert et al. (2019), doi:10.5194/hess-23-5089-2019, equation (1).

    Parameters
    ----------
    predicted, target : Tensor, shape (B, T)
        Same unit; target NaN where missing, predicted where a head has no answer.
    weight : Tensor, shape (B,)
    spin_up : int
        Days at the start of the window that do not count.
    centred : float
        Share of the loss that forgives a constant error over the window. The level of soil
        moisture differs between sites for reasons no attribute tells (sensor depth, calibration);
        what the weather explains is its course.
    mean : callable
        As for `masked_mse`.
    """
    predicted, target = predicted[:, spin_up:].float(), target[:, spin_up:]
    known = target.isfinite() & ~predicted.isnan()
    error = torch.where(known, predicted - target.nan_to_num(), 0.0)
    level = error.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    anomaly = torch.where(known, error - level, 0.0)
    squares = (1 - centred) * error.square() + centred * anomaly.square()
    return (squares.sum(1) * weight).sum() / mean(known.sum()).clamp(min=1)
