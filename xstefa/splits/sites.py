"""Which sites a dataset has: their published names, their attributes, their days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Layout
from xstefa.errors import LayoutError, MissingTokenError, TrainingError
from xstefa.inference.windows import Days

Mask = NDArray[np.bool_]


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
    _dataset: xr.Dataset | None = field(default=None, repr=False)
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
        TrainingError
            If two sites have the same name.
        """
        sizes = tuple(int(dataset.sizes[dim]) for dim in layout.site_dims)
        ids, named = _names(dataset, layout, sizes, name)
        labels, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise TrainingError(
                "sites must have names of their own, or a split could put one on both sides",
                variable=name,
                found=f"{int((counts > 1).sum())} names twice, e.g. {labels[counts > 1][0]!r}",
                expected="one name a site",
                fix="sites=<variable with unique identifiers>",
            )
        return cls(
            ids=ids,
            days=layout.days,
            calendar=layout.calendar,
            site_dims=layout.site_dims,
            shape=sizes,
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
            If the dataset has no such variable on its site dimensions.
        """
        if self._dataset is None or name not in self._dataset.variables:
            raise MissingTokenError(
                "the holdout needs a variable that the dataset does not have",
                variable=name,
                expected=f"a variable on ({', '.join(self.site_dims)})",
                fix=f"ds[{name!r}] = ({self.site_dims}, values), or name another variable",
            )
        found = np.array([as_code(v) for v in _stacked(self._dataset[name], self)], dtype=str)
        return found if self._kept is None else found[self._kept]

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
    kept = xr.DataArray(keep.reshape(sites.shape), dims=sites.site_dims)

    def masked(variable: xr.DataArray) -> xr.DataArray:
        if not set(sites.site_dims) <= set(variable.dims) or variable.dtype.kind != "f":
            return variable
        return variable.where(kept)

    return dataset.map(masked, keep_attrs=True)


def _names(
    dataset: xr.Dataset, layout: Layout, sizes: Sequence[int], name: str | None
) -> tuple[NDArray[np.str_], bool]:
    """Return what tells the sites apart, and whether it is their names."""
    dims = layout.site_dims
    if name is not None and name not in dataset.variables:
        raise MissingTokenError(
            "no such variable to name the sites",
            variable=name,
            expected=f"a variable on ({', '.join(dims)})",
            fix="sites=<variable with unique identifiers>",
        )
    candidates = [
        str(key)
        for key, variable in dataset.variables.items()
        if variable.attrs.get("cf_role") == "timeseries_id" and set(variable.dims) <= set(dims)
    ]
    if name is not None:
        candidates = [name]
    if candidates:
        array = dataset[candidates[0]]
        if not set(array.dims) <= set(dims):
            raise LayoutError(
                "the variable that names the sites is not on them",
                variable=candidates[0],
                found=f"dimensions {array.dims}",
                expected=f"dimensions {dims}",
                fix="sites=<variable with unique identifiers>",
            )
        values = _stacked(array, Sites(ids=np.empty(0, str), days=layout.days, site_dims=dims,
                                       shape=tuple(sizes)))  # fmt: skip
        return np.array([_text(v) for v in values], dtype=str), True
    labels = [
        [_text(v) for v in (dataset[dim].values if dim in dataset.coords else range(size))]
        for dim, size in zip(dims, sizes, strict=True)
    ]
    grids = np.meshgrid(*[np.array(part, dtype=object) for part in labels], indexing="ij")
    if not grids:
        return np.array(["site"]), False
    ids = np.array([",".join(parts) for parts in zip(*(g.ravel() for g in grids), strict=True)])
    named = len(dims) == 1 and dims[0] in dataset.coords and dataset[dims[0]].dtype.kind != "f"
    return ids, named


def _stacked(array: xr.DataArray, sites: Sites) -> NDArray[np.generic]:
    """Return the values in the order of the stacked site dimensions."""
    missing = {
        dim: size
        for dim, size in zip(sites.site_dims, sites.shape, strict=True)
        if dim not in array.dims
    }
    full = array.reset_coords(drop=True).expand_dims(missing).transpose(*sites.site_dims)
    return full.to_numpy().ravel()


def _text(value: object) -> str:
    return value.decode().strip() if isinstance(value, bytes) else str(value).strip()


def as_code(value: object) -> str:
    """Return a code as text: 3, 3.0 and "03" are the same region."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = _text(value)
    return text.lstrip("0") or "0" if text.isdigit() else text
