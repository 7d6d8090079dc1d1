#!/usr/bin/env bash
# kerchunk 0.2.10: the part of a netCDF file that has not been written.
#
# Guess: references to a file of an unfinished run read as the file does, where netCDF's default fill value stands
# for what is not there yet (9.97e36; netCDF4-python masks it).
# Found: without an attribute _FillValue the references have no fill value (null), and Zarr makes zeros of chunks that
# are not there: a river that has run dry, days without rain; a packed variable has its add_offset. In a chunk
# that is there in part the fill value stays: 9.97e36 on one day, 0 on the next. With _FillValue all is well.
# VirtualiZarr 2.5.1 takes the fill value that HDF5 knows, and reads as xarray does.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet kerchunk==0.2.10 virtualizarr==2.5.1 obstore==0.12.1 zarr==3.1.6 h5py==3.16.0 \
    netCDF4==1.7.5.1.post1 xarray==2026.9.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - "$folder" <<'PY'
import json
import sys
import warnings

import netCDF4
import numpy as np
import xarray as xr
from kerchunk.hdf import SingleHdf5ToZarr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtualizarr.parsers import HDFParser

warnings.simplefilter("ignore")
path, references = f"{sys.argv[1]}/run.nc", f"{sys.argv[1]}/run.json"
with netCDF4.Dataset(path, "w") as run:
    run.createDimension("day", 9)
    for name, dtype, fill, attrs in (
        ("discharge", "f4", None, {}),
        ("packed", "i2", None, {"scale_factor": 0.1, "add_offset": 10.0}),
        ("filled", "f4", -9999.0, {}),
    ):
        variable = run.createVariable(name, dtype, ("day",), chunksizes=(3,), fill_value=fill)
        variable.setncatts(attrs)
        variable[:5] = 20.0  # the run stopped within the second of three chunks
with open(references, "w") as file:
    translated = SingleHdf5ToZarr(path).translate()
    json.dump(translated, file)
assert json.loads(translated["refs"]["discharge/.zarray"])["fill_value"] is None
virtual = HDFParser()(f"file://{path}", ObjectStoreRegistry({"file://": LocalStore()}))
opened = {
    "netCDF": xr.open_dataset(path),
    "kerchunk": xr.open_dataset(references, engine="kerchunk"),
    "VirtualiZarr": xr.open_zarr(virtual, consolidated=False, zarr_format=3),
}
for name in ("discharge", "packed", "filled"):
    found = {reader: dataset[name].values for reader, dataset in opened.items()}
    for reader, values in found.items():
        print(f"{name}, {reader}:", [float(f"{value:.3g}") for value in values])
    assert np.array_equal(found["netCDF"], found["VirtualiZarr"], equal_nan=True)
    assert np.array_equal(found["netCDF"][:6], found["kerchunk"][:6], equal_nan=True)
assert opened["netCDF"]["discharge"].values[5:].min() > 9e36
assert opened["kerchunk"]["discharge"].values[6:].tolist() == [0, 0, 0]
assert opened["netCDF"]["packed"].values[5:].max() < -3000
assert opened["kerchunk"]["packed"].values[6:].tolist() == [10, 10, 10]
assert all(np.isnan(dataset["filled"].values[5:]).all() for dataset in opened.values())
PY
