"""Where a site lies among those that a model was trained on, and which skill was found there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xstefa.typed import Finite, Name, Natural

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.network import StefaLand

Array = NDArray[np.floating[Any]]

FEATURES = 8
"""Directions in which the attributes of training sites differ most; others are left out."""

MOST_SITES = 2000
"""Training sites that are kept, evenly through their list: they are in the head of a file."""

NEARLY_ALL = 0.99
"""Of the training sites, so many have another one nearer than `Neighbourhood.reach`."""

INTERVAL = 0.9
"""Probability that the score of a new site lies between the expected bounds."""

REGIMES = 3
"""Classes of aridity, with as many held-out sites in each; of few sites there is one class."""

FEWEST_ALIKE = 10
"""Held-out sites of a class, or of like distance."""

LEAST = 1e-3
"""Scores count as this much below the best at least: logarithms are taken of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A site with observations that training did not see.

    Attributes
    ----------
    distance : float
        To the nearest training site.
    aridity : float, optional
        Potential evapotranspiration over precipitation, where it is known.
    score : float
        What was found there: the `Neighbourhood.score`.
    """

    distance: Finite
    aridity: Finite | None = None
    score: Finite

    def __post_init__(self) -> None:
        if self.distance < 0 or self.score > 1:
            raise ValueError("a distance of 0 or more, and a score up to 1")


class _Fit(NamedTuple):
    """What held-out sites tell.

    Edges of the classes of aridity and the median logarithm of errors in each; distances in order
    and the rise of that logarithm up to there; the median distance, and the intervals of what is
    left below and from there on; distance and class of each held-out site.
    """

    edges: Array
    usual: Array
    places: Array
    rise: Array
    near: float
    spread: Array
    distance: Array
    regime: NDArray[np.int64]


def _classes(aridity: Array, edges: Array) -> NDArray[np.int64]:
    """Return the class of each site; the last is that of unknown aridity."""
    return np.where(np.isnan(aridity), -1, np.digitize(np.nan_to_num(aridity), edges))


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """The training sites of a model in the space in which it sees their attributes.

    The space is that of `signature`, in the directions in which training sites differ most, in
    standard deviations of theirs.

    Attributes
    ----------
    centre : tuple of float, shape (d,)
        Mean signature of the training sites.
    axes : tuple of tuple of float, shape (k, d)
    sites : tuple of str
        Names of the training sites. One that is in two datasets is there twice.
    places : tuple of tuple of float, shape (site, k)
    reach : float
        Distance within which nearly all training sites have another one.
    score : {"nse", "correlation"}
        What is expected of a site: the Nash-Sutcliffe efficiency; of soil moisture, whose level no
        attribute tells, the correlation.
    held_out : tuple of HeldOut
        What was found at sites that training did not see: see `StefaAccessor.calibrate`. Of each
        dataset by itself, if a site is in several.
    """

    centre: tuple[Finite, ...]
    axes: tuple[tuple[Finite, ...], ...]
    sites: tuple[Name, ...]
    places: tuple[tuple[Finite, ...], ...]
    reach: Finite
    score: Literal["nse", "correlation"] = "nse"
    held_out: tuple[HeldOut, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(axis) for axis in self.axes} | {len(self.centre)}
        widths = {len(place) for place in self.places} | {len(self.axes)}
        if len(lengths) > 1 or len(widths) > 1 or not 0 < len(self.sites) == len(self.places):
            raise ValueError("a place of each site, and axes, of one length each")

    @classmethod
    def of(cls, sites: NDArray[np.str_], signatures: Array) -> Self:
        """Learn the space of some training sites.

        Parameters
        ----------
        sites : ndarray of str, shape (site,)
        signatures : ndarray, shape (site, d)
        """
        chosen = np.linspace(0, len(sites) - 1, min(len(sites), MOST_SITES)).astype(int)
        sites, signatures = sites[chosen], signatures[chosen].astype(np.float64)
        centre = signatures.mean(axis=0).round(4)
        _, sizes, axes = np.linalg.svd(signatures - centre, full_matrices=False)
        kept = min(FEATURES, int((sizes > 1e-4 * max(sizes[0], 1e-4)).sum()))
        scaled = axes[:kept] / sizes[:kept, None] * np.sqrt(len(sites))
        found = cls(
            centre=tuple(centre.tolist()),
            axes=tuple(map(tuple, scaled.round(4).tolist())),
            sites=tuple(sites.tolist()),
            places=((0.0,) * kept,) * len(sites),
            reach=0.0,
        )
        places = found.place(signatures)
        found = replace(found, places=tuple(map(tuple, places.tolist())))
        between, others = found.nearest(signatures, 2)
        itself = others == np.unique(sites, return_inverse=True)[1][:, None]
        nearest = np.where(itself[:, 0], between[:, -1], between[:, 0])
        return replace(found, reach=round(float(np.quantile(nearest, NEARLY_ALL)), 3))

    def place(self, signatures: Array) -> Array:
        """Return the places of sites, to a thousandth, shape (site, k)."""
        axes = np.array(self.axes).reshape(len(self.axes), len(self.centre))
        return ((signatures - np.array(self.centre)) @ axes.T).round(3)

    @cached_property
    def names(self) -> NDArray[np.str_]:
        """The training sites, each once, in the order of their names."""
        return np.unique(self.sites)

    def nearest(self, signatures: Array, count: Natural) -> tuple[Array, NDArray[np.int64]]:
        """Return the nearest training sites.

        Parameters
        ----------
        signatures : ndarray, shape (site, d)
        count : int
            How many; all, if there are fewer.

        Returns
        -------
        distance : ndarray, shape (site, count)
            Of the nearest first.
        number : ndarray of int64, shape (site, count)
            Their places in `names`.
        """
        from scipy.spatial.distance import cdist

        order = np.argsort(self.sites, kind="stable")
        _, begins = np.unique(np.array(self.sites)[order], return_index=True)
        places = np.array(self.places)[order]
        between = np.minimum.reduceat(cdist(self.place(signatures), places), begins, axis=1)
        number = np.argsort(between, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(between, number, axis=1), number

    @cached_property
    def _fit(self) -> _Fit:
        from scipy.optimize import isotonic_regression

        distance, aridity, score = np.array(
            [(site.distance, site.aridity, site.score) for site in self.held_out], dtype=np.float64
        ).T
        excess = np.log(np.maximum(1 - score, LEAST))
        known = aridity[np.isfinite(aridity)]
        enough, shares = len(known) >= REGIMES * FEWEST_ALIKE, np.arange(1, REGIMES) / REGIMES
        edges = np.quantile(known, shares) if enough else np.empty(0)
        regime = _classes(aridity, edges)
        # Where aridity is not known, the last class, all sites count; what else is missing there
        # shows in the distance.
        usual = np.full(len(edges) + 2, np.median(excess[regime >= 0] if known.size else excess))
        for i in set(regime) - {-1}:
            usual[i] = np.median(excess[regime == i])
        left = excess - usual[regime]
        # Sites of one distance are in one step.
        steps = max(len(left) // FEWEST_ALIKE, 1)
        bounds = np.unique(np.quantile(distance, np.arange(1, steps) / steps))
        step = np.unique(np.searchsorted(bounds, distance, side="right"), return_inverse=True)[1]
        each = [step == i for i in range(step.max() + 1)]
        places = np.array([np.median(distance[inside]) for inside in each])
        rises = [np.median(left[inside]) for inside in each]
        rise = isotonic_regression(rises, weights=np.bincount(step)).x
        levels = (1 - INTERVAL) / 2, (1 + INTERVAL) / 2
        # Weibull's positions hold for one more site than there are.
        rest = left - np.interp(distance, places, rise)
        near = np.median(distance)
        spread = np.array(
            [
                np.quantile(
                    rest[half] if half.sum() >= 2 * FEWEST_ALIKE else rest, levels, method="weibull"
                )
                for half in (distance < near, distance >= near)
            ]
        )
        return _Fit(edges, usual, places, rise, near, spread, distance, regime)

    def expected(self, distance: Array, aridity: Array) -> Array:
        """Return what to expect of sites, if some were held out.

        What a score lacks to 1 is the median of a class of aridity times a factor that never falls
        with the distance: isotonic regression of logarithms, of medians of ten sites or more. What
        is left varies from site to site, in the nearer half of the held-out sites or the farther.

        Parameters
        ----------
        distance, aridity : ndarray, shape (...)
            NaN where not known.

        Returns
        -------
        ndarray, shape (..., 4)
            Score, its lower and upper bound, and how many held-out sites are of the same class of
            aridity and from half to twice as far away; among near ones it does not matter how near.
        """
        fit = self._fit
        regime = _classes(aridity, fit.edges)
        excess = fit.usual[regime] + np.interp(distance, fit.places, fit.rise)
        far, its = np.maximum(distance, fit.near)[..., None], np.maximum(fit.distance, fit.near)
        # Of unknown aridity are sites of all classes.
        alike = (regime[..., None] == fit.regime) | np.isnan(aridity)[..., None]
        alike &= (its >= far / 2) & (its <= far * 2)
        below, above = np.moveaxis(fit.spread[(distance >= fit.near).astype(int)], -1, 0)
        found = [1 - np.exp(excess + off) for off in (0.0, above, below)]
        answer = np.stack([*found, alike.sum(axis=-1)], axis=-1)
        return np.where(np.isnan(distance)[..., None], np.nan, answer)


def signature(network: StefaLand, static: Tensor) -> Tensor:
    """Return what a model makes of attributes alone, shape (B, d).

    That is the site as the encoder sees it without any weather; without an encoder the attributes
    themselves, as the mean where they are missing, and which are.

    Parameters
    ----------
    static : Tensor, shape (B, S)
        Standardised; NaN where missing.
    """
    import torch

    if network.encoder is None:
        return torch.cat([static.nan_to_num(0.0), static.isnan().to(static.dtype)], dim=1)
    forcing = static.new_full((len(static), 1, network.forcings), torch.nan)
    return network.encode(forcing, static).site
