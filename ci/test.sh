#!/usr/bin/env bash
# Style, types, documentation, then the tests. Arguments go to pytest: bash ci/test.sh -k units
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

xstefa_venv "complete,docs,test"

# One thread a process: pytest-xdist already fills the cores.
export OMP_NUM_THREADS=1
if [ -z "${PYTEST_XDIST_AUTO_NUM_WORKERS:-}" ]; then
    cores="$(python -c 'import os; print(len(os.sched_getaffinity(0)))')"
    export PYTEST_XDIST_AUTO_NUM_WORKERS="$((cores < 4 ? cores : 4))"
fi

echo "== ruff"
ruff check .
ruff format --check .
echo "== mypy"
mypy
echo "== documentation"
# -E: pages run code, so an unchanged page can still have a changed result.
sphinx-build -E -W --keep-going -q -b html docs docs/_build/html
echo "== pytest"
pytest -n auto "$@" </dev/null
[ $# -eq 0 ] || exit 0
# What a CPU can do decides which kernels run; ordinary ones have AVX2.
if [ "$(python -c 'import torch; print(torch.backends.cpu.get_cpu_capability())')" = AVX512 ]; then
    echo "== pytest, as on a CPU without AVX-512"
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 pytest -q -n auto tests/model </dev/null
else
    echo "== this CPU has no AVX-512: the model was tested as most CPUs run it, and only so"
fi
