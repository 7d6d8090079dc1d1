"""Forecasts: datasets whose days are counted from one initial date or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from xstefa.binding.geometry import output_coordinates
from xstefa.binding.time_axis import day_numbers, lead_dimension
from xstefa.errors import LayoutError


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """A dataset whose days are counted from one initial date or several.

    Attributes
    ----------
    dataset : Dataset
    init : str
        Coordinate of the initial dates, a dimension or a scalar.
    lead : str
        Dimension of the lead times.
    """

    dataset: xr.Dataset
    init: str
    lead: str

    @classmethod
    def of(cls, dataset: xr.Dataset) -> Forecast | None:
        """Recognise a forecast; None if the dataset has one time axis.

        Raises
        ------
        LayoutError
            If its lead times have no initial dates to be counted from, or there are none.
        """
        lead = lead_dimension(dataset, dataset.dims)
        if lead is None:
            return None
        dates = [
            str(name)
            for name, variable in dataset.coords.items()
            if variable.dims in ((), (name,)) and _is_date(variable.variable)
        ]
        named = [n for n in dates if "reference_time" in dataset[n].attrs.get("standard_name", "")]
        dims = [name for name in dates if name in dataset.dims]
        found = named or dims or [name for name in dates if name != "valid_time"]
        if len(found) != 1:
            raise LayoutError(
                "what the lead times are counted from is not clear",
                variable=lead,
                found=", ".join(map(repr, found)) or "no coordinate of dates beside it",
                expected="initial dates as one dimension or scalar coordinate",
                fix="ds = ds.assign_coords(init_time=np.datetime64('2024-01-01'))"
                if not found
                else f"ds[{found[0]!r}].attrs['standard_name'] = 'forecast_reference_time'",
            )
        if not dataset.sizes[lead] * dataset[found[0]].size:
            raise LayoutError(
                "there is no initial date or lead time",
                variable=lead if not dataset.sizes[lead] else found[0],
                found="none",
                expected="at least one of both",
                fix="check the selection that made it: .sel() outside of the record gives nothing",
            )
        return cls(dataset=dataset, init=found[0], lead=lead)

    @property
    def several(self) -> bool:
        """Whether the initial dates are a dimension."""
        return self.init in self.dataset.dims

    @property
    def valid_time(self) -> xr.Variable:
        """Dates that the values are for, along initial dates, if several, and lead times."""
        start, ahead = self.dataset[self.init].variable, self.dataset[self.lead].values
        if start.dtype.kind == "O":  # dates of cftime, to which only Python's can be added
            ahead = pd.to_timedelta(ahead).to_pytimedelta()
        attrs = {"standard_name": "time", "long_name": "time that the forecast is for"}
        return xr.Variable((*start.dims, self.lead), start.values[..., None] + ahead, attrs)

    def at(self, number: int) -> xr.Dataset:
        """Return the forecast of one initial date, on the days that it is for."""
        ds = self.dataset.isel({self.init: number}) if self.several else self.dataset
        days = self.valid_time.values.reshape(-1, ds.sizes[self.lead])[number]
        gone = [n for n, v in ds.coords.items() if _is_date(v.variable) and n != self.lead]
        return ds.drop_vars(gone).assign_coords({self.lead: (self.lead, days)})

    @property
    def overlaps(self) -> bool:
        """Whether a day has values of more than one initial date."""
        valid = self.valid_time.values
        return bool(np.unique(valid).size < valid.size)

    def wrap(self, template: str, one: xr.DataArray) -> xr.DataArray:
        """Return an array without memory, with the dimensions and coordinates of the forecast.

        Parameters
        ----------
        template : str
            A variable along all of them.
        one : DataArray
            That of one initial date.
        """
        array = self.dataset[template]
        dims = [*one.dims]
        if self.several:
            dims.insert(array.dims.index(self.init), self.init)
        array = array.transpose(*dims)
        coords, _, _ = output_coordinates(self.dataset, array)
        found = xr.DataArray(
            np.broadcast_to(np.float32(0), array.shape), dims=array.dims, coords=coords
        )
        found.attrs, found.encoding = one.attrs, one.encoding
        return found.assign_coords(valid_time=self.valid_time)

    def each(self, function: Callable[[xr.Dataset], xr.Dataset]) -> xr.Dataset:
        """Return what a function makes of each initial date, on days of lead time again."""
        init = self.dataset[self.init].reset_coords(drop=True)
        starts = day_numbers(init if self.several else init.expand_dims(self.init))[0]
        found = []
        for i, start in enumerate(starts):
            one = function(self.at(i))
            ahead = (day_numbers(one[self.lead])[0] - start).astype("timedelta64[D]")
            one = one.assign_coords({self.lead: (self.lead, ahead.astype("timedelta64[s]"))})
            # Series get the initial dates as a dimension; what has no days is that of the first.
            found.append(
                one.map(
                    lambda v: v.expand_dims(self.init) if self.lead in v.dims else v,
                    keep_attrs=True,
                )
                if self.several
                else one
            )
        if not self.several:
            return found[0].assign_coords({self.init: init})
        how: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override"}
        # Initial dates of other hours have other whole days.
        return xr.concat(found, dim=self.init, join="outer", **how).assign_coords({self.init: init})


def _is_date(variable: xr.Variable) -> bool:
    return variable.dtype.kind == "M" or (
        variable.dtype.kind == "O"
        and variable.size > 0
        and isinstance(variable.values.reshape(-1)[0], cftime.datetime)
    )
