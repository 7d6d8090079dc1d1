"""Small real data sets that ship with the package.

Licences, attribution and citation are in ``LICENSES.md`` beside the files and in each file's
global attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import xarray as xr

from xstefa.arguments import checked

Sample: TypeAlias = Literal["camels_us", "fluxnet", "conus_grid", "landslides", "landslide_terrain"]

SAMPLES: Mapping[Sample, str] = MappingProxyType(
    {
        "camels_us": "12 CAMELS-US basins, 1989-10 to 1999-09, (basin, time)",
        "fluxnet": "8 FLUXNET2015 towers, 2008 to 2013, (station, time)",
        "conus_grid": "1 degree grid of the conterminous US, 2011 to 2013, (time, lat, lon), "
        "interpolated from CAMELS-US basins",
        "landslides": "350 points in a valley of Ecuador, where landslides began and where none "
        "did, (point)",
        "landslide_terrain": "terrain of that valley, a pixel each 20 m, (y, x)",
    }
)
"""Names `open_sample` knows, with what each is."""

US_OUTLINE: Path = Path(__file__).with_name("us_outline.geojson")
"""State borders of the conterminous US (longitude, latitude), GeoJSON lines."""

WORLD_OUTLINE: Path = Path(__file__).with_name("world_outline.geojson")
"""Coasts (rings) and borders (lines) of the world (longitude, latitude), GeoJSON, 1:110m."""


@checked
def open_sample(name: Sample, *, chunks: Mapping[str, int] | int | str | None = None) -> xr.Dataset:
    """Open a data set that ships with xstefa.

    Parameters
    ----------
    name : {"camels_us", "fluxnet", "conus_grid", "landslides", "landslide_terrain"}
        Which one; `SAMPLES` says what each holds.
    chunks : mapping, int, "auto" or None
        As in `xarray.open_dataset`: None reads variables when they are used, ``{}`` gives dask
        arrays chunked as the file is.

    Returns
    -------
    xarray.Dataset
        Daily forcing, static attributes and observations under the names, units and attributes
        of their sources, coordinate reference system included. `held_out` (of basins and towers)
        marks the sites that the weights shipped with xstefa never saw.

    Raises
    ------
    OptionError
        If there is no sample of that name.
    """
    path = Path(__file__).with_name(f"{name}.nc")
    # decode_coords="all" makes the grid mapping a coordinate, so that arrays keep their CRS.
    # Samples are opened again and again, and with the netCDF library a handle that garbage
    # collection closes can take another one of the same file with it; h5py counts them.
    return xr.open_dataset(path, chunks=chunks, decode_coords="all", engine="h5netcdf")
