"""Sites whose texture follows from their attributes, for tests of static targets."""

from __future__ import annotations

import numpy as np
import xarray as xr

NAMES = ("sand", "silt", "clay")


def make_sites(count: int = 60, seed: int = 0) -> xr.Dataset:
    """Make sites without any day: attributes, texture in percent, pH and a class."""
    rng = np.random.default_rng(seed)
    high, wet, slope = rng.uniform(0, 1, (3, count)).astype(np.float32)
    weights = np.exp(np.stack([2 * high - 1, 0 * high, 2 * wet - 1]))
    parts = dict(zip(NAMES, 100 * weights / weights.sum(0), strict=True))
    known = {
        "elevation": (100 + 2000 * high, "m"),
        "p_mean": (1 + 5 * wet, "mm d-1"),
        "slope": (0.2 * slope, "m m-1"),
        "soil_porosity": (0.5 - 0.002 * parts["sand"], "1"),
        **{name: (values, "%") for name, values in parts.items()},
        "ph_h2o": (8 - 3 * wet, "1"),
    }
    ds = xr.Dataset(
        {n: ("site", v.astype("f4"), {"units": units}) for n, (v, units) in known.items()},
        coords={
            "site": [f"s{i:03}" for i in range(count)],
            "lat": ("site", rng.uniform(-60, 60, count), {"standard_name": "latitude"}),
            "lon": ("site", rng.uniform(-180, 180, count), {"standard_name": "longitude"}),
        },
    )
    return ds.assign(slid=("site", (slope > 0.5).astype("f4")))
