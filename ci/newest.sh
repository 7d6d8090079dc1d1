#!/usr/bin/env bash
# Runs the tests on the newest Python that is here (3.12 or later) with the newest of everything, in
# .venv-newest: what the next releases will break. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=""
for candidate in "${XSTEFA_PYTHON:-}" python3.14 python3.13 python3.12 \
    "${HOME:-}"/.pyenv/versions/3.1[4-2]*/bin/python; do
    [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
        2>/dev/null && python="$candidate" && break
done
[ -n "$python" ] || { echo "xstefa: no Python 3.12 or newer here; name one with XSTEFA_PYTHON"; exit 0; }
echo "xstefa: $("$python" --version)"
[ -d .venv-newest ] || "$python" -m venv .venv-newest
.venv-newest/bin/python -m pip install -q --disable-pip-version-check --no-input --upgrade \
    -e ".[test,train,vector]" </dev/null
export PATH="$PWD/.venv-newest/bin:$PATH" MPLBACKEND=Agg OMP_NUM_THREADS=1
exec pytest -n auto "$@" </dev/null
