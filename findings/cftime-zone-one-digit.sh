#!/usr/bin/env bash
# cftime 1.6.6.1, xarray 2026.9.0: a time zone's hour of one digit in the units of time.
#
# Guess: "seconds since 1992-10-8 15:15:42.5 -6:00", the example of the CF conventions, is 21:15:42.5 UTC to
# cftime, and to xarray in each calendar.
# Found: cftime's zones have two digits. One of one digit (-6:00, +5:30, -6) is left out without a word, -06:00 and
# -0600 are read. xarray reads zones itself where numpy's dates are enough, and asks cftime where they are not: the
# same units are six hours apart between the standard calendar and noleap, between use_cftime=False and
# True, and between years after and before 1582. UDUNITS agrees with xarray's own reading.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cftime==1.6.6.1 xarray==2026.9.0 cf-units==3.3.1 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import warnings

import cf_units
import cftime
import numpy as np
import xarray as xr

warnings.simplefilter("ignore", xr.SerializationWarning)  # years before 1582 need cftime
ZONES = {"-6:00": 6.0, "-06:00": 6.0, "-0600": 6.0, "-6": 6.0, "+5:30": -5.5}  # hours to UTC
START = cftime.datetime(1992, 10, 8, 15, 15, 42, 500000)


def shift(units, calendar="standard", use_cftime=None):
    """Hours that xarray moves the first time of such units by."""
    coder = xr.coders.CFDatetimeCoder(use_cftime=use_cftime)
    starts = []
    for text in (units, units.rsplit(" ", 1)[0]):
        times = xr.Dataset(coords={"time": ("time", [0.0], {"units": text, "calendar": calendar})})
        starts.append(xr.decode_cf(times, decode_times=coder)["time"].values[0])
    difference = starts[0] - starts[1]
    return difference / np.timedelta64(1, "h") if use_cftime is False else difference.total_seconds() / 3600


for zone, hours in ZONES.items():
    units = f"seconds since 1992-10-8 15:15:42.5 {zone}"
    found = {
        "xarray": shift(units, use_cftime=False),
        "xarray, cftime": shift(units, use_cftime=True),
        "xarray, noleap": shift(units, "noleap"),
        "xarray, year 1500": shift(units.replace("1992", "1500")),
        "cftime": (cftime.num2date(0, units) - START).total_seconds() / 3600,
        "UDUNITS": cf_units.Unit(units).convert(0.0, "hours since 1992-10-8 15:15:42.5"),
    }
    print(f"{zone}:", ", ".join(f"{name} {value:g} h" for name, value in found.items()))
    read = len(zone.strip("+-").split(":")[0]) > 1
    for name, value in found.items():
        assert np.isclose(value, hours if read or name in ("xarray", "UDUNITS") else 0), name
PY
