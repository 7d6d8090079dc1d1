"""Which sites a dataset has: their published names, their attributes, their days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import TypeAlias

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Layout
from xstefa.binding.geometry import find_coordinate
from xstefa.binding.places import with_places
from xstefa.errors import LayoutError, MissingTokenError, OptionError, TrainingError, did_you_mean
from xstefa.options import as_list
from xstefa.windows import Days

Mask = NDArray[np.bool_]

SiteLike: TypeAlias = str | int | tuple[float, float]
"""A site: its name or label, or latitude and longitude of the nearest."""

FARTHEST = 200.0  # km to what counts as the nearest site
EARTH_RADIUS = 6371.0  # km


@dataclass(frozen=True, kw_only=True, eq=False)
class Sites:
    """The sites and days of a dataset, as far as a holdout may look.

    Attributes
    ----------
    ids : ndarray of str, shape (site,)
        Names of the sites, in the order of the stacked site dimensions.
    days : ndarray of int64, shape (time,)
        Day numbers since 1970-01-01 in the dataset's calendar.
    calendar : str
        CF name of the calendar.
    site_dims : tuple of str
        Dimensions that the sites are stacked from.
    shape : tuple of int
        Their sizes.
    named : bool
        Whether `ids` are names, not numbers or coordinates in place of names.
    """

    ids: NDArray[np.str_]
    days: Days
    calendar: str = "standard"
    site_dims: tuple[str, ...] = ("site",)
    shape: tuple[int, ...] = ()
    named: bool = True
    _dataset: xr.Dataset = field(default_factory=xr.Dataset, repr=False)
    _kept: Mask | None = field(default=None, repr=False)

    @classmethod
    def of(cls, dataset: xr.Dataset, layout: Layout, *, name: str | None = None) -> Sites:
        """Read the sites of a dataset.

        Parameters
        ----------
        dataset : xarray.Dataset
        layout : Layout
            Its layout, from binding.
        name : str, optional
            Variable that names the sites. By default the one with ``cf_role = "timeseries_id"``,
            else the labels of the site dimensions.

        Raises
        ------
        MissingTokenError
            If there is no variable `name`.
        LayoutError
            If it is not on the sites.
        TrainingError
            If two sites have the same name.
        """
        sizes = {dim: int(dataset.sizes[dim]) for dim in layout.site_dims}
        ids, named = _names(dataset, sizes, name)
        labels, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise TrainingError(
                "sites must have names of their own, or a split could put one on both sides",
                variable=name,
                found=f"{int((counts > 1).sum())} names twice, e.g. {str(labels[counts > 1][0])!r}",
                expected="one name a site",
                fix="sites=<variable with unique identifiers>",
            )
        return cls(
            ids=ids,
            days=layout.days,
            calendar=layout.calendar,
            site_dims=layout.site_dims,
            shape=tuple(sizes.values()),
            named=named,
            _dataset=dataset,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def values(self, name: str) -> NDArray[np.str_]:
        """Return an attribute of the sites as text, codes without leading zeros, shape (site,).

        Raises
        ------
        MissingTokenError
            If the dataset has no such variable.
        LayoutError
            If it is not on the sites.
        """
        stacked = _stacked(self._dataset, name, dict(zip(self.site_dims, self.shape, strict=True)))
        found = np.array([as_code(value) for value in stacked], dtype=str)
        return found if self._kept is None else found[self._kept]

    def places(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return latitude and longitude [degree] of the sites, each of shape (site,).

        Raises
        ------
        LayoutError
            If the dataset has none, or some are missing.
        """
        found, dataset = [], with_places(self._dataset)
        for kind in ("latitude", "longitude"):
            name = find_coordinate(dataset, kind, self.site_dims)
            sizes = dict(zip(self.site_dims, self.shape, strict=True))
            values = np.array(np.nan)
            if name is not None:
                values = _stacked(dataset, name, sizes).astype(np.float64)
                values = values if self._kept is None else values[self._kept]
            if not np.isfinite(values).all():
                raise LayoutError(
                    f"a holdout by place needs the {kind} of every site",
                    variable=name or kind,
                    found="none" if name is None else f"{(~np.isfinite(values)).sum()} missing",
                    expected=f"a coordinate with standard_name {kind!r}",
                    fix=f"ds = ds.assign_coords({kind}=({self.site_dims}, values))",
                )
            found.append(values)
        return found[0], found[1]

    def labeled(self, values: NDArray[np.generic], **attrs: object) -> xr.DataArray:
        """Unstack a value for each site, shape (site,), to the dimensions of the dataset."""
        return xr.DataArray(values.reshape(self.shape), dims=self.site_dims, attrs=attrs)

    def select(self, keep: Mask) -> Sites:
        """Keep some sites, `keep` True where kept: a further split may look at these only."""
        kept = np.ones(len(keep), dtype=bool) if self._kept is None else self._kept.copy()
        kept[kept] = keep
        return replace(self, ids=self.ids[keep], _kept=kept)

    def day_number(self, date: str) -> int:
        """Return the day number of an ISO date in the calendar of the dataset.

        Raises
        ------
        TrainingError
            If it is none.
        """
        try:
            year, month, day = (int(part) for part in str(date).split("-"))
            moment = cftime.datetime(year, month, day, calendar=self.calendar)
        except ValueError as error:
            raise TrainingError(
                f"no day of the calendar {self.calendar!r}",
                variable="date",
                found=repr(date),
                expected='a date such as "1995-09-30"',
            ) from error
        return int(cftime.date2num(moment, "days since 1970-01-01", calendar=self.calendar))


def only_sites(dataset: xr.Dataset, sites: Sites, keep: Mask) -> xr.Dataset:
    """Return the dataset with other sites dropped, or, on a grid, masked.

    Parameters
    ----------
    dataset : xarray.Dataset
    sites : Sites
    keep : ndarray of bool, shape (site,)
    """
    if not sites.site_dims:
        return dataset
    if len(sites.site_dims) == 1:
        return dataset.isel({sites.site_dims[0]: np.flatnonzero(keep)})
    kept = sites.labeled(keep)

    def masked(variable: xr.DataArray) -> xr.DataArray:
        if not set(sites.site_dims) <= set(variable.dims) or variable.dtype.kind != "f":
            return variable
        return variable.where(kept)

    return dataset.map(masked, keep_attrs=True)


def find_sites(
    dataset: xr.Dataset, site: SiteLike | Sequence[str | int], layout: Layout
) -> dict[str, int | list[int]]:
    """Return where a site stands, or several, as `xarray.Dataset.isel` takes it.

    Raises
    ------
    OptionError
        If sites of a map are asked for by name, or none is near.
    MissingTokenError
        If there is no such site.
    """
    if isinstance(site, tuple) and len(site) == 2 and all(isinstance(x, float) for x in site):
        return {**_nearest(dataset, (float(site[0]), float(site[1])), layout)}
    if len(layout.site_dims) != 1:
        raise OptionError(
            "sites are named along one dimension",
            variable="site",
            found=f"{site!r} on dimensions ({', '.join(layout.dims)})",
            expected="latitude and longitude",
            fix="site=(47.2, -68.6)" if layout.site_dims else "leave site= out: there is one",
        )
    (dim,) = layout.site_dims
    names = {name: i for i, name in enumerate(Sites.of(dataset, layout).ids.tolist())}
    wanted = [str(each) for each in as_list(site)]
    if unknown := [each for each in wanted if each not in names]:
        raise MissingTokenError(
            "the dataset has no such site",
            variable=unknown[0],
            found=f"{len(names)} sites: {', '.join(islice(names, 4))}{', ...' * (len(names) > 4)}",
            expected=f"names or labels along {dim!r}, or latitude and longitude",
            fix=did_you_mean(unknown[0], names),
        )
    places = [names[each] for each in wanted]
    return {dim: places[0] if isinstance(site, str | int) else places}


def _nearest(dataset: xr.Dataset, place: tuple[float, float], layout: Layout) -> dict[str, int]:
    """Return where the site stands that is nearest to a latitude and longitude."""
    dataset = with_places(dataset)
    found = [find_coordinate(dataset, kind, layout.dims) for kind in ("latitude", "longitude")]
    if None in found:
        raise OptionError(
            "a place is found by the latitude and longitude of the sites",
            variable="site",
            found=f"coordinates {', '.join(map(str, dataset.coords))}",
            expected="latitude and longitude of each site",
            fix=f"select first: .sel({', '.join(f'{dim}=...' for dim in layout.site_dims)})",
        )
    (lat, lon), (lat0, lon0) = (np.radians(dataset[name]) for name in found), np.radians(place)
    chord = np.sin((lat - lat0) / 2) ** 2 + np.cos(lat) * np.cos(lat0) * (
        np.sin((lon - lon0) / 2) ** 2
    )
    distance = 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(chord, 1)))
    at = {str(dim): int(i) for dim, i in distance.fillna(np.inf).argmin(...).items()}
    if not (nearest := float(distance.isel(at))) <= FARTHEST:
        raise OptionError(
            "no site is near this place",
            variable="site",
            found=f"{place}, {nearest:,.0f} km from the nearest",
            expected=f"latitude and longitude within {FARTHEST:g} km of a site",
        )
    return at


def _names(
    dataset: xr.Dataset, sizes: Mapping[str, int], name: str | None
) -> tuple[NDArray[np.str_], bool]:
    """Return what tells the sites apart, and whether it is their names."""
    for key, variable in dataset.variables.items():
        if variable.attrs.get("cf_role") == "timeseries_id" and set(variable.dims) <= set(sizes):
            name = name or str(key)
    if name is not None:
        return np.array([_text(v) for v in _stacked(dataset, name, sizes)], dtype=str), True
    if not sizes:
        return np.array(["site"]), False
    labels = [[_text(value) for value in dataset[dim].values] for dim in sizes]
    ids = np.array([",".join(parts) for parts in product(*labels)], dtype=str)
    dim, *others = sizes
    return ids, not others and dim in dataset.coords and dataset[dim].dtype.kind != "f"


def _stacked(dataset: xr.Dataset, name: str, sizes: Mapping[str, int]) -> NDArray[np.generic]:
    """Return a variable in the order of the stacked site dimensions."""
    known = name in dataset.variables
    if not known or not set(dataset[name].dims) <= set(sizes):
        raise (LayoutError if known else MissingTokenError)(
            "what tells sites apart has to be a variable on them",
            variable=name,
            found=f"dimensions {dataset[name].dims}" if known else "no such variable",
            expected=f"a variable on ({', '.join(sizes)})",
            fix=f"ds[{name!r}] = ({tuple(sizes)}, values), or name another variable",
        )
    array = dataset[name].reset_coords(drop=True)
    missing = {dim: size for dim, size in sizes.items() if dim not in array.dims}
    return array.expand_dims(missing).transpose(*sizes).to_numpy().ravel()


def _text(value: object) -> str:
    return value.decode().strip() if isinstance(value, bytes) else str(value).strip()


def as_code(value: object) -> str:
    """Return a code as text: 3, 3.0 and "03" are the same region."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = _text(value)
    return text.lstrip("0") or "0" if text.isdigit() else text
