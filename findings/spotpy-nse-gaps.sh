#!/usr/bin/env bash
# spotpy 1.6.7: the NSE of a simulation with gaps.
#
# Guess: days that the simulation lacks (spin-up, say) are left out of NSE, or make it nan, as with days that the
# observation lacks.
# Found: they leave the error, but not the variance that it is divided by, so that each missing day counts as a
# perfect one: a simulation of NSE 0.71 has 0.85 with every other day missing, and 0.97 with nine of ten.
# Nothing warns. Gaps in the observation are left out of both, as they should be. hydroeval 0.1.0
# answers nan, scores 2.7.0 the NSE of the days that both have.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet spotpy==1.6.7 hydroeval==0.1.0 scores==2.7.0 xarray==2026.9.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import hydroeval
import numpy as np
import scores
import xarray as xr
from spotpy.objectivefunctions import nashsutcliffe

rng = np.random.default_rng(0)
observed = rng.gamma(0.5, 4, 10_000)
simulated = observed + rng.normal(0, 1.5, 10_000)


def every(n, values):
    """Return the values of each n-th day, the others missing."""
    return np.where(np.arange(10_000) % n == 0, values, np.nan)


for n in (1, 2, 10):
    gaps, both = every(n, simulated), (every(n, observed), simulated)
    days = gaps[::n], observed[::n]
    right = 1 - np.mean((days[0] - days[1]) ** 2) / np.var(days[1])
    found = nashsutcliffe(observed, gaps)
    arrays = xr.DataArray(gaps, dims="time"), xr.DataArray(observed, dims="time")
    others = hydroeval.evaluator(hydroeval.nse, gaps, observed)[0], float(scores.continuous.nse(*arrays))
    print(f"1 of {n} days: by hand {right:.3f}, spotpy {found:.3f}, hydroeval {others[0]:.3f}, "
          f"scores {others[1]:.3f}, spotpy with the gaps in the observation {nashsutcliffe(*both):.3f}")
    assert abs(nashsutcliffe(*both) - right) < 1e-9 and abs(others[1] - right) < 1e-9
    assert abs((1 - found) / (1 - right) * n - 1) < 0.15
    assert np.isnan(others[0]) == (n > 1)
PY
