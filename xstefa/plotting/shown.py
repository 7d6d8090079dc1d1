"""What is shown of a dataset: a prediction, and what belongs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import xarray as xr
from dask.base import compute, is_dask_collection

from xstefa.binding import Binding, Layout, plan
from xstefa.errors import LayoutError, OptionError
from xstefa.inference.predict import answering, predict
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike, load_model
from xstefa.schema import load_schema
from xstefa.splits.leakage import HELD_OUT, SEEN, roles
from xstefa.splits.sites import SiteLike, Sites, find_sites

SAID = {SEEN: "the model learned from this site", HELD_OUT: "site held out of training"}
"""What is said of the role that a site had in training."""

CELLS = 600
"""Cells of a map along one axis that are drawn, at most: more are no wider than a dot."""


ARRAYS = ("predicted", "observed", "precipitation", "quantiles")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A prediction of one site or many, and what belongs beside it.

    Attributes
    ----------
    predicted : DataArray
    observed, precipitation : DataArray, optional
        On the same days.
    quantiles : DataArray, optional
        Ends of the interval around the prediction.
    binding : Binding
        The dataset, all its sites and days.
    model : Model, optional
        That predicted, where it is known.
    role : int, optional
        Of one site: a value of `xstefa.splits.leakage.ROLES`.
    """

    predicted: xr.DataArray
    observed: xr.DataArray | None
    precipitation: xr.DataArray | None
    quantiles: xr.DataArray | None
    binding: Binding
    model: Model | None
    role: int | None = None

    @classmethod
    def of(
        cls,
        dataset: xr.Dataset,
        target: str | Model | xr.DataArray,
        *,
        site: SiteLike | None = None,
        one: bool = True,
        model: ModelLike | None = None,
        interval: float | None = None,
        rename: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Shown:
        """Predict, unless a prediction is given, and find what belongs beside it.

        Parameters
        ----------
        dataset : Dataset
        target : str, Model or DataArray
            What to predict, or a prediction of this dataset.
        site : str, int or pair of float, optional
            The one to show.
        one : bool
            Whether it has to be one.
        model, rename, **how
            As for `predict`.
        interval : float, optional
            Probability of an observation within the band, of a model that was calibrated.

        Raises
        ------
        OptionError
            If one site is to be shown, of several, and none was chosen.
        """
        given = target if isinstance(target, xr.DataArray) else None
        if isinstance(target, Model):
            target.require("target")
            model, target = target, target.spec.outputs[0]
        if isinstance(target, xr.DataArray):
            chosen, name = None if model is None else load_model(model), str(target.name)
        else:
            chosen, name = answering(dataset, target, model=model, rename=rename), target
        whole = plan(dataset, chosen.schema if chosen else load_schema(), rename=rename)
        layout = whole.layout
        at: dict[str, Any] = {}
        if site is not None:
            at = find_sites(dataset, site, layout)
        elif one and layout.site_dims:
            at = _only(dataset, layout.site_dims)
        role = None
        if one and chosen is not None and len(layout.site_dims) < 2:
            sites, place = Sites.of(dataset, layout), next(iter(at.values()), 0)
            role = int(roles(chosen.spec.provenance, sites.ids, named=sites.named)[place])
        # Chunked, a prediction and its interval come from one pass over the data.
        part = dataset.isel(at)
        part = part if is_dask_collection(part) else part.chunk()
        binding = plan(part, whole.schema, rename=rename)
        quantiles = None
        if given is not None:
            predicted = _of_these_sites(given, dataset, layout.site_dims).isel(at)
        else:
            how |= {"model": chosen, "rename": rename}
            predicted = predict(part, name, **how)
            if interval is not None and chosen and chosen.spec.distribution:
                levels = [(1 - interval) / 2, (1 + interval) / 2]
                quantiles = predict(part, name, quantiles=levels, **how)
        time = layout.time
        known = {target.name for target in whole.schema.targets}
        observed = binding.observed(name) if name in known else None
        rain = binding.forcing.get("precipitation")
        names = _names(dataset, layout, at)

        def beside(array: xr.DataArray | None) -> xr.DataArray | None:
            if array is None:
                return None
            return array.reindex({time: predicted[time]}).assign_coords(names)

        return cls(
            predicted=predicted.assign_coords(names),
            observed=beside(observed),
            precipitation=beside(rain),
            quantiles=beside(quantiles),
            binding=binding,
            model=chosen,
            role=role,
        )

    def compute(self) -> Shown:
        """Read and predict, all in one pass."""
        parts = {name: array for name in ARRAYS if (array := getattr(self, name)) is not None}
        return replace(self, **dict(zip(parts, compute(*parts.values()), strict=True)))

    def at(self, place: Mapping[str, int], *, rename: Mapping[str, str] | None) -> Shown:
        """Return one of several sites, which were computed.

        Parameters
        ----------
        place : mapping of str to int
            Where it stands, by dimension.
        rename : mapping of str to str, optional
            As for `of`.
        """
        part = self.binding.dataset.isel(place)
        names = _names(self.binding.dataset, self.binding.layout, place)
        arrays = {
            name: array.isel(place, missing_dims="ignore").assign_coords(names)
            for name in ARRAYS
            if (array := getattr(self, name)) is not None
        }
        return replace(self, binding=plan(part, self.binding.schema, rename=rename), **arrays)

    @property
    def signature(self) -> str:
        """Which model made it, and whether it learned from the site, as it stands on a picture."""
        said = SAID.get(self.role or 0)
        return " · ".join(filter(None, [made_by(self.predicted.attrs), said]))


def made_by(attrs: Mapping[Any, Any]) -> str:
    """Say which model made something: its name, and the beginning of its hash."""
    keys = {"model_name": "model {}", "model_hash": "{:.8}", "xstefa_version": "xstefa {}"}
    return " · ".join(text.format(attrs[key]) for key, text in keys.items() if key in attrs)


class Thinned(NamedTuple):
    """Which cells of a map are looked at, and how that is said."""

    steps: dict[str, slice]
    text: str


def thinned(
    dataset: xr.Dataset, *, most: int = CELLS, rename: Mapping[str, str] | None = None
) -> tuple[xr.Dataset, Thinned]:
    """Leave cells of a large map out, evenly, before anything is predicted there."""
    layout = plan(dataset, load_schema(), rename=rename).layout
    if layout.support != "grid":
        return dataset, Thinned({}, "")
    sizes = {dim: dataset.sizes[dim] for dim in layout.site_dims}
    every = -(-max(sizes.values(), default=1) // most)
    if every == 1:
        return dataset, Thinned({}, "")
    steps = {dim: slice(min(every, size) // 2, None, every) for dim, size in sizes.items()}
    return dataset.isel(steps), Thinned(steps, f"one cell in {every} × {every}")


def _only(dataset: xr.Dataset, dims: tuple[str, ...]) -> dict[str, int]:
    """Return where the only site stands.

    Raises
    ------
    OptionError
        If there are several.
    """
    sizes = {dim: dataset.sizes[dim] for dim in dims}
    if any(size != 1 for size in sizes.values()):
        raise OptionError(
            "this shows one site",
            variable="site",
            found=f"a dataset with sizes {sizes}",
            expected="the name of a site, or its latitude and longitude",
            fix=f"site={_first(dataset, dims)!r}"
            if all(sizes.values())
            else "check the selection that made the dataset",
        )
    return dict.fromkeys(dims, 0)


def _first(dataset: xr.Dataset, dims: tuple[str, ...]) -> SiteLike:
    return str(dataset[dims[0]].values[0]) if len(dims) == 1 else (40.5, -98.5)


def _of_these_sites(
    predicted: xr.DataArray, dataset: xr.Dataset, dims: tuple[str, ...]
) -> xr.DataArray:
    """Return a prediction that was given, if it is of the sites of the dataset.

    Raises
    ------
    LayoutError
        If it is not.
    """
    for dim in dims:
        here = dataset[dim].variable
        if predicted.sizes.get(dim) != here.size or not here.equals(predicted[dim].variable):
            raise LayoutError(
                "the prediction is of other sites than the dataset",
                variable=dim,
                found=f"{predicted.sizes.get(dim, 'no')} labels in the prediction",
                expected=f"the {here.size} labels of the dataset, in their order",
                fix="predict from this dataset, or select the same sites of both",
            )
    return predicted


def _names(dataset: xr.Dataset, layout: Layout, at: Mapping[str, int]) -> dict[str, xr.DataArray]:
    """Return what a site is called, where that is no coordinate, or a number."""
    part = dataset.isel(at)
    found = {
        str(name): variable.compute()
        for name, variable in part.data_vars.items()
        if not variable.ndim and variable.dtype.kind in "UOT" and "name" in str(name)
    }
    roles = [coord.attrs.get("cf_role") for coord in part.coords.values()]
    if len(at) == len(layout.site_dims) == 1 and "timeseries_id" not in roles:
        ((dim, i),) = at.items()
        identifier = Sites.of(dataset, layout).ids[i]
        found[dim] = xr.DataArray(str(identifier), attrs={"cf_role": "timeseries_id"})
    return found
