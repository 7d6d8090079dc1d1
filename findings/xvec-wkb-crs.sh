#!/usr/bin/env bash
# xvec 0.5.2: the CRS of a GeometryIndex in well-known binary.
#
# Guess: encode_wkb stores the CRS of a coordinate's GeometryIndex ("CRS information is stored in the attributes of
# the encoded geometries"), as encode_cf does, and decode_wkb gives it back.
# Found: it asks the coordinate's attribute "crs", which only xvec's own methods (set_geom_indexes, set_crs,
# to_crs) leave there. Catchments whose index was made by xarray's set_xindex(..., GeometryIndex, crs=)
# come back without a CRS, and so do those whose attributes xr.concat or xr.merge dropped (combine_attrs="drop").
# If attribute and index differ, the attribute's is stored: metres of EPSG:3035 as degrees of EPSG:4326.
# Nothing warns. encode_cf takes the index's in each case.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xvec==0.5.2 xproj==0.2.1 cf-xarray==0.11.3 pyproj==3.7.2 shapely==2.2.0 \
    xarray==2026.9.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import warnings

import shapely
import xarray as xr
import xvec

warnings.simplefilter("error")  # nothing warns
boxes = [shapely.box(4e6, 3e6, 4.1e6, 3.1e6), shapely.box(4.1e6, 3e6, 4.2e6, 3.1e6)]
plain = xr.Dataset({"area": ("basin", [1e4, 1e4])}, coords={"basin": boxes})


def indexed(dataset):
    return dataset.drop_indexes("basin").set_xindex("basin", xvec.GeometryIndex, crs=3035)


own = plain.xvec.set_geom_indexes("basin", crs=3035)
parts = [own.isel(basin=[0]), own.isel(basin=[1])]
catchments = {
    "set_geom_indexes": (own, 3035),
    "set_xindex": (indexed(plain), None),
    "concat": (xr.concat(parts, "basin", combine_attrs="drop"), None),
    "another attribute": (indexed(plain.xvec.set_geom_indexes("basin", crs=4326)), 4326),
}


def epsg(dataset):
    crs = dataset.xindexes["basin"].crs
    return crs and crs.to_epsg()


for name, (dataset, expected) in catchments.items():
    wkb = epsg(dataset.xvec.encode_wkb().xvec.decode_wkb())
    cf = epsg(dataset.xvec.encode_cf().xvec.decode_cf())
    print(f"{name}: index {epsg(dataset)}, from WKB {wkb}, from CF {cf}")
    assert (epsg(dataset), wkb, cf) == (3035, expected, 3035)
PY
