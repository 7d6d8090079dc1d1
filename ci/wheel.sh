#!/usr/bin/env bash
# Builds the wheel, installs it alone in an empty environment, and predicts there: what users get.
# PYTHON names the interpreter: PYTHON=python3.13 bash ci/wheel.sh. Prints how long the installation
# took and how large it is.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-$(xstefa_find_python)}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install -q --disable-pip-version-check build
rm -rf dist
"$work/build/bin/python" -m build --wheel --outdir dist . >/dev/null
"$python" -m venv "$work/empty"
constraints=()
[ "$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')" != 3.11 ] ||
    constraints=(-c ci/constraints.txt)
before=$SECONDS
"$work/empty/bin/python" -m pip install -q --disable-pip-version-check --no-input \
    "${constraints[@]}" dist/*.whl
echo "$(ls -sh dist/*.whl): installed in $((SECONDS - before)) s, $(du -shL "$work/empty" | cut -f1) in all"
cp ci/smoke.py "$work/smoke.py"
cd "$work" # so that the clone is not what is imported
MPLBACKEND=Agg "$work/empty/bin/python" smoke.py
