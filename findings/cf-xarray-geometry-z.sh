#!/usr/bin/env bash
# cf-xarray 0.11.3, xvec 0.5.2: geometries with heights in CF's encoding.
#
# Guess: heights of gauges or of shapes (PolygonZ of a shapefile) are kept, CF having nodes with an axis Z, or
# encode_geometries refuses them.
# Found: they are left out without a word, of points, lines and polygons: POINT Z (1 2 300) comes back as
# POINT (1 2). shapely's equals() does not see it, being true of both; identical() does. xvec's encode_cf, whose
# documentation states that decoding is identical, does the same; its encode_wkb keeps the heights.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cf-xarray==0.11.3 xvec==0.5.2 xproj==0.2.1 pyproj==3.7.2 shapely==2.2.0 \
    xarray==2026.9.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import warnings

import cf_xarray as cfxr
import shapely
import xarray as xr
import xvec  # noqa: F401

warnings.simplefilter("error")  # nothing warns
for text in (
    "POINT Z (1 2 300)",
    "LINESTRING Z (0 0 300, 1 1 200)",
    "POLYGON Z ((0 0 300, 1 0 200, 1 1 100, 0 0 300))",
):
    shape = shapely.from_wkt(text)
    dataset = xr.Dataset({"q": ("basin", [1.0])}, coords={"basin": [shape]})
    dataset = dataset.xvec.set_geom_indexes("basin", crs=4326)
    back = {
        "cf-xarray": cfxr.geometry.decode_geometries(cfxr.geometry.encode_geometries(dataset)),
        "xvec, CF": dataset.xvec.encode_cf().xvec.decode_cf(),
        "xvec, WKB": dataset.xvec.encode_wkb().xvec.decode_wkb(),
    }
    for name, found in back.items():
        kept, same = found["basin"].values[0], found.identical(dataset)
        print(f"{name}: {text} -> {kept.wkt}; equals {kept.equals(shape)}, identical {same}")
        assert kept.equals(shape) and kept.has_z == same == (name == "xvec, WKB")
PY
