from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

FORCINGS = {
    "precipitation": ("precipitation_flux", "mm d-1", 0.0, 20.0),
    "temperature_mean": ("air_temperature", "degC", -10.0, 25.0),
    "shortwave_down": ("surface_downwelling_shortwave_flux_in_air", "W m-2", 20.0, 300.0),
}


@pytest.fixture(scope="session")
def make_dataset():
    """Make a map ``(time, lat, lon)`` of random weather, with some static attributes."""

    def make(*, days: int = 200, lat: int = 3, lon: int = 4, start: str = "2000-01-05", seed=0):
        random = np.random.default_rng(seed)
        dims, shape = ("time", "lat", "lon"), (days, lat, lon)
        ds = xr.Dataset(
            coords={
                "time": pd.date_range(start, periods=days),
                "lat": ("lat", np.linspace(60.0, 40.0, lat), {"units": "degrees_north"}),
                "lon": ("lon", np.linspace(5.0, 15.0, lon), {"units": "degrees_east"}),
            }
        )
        for name, (standard_name, units, low, high) in FORCINGS.items():
            attrs = {"standard_name": standard_name, "units": units, "cell_methods": "time: mean"}
            ds[name] = (dims, random.uniform(low, high, shape).astype(np.float32), attrs)
        for name, units, high in (("sand", "%", 90.0), ("catchment_area", "km2", 900.0)):
            values = random.uniform(1.0, high, shape[1:]).astype(np.float32)
            ds[name] = (dims[1:], values, {"units": units})
        return ds

    return make


@pytest.fixture(scope="session")
def dataset(make_dataset):
    """A map of 200 days and 12 cells; do not change it."""
    return make_dataset()
