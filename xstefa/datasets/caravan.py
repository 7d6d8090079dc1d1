"""``xr.open_dataset(folder, engine="caravan")``: the official files of Caravan.

Layout (Kratzert et al. 2023), of the NetCDF and of the CSV version::

    timeseries/{netcdf,csv}/camels/camels_01013500.{nc,csv}
    attributes/camels/attributes_{caravan,hydroatlas,other}_camels.csv

Extensions such as GRDC-Caravan have the same layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendEntrypoint
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

from xstefa.datasets.series import NOTHING, Archive, Series, ends_of, metadata
from xstefa.errors import LayoutError, OptionError

_GAUGE, _DATE = "gauge_id", "date"
_STATISTICS = {"mean": "mean", "min": "minimum", "max": "maximum", "sum": "sum"}

_ATTRS = {
    "Conventions": "CF-1.11",
    "featureType": "timeSeries",
    "title": "Caravan",
    "references": "Kratzert et al. 2023, doi:10.1038/s41597-023-01975-w",
    "comment": "Days are local days. Forcings are of ERA5-Land, attributes also of HydroATLAS.",
}


class CaravanBackend(BackendEntrypoint):
    """Read Caravan lazily, from NetCDF or CSV files, with CF attributes."""

    description = "Caravan folder of NetCDF or CSV files (xstefa)"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "gauges")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        gauges: Iterable[str] | None = None,
    ) -> xr.Dataset:
        """Open a Caravan folder.

        Parameters
        ----------
        filename_or_obj : path-like
            The folder that holds ``timeseries`` and ``attributes``.
        drop_variables : str or iterable of str, optional
        gauges : iterable of str, optional
            Identifiers such as ``"camels_01013500"``, or names of subsets such as ``"camels"``;
            by default all.

        Returns
        -------
        xarray.Dataset
            Dimensions ``gauge_id`` and ``date``; series are read from the files when used.

        Raises
        ------
        LayoutError
            If the folder is not laid out as Caravan is.
        OptionError
            If a gauge does not exist.
        """
        root = Path(filename_or_obj)
        paths = _choose(_series_files(root), gauges, root)
        contents = [_contents(path) for path in paths.values()]
        archive = Archive.of((_GAUGE, _DATE), paths, [ends for ends, _ in contents])
        # Files of several versions may lie side by side, and have not all the same series.
        variables = {
            name: archive.series(
                partial(_read, paths=list(paths.values()), name=name), _series_attrs(name)
            )
            for name in dict.fromkeys(name for _, names in contents for name in names)
        }
        table = _attributes(root, list(paths))
        for name in map(str, table.columns):
            variables[name] = archive.attribute(table[name].to_numpy(), _attribute_attrs(name))
        return archive.dataset(
            variables, site="Caravan gauge id", day="local day", attrs=_ATTRS, drop=drop_variables
        )

    def guess_can_open(self, filename_or_obj: object) -> bool:
        """Whether this is a folder of Caravan."""
        if not isinstance(filename_or_obj, str | PathLike):
            return False
        root = Path(filename_or_obj)
        return (root / "attributes").is_dir() and any(
            (root / "timeseries" / kind).is_dir() for kind in ("netcdf", "csv")
        )


# ---- series


def _series_files(root: Path) -> dict[str, Path]:
    """Files by gauge identifier; NetCDF if both versions are there."""
    for kind, ending in (("netcdf", "nc"), ("csv", "csv")):
        paths = sorted((root / "timeseries" / kind).glob(f"*/*.{ending}"))
        if paths:
            return {path.stem: path for path in paths}
    raise LayoutError(
        "not a folder of Caravan",
        variable=str(root),
        found="no series in timeseries/netcdf or timeseries/csv" if root.is_dir() else "no folder",
        expected="timeseries/netcdf/camels/camels_01013500.nc and so on, as published",
        fix="xr.open_dataset('<folder with timeseries and attributes>', engine='caravan')",
    )


def _choose(paths: dict[str, Path], gauges: Iterable[str] | None, root: Path) -> dict[str, Path]:
    if gauges is None:
        return paths
    wanted = [gauges] if isinstance(gauges, str) else list(gauges)
    subsets: dict[str, list[str]] = {}
    for gauge, path in paths.items():
        subsets.setdefault(path.parent.name, []).append(gauge)
    chosen: dict[str, Path] = {}
    for name in wanted:
        members = subsets.get(name, [name] if name in paths else [])
        if not members:
            raise OptionError(
                "there is no such gauge, nor subset",
                variable="gauges",
                found=repr(name),
                expected=f"one of the subsets {', '.join(subsets)}, or gauges like "
                f"{next(iter(paths))!r}",
                fix=f"see the folders below {root.name}/timeseries",
            )
        chosen |= {gauge: paths[gauge] for gauge in members}
    return chosen


def _read(site: int, *, paths: Sequence[Path], name: str) -> Series:
    path = paths[site]
    return _read_nc(path, name) if path.suffix == ".nc" else _read_csv(path).get(name, NOTHING)


def _series_attrs(name: str) -> dict[str, str]:
    known = metadata("caravan")
    if name in known["series"]:
        return known["series"][name]
    quantity, _, statistic = name.rpartition("_")
    if quantity in known["quantities"] and statistic in _STATISTICS:
        methods = {"cell_methods": f"area: mean time: {_STATISTICS[statistic]}"}
        return known["quantities"][quantity] | methods
    return {"long_name": name.replace("_", " ")}


@contextmanager
def _opened(path: Path) -> Iterator[netCDF4.Dataset]:
    # The netCDF library is not safe in several threads, not even with different files: share the
    # lock of xarray's own readers.
    with NETCDF4_PYTHON_LOCK, netCDF4.Dataset(path) as file:
        yield file


def _contents(path: Path) -> tuple[tuple[np.datetime64, np.datetime64], list[str]]:
    """First and last day, and names of the series, of a file; reads no values."""
    if path.suffix == ".nc":
        with _opened(path) as file:
            days = _nc_days(file)
            return (days[0], days[-1]), [n for n in file.variables if n not in file.dimensions]
    with path.open(encoding="utf-8-sig") as file:
        names = file.readline().strip().split(",")
    begin, end = (
        np.datetime64(line.split(b",")[0].decode()[:10], "D") for line in ends_of(path, head=1)
    )
    return (begin, end), [name for name in names if name != _DATE]


def _nc_days(file: netCDF4.Dataset) -> NDArray[np.datetime64]:
    time = file.variables[_DATE]
    # Caravan counts days; decoding by hand is much faster than opening each file with xarray.
    unit, _, since = str(time.units).partition(" since ")
    scale = {"days": 1.0, "hours": 1 / 24, "minutes": 1 / 1440, "seconds": 1 / 86400}[unit]
    numbers = np.floor(np.asarray(time[:], dtype=float) * scale).astype(np.int64)
    return np.datetime64(since[:10], "D") + numbers


def _read_nc(path: Path, name: str) -> Series:
    with _opened(path) as file:
        if name not in file.variables:
            return NOTHING
        values = np.ma.filled(np.ma.asarray(file.variables[name][:], np.float32), np.nan)
        return _nc_days(file), values


@lru_cache(maxsize=100)
def _read_csv(path: Path) -> dict[str, Series]:
    table = pd.read_csv(path, parse_dates=[_DATE], index_col=_DATE)
    days = table.index.to_numpy().astype("datetime64[D]")
    return {str(name): (days, table[name].to_numpy(np.float32)) for name in table}


# ---- attributes


def _attributes(root: Path, gauges: list[str]) -> pd.DataFrame:
    """Merge the attribute files of all subsets that the gauges belong to."""
    subsets = [pd.DataFrame()]
    for folder in sorted((root / "attributes").glob("*")):
        tables = [
            pd.read_csv(path, index_col=_GAUGE, dtype={_GAUGE: str})
            for path in sorted(folder.glob("attributes_*.csv"))
        ]
        if tables:
            merged = pd.concat(tables, axis=1)
            merged = merged.loc[:, ~merged.columns.duplicated()]
            subsets.append(merged[merged.index.isin(gauges)])
    return pd.concat(subsets).reindex(gauges)


def _attribute_attrs(name: str) -> dict[str, str]:
    known = metadata("caravan")
    if name in known["attributes"]:
        return known["attributes"][name]
    attrs = {"long_name": f"HydroATLAS {name}" if name.count("_") == 2 else name.replace("_", " ")}
    theme, _, _ = name.rpartition("_")
    units = known["hydroatlas"]["themes"].get(theme)
    units = units or known["hydroatlas"]["units"].get(theme.rpartition("_")[2])
    if units is not None:
        attrs["units"] = units
    return attrs
