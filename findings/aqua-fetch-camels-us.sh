#!/usr/bin/env bash
# aqua-fetch 1.2.1: vapour pressure and missing discharge of CAMELS-US.
#
# Guess: a column is in the unit that its name states ("vp_hpa", "q_cms_obs", the same for all data sets), and the days
# that CAMELS marks as missing (-999.00 cubic feet a second, flag M) are nan.
# Found: the discharge is converted, the vapour pressure is only renamed: 171.69 Pa is 171.69 hPa, a vapour pressure
# of water at 57 deg C. A missing day is converted as if it were water: -28.29 m3/s, without a flag, so
# that the mean of two days of 18.5 m3/s and one that is missing is 2.9 m3/s.
# The files below have the layout and the columns of CAMELS' own; the days are made up.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet aqua-fetch==1.2.1 pandas==2.3.3 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - "$folder" <<'PY'
import pathlib
import sys
import warnings

warnings.simplefilter("ignore")
import numpy as np
from aqua_fetch import CAMELS_US

GAUGE = "01013500"
FORCING = """\
   47.24
    250
 2252696110
Year Mnth Day Hr\tdayl(s)\tprcp(mm/day)\tsrad(W/m2)\tswe(mm)\ttmax(C)\ttmin(C)\tvp(Pa)
1980 01 01 12\t30172.51\t0.00\t153.40\t0.00\t-6.54\t-16.30\t171.69
1980 01 02 12\t30253.10\t0.00\t145.27\t0.00\t-6.18\t-15.22\t185.94
1980 01 03 12\t30344.85\t0.00\t146.96\t0.00\t-9.89\t-18.86\t138.39
"""
FLOW = """\
01013500 1980 01 01   655.00 A
01013500 1980 01 02  -999.00 M
01013500 1980 01 03   655.00 A
"""
folder = pathlib.Path(sys.argv[1], "CAMELS_US")
data = folder / "basin_timeseries_v1p2_metForcing_obsFlow/basin_dataset_public_v1p2"
folder.mkdir()
for name in CAMELS_US.url:  # all are there: nothing is downloaded
    if name.endswith(".zip"):
        (folder / name.removesuffix(".zip")).mkdir(parents=True)
    elif name != "readme.txt" and name.endswith(".txt"):
        (folder / name).write_text(f"gauge_id;{name.removesuffix('.txt')}\n{GAUGE};1\n")
    else:
        (folder / name).touch()
forcing = data / f"basin_mean_forcing/daymet/01/{GAUGE}_lump_cida_forcing_leap.txt"
flow = data / f"usgs_streamflow/01/{GAUGE}_streamflow_qc.txt"
for path, text in ((forcing, FORCING), (flow, FLOW)):
    path.parent.mkdir(parents=True)
    path.write_text(text)
dataset = CAMELS_US(path=str(folder.parent), verbosity=0, to_netcdf=False)
_, dynamic = dataset.fetch(stations=GAUGE, as_dataframe=True)
days = dynamic[GAUGE].loc["1980-01-01":"1980-01-03"]
print(days[["airtemp_C_max", "vp_hpa", "q_cms_obs"]])
warmest = 6.112 * np.exp(17.62 * days["airtemp_C_max"] / (243.12 + days["airtemp_C_max"]))  # hPa, saturated
print("at most, over water (hPa):", warmest.round(1).tolist(), "mean of discharge:", days["q_cms_obs"].mean().round(1))
assert days["vp_hpa"].tolist() == [171.69, 185.94, 138.39] and (days["vp_hpa"] > 40 * warmest).all()
assert np.allclose(days["q_cms_obs"], [18.5475, -28.2885, 18.5475], atol=1e-3)
PY
