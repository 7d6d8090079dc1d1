from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.schema import load_schema
from xstefa.windows import WindowPolicy

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def schema():
    return load_schema()


@pytest.fixture(scope="session")
def tiny_model(make_model):
    """Answers from the first day on, so that a few days are enough here."""
    return make_model(windows=WindowPolicy(length=40, spin_up=0, blend=6))


@pytest.fixture
def shared():
    """Open a file of the shared data, or skip."""
    opened = []

    def open_(name, **kwargs):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs {name} of the shared data")
        opened.append(xr.open_dataset(path, **kwargs))
        return opened[-1]

    yield open_
    # Left to the garbage collector, a file may be closed by a thread while another is opened.
    for ds in opened:
        ds.close()


@pytest.fixture
def series():
    """Make a (site, time) variable with some attributes."""
    rng = np.random.default_rng(0)

    def make(*, low=0.0, high=10.0, sites=3, days=10, dims=("site", "time"), **attrs):
        data = rng.uniform(low, high, (sites, days)).astype(np.float32)
        return xr.Variable(dims, data, {k: v for k, v in attrs.items() if v is not None})

    return make


@pytest.fixture
def basins(series):
    """Three sites, ten days, CF metadata throughout."""
    return xr.Dataset(
        {
            "pr": series(
                standard_name="lwe_precipitation_rate", units="mm d-1", cell_methods="time: mean"
            ),
            "hot": series(
                low=10,
                high=20,
                standard_name="air_temperature",
                units="degC",
                cell_methods="time: maximum",
            ),
            "cold": series(
                standard_name="air_temperature", units="degC", cell_methods="time: minimum"
            ),
            "elevation": ("site", np.array([10.0, 200.0, 3000.0], dtype=np.float32),
                          {"units": "m"}),
        },
        coords={
            "time": pd.date_range("2001-02-25", periods=10),
            "lat": ("site", [10.0, 45.0, -30.0], {"units": "degrees_north"}),
            "lon": ("site", [0.0, 10.0, 20.0], {"units": "degrees_east"}),
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def follow():
    """Run the line that an error prints as its fix, and give the dataset that it leaves."""

    def run(error, ds):
        names = {"ds": ds.copy(), "np": np, "pd": pd, "xr": xr}
        exec(error.fix, names)
        return names["ds"]

    return run
