"""``xr.open_dataset(folder, engine="camels_us")``: the official text files of CAMELS-US.

Layout (Newman et al. 2014, Addor et al. 2017)::

    basin_dataset_public_v1p2/
        basin_mean_forcing/{daymet,maurer,nldas}/01/01013500_lump_cida_forcing_leap.txt
        usgs_streamflow/01/01013500_streamflow_qc.txt
    camels_attributes_v2.0/camels_{clim,geol,hydro,name,soil,topo,vege}.txt

The attributes may lie beside or inside the first folder, or be absent.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendEntrypoint

from xstefa.datasets.series import lazy_series, on_days, site_values
from xstefa.errors import LayoutError, OptionError

__all__ = ["CamelsUsBackend"]

_FORCINGS = ("daymet", "maurer", "maurer_extended", "nldas", "nldas_extended")
_FORCING_FOLDER, _FLOW_FOLDER = "basin_mean_forcing", "usgs_streamflow"
_CUBIC_FEET = 0.028316846592  # m3
_BASIN, _TIME = "basin", "time"

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

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        forcing: Literal[
            "daymet", "maurer", "maurer_extended", "nldas", "nldas_extended"
        ] = "daymet",
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
        if forcing not in _FORCINGS:
            raise OptionError(
                "CAMELS-US has no such forcing",
                variable="forcing",
                found=repr(forcing),
                expected=" or ".join(map(repr, _FORCINGS)),
                fix="forcing='daymet'",
            )
        folder = _Folder.find(Path(filename_or_obj), forcing)
        dropped = {drop_variables} if isinstance(drop_variables, str) else {*(drop_variables or ())}
        return folder.dataset().drop_vars(dropped, errors="ignore")

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


@cache
def _metadata() -> dict[str, dict[str, dict[str, str]]]:
    text = resources.files("xstefa.datasets").joinpath("camels_us.toml").read_text("utf-8")
    return tomllib.loads(text)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Folder:
    """The files of a CAMELS-US folder.

    Parameters
    ----------
    basins : tuple of str
        Gauge identifiers, sorted.
    forcings, flows : tuple of Path or None
        Files of each basin.
    attributes : DataFrame
        By gauge identifier; without columns if the folder has no attributes.
    first : datetime64[D]
    count : int
        Days from the first of all files to the last.
    """

    basins: tuple[str, ...]
    forcings: tuple[Path, ...]
    flows: tuple[Path | None, ...]
    attributes: pd.DataFrame
    first: np.datetime64
    count: int

    @classmethod
    def find(cls, root: Path, forcing: str) -> _Folder:
        """Find the files; reads the ends of each, and the attributes."""
        forcings = _below(root, _FORCING_FOLDER)
        found = {} if forcings is None else _files(forcings / forcing, "_forcing_leap.txt")
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
        flow_folder = _below(root, _FLOW_FOLDER)
        flows = {} if flow_folder is None else _files(flow_folder, "_streamflow_qc.txt")
        basins = tuple(sorted(found))
        ends = [_ends(found[basin], first_column=0) for basin in basins]
        ends += [_ends(flows[basin], first_column=1) for basin in basins if basin in flows]
        first, last = min(begin for begin, _ in ends), max(end for _, end in ends)
        return cls(
            basins=basins,
            forcings=tuple(found[basin] for basin in basins),
            flows=tuple(flows.get(basin) for basin in basins),
            attributes=_attributes(root, basins),
            first=first,
            count=int((last - first).astype(int)) + 1,
        )

    def dataset(self) -> xr.Dataset:
        """Put everything together."""
        metadata = _metadata()
        series = partial(lazy_series, dims=(_BASIN, _TIME), sites=len(self.basins), days=self.count)
        variables = {}
        for column, name in enumerate(_columns(self.forcings[0])):
            attrs = metadata["series"].get(name, {"long_name": name})
            variables[name] = series(partial(self._forcing, column=column), attrs=dict(attrs))
        area, area_name = self._area()
        variables["streamflow"] = series(
            partial(self._flow, area=area),
            attrs={
                "long_name": "observed streamflow per unit catchment area",
                "units": "mm d-1",
                "cell_methods": "time: mean",
                "comment": f"USGS discharge in ft3 s-1 divided by {area_name}",
            },
        )
        for name in self.attributes.columns:
            values = self.attributes[name].to_numpy()
            if values.dtype == object:
                values = values.astype(str)
            attrs = metadata["attributes"].get(str(name), {"long_name": str(name)})
            variables[str(name)] = site_values(_BASIN, values, dict(attrs))
        latitude, longitude = (variables.pop(f"gauge_{n}", None) for n in ("lat", "lon"))
        if latitude is None:
            heads = np.array([_head(path) for path in self.forcings])
            latitude = site_values(_BASIN, heads[:, 0], {})
            attrs = dict(metadata["attributes"]["elev_mean"])
            variables.setdefault("elev_mean", site_values(_BASIN, heads[:, 1], attrs))
        coords = {
            _BASIN: xr.Variable(
                _BASIN,
                np.array(self.basins),
                {"long_name": "USGS gauge id (8 digits)", "cf_role": "timeseries_id"},
            ),
            _TIME: xr.Variable(
                _TIME,
                pd.date_range(self.first, periods=self.count),
                {"standard_name": "time", "long_name": "day", "axis": "T"},
            ),
            "lat": _place(latitude, "latitude", "degrees_north"),
        }
        if longitude is not None:
            coords["lon"] = _place(longitude, "longitude", "degrees_east")
        return xr.Dataset(variables, coords, _ATTRS)

    def _area(self) -> tuple[NDArray[np.float64], str]:
        """Catchment areas [km2], and which they are."""
        if "area_gages2" in self.attributes:
            return self.attributes["area_gages2"].to_numpy(float), "area_gages2"
        return np.array([_head(path)[2] for path in self.forcings]) / 1e6, "the forcings' area"

    def _forcing(self, site: int, *, column: int) -> NDArray[np.float32]:
        days, values = _read_forcing(self.forcings[site])
        return on_days(values[:, column], days, first=self.first, count=self.count)

    def _flow(self, site: int, *, area: NDArray[np.float64]) -> NDArray[np.float32]:
        path = self.flows[site]
        if path is None:
            return np.full(self.count, np.nan, np.float32)
        days, cubic_feet = _read_flow(path)
        # m3 s-1 over km2 is 86.4 mm d-1
        depth = (cubic_feet * _CUBIC_FEET * 86.4 / area[site]).astype(np.float32)
        return on_days(depth, days, first=self.first, count=self.count)


def _place(variable: xr.Variable, standard_name: str, units: str) -> xr.Variable:
    attrs = {"standard_name": standard_name, "units": units, "long_name": f"gauge {standard_name}"}
    return site_values(_BASIN, variable.values.astype(float), attrs)


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


def _ends(path: Path, *, first_column: int) -> tuple[np.datetime64, np.datetime64]:
    """First and last day of a file, without reading what lies between."""
    with path.open("rb") as file:
        skipped = 0 if first_column else 4
        first = [file.readline() for _ in range(skipped + 1)][-1]
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 400))
        last = file.read().strip().splitlines()[-1]
    return _day(first, first_column), _day(last, first_column)


def _day(line: bytes, first_column: int) -> np.datetime64:
    year, month, day = line.split()[first_column : first_column + 3]
    return np.datetime64(f"{int(year):04d}-{int(month):02d}-{int(day):02d}", "D")


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


def _attributes(root: Path, basins: tuple[str, ...]) -> pd.DataFrame:
    """Merge the attribute files; reindexed to the basins that have forcings."""
    folder = _below(root, "camels_attributes_v2.0")
    paths = sorted((folder or root).glob("camels_*.txt"))
    tables = [
        pd.read_csv(path, sep=";", dtype={"gauge_id": str, "huc_02": str}, index_col="gauge_id")
        for path in paths
    ]
    if not tables:
        return pd.DataFrame(index=list(basins))
    merged = pd.concat(tables, axis=1).reindex(list(basins))
    merged = merged.rename(columns=_metadata()["spellings"])
    text = merged.select_dtypes(exclude="number").columns
    merged[text] = merged[text].astype(object).fillna("")
    numbers = merged.columns.difference(text)
    merged[numbers] = merged[numbers].astype(np.float32)
    return merged
