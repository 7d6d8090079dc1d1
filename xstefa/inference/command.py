"""What a command reads and writes: a dataset in, a result out."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePath
from typing import Literal

import xarray as xr
from fsspec.core import url_to_fs

from xstefa.arguments import checked
from xstefa.cf import to_netcdf
from xstefa.errors import OptionError, ReadError, StoreError, need
from xstefa.inference.journal import JOURNAL, open_part
from xstefa.inference.store import to_zarr
from xstefa.model.checkpoint import Model, model_path

NETCDF = (".nc", ".nc4", ".cdf")


def open_lazily(path: str, engine: str | None = None) -> xr.Dataset:
    """Open a Zarr store, a NetCDF file, or whatever an installed xarray backend reads.

    Raises
    ------
    ReadError
        If no backend reads it.
    """
    if path.rstrip("/").endswith(".zarr"):
        engine = "zarr"
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


@checked
def save_state(state: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a state beside the one that is there, and put it in its place when it is whole.

    Parameters
    ----------
    state : Dataset
        From ``ds.stefa.spin_up``.
    path : path-like
        Zarr store, or NetCDF file (.nc). The folder ``<path>.old`` is there for a moment: killed
        then, `open_state` reads it.

    Raises
    ------
    StoreError
        If another process writes it, or nothing can be written there. Of object stores, which
        replace nothing in one step, if there is one already.
    """
    place = os.fspath(path).rstrip("/")
    if place.endswith(NETCDF):
        to_netcdf(state, place, overwrite=True)
    elif "://" in place:
        _require_new(place)
        to_zarr(state, place)
    else:
        new, old = f"{place}.new", f"{place}.old"
        to_zarr(state, new, overwrite=True)
        if os.path.exists(place):
            if os.path.exists(old):  # left by one that died when it had written what is there
                shutil.rmtree(old)
            os.rename(place, old)
        os.rename(new, place)
        if os.path.exists(old):
            shutil.rmtree(old)


@checked
def open_state(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a state that `save_state` wrote, lazily.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    ReadError
        If there is none.
    """
    place = os.fspath(path).rstrip("/")
    replaced = "://" not in place and not os.path.exists(place) and os.path.exists(f"{place}.old")
    engine = None if place.endswith(NETCDF) else "zarr"
    return open_lazily(f"{place}.old" if replaced else place, engine)


def _require_new(place: str) -> None:
    fs, path = url_to_fs(place)
    if fs.exists(path):
        raise StoreError(
            "nothing there is replaced in one step, so that a state could be lost",
            variable=place,
            found="a state",
            expected="a new name, or a folder of this machine",
            fix="a name with the date of the state",
        )


Kind = Literal["result", "model", "state"]


def check_place(place: str, *, kind: Kind, resume: bool, overwrite: bool) -> None:
    """Refuse a place before any work is done for it.

    Parameters
    ----------
    place : str
        File or store.
    kind : {"result", "model", "state"}
        What goes there.
    resume, overwrite : bool

    Raises
    ------
    OptionError
        If nothing can be written there, or something is there that is not to be replaced.
    """
    ending = PurePath(place.rstrip("/")).suffix
    if kind != "model" and ending not in (*NETCDF, ".zarr", ""):
        raise OptionError(
            variable=place,
            found=f"the ending {ending!r}",
            expected="a NetCDF file (.nc) or a Zarr store (.zarr)",
            fix=f"{PurePath(place).stem}.nc",
        )
    if kind == "state" and "://" in place:
        _require_new(place)
    if kind == "result" and ending not in NETCDF:
        return  # stores can be gone on with, and to_zarr knows of which
    if resume:
        raise OptionError(
            variable=place,
            found="a file, which is written as a whole",
            expected="a Zarr store (.zarr) to go on with",
            fix="leave --resume out",
        )
    fs, path = url_to_fs(str(model_path(place)) if kind == "model" else place)
    if fs.exists(path) and not overwrite:
        raise OptionError(
            "the file exists",
            variable=place,
            expected="a new name",
            fix="overwrite=True to replace it, or another name",
        )


def write(
    result: xr.Dataset | Model, place: str, *, kind: Kind, resume: bool, overwrite: bool
) -> None:
    """Write a result to a place that `check_place` let pass, or nothing at all.

    What an interruption or a full disk leaves of a store stays, to go on from. What a mistake
    leaves is removed.
    """
    if isinstance(result, Model):
        result.save(place)
    elif kind == "state":
        save_state(result, place)
    elif place.endswith(NETCDF):
        to_netcdf(result, place, overwrite=overwrite)
    else:
        fs, path = url_to_fs(place)
        ours = not resume and (overwrite or not fs.exists(path))
        try:
            to_zarr(result, place, resume=resume, overwrite=overwrite)
        except Exception as error:
            if ours and not isinstance(error, StoreError) and _is_unfinished(place):
                fs.rm(path, recursive=True)
            raise


def _is_unfinished(place: str) -> bool:
    journal = open_part(place, JOURNAL)
    return journal is not None and journal.attrs.get("state") != "complete"


def cluster(scheduler: str | None) -> AbstractContextManager[object]:
    """Connect to a dask scheduler, if one is named.

    Raises
    ------
    OptionError
        If none answers at the address.
    """
    if scheduler is None:
        return nullcontext()
    need("cluster", "distributed", job="a cluster", variable="scheduler")
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
