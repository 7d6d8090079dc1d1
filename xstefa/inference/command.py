"""``xstefa predict``: a dataset in, a store out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import xarray as xr

from xstefa.errors import OptionError, ReadError
from xstefa.inference.predict import predict
from xstefa.inference.store import to_zarr
from xstefa.options import set_options


def open_lazily(path: str) -> xr.Dataset:
    """Open a Zarr store, a NetCDF file, or whatever an installed xarray backend reads.

    Raises
    ------
    ReadError
        If no backend reads it.
    """
    engine = "zarr" if path.rstrip("/").endswith(".zarr") else None
    try:
        with warnings.catch_warnings():
            # A store without consolidated metadata is as good as any.
            warnings.filterwarnings("ignore", message=".*consolidated.*")
            return xr.open_dataset(path, engine=engine, chunks={}, decode_coords="all")
    except Exception as error:  # backends raise whatever the libraries of their formats raise
        raise ReadError(
            "the input cannot be opened",
            variable=path,
            found=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            expected="a Zarr store or NetCDF file",
        ) from error


def predict_to_store(
    source: str,
    target_store: str | os.PathLike[str],
    *,
    target: str,
    model: str | None = None,
    quantiles: Sequence[float] = (),
    coverage: bool = True,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Predict a dataset on disk and write the result, with a progress bar.

    Parameters
    ----------
    source : str
        Zarr store or NetCDF file.
    target_store : path-like
    target : str
        Name of a target.
    model : str, optional
        Name or path of a model.
    quantiles : sequence of float
        Written as ``<target>_quantiles``, beside the mean.
    coverage : bool
        Write the coverage too.
    scheduler : str, optional
        Address of a dask scheduler; by default the threads of this process.
    """
    with _cluster(scheduler), open_lazily(source) as dataset, set_options(progress=True):
        planned = partial(
            predict,
            dataset,
            target,
            model=model,
            rename=rename,
            device=device,
            precision=precision,
            batch_size=batch_size,
        )
        result = planned(coverage=coverage).to_dataset()
        if quantiles:
            result[f"{target}_quantiles"] = planned(quantiles=quantiles)
        to_zarr(result, target_store, resume=resume, overwrite=overwrite)


def _cluster(scheduler: str | None) -> AbstractContextManager[object]:
    """Connect to a scheduler, if there is one."""
    if scheduler is None:
        return nullcontext()
    from distributed import Client

    try:
        client: AbstractContextManager[object] = Client(scheduler, timeout="20s")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise OptionError(
            "no dask scheduler answers there",
            variable="scheduler",
            found=f"{scheduler} ({error})",
            expected="the address of a running scheduler",
            fix='start one with "dask scheduler", or leave --scheduler out',
        ) from error
    return client
