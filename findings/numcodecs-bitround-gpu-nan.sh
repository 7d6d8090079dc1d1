#!/usr/bin/env bash
# numcodecs 0.16.6: BitRound turns a GPU's missing values into zeros.
#
# Guess: rounding the mantissa to fewer bits leaves NaN a NaN, whatever its bits are.
# Found: it adds half of the last bit kept to the integer behind the number. For the NaN that a CPU makes
# (0x7fc00000) that stays a NaN. The NaN that NVIDIA's GPUs make (0x7fffffff, as the CUDA programming guide says of single
# precision) overflows into the sign: -0.0, whatever keepbits is below 23. Predictions of a network over a coast
# or a lake that were computed on a GPU and stored with BitRound have no missing cells any more, but
# zeros. netCDF-C's quantization (BitRound, BitGroom, Granular BitRound) keeps these NaN, and so does
# numcodecs' Quantize. x.where(x.notnull()) before storing replaces them by the CPU's.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numcodecs==0.16.6 netCDF4==1.7.5.1.post1 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import netCDF4
import numpy as np
from numcodecs import BitRound, Quantize

cpu, gpu = np.array([0x7FC00000, 0x7FFFFFFF], "u4").view("f4")
values = np.array([1.5, cpu, gpu, 2.5], "f4")
assert np.isnan(values[1:3]).all()


def stored(codec):
    return np.frombuffer(codec.encode(values.copy()), "f4")


rounded = {bits: stored(BitRound(keepbits=bits)) for bits in (5, 10, 20)}
others = {"Quantize": stored(Quantize(digits=3, dtype="f4"))}
for mode, digits in (("BitRound", 10), ("BitGroom", 3), ("GranularBitRound", 3)):
    with netCDF4.Dataset(f"{sys.argv[1]}/{mode}.nc", "w") as file:
        file.createDimension("x", 4)
        options = {"significant_digits": digits, "quantize_mode": mode, "zlib": True}
        file.createVariable("a", "f4", ("x",), **options)[:] = values
    with netCDF4.Dataset(f"{sys.argv[1]}/{mode}.nc") as file:
        file.set_auto_mask(False)
        others[f"netCDF {mode}"] = file["a"][:]
print("numcodecs BitRound:", rounded)
print("others:", others)
for found in rounded.values():
    assert np.isnan(found[1]) and found[2] == 0 and np.signbit(found[2])
assert all(np.isnan(found).tolist() == [False, True, True, False] for found in others.values())
PY
