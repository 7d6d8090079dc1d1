"""Input behind fsspec, Icechunk and references to other files, and one commit of the output."""

from __future__ import annotations

import json

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

import xstefa
from xstefa.errors import StoreError


@pytest.fixture
def stored(dataset, tmp_path):
    """The same weather as a NetCDF file of several chunks, and as a Zarr store."""
    sizes = {"time": 50, "lat": 2, "lon": 2}
    encoding = {
        name: {"chunksizes": tuple(sizes[dim] for dim in variable.dims)}
        for name, variable in dataset.data_vars.items()
    }
    dataset.to_netcdf(tmp_path / "in.nc", engine="h5netcdf", encoding=encoding)
    dataset.chunk(sizes).to_zarr(tmp_path / "in.zarr", consolidated=True)
    return tmp_path


def fsspec_zarr(folder):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "in.zarr"), f"{folder}/in.zarr", recursive=True)
    return xr.open_zarr(f"memory://{folder}/in.zarr", chunks={})


def fsspec_file(folder):
    fsspec = pytest.importorskip("fsspec")
    place = f"simplecache::file://{folder / 'in.nc'}"
    file = fsspec.open(place, simplecache={"cache_storage": str(folder / "cache")})
    return xr.open_dataset(file.open(), engine="h5netcdf", chunks={})


def icechunk_repository(folder):
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    with xr.open_zarr(folder / "in.zarr", chunks=None) as ds:
        ds.drop_encoding().to_zarr(session.store, consolidated=False)
    session.commit("weather")
    return xr.open_zarr(repository.readonly_session("main").store, consolidated=False, chunks={})


def virtual(folder):
    """The chunks of the NetCDF file, where they are."""
    virtualizarr = pytest.importorskip("virtualizarr")
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore

    registry = ObjectStoreRegistry({"file://": LocalStore()})
    return virtualizarr.open_virtual_dataset(
        f"file://{folder / 'in.nc'}",
        registry=registry,
        parser=virtualizarr.parsers.HDFParser(),
        loadable_variables=["time", "lat", "lon"],
    )


def kerchunk_references(folder):
    pytest.importorskip("kerchunk")
    references = virtual(folder).vz.to_kerchunk(format="dict")
    (folder / "in.json").write_text(json.dumps(references))
    return xr.open_dataset(str(folder / "in.json"), engine="kerchunk", chunks={})


def virtual_icechunk(folder):
    icechunk = pytest.importorskip("icechunk")
    here = f"file://{folder}/"
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(here, icechunk.local_filesystem_store(str(folder)))
    )
    repository = icechunk.Repository.create(
        icechunk.in_memory_storage(),
        config=config,
        authorize_virtual_chunk_access=icechunk.containers_credentials({here: None}),
    )
    session = repository.writable_session("main")
    virtual(folder).vz.to_icechunk(session.store)
    session.commit("references")
    return xr.open_zarr(repository.readonly_session("main").store, consolidated=False, chunks={})


WAYS = [fsspec_zarr, fsspec_file, icechunk_repository, kerchunk_references, virtual_icechunk]


@pytest.mark.parametrize("opened", WAYS, ids=lambda way: way.__name__)
def test_what_is_behind_another_store_predicts_the_same(
    dataset, tiny_model, stored, opened, monkeypatch
):
    def refuse(*_, **__):
        raise AssertionError("computed")

    expected = dataset.stefa.predict(tiny_model)
    ds = opened(stored)
    with dask.config.set(scheduler=refuse):
        prediction = ds.stefa.predict(tiny_model)
    # The tasks of the prediction read their own pieces: none is left to dask.
    assert not [key for key in prediction.data.dask if "open_dataset" in str(key)]
    np.testing.assert_array_equal(prediction, expected)
    assert prediction.attrs["units"] == expected.attrs["units"]


@pytest.mark.parametrize("pieces", [None, {"time": 40}])
def test_one_commit_of_icechunk_holds_the_whole_prediction(dataset, tiny_model, tmp_path, pieces):
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "r")))
    before = len(list(repository.ancestry(branch="main")))
    session = repository.writable_session("main")
    prediction = dataset.chunk(lat=1, lon=2).stefa.predict(tiny_model)
    assert prediction.data.npartitions > 4
    with pytest.raises(StoreError, match="pieces do not fill the blocks"):
        xstefa.to_zarr(
            prediction.isel(time=slice(0, 100)).chunk(time=50), session.store, pieces={"time": 40}
        )
    xstefa.to_zarr(prediction, session.store, pieces=pieces)
    with pytest.raises(FileNotFoundError):
        zarr.open_group(repository.readonly_session("main").store, mode="r")
    session.commit("soil moisture")
    assert len(list(repository.ancestry(branch="main"))) == before + 1
    found = xr.open_zarr(repository.readonly_session("main").store, consolidated=False)
    np.testing.assert_array_equal(found["soil_moisture"], prediction)
    if pieces:
        array = zarr.open_group(repository.readonly_session("main").store, mode="r")[
            "soil_moisture"
        ]
        assert array.chunks[0] == 40
        assert array.shards is not None


def test_a_cluster_cannot_write_to_a_session_of_icechunk(dataset, tiny_model, monkeypatch):
    """Forks that share a chunk lose half of it, so that no other process is given one."""
    icechunk = pytest.importorskip("icechunk")
    from xstefa.inference import store

    session = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    monkeypatch.setattr(store, "_client", lambda: object())
    with pytest.raises(StoreError, match="workers of the cluster cannot write"):
        xstefa.to_zarr(dataset.chunk(lat=1).stefa.predict(tiny_model), session.store)
