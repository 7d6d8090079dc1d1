"""Predictions to disk."""

from __future__ import annotations

import os

import xarray as xr


def to_zarr(
    obj: xr.DataArray | xr.Dataset, store: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Compute a lazy prediction block by block and stream it into a Zarr store.

    Parameters
    ----------
    obj : DataArray or Dataset
    store : path-like
    overwrite : bool
        Replace a store that exists.
    """
    dataset = obj.to_dataset() if isinstance(obj, xr.DataArray) else obj
    # The chunks of the input's own store, carried along in the encoding, do not fit the output's.
    dataset.drop_encoding().to_zarr(store, mode="w" if overwrite else "w-")
