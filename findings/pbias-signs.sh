#!/usr/bin/env bash
# hydroeval 0.1.0, spotpy 1.6.7, scores 2.7.0: the percent bias of one hydrograph.
#
# Guess: NSE, KGE and PBIAS of the same simulation are the same number in the field's three packages.
# Found: NSE and KGE are, PBIAS is not. hydroeval takes observed less simulated (Gupta et al. 1999: positive is
# too little water), spotpy and scores simulated less observed: a simulation of a fifth too much has
# -20 or +20.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hydroeval==0.1.0 spotpy==1.6.7 scores==2.7.0 xarray==2026.9.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import hydroeval
import numpy as np
import scores
import xarray as xr
from spotpy import objectivefunctions as spotpy

rng = np.random.default_rng(0)
observed = rng.gamma(0.5, 4, 1000)
simulated = 1.2 * observed


def found(name, simulated, observed):
    arrays = xr.DataArray(simulated, dims="time"), xr.DataArray(observed, dims="time")
    theirs = "nashsutcliffe" if name == "nse" else name
    return np.array(
        [
            np.ravel(hydroeval.evaluator(getattr(hydroeval, name), simulated, observed))[0],
            getattr(spotpy, theirs)(observed, simulated),
            float(getattr(scores.continuous, name)(*arrays)),
        ]
    )


print("hydroeval, spotpy, scores")
for name in ("nse", "kge", "pbias"):
    print(name, found(name, simulated, observed).round(4))
assert all(np.ptp(found(name, simulated, observed)) < 1e-9 for name in ("nse", "kge"))
assert found("pbias", simulated, observed).round(6).tolist() == [-20, 20, 20]
PY
