#!/usr/bin/env bash
# torch 2.13.0: bfloat16 training inside a disabled autocast goes on from the weights of step one.
#
# Guess: leaving torch.autocast(..., torch.bfloat16) forgets the rounded copies of the weights.
# Found: only leaving the outermost of nested contexts does, even if that one is disabled
# (enabled=False, as one writes to shield a training loop from the caller's settings). Inside it each
# step's forward pass reads the copies rounded in the first step, the optimizer changes the weights,
# nothing raises, and the loss falls more slowly. cache_enabled=False on the inner context helps.
# Any CPU shows it.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
from contextlib import nullcontext

import torch


def answers(outer, **inner):
    layer = torch.nn.Linear(1, 1, bias=False)
    found = []
    with outer:
        for weight in (1.0, 2.0, 3.0):
            with torch.no_grad():
                layer.weight.fill_(weight)  # what an optimizer does
            with torch.autocast("cpu", torch.bfloat16, **inner):
                found.append(layer(torch.ones(1, 1)).item())
    return found


shield = lambda: torch.autocast("cpu", enabled=False)  # noqa: E731
found = answers(nullcontext()), answers(shield()), answers(shield(), cache_enabled=False)
print(torch.__version__, "alone", found[0], "nested", found[1], "without cache", found[2])
assert found == ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
PY
