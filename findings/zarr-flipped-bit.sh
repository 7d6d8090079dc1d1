#!/usr/bin/env bash
# zarr 3.1.6: what a flipped bit in a chunk does, by codec.
#
# Guess: zstd frames are checksummed, so a flipped bit in a compressed chunk raises when it is read.
# Found: Zarr's default codec is zstd with checksum=False. Of 200 chunks with one bit flipped 139 are
# read as other numbers without an error; with blosc (zstd inside) 189. With ZstdCodec(checksum=True),
# or crc32c after the compressor, all 200 raise.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numcodecs==0.16.6 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - "$folder" <<'PY'
import pathlib
import random
import sys

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

folder = pathlib.Path(sys.argv[1])
values = np.random.default_rng(0).gamma(0.5, 4, (64, 64)).astype("f4").round(2)


def trials(**codecs):
    silent = noticed = 0
    for seed in range(200):
        path = folder / "store.zarr"
        array = zarr.create_array(
            str(path), shape=values.shape, chunks=values.shape, dtype="f4", overwrite=True, **codecs
        )
        array[:] = values
        (chunk,) = (file for file in path.glob("c/*/*") if file.is_file())
        data = bytearray(chunk.read_bytes())
        chosen = random.Random(seed)
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        chunk.write_bytes(bytes(data))
        try:
            found = zarr.open_array(str(path), mode="r")[:]
        except Exception:
            noticed += 1
        else:
            silent += not np.array_equal(found, values)
    return silent, noticed


default = zarr.create_array(str(folder / "default.zarr"), shape=(4,), dtype="f4").compressors
found = {
    "default": trials(),
    "blosc": trials(compressors=BloscCodec(cname="zstd")),
    "zstd with checksum": trials(compressors=ZstdCodec(checksum=True)),
    "zstd, then crc32c": trials(compressors=[ZstdCodec(), Crc32cCodec()]),
}
print("zarr", zarr.__version__, default)
for name, (silent, noticed) in found.items():
    print(f"{name:20} other numbers: {silent:3}  error: {noticed:3}")
assert "checksum=False" in repr(default)
assert found["default"][0] > 100 and found["blosc"][0] > 100
assert found["zstd with checksum"] == found["zstd, then crc32c"] == (0, 200)
PY
