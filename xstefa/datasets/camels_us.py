"""``xr.open_dataset(folder, engine="camels_us")``: the official text files of CAMELS-US.

Layout (Newman et al. 2014, Addor et al. 2017)::

    basin_dataset_public_v1p2/
        basin_mean_forcing/{daymet,maurer,nldas}/01/01013500_lump_cida_forcing_leap.txt
        usgs_streamflow/01/01013500_streamflow_qc.txt
    camels_attributes_v2.0/camels_{clim,geol,hydro,name,soil,topo,vege}.txt

The attributes may lie beside or inside the first folder, or be absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendEntrypoint

from xstefa.arguments import checked
from xstefa.datasets.series import NOTHING, Archive, Series, ends_of, metadata
from xstefa.errors import LayoutError

_Forcing: TypeAlias = Literal["daymet", "maurer", "maurer_extended", "nldas", "nldas_extended"]
_FORCING_FOLDER, _FLOW_FOLDER = "basin_mean_forcing", "usgs_streamflow"
_CUBIC_FEET = 0.028316846592  # m3

_ATTRS = {
    "Conventions": "CF-1.11",
    "featureType": "timeSeries",
    "title": "CAMELS-US",
    "institution": "UCAR/NCAR; USGS",
    "references": (
        "Newman et al. 2015, doi:10.5194/hess-19-209-2015; Addor et al. 2017, "
        "doi:10.5194/hess-21-5293-2017"
    ),
}


class CamelsUsBackend(BackendEntrypoint):
    """Read the CAMELS-US text files lazily, with CF attributes."""

    description = "CAMELS-US folder of text files (xstefa)"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "forcing")

    @checked
    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        forcing: _Forcing = "daymet",
    ) -> xr.Dataset:
        """Open a CAMELS-US folder.

        Parameters
        ----------
        filename_or_obj : path-like
            The folder that holds ``basin_dataset_public_v1p2``, or that folder itself.
        drop_variables : str or iterable of str, optional
        forcing : {"daymet", "maurer", "maurer_extended", "nldas", "nldas_extended"}
            Which of the sets of forcings. The extended ones come with archives of their own.

        Returns
        -------
        xarray.Dataset
            Dimensions ``basin`` and ``time``; series are read from the text files when used.

        Raises
        ------
        LayoutError
            If the folder is not laid out as CAMELS-US is.
        OptionError
            If there is no such forcing.
        """
        root = Path(filename_or_obj)
        forcings = _forcing_files(root, forcing)
        basins, paths = list(forcings), list(forcings.values())
        flow_folder = _below(root, _FLOW_FOLDER)
        found = {} if flow_folder is None else _files(flow_folder, "_streamflow_qc.txt")
        flows = [found.get(basin) for basin in basins]
        ends = [_ends(path, head=4, year=0) for path in paths]
        ends += [_ends(path, head=0, year=1) for path in flows if path is not None]
        archive = Archive.of(("basin", "time"), basins, ends)
        known, variables = metadata("camels_us"), {}
        for column, name in enumerate(_columns(paths[0])):
            attrs = known["series"].get(name, {"long_name": name})
            read = partial(_forcing, paths=paths, column=column)
            variables[name] = archive.series(read, attrs)
        table, whose = _attributes(root, basins), "area_gages2"
        if {whose, "gauge_lat"} <= {*table}:
            area = table[whose].to_numpy(np.float32).astype(float)
        else:
            heads = np.array([_head(path) for path in paths])
            area, whose = heads[:, 2] / 1e6, "the forcings' area"
            table["gauge_lat"] = heads[:, 0]
            table["elev_mean"] = table.get("elev_mean", heads[:, 1])
        variables["streamflow"] = archive.series(
            partial(_flow, paths=flows, area=area),
            {
                "long_name": "observed streamflow per unit catchment area",
                "units": "mm d-1",
                "cell_methods": "time: mean",
                "comment": f"USGS discharge in ft3 s-1 divided by {whose}",
            },
        )
        for name in map(str, table.columns):
            attrs = known["attributes"].get(name, {"long_name": name})
            variables[name] = archive.attribute(table[name].to_numpy(), attrs)
        return archive.dataset(
            variables,
            site="USGS gauge id (8 digits)",
            day="day",
            attrs=_ATTRS,
            drop=drop_variables,
        )

    def guess_can_open(self, filename_or_obj: object) -> bool:
        """Whether this is a folder with the forcings of CAMELS-US."""
        if not isinstance(filename_or_obj, str | PathLike):
            return False
        root = Path(filename_or_obj)
        return any(
            (folder / _FORCING_FOLDER).is_dir()
            for folder in (root, root / "basin_dataset_public_v1p2")
        )


def _below(root: Path, name: str) -> Path | None:
    """Folder `name` in `root`, one level deeper, or beside it."""
    for candidate in (root / name, *sorted(root.glob(f"*/{name}")), root.parent / name):
        if candidate.is_dir():
            return candidate
    return None


def _forcing_files(root: Path, forcing: str) -> dict[str, Path]:
    """Files by gauge identifier, sorted; LayoutError if there are none."""
    folder = _below(root, _FORCING_FOLDER)
    found = {} if folder is None else _files(folder / forcing, "_forcing_leap.txt")
    if not found:
        raise LayoutError(
            "not a folder of CAMELS-US",
            variable=str(root),
            found="no such folder"
            if not root.is_dir()
            else f"no files *_forcing_leap.txt below {_FORCING_FOLDER}/{forcing}",
            expected="basin_dataset_public_v1p2 as published, unpacked",
            fix="give the folder that holds basin_dataset_public_v1p2",
        )
    return dict(sorted(found.items()))


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Files by gauge identifier."""
    return {path.name.split("_")[0]: path for path in sorted(folder.rglob(f"*{ending}"))}


def _head(path: Path) -> tuple[float, float, float]:
    """Latitude [degree], elevation [m] and area [m2] in the first lines of a forcing file."""
    with path.open(encoding="utf-8") as file:
        latitude, elevation, area = (float(file.readline().split()[0]) for _ in range(3))
    return latitude, elevation, area


def _columns(path: Path) -> list[str]:
    """Names of the series in a forcing file: ``prcp`` of ``PRCP(mm/day)``."""
    with path.open(encoding="utf-8") as file:
        header = [file.readline() for _ in range(4)][-1].split()
    # The four columns of the date come first; some Maurer files forget to name them.
    return [word.split("(")[0].lower() for word in header if "(" in word]


def _ends(path: Path, *, head: int, year: int) -> tuple[np.datetime64, np.datetime64]:
    """First and last day of a file whose dates begin in the column `year`."""
    first, last = (
        np.datetime64("{:04d}-{:02d}-{:02d}".format(*map(int, line.split()[year : year + 3])), "D")
        for line in ends_of(path, head=head)
    )
    return first, last


def _days(table: pd.DataFrame) -> NDArray[np.datetime64]:
    table.columns = pd.Index(["year", "month", "day"])
    return pd.to_datetime(table).to_numpy().astype("datetime64[D]")


# All variables of a file are parsed at once; about 0.4 MB each, so all 671 basins fit.
@lru_cache(maxsize=700)
def _read_forcing(path: Path) -> tuple[NDArray[np.datetime64], NDArray[np.float32]]:
    table = pd.read_csv(path, sep=r"\s+", skiprows=4, header=None)
    return _days(table.iloc[:, :3].copy()), table.iloc[:, 4:].to_numpy(np.float32)


@lru_cache(maxsize=700)
def _read_flow(path: Path) -> tuple[NDArray[np.datetime64], NDArray[np.float64]]:
    table = pd.read_csv(path, sep=r"\s+", header=None, usecols=[1, 2, 3, 4])
    flow = table.iloc[:, 3].to_numpy(float)
    return _days(table.iloc[:, :3].copy()), np.where(flow < 0, np.nan, flow)


def _forcing(site: int, *, paths: Sequence[Path], column: int) -> Series:
    days, values = _read_forcing(paths[site])
    return days, values[:, column]


def _flow(site: int, *, paths: Sequence[Path | None], area: NDArray[np.float64]) -> Series:
    if (path := paths[site]) is None:
        return NOTHING
    days, cubic_feet = _read_flow(path)
    # m3 s-1 over km2 is 86.4 mm d-1
    return days, (cubic_feet * _CUBIC_FEET * 86.4 / area[site]).astype(np.float32)


def _attributes(root: Path, basins: list[str]) -> pd.DataFrame:
    """Merge the attribute files, for the basins that have forcings."""
    folder = _below(root, "camels_attributes_v2.0")
    paths = sorted((folder or root).glob("camels_*.txt"))
    tables = [
        pd.read_csv(path, sep=";", dtype={"gauge_id": str, "huc_02": str}, index_col="gauge_id")
        for path in paths
    ]
    if not tables:
        return pd.DataFrame(index=basins)
    merged = pd.concat(tables, axis=1).reindex(basins)
    return merged.rename(columns=metadata("camels_us")["spellings"])
