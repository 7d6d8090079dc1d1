#!/usr/bin/env bash
# Predicts soil moisture and streamflow for the bundled samples; results in demo_output/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

xstefa_venv "plot,raster"
exec xstefa demo "$@" </dev/null
