"""Cache of a frozen encoder's embeddings of the training windows, computed once.

Files are named by what they hold: encoder weights, inputs, windows and precision. The same training
run again, another head, another fold of a cross-validation find them. They lie in the folder
``embeddings`` of the cache (`xstefa.set_options`) and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from xstefa.model.arithmetic import autocast
from xstefa.model.network import StefaLand
from xstefa.options import get_options
from xstefa.progress import progress
from xstefa.training.devices import Runner
from xstefa.training.dropout import TokenDropout
from xstefa.training.records import check_room
from xstefa.training.sampling import Feed, Windows

FORMAT = 2
ENCODED_AT_ONCE = 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

_Mode: TypeAlias = Literal["w+", "c"]


def encode_windows(
    network: StefaLand,
    windows: Windows,
    dropout: TokenDropout,
    *,
    precision: str,
    device: torch.device,
    batch_size: int = ENCODED_AT_ONCE,
) -> Tensor:
    """Read every window once with a frozen encoder, or find that it was done before.

    Parameters
    ----------
    network : StefaLand
        With an encoder, on `device`. It is run without gradient and without dropout of units.
    windows : Windows
    dropout : TokenDropout
        On `device`.
    precision : {"fp32", "bf16"}
        Arithmetic of the encoder, and number format of the result.

    Returns
    -------
    Tensor, shape (window, T, d)
        The days' representation, by `Batch.number`; mapped from the file, not read.

    Raises
    ------
    TrainingError
        If there is not enough room for the file.
    """
    assert network.encoder is not None
    count = sum(map(len, windows.places))
    shape = (count, windows.length, network.encoder.width)
    dtype = DTYPES[precision]
    key = _key(network, windows, dropout, precision, batch_size)
    path = get_options().cache_path() / "embeddings" / f"{key}.bin"
    if not path.exists():
        size = int(np.prod(shape)) * dtype.itemsize
        check_room(
            path.parent,
            size,
            what=f"the embeddings of {count} windows",
            fix="choose a larger stride, xstefa.set_options(cache_dir=...), or cache=False",
        )
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            encoded = _mapped(unfinished, shape, dtype, mode="w+")
            every = replace(windows, drawn=[np.arange(len(place)) for place in windows.places])
            feed = Feed(every, Runner(device=device))
            total = sum(-(-len(place) // batch_size) for place in windows.places)
            bar = progress("encoding windows", total=total, unit="batches")
            network.eval()
            with bar, torch.inference_mode(), autocast(device, precision):
                for picks in every.in_order(batch_size=batch_size):
                    batch = feed(picks)
                    days = network.represent(*dropout(batch))
                    assert days is not None
                    encoded[batch.number.cpu()] = days.to("cpu", encoded.dtype)
                    bar.update()
            del encoded
            os.replace(unfinished, path)
    # Copy on write: nothing here writes, but torch has no read-only tensors.
    return _mapped(path, shape, dtype, mode="c")


def _mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype, *, mode: _Mode) -> Tensor:
    """Map a file of raw numbers."""
    # Bits only: numpy has no bfloat16.
    bits = np.memmap(path, dtype=f"i{dtype.itemsize}", mode=mode, shape=(int(np.prod(shape)),))
    return torch.from_numpy(bits).view(dtype).view(shape)


def _key(
    network: StefaLand, windows: Windows, dropout: TokenDropout, precision: str, batch_size: int
) -> str:
    how = (FORMAT, precision, batch_size, windows.length, network.hides_target, torch.__version__)
    content = hashlib.sha256(repr((*how, dropout, dropout.needs)).encode())
    assert network.encoder is not None
    tensors = {**network.encoder.state_dict(), **dict(dropout.named_buffers())}
    for name, value in tensors.items():
        content.update(f"{name} {tuple(value.shape)}".encode())
        content.update(value.detach().cpu().contiguous().numpy().data)
    for record, places in zip(windows.records, windows.places, strict=True):
        content.update(f"{record.forcing.shape} {record.static.shape}".encode())
        for values in (record.forcing, record.static, places):
            content.update(np.ascontiguousarray(values).data)
    return content.hexdigest()
