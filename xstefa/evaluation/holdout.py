"""Which sites a model may never see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

RELEASE_SALT = "xstefa-release-1"


def held_out(
    site_ids: Iterable[str], *, fraction: float = 0.1, salt: str = RELEASE_SALT
) -> NDArray[np.bool_]:
    """Mark the sites held out of pretraining and training, by a hash of their identifier.

    A hash, unlike a shuffled index, puts a gauge that appears in two data sets (CAMELS-US and
    MOPEX share some) on the same side of the split, and keeps every site on its side when others
    are added.

    Parameters
    ----------
    site_ids : iterable of str
        Identifiers as published by the data owner (USGS gauge number, FLUXNET site code, ...).
    fraction : float
        Share of sites to hold out, in expectation.
    salt : str
        Names the split; another salt gives an independent split.

    Returns
    -------
    ndarray of bool, shape (site,)
    """
    digests = (hashlib.sha256(f"{salt}:{site}".encode()).digest() for site in site_ids)
    return np.array([int.from_bytes(d[:8], "big") / 2**64 < fraction for d in digests], dtype=bool)
