#!/usr/bin/env bash
# pyet 1.5.0: potential evapotranspiration from a latitude in degrees.
#
# Guess: pyet's latitudes are radians, and its check of them (utils.check_lat, "Latitude must be provided in
# radians!") raises for degrees in each method that takes a latitude.
# Found: only blaney_criddle calls it. Oudin, Hargreaves, McGuinness-Bordne and Hamon take 45 for an angle of 45
# radians and answer plausibly: 1.69 mm/d at 15 deg C instead of 2.13 (Oudin, mean of a year).
# The check itself asks for the mean of a map's latitudes: one from 60 S to 60 N in degrees passes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyet==1.5.0 xarray==2026.9.0 pandas==2.3.3 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import warnings

import numpy as np
import pandas as pd
import pyet
import xarray as xr
from pyet.utils import check_lat

warnings.simplefilter("ignore")
warm = pd.Series(15.0, pd.date_range("2000-01-01", "2000-12-31"))
methods = {
    "Oudin": lambda lat: pyet.oudin(warm, lat=lat),
    "Hargreaves": lambda lat: pyet.hargreaves(warm, warm + 5, warm - 5, lat),
    "McGuinness-Bordne": lambda lat: pyet.mcguinness_bordne(warm, lat=lat),
    "Hamon": lambda lat: pyet.hamon(warm, lat=lat),
}
for name, method in methods.items():
    degrees, radians = (float(method(lat).mean()) for lat in (45.0, float(np.deg2rad(45))))
    print(f"{name}: {degrees:.2f} mm/d from degrees, {radians:.2f} from radians")
    assert 0 < degrees < 4 and abs(degrees / radians - 1) > 0.05
try:
    check_lat(45.0)
except Exception as error:
    print("the check alone:", error)
else:
    raise AssertionError("check_lat accepts 45 now")
check_lat(xr.DataArray(np.linspace(-60, 60, 7)))  # passes
PY
