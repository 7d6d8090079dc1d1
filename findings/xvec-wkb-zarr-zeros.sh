#!/usr/bin/env bash
# xvec 0.5.2, xarray 2026.9.0, zarr 3.1.6: geometries on the equator in a Zarr store.
#
# Guess: what xvec's encode_wkb makes (its documentation stores it with to_zarr) comes back from Zarr byte by byte.
# Found: xarray stores bytes objects as NumPy's fixed-length "S", whose trailing zero bytes are gone when they are
# read. Well-known binary ends with the y of the last vertex, and 0.0 is eight zero bytes: a gauge on
# the equator, or a cell whose ring starts there, is short, and decode_wkb raises a GEOSException ("Input buffer
# is smaller than requested object size") for the whole coordinate. Writing warns of nothing. It depends on where
# the ring starts: a box below the equator, whose ring starts at its lower edge, survives. The zeros are still in
# the store: padding each element to the item size makes them readable. encode_cf keeps all of them.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xvec==0.5.2 xproj==0.2.1 cf-xarray==0.11.3 shapely==2.2.0 zarr==3.1.6 \
    pyproj==3.7.2 xarray==2026.9.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
import warnings

import numpy as np
import shapely
import xarray as xr
import xvec  # noqa: F401

warnings.simplefilter("ignore")  # zarr warns of fixed-length bytes in format 3
CASES = {
    "gauge on the equator": (shapely.Point(30, 0), False),
    "gauge beside it": (shapely.Point(0, 30), True),
    "box above the equator": (shapely.box(30, 0, 31, 1), False),
    "box below the equator": (shapely.box(30, -1, 31, 0), True),
}
for number, (name, (geometry, survives)) in enumerate(CASES.items()):
    dataset = xr.Dataset({"q": ("basin", [1.0])}, coords={"basin": [geometry]})
    dataset = dataset.xvec.set_geom_indexes("basin", crs=4326)
    for version in (2, 3):
        store = f"{sys.argv[1]}/{number}-{version}.zarr"
        dataset.xvec.encode_wkb().to_zarr(store, zarr_format=version)
        stored = xr.open_zarr(store)["basin"].load()
        lengths = len(shapely.to_wkb(geometry)), len(stored.values[0])
        try:
            back = xr.open_zarr(store).xvec.decode_wkb()["basin"].item()
            found = back.equals(geometry)
        except shapely.GEOSException as error:
            found = str(error)
        print(f"{name}, Zarr {version}: {lengths[0]} bytes written, {lengths[1]} read; same: {found}")
        assert found is True if survives else "smaller than requested" in found
        assert lengths[0] - lengths[1] == (0 if survives else 8)
        padded = stored.values[0].ljust(stored.dtype.itemsize, b"\0")
        assert shapely.from_wkb(padded).equals(geometry)
        cf = f"{sys.argv[1]}/{number}-{version}-cf.zarr"
        dataset.xvec.encode_cf().to_zarr(cf, zarr_format=version)
        assert np.all(xr.open_zarr(cf).xvec.decode_cf()["basin"].values == geometry)
PY
