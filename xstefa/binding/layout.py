"""Where and when: the sites and days of a dataset, and how to put results back on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.geometry import horizontal_dims, output_coordinates, support
from xstefa.binding.time_axis import (
    check_days,
    daily_call,
    day_numbers,
    lead_dimension,
    valid_times,
)
from xstefa.errors import LayoutError


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """The sites and days of a dataset.

    Parameters
    ----------
    time : str
        The time dimension; of sites without days empty, as `days` are.
    site_dims : tuple of str
        The other dimensions of the forcings, in dataset order; empty for a single site.
    dims : tuple of str
        All of them in the order of the output (that of the precipitation variable).
    days : int64 array (time,)
        Day numbers in the dataset's own calendar: days since 1970-01-01.
    support : {"grid", "point"}
        Cells of a map, or separate basins or stations.
    coords : xarray.Coordinates
        Coordinates of the output.
    grid_mapping : str, optional
        Name of the grid mapping variable; it is among `coords`.
    grid_mapping_in : {"attrs", "encoding"}
        Where the input keeps the reference to it.
    calendar : str
        CF name of the calendar.
    """

    time: str
    site_dims: tuple[str, ...]
    dims: tuple[str, ...]
    days: NDArray[np.int64]
    support: Literal["grid", "point"]
    coords: xr.Coordinates
    grid_mapping: str | None = None
    grid_mapping_in: Literal["attrs", "encoding"] = "attrs"
    calendar: str = "standard"

    def __str__(self) -> str:
        kind = {"grid": "grid", "point": "points"}[self.support]
        if not self.time:
            return f"{kind} ({', '.join(self.dims)})"
        calendar = "" if self.calendar == "standard" else f" ({self.calendar})"
        return f"{kind} ({', '.join(self.dims)}), {self.days.size} days{calendar}"

    def during(self, part: slice) -> Layout:
        """Return the layout of some steps."""
        steps = self.coords.to_dataset().isel({self.time: part}, missing_dims="ignore")
        return replace(self, days=self.days[part], coords=steps.coords)

    def spread(self, ds: xr.Dataset, *, days: int = 16) -> dict[str, NDArray[np.int64]]:
        """Return positions of at most so many days of (a part of) a dataset, evenly spread.

        Along each site dimension there are at most 64.
        """
        most = {self.time: days}
        return {
            dim: np.unique(np.linspace(0, ds.sizes[dim] - 1, most.get(dim, 64)).astype(int))
            for dim in self.dims
            if ds.sizes.get(dim)
        }

    def wrap(
        self,
        data: NDArray[np.generic] | da.Array,
        *,
        name: str,
        attrs: Mapping[str, object] | None = None,
    ) -> xr.DataArray:
        """Label `data` with the dimensions and coordinates of the input.

        Parameters
        ----------
        data : NumPy or dask array
            With one axis for each of `dims`, in that order.
        name : str
            Name of the result.
        attrs : mapping, optional
            Attributes; the grid mapping is added.
        """
        result = xr.DataArray(
            data, coords=self.coords, dims=self.dims, name=name, attrs=dict(attrs or {})
        )
        if self.grid_mapping is not None:
            # xarray refuses to write a reference that is in both places.
            place = result.attrs if self.grid_mapping_in == "attrs" else result.encoding
            place["grid_mapping"] = self.grid_mapping
        return result


def make_layout(
    ds: xr.Dataset, template: str | None, time: str, *, rename: Mapping[str, str] | None = None
) -> Layout | None:
    """Read the layout of `ds` off the variable `template` (normally precipitation).

    Returns
    -------
    Layout or None
        None without a template; the time axis is checked all the same.

    Raises
    ------
    LayoutError, CalendarError
        If the time axis is not a sequence of distinct, ordered days.
    """
    dims = () if template is None else tuple(str(dim) for dim in ds[template].dims)
    _check_lead_times(ds, dims, time, rename)
    check_days(ds[time], rename=rename)
    if template is None:
        return None
    array = ds[template]
    _check_dimensions(ds, dims)
    days, calendar = day_numbers(ds[time])
    coords, grid_mapping, place = output_coordinates(ds, array)
    return Layout(
        time=time,
        site_dims=tuple(str(dim) for dim in ds.dims if dim in dims and dim != time),
        dims=dims,
        days=days,
        support=support(ds, tuple(dim for dim in dims if dim != time)),
        coords=coords,
        grid_mapping=grid_mapping,
        grid_mapping_in=place,
        calendar=calendar,
    )


def _check_dimensions(ds: xr.Dataset, dims: tuple[str, ...]) -> None:
    """Refuse variables that are called like a dimension and lie elsewhere than along it."""
    for dim in dims:
        if dim in ds.variables and ds.variables[dim].dims != (dim,):
            raise LayoutError(
                "a dimension has the name of a variable that does not lie along it",
                variable=dim,
                found=f"dimensions ({', '.join(map(str, ds.variables[dim].dims))})",
                expected=f"({dim})",
                fix=f"ds = ds.rename_dims({{{dim!r}: '{dim}_number'}})",
            )


def _check_lead_times(
    ds: xr.Dataset, dims: tuple[str, ...], time: str, rename: Mapping[str, str] | None
) -> None:
    """Refuse forecasts: days counted by a reference time and a lead time are no record."""
    lead = lead_dimension(ds, dims)
    if lead is not None:
        valid_times(ds, time=time, lead=lead)
        raise LayoutError(
            "the days of this forecast depend on two dimensions",
            variable=lead,
            found=f"lead times along {lead!r} beside reference times along {time!r}",
            expected="one time axis, of the times that the values are for, or history=",
            fix=daily_call(rename),
        )


def merged_maps(
    ds: xr.Dataset, dims: tuple[str, ...], series: Collection[str], statics: Collection[str]
) -> LayoutError | None:
    """Return the problem of a dataset that has a second map beside that of its forcings.

    Parameters
    ----------
    ds : xarray.Dataset
    dims : tuple of str
        Dimensions of the forcings.
    series, statics : collection of str
        Names of what could be tokens. A static map of another resolution is no problem.
    """
    mine = horizontal_dims(ds, dims)
    other = horizontal_dims(ds, tuple(str(dim) for dim in ds.dims if dim not in dims))
    if mine is None or other is None:
        return None
    equal = all(
        ds.sizes[a] == ds.sizes[b] and np.allclose(ds[a], ds[b])
        for a, b in zip(mine, other, strict=True)
    )
    there = [n for n in (*series, *(statics if equal else ())) if set(other) <= set(ds[n].dims)]
    if not there:
        return None
    to = "assign_coords" if equal else "interp"
    coordinates = ", ".join(f"{dim}=ds[{dim!r}]" for dim in mine)
    return LayoutError(
        "products on axes of different names were merged",
        variable=there[0],
        found=f"{', '.join(there[:4])}{', ...' if there[4:] else ''} on ({', '.join(other)}), the "
        f"forcings on ({', '.join(mine)})",
        expected="one map",
        fix=(
            f"ds = xr.merge([ds.drop_dims({list(other)}), ds.drop_dims({list(mine)})"
            f".rename({dict(zip(other, mine, strict=True))}).{to}({coordinates})], join='exact')"
        ),
    )
