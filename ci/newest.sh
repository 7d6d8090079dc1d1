#!/usr/bin/env bash
# Runs the tests with the newest of everything, in .venv-newest: what the next releases will break.
# Many need Python 3.12; where there is none, this says so. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="$(xstefa_find_python 12)" || exit 0
[ -d .venv-newest ] || "$python" -m venv .venv-newest
.venv-newest/bin/python -m pip install -q --disable-pip-version-check --no-input --upgrade \
    --upgrade-strategy eager -e ".[complete,test]" </dev/null
export PATH="$PWD/.venv-newest/bin:$PATH" MPLBACKEND=Agg OMP_NUM_THREADS=1
python -V
exec pytest -n auto "$@" </dev/null
