"""A model day by day, for frameworks that couple models by the Basic Model Interface of CSDMS."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from xstefa.arguments import check_fields, check_names
from xstefa.binding import Binding, bind
from xstefa.binding.geometry import find_coordinate
from xstefa.errors import (
    BindingErrors,
    LayoutError,
    MissingTokenError,
    OptionError,
    ReadError,
    did_you_mean,
    need,
)
from xstefa.inference.command import open_lazily, open_state, save_state
from xstefa.inference.state import ANSWERS, TIME, last_day, site_dims
from xstefa.model.checkpoint import Model
from xstefa.model.registry import load_model

need("bmi", "bmipy", job="the Basic Model Interface", variable="xstefa.bmi")
from bmipy import Bmi  # noqa: E402 - after the message that says what is missing

NAMES = {
    "precipitation": "atmosphere_water_precipitation__leq_volume_flux",
    "temperature_max": "atmosphere_bottom_air__max_of_temperature",
    "temperature_min": "atmosphere_bottom_air__min_of_temperature",
    "temperature_mean": "atmosphere_bottom_air__temperature",
    "shortwave_down": "land_surface_radiation~incoming~shortwave__energy_flux",
    "longwave_down": "land_surface_radiation~incoming~longwave__energy_flux",
    "relative_humidity": "atmosphere_bottom_air_water~vapor__relative_saturation",
    "potential_evapotranspiration": "land_surface_water_evapotranspiration__potential_volume_flux",
    "wind_speed": "land_surface_wind__speed",
    "surface_pressure": "atmosphere_bottom_air__pressure",
    "lai": "land_vegetation__leaf-area_index",
    "streamflow": "land_surface_water_runoff__volume_flux",
    "evapotranspiration": "land_surface_water_evapotranspiration__volume_flux",
    "snow_water_equivalent": "snowpack__leq_depth",
    "soil_water_storage": "land_surface_soil_water__volume-per-area_storage_density",
    "groundwater_storage": "groundwater__volume-per-area_storage_density",
    "soil_moisture": "land_surface_soil_water__volume_fraction",
}
"""CSDMS names of tokens and targets. What has none here has its own name."""

Numbers = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a configuration file says, in TOML. Paths in it are relative to its folder.

    Attributes
    ----------
    model : str
        Name or path of a model that looks back only.
    state : str, optional
        State to go on from, of `xstefa.save_state` or ``xstefa spin-up``.
    history : str, optional
        In place of a state: the weather to spin up with, to its last day.
    forcing : str, optional
        Weather of the days that follow. What is set is taken in place of what it has.
    attributes : str, optional
        Attributes of the sites: a dataset; or a table (.csv), whose first column names the sites
        and has the name of their dimension, and whose other columns say their units, as
        ``elev_mean(m)``. By default those in `forcing` or `history`.
    sites : tuple of str or int, optional
        Labels of the sites to run, along their one dimension; by default all.
    rename : dict of str to str
        Variable to token, in all of these files.
    state_out : str, optional
        Where `finalize` saves the state.
    """

    model: str
    state: str | None = None
    history: str | None = None
    forcing: str | None = None
    attributes: str | None = None
    sites: tuple[str | int, ...] | None = None
    rename: dict[str, str] = field(default_factory=dict)
    state_out: str | None = None

    @classmethod
    def read(cls, path: str) -> Config:
        """Read a configuration file.

        Raises
        ------
        ReadError, OptionError
            If it is none.
        """
        try:
            with open(path, "rb") as file:
                given: dict[str, Any] = tomllib.load(file)
        except (OSError, ValueError) as error:
            raise ReadError(
                "the configuration cannot be read",
                variable=path,
                found=f"{type(error).__name__}: {error}",
                expected="a file in TOML",
                fix="model = 'streamflow' and state = 'state.zarr', a line each",
            ) from error
        check_names(cls, given)
        if "model" not in given or ("state" in given) == ("history" in given):
            raise OptionError(
                variable=path,
                found=", ".join(given) or "nothing",
                expected="a model, and a state or a history to begin with",
                fix="model = 'streamflow' and state = 'state.zarr', a line each",
            )
        if isinstance(given.get("sites"), list):
            given["sites"] = tuple(given["sites"])
        check_fields(cls(**given))
        folder = os.path.dirname(os.path.abspath(path))
        for name in ("state", "history", "forcing", "attributes", "state_out"):
            if name in given:
                given[name] = os.path.join(folder, given[name])
        return cls(**given)


class StefaBmi(Bmi):
    """A model that goes on a day with each `update`.

    Inputs are the daily forcings that the model knows, outputs what it predicts, in the units of
    its schema; sites are the nodes of grid 0. Time is counted in days since the day of the first
    state; `date` is the current one. What is set counts for the day that comes next, and is not
    known after it; what the model needs has to be set, or be in the configuration's `forcing`, for
    each day.

    Examples
    --------
    ::

        bmi = StefaBmi()
        bmi.initialize("streamflow.toml")
        bmi.set_value("atmosphere_water_precipitation__leq_volume_flux", rain)
        bmi.set_value("atmosphere_bottom_air__temperature", temperature)
        bmi.update()
        flow = bmi.get_value_ptr("land_surface_water_runoff__volume_flux")
    """

    _config: Config
    _model: Model
    _state: xr.Dataset
    _attributes: xr.Dataset
    _weather: Binding | None
    _shape: dict[str, int]
    _units: dict[str, str]
    _first: int
    _end: float

    def __init__(self) -> None:
        self._inputs: dict[str, Numbers] = {}
        self._outputs: dict[str, Numbers] = {}
        self._tokens: dict[str, str] = {}
        self._set: set[str] = set()
        self._steps = 0

    # ---- control

    def initialize(self, config_file: str) -> None:
        """Read a configuration (see `Config`), and spin up if it has no state."""
        config = self._config = Config.read(config_file)
        model = self._model = load_model(config.model)
        files = {
            name: self._selected(_opened(path))
            for name in ("attributes", "forcing", "history")
            if (path := getattr(config, name)) is not None
        }
        without = [d.drop_dims(set(_days(d)) & set(d.dims)) for d in files.values()]
        self._attributes = next((d.load() for d in without if d.data_vars), xr.Dataset())
        if config.state is not None:
            self._state = self._selected(open_state(config.state)).load()
        else:
            past = files["history"].assign(self._attributes.data_vars)
            self._state = past.stefa.spin_up(model, rename=self._rename(past)).compute()
        self._shape = {dim: self._state.sizes[dim] for dim in site_dims(self._state)}
        self._weather, self._end = None, float("inf")
        if "forcing" in files:
            self._follow(files["forcing"])
        for each in (self._attributes, files.get("forcing", self._attributes)):
            self._require_sites(each)
        known = {v.name: NAMES.get(v.name, v.name) for v in model.schema.forcings}
        self._tokens = {known[n]: n for n in known if n in model.spec.tokens}
        self._units = {known[v.name]: v.units for v in model.schema.forcings}
        self._units |= {NAMES.get(v.name, v.name): v.units for v in model.schema.targets}
        count = math.prod(self._shape.values())
        self._inputs = {name: np.full(count, np.nan) for name in self._tokens}
        self._outputs = {NAMES.get(n, n): np.full(count, np.nan) for n in model.spec.outputs}
        self._steps = 0
        self._begin()

    def update(self) -> None:
        """Go on by a day.

        Raises
        ------
        OptionError
            If nothing was set for it of what the model needs.
        """
        dims, now = tuple(self._shape), self._state[TIME].expand_dims(TIME).to_index()
        today = self._attributes.assign_coords({TIME: now + timedelta(days=1)})
        labels = {d: self._state[d] for d in dims if d in self._state.coords}
        today = today.assign_coords({d: v for d, v in labels.items() if d not in today.coords})
        for name, values in self._inputs.items():
            # Who writes to where get_value_ptr points tells nobody.
            if name not in self._set and not np.isfinite(values).any():
                continue
            block = values.reshape(1, *self._shape.values()).astype(np.float32)
            today[self._tokens[name]] = ((TIME, *dims), block, {"units": self._units[name]})
        if any(v.isnull().all() for v in today.data_vars.values() if TIME in v.dims):
            today = today.chunk()  # what is at hand is refused if a forcing has no value at all
        how: dict[str, Any] = {"state": self._state, "rename": self._rename(today)}
        names = list(self._model.spec.outputs)
        try:
            found = today.stefa.predict(names, model=self._model, **how)
        except (MissingTokenError, BindingErrors) as error:
            problems = error.problems if isinstance(error, BindingErrors) else (error,)
            lacking = [str(p.variable) for p in problems if isinstance(p, MissingTokenError)]
            if not lacking:
                raise
            name, *_ = (NAMES.get(token, token) for token in lacking[0].split(" or "))
            raise OptionError(
                "what the model needs was not set for the next day",
                variable=name,
                found=f"no {' and no '.join(lacking)} for the day after {str(self.date)[:10]}",
                expected="values of all sites, before each update",
                fix=f"bmi.set_value({name!r}, values), of NaN if nobody knows",
            ) from error
        found, self._state = compute(found, today.stefa.spin_up(self._model, **how))
        for name, values in zip(names, self._outputs.values(), strict=True):
            values[:] = found[name].transpose(TIME, *dims).values.reshape(-1)
        self._steps += 1
        self._begin()

    def update_until(self, time: float) -> None:
        """Go on to a whole number of days.

        Raises
        ------
        OptionError
            If it is no later day.
        """
        steps = time - self._steps
        if steps < 0 or steps != int(steps):
            raise OptionError(
                variable="time",
                found=f"{time} on day {self._steps}",
                expected="a whole number of days, and not before",
                fix=f"update_until({float(max(self._steps, round(time)))})",
            )
        for _ in range(int(steps)):
            self.update()

    def finalize(self) -> None:
        """Save the state if the configuration says where, and let go of everything."""
        if self._outputs and self._config.state_out is not None:
            self.save_state(self._config.state_out)
        self.__dict__ = StefaBmi().__dict__

    def save_state(self, path: str) -> None:
        """Save the state of the current day, to begin with another time."""
        save_state(self._state, path)

    @property
    def date(self) -> Any:
        """The current day, as NumPy or cftime has it."""
        return self._state[TIME].values[()]

    # ---- days and sites

    def _rename(self, dataset: xr.Dataset) -> dict[str, str]:
        """Return what the configuration says of a dataset; and that tokens are what they say."""
        names = {str(name) for name in dataset.data_vars}
        own = {name: name for name in names if name in self._model.spec.tokens}
        return own | {name: t for name, t in self._config.rename.items() if name in names}

    def _selected(self, dataset: xr.Dataset) -> xr.Dataset:
        sites = self._config.sites
        if sites is None:
            return dataset
        places = {d: i for d, i in dataset.indexes.items() if d not in _days(dataset)}
        dims = [dim for dim, index in places.items() if {*sites} <= {*index}]
        if len(dims) != 1:
            raise LayoutError(
                "not all sites are there",
                variable="sites",
                found="; ".join(f"{d}: {', '.join(map(str, i[:5]))}" for d, i in places.items()),
                expected=f"a dimension with the labels {', '.join(map(str, sites))}",
                fix="leave sites out, to run all",
            )
        return dataset.sel({dims[0]: list(sites)})

    def _require_sites(self, dataset: xr.Dataset) -> None:
        try:
            xr.align(dataset, self._state.drop_vars(TIME), join="exact", copy=False)
        except ValueError as error:
            raise LayoutError(
                "the sites of a file are not those of the state",
                variable="sites",
                found=str(error).partition("\n")[0],
                expected="the same sites in the same order",
                fix="sites = [...]: the labels of those to run",
            ) from error

    def _follow(self, weather: xr.Dataset) -> None:
        """Take the weather from a dataset, as long as day follows on day."""
        found = bind(weather, self._model.schema, rename=self._rename(weather))
        last, _ = last_day(self._state)
        days = found.layout.days
        self._weather, self._first = found, int(np.searchsorted(days, last, side="right"))
        following = days[self._first :] - last
        self._end = float((following == np.arange(1, following.size + 1)).cumprod().sum())

    def _begin(self) -> None:
        """Forget what was set, and take the weather of the next day where there is some."""
        self._set.clear()
        for values in self._inputs.values():
            values[:] = np.nan
        if self._weather is None or self._steps >= self._end:
            return
        step = {self._weather.layout.time: self._first + self._steps}
        have = [n for n, token in self._tokens.items() if token in self._weather.forcing]
        days = [self._weather.forcing[self._tokens[name]].isel(step) for name in have]
        for name, today in zip(have, compute(*days), strict=True):
            self.set_value(name, today.transpose(*self._shape).values)

    def _array(self, name: str) -> Numbers:
        found = self._inputs | self._outputs
        if name not in found:
            raise OptionError(
                variable="name",
                found=repr(name),
                expected=" or ".join(found) or "a name, after initialize(config_file)",
                fix=did_you_mean(name, found),
            )
        return found[name]

    # ---- what there is

    def get_component_name(self) -> str:
        """Return the name of the model."""
        return f"xstefa {self._model.name}" if self._outputs else "xstefa"

    def get_input_item_count(self) -> int:
        """Return the number of forcings that can be set."""
        return len(self._inputs)

    def get_output_item_count(self) -> int:
        """Return the number of targets."""
        return len(self._outputs)

    def get_input_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the CSDMS names of the forcings that can be set."""
        return tuple(self._inputs)

    def get_output_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the CSDMS names of the targets."""
        return tuple(self._outputs)

    def get_var_grid(self, name: str) -> int:
        """Return 0: all are on the sites."""
        self._array(name)
        return 0

    def get_var_type(self, name: str) -> str:
        """Return ``"float64"``."""
        return str(self._array(name).dtype)

    def get_var_units(self, name: str) -> str:
        """Return the units that values are set and got in."""
        self._array(name)
        return self._units[name]

    def get_var_itemsize(self, name: str) -> int:
        """Return the bytes of a value."""
        return self._array(name).itemsize

    def get_var_nbytes(self, name: str) -> int:
        """Return the bytes of the values of all sites."""
        return self._array(name).nbytes

    def get_var_location(self, name: str) -> str:
        """Return ``"node"``."""
        self._array(name)
        return "node"

    # ---- time

    def get_current_time(self) -> float:
        """Return how many days it went on."""
        return float(self._steps)

    def get_start_time(self) -> float:
        """Return 0, the day of the first state."""
        return 0.0

    def get_end_time(self) -> float:
        """Return the last day of the configuration's `forcing`; else there is none: inf."""
        return self._end if self._outputs else float("inf")

    def get_time_units(self) -> str:
        """Return days."""
        return "d"

    def get_time_step(self) -> float:
        """Return 1."""
        return 1.0

    # ---- values

    def get_value(self, name: str, dest: Numbers) -> Numbers:
        """Copy the values of all sites."""
        dest[:] = self._array(name).reshape(dest.shape)
        return dest

    def get_value_ptr(self, name: str) -> Numbers:
        """Return the values of all sites, where the next ones will be too."""
        return self._array(name)

    def get_value_at_indices(self, name: str, dest: Numbers, inds: Numbers) -> Numbers:
        """Copy the values of some sites."""
        dest[:] = self._array(name)[inds]
        return dest

    def set_value(self, name: str, src: Numbers) -> None:
        """Set a forcing of the next day at all sites."""
        self.set_value_at_indices(name, np.arange(self._array(name).size), np.ravel(src))

    def set_value_at_indices(self, name: str, inds: Numbers, src: Numbers) -> None:
        """Set a forcing of the next day at some sites."""
        self._array(name)[inds] = src
        self._set.add(name)

    # ---- the grid: points without edges

    def get_grid_rank(self, grid: int) -> int:
        """Return 1: sites are in a row."""
        return 1

    def get_grid_size(self, grid: int) -> int:
        """Return the number of sites."""
        return next(iter(self._outputs.values())).size

    def get_grid_type(self, grid: int) -> str:
        """Return ``"unstructured"``."""
        return "unstructured"

    def get_grid_x(self, grid: int, x: Numbers) -> Numbers:
        """Copy the longitudes of the sites."""
        return self._place("longitude", x)

    def get_grid_y(self, grid: int, y: Numbers) -> Numbers:
        """Copy the latitudes of the sites."""
        return self._place("latitude", y)

    def get_grid_z(self, grid: int, z: Numbers) -> Numbers:
        """Heights are not known: NaN."""
        z[:] = np.nan
        return z

    def _place(self, which: Any, dest: Numbers) -> Numbers:
        where = self._attributes.assign_coords(self._state.drop_vars(TIME).coords)
        name = find_coordinate(where, which, tuple(self._shape))
        dest[:] = np.nan
        if name is not None:
            whole = where[name].broadcast_like(self._state[ANSWERS][..., 0, 0])
            dest[:] = whole.transpose(*self._shape).values.reshape(-1)
        return dest

    def get_grid_node_count(self, grid: int) -> int:
        """Return the number of sites."""
        return self.get_grid_size(grid)

    def get_grid_edge_count(self, grid: int) -> int:
        """Return 0."""
        return 0

    def get_grid_face_count(self, grid: int) -> int:
        """Return 0."""
        return 0

    def get_grid_edge_nodes(self, grid: int, edge_nodes: Numbers) -> Numbers:
        """Return what is given: there are no edges."""
        return edge_nodes

    def get_grid_face_edges(self, grid: int, face_edges: Numbers) -> Numbers:
        """Return what is given: there are no faces."""
        return face_edges

    def get_grid_face_nodes(self, grid: int, face_nodes: Numbers) -> Numbers:
        """Return what is given: there are no faces."""
        return face_nodes

    def get_grid_nodes_per_face(self, grid: int, nodes_per_face: Numbers) -> Numbers:
        """Return what is given: there are no faces."""
        return nodes_per_face

    def get_grid_shape(self, grid: int, shape: Numbers) -> Numbers:
        """Copy the number of sites."""
        shape[:] = self.get_grid_size(grid)
        return shape

    def get_grid_spacing(self, grid: int, spacing: Numbers) -> Numbers:
        """Sites lie anywhere."""
        raise NotImplementedError("sites have no spacing")

    def get_grid_origin(self, grid: int, origin: Numbers) -> Numbers:
        """Sites lie anywhere."""
        raise NotImplementedError("sites have no origin")


def _opened(path: str) -> xr.Dataset:
    if not path.endswith(".csv"):
        return open_lazily(path)
    first = pd.read_csv(path, nrows=0).columns[0]
    return pd.read_csv(path, dtype={first: str}, index_col=first).to_xarray()


def _days(dataset: xr.Dataset) -> list[Any]:
    """Return the dimensions along days."""
    kinds = pd.DatetimeIndex | xr.CFTimeIndex
    return [dim for dim, index in dataset.indexes.items() if isinstance(index, kinds)]
