#!/usr/bin/env bash
# Installs the lowest versions that pyproject.toml allows, in .venv-lowest, and runs ci/smoke.py there.
# Not torch: its lowest wheels on the package index are CUDA builds of gigabytes, so it is the one of
# ci/constraints.txt unless TORCH names another: TORCH=2.6.0 bash ci/lowest.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="$(xstefa_find_python)"
rm -rf .venv-lowest
"$python" -m venv .venv-lowest
"$python" - "${TORCH:-}" >.venv-lowest/constraints.txt <<'PYTHON'
import re, sys, tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
torch = sys.argv[1] or re.search(r"^torch==(.*)$", open("ci/constraints.txt").read(), re.M)[1]
extras = ("cluster", "plot", "raster", "vector")
added = (line for extra in extras for line in project["optional-dependencies"][extra])
for line in [*project["dependencies"], *added]:
    name, lowest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()
    print(f"{name}=={torch if name == 'torch' else lowest}")
PYTHON
.venv-lowest/bin/python -m pip install -q --disable-pip-version-check --no-input \
    --prefer-binary --only-binary rasterio,h5py,netcdf4,pyproj,pandas,numpy,matplotlib \
    -c .venv-lowest/constraints.txt -e ".[cluster,plot,raster,vector]" </dev/null
MPLBACKEND=Agg .venv-lowest/bin/python ci/smoke.py
