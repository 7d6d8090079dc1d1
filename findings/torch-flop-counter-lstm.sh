#!/usr/bin/env bash
# torch 2.13.0: FlopCounterMode counts nothing for an LSTM on a CPU, and changes its precision.
#
# Guess: the counter of torch.utils counts the matrix products of an LSTM as it does those of a
# linear layer, and only watches.
# Found: an LSTM on a CPU counts as 0 operations (the linear layer beside it is counted in full), so
# an hourly or daily model looks as if its head were free. And under autocast in inference mode the
# LSTM answers in float32 while it is watched, in bfloat16 while it is not.
# Any CPU shows it.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.utils.flop_counter import FlopCounterMode

lstm, linear = torch.nn.LSTM(8, 16, batch_first=True), torch.nn.Linear(8, 16)
x = torch.randn(4, 10, 8)


def counted(layer):
    with FlopCounterMode(display=False) as counter:
        layer(x)
    return counter.get_total_flops()


def answer():
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        return lstm(x)[0].dtype


with FlopCounterMode(display=False):
    watched = answer()
found = counted(linear), counted(lstm), answer(), watched
print(torch.__version__, "linear, LSTM:", *found[:2], "not watched, watched:", *found[2:])
products = 2 * 4 * 10 * 16 * 8, 2 * 4 * 10 * 4 * 16 * (8 + 16)
assert found == (products[0], 0, torch.bfloat16, torch.float32), (found, products)
PY
