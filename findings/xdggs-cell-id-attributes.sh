#!/usr/bin/env bash
# xdggs 0.6.0: cell ids with a name of their own.
#
# Guess: a coordinate of cell ids that has CF's long_name beside xdggs' own attributes is decoded: the
# documentation asks for "at least the attributes grid_name and level".
# Found: every attribute is an argument of the grid, so that long_name, units or a comment raise a TypeError
# that names HealpixInfo.__init__ (or H3Info's), not the coordinate. xdggs writes such files itself: decode, name
# the coordinate, encode("xdggs"), and decode no longer reads it. encode("cf") is read again, without
# the name. grid_info=, given by hand, reads the file as well, and drops the name too.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xdggs==0.6.0 xarray==2026.9.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import xarray as xr
import xdggs

GRIDS = {
    "healpix": ({"grid_name": "healpix", "level": 3, "indexing_scheme": "nested"}, [1, 2, 3]),
    "h3": ({"grid_name": "h3", "level": 3}, [0x83194DFFFFFFFFF]),
}


def cells(grid, **more):
    attrs, ids = GRIDS[grid]
    return xr.Dataset(coords={"cell_ids": ("cells", np.array(ids, "u8"), attrs | more)})


def decoded(dataset, **options):
    try:
        return dict(xdggs.decode(dataset, **options)["cell_ids"].attrs)
    except TypeError as error:
        return str(error)


for grid in GRIDS:
    assert decoded(cells(grid)) == {}
    for more in ({"long_name": "cell"}, {"units": "1"}, {"comment": "land only"}):
        found = decoded(cells(grid, **more))
        print(grid, more, "->", found)
        assert "unexpected keyword argument" in found
named = xdggs.decode(cells("healpix"))
named["cell_ids"].attrs["long_name"] = "cell"
written = {name: named.dggs.encode(name) for name in ("xdggs", "cf")}
assert all(dataset["cell_ids"].attrs["long_name"] == "cell" for dataset in written.values())
back = {name: decoded(dataset, convention=name) for name, dataset in written.items()}
print("its own files:", back)
assert "unexpected keyword argument" in back["xdggs"] and back["cf"] == {}
assert decoded(written["xdggs"], grid_info=GRIDS["healpix"][0]) == {}
PY
