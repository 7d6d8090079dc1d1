"""``ds.stefa.plot``: pictures of what a model says of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import cftime
import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.errors import OptionError
from xstefa.evaluation.evaluate import evaluate
from xstefa.inference.explain import explain
from xstefa.inference.trust import trust
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike
from xstefa.options import as_list
from xstefa.plotting import sites, years
from xstefa.plotting.contributions import contributions
from xstefa.plotting.look import sign
from xstefa.plotting.maps import soil_moisture_maps
from xstefa.plotting.place import Outline
from xstefa.plotting.scores import plot_map, plot_skill
from xstefa.plotting.shown import Shown, made_by, thinned
from xstefa.plotting.sites import flows
from xstefa.splits.sites import SiteLike
from xstefa.typed import Share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Predicted: TypeAlias = str | Model | xr.DataArray
"""What to predict, or a prediction."""


class Plots:
    """Pictures of what a model says of a dataset; each is a matplotlib figure.

    What is drawn first is a target (``"streamflow"``), a model, or a prediction of the dataset that
    is there already, from `predict` or a store: then nothing is predicted again. Keywords that are
    not named go to `predict`. At the bottom stands which model it was, the beginning of its hash,
    and, of a site, whether the model learned from it, as its provenance tells.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @checked
    def hydrograph(
        self,
        target: Predicted = "streamflow",
        *,
        site: SiteLike | None = None,
        model: ModelLike | None = None,
        interval: Share | None = 0.9,
        period: tuple[str | None, str | None] | str | None = None,
        log: bool = False,
        rename: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Figure:
        """Draw what is predicted at a site, with rain, observations and interval where known.

        Parameters
        ----------
        target : str, Model or DataArray
        site : str, int or (latitude, longitude), optional
            Name or label, or the place of the nearest; not needed where there is one.
        model : str or Model, optional
            As for `predict`.
        interval : float, optional
            Probability of an observation within the band, of models that were calibrated. None
            draws none.
        period : tuple of two dates or str, optional
            Days to draw. Scores in the title are those of all days.
        log : bool
            Draw on a logarithmic axis.
        rename : mapping of str to str, optional
            Dataset variable to token.

        Returns
        -------
        matplotlib.figure.Figure
        """
        given: dict[str, Any] = {
            "site": site,
            "model": model,
            "interval": interval,
            "rename": rename,
        }
        shown = Shown.of(self._dataset, target, **given, **how).compute()
        return hydrograph_of(shown, period=period, log=log)

    @checked
    def flow_duration(
        self,
        target: Predicted = "streamflow",
        *,
        site: SiteLike | None = None,
        model: ModelLike | None = None,
        rename: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Figure:
        """Draw on which share of the days a flow is exceeded at a site.

        Parameters
        ----------
        target, site, model, rename
            As for `hydrograph`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        how |= {"site": site, "model": model, "rename": rename}
        shown = Shown.of(self._dataset, target, **how).compute()
        return sign(years.flow_duration(shown.predicted, shown.observed), shown.signature)

    @checked
    def regime(
        self,
        target: Predicted = "streamflow",
        *,
        site: SiteLike | None = None,
        model: ModelLike | None = None,
        rename: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Figure:
        """Draw what is usual in each month at a site, with rain above.

        Parameters
        ----------
        target, site, model, rename
            As for `hydrograph`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        how |= {"site": site, "model": model, "rename": rename}
        shown = Shown.of(self._dataset, target, **how).compute()
        rain = shown.precipitation
        figure = years.regime(shown.predicted, shown.observed, precipitation=rain)
        return sign(figure, shown.signature)

    @checked
    def explain(
        self,
        target: str | Model = "streamflow",
        *,
        day: str | date | np.datetime64 | cftime.datetime,
        site: SiteLike | None = None,
        model: ModelLike | None = None,
        rename: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Figure:
        """Draw how one answer comes about: what each input adds to it.

        Parameters
        ----------
        target, site, model, rename
            As for `hydrograph`; a prediction that is there already does not say.
        day : str or date
            The day whose answer is explained. Other keywords are those of `explain`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        how |= {"day": day, "site": site, "model": model, "rename": rename}
        found = explain(self._dataset, target, **how).compute()
        found = found.isel({dim: 0 for dim in found.prediction.dims if found.sizes[dim] == 1})
        return sign(contributions(found), made_by(found.prediction.attrs))

    @checked
    def map(
        self,
        target: Predicted = "soil_moisture",
        *,
        day: str | Sequence[str],
        as_: Literal["value", "percentile", "anomaly"] = "value",
        model: ModelLike | None = None,
        outline: Outline = "auto",
        columns: int = 3,
        limits: tuple[float, float] | None = None,
        title: str | None = None,
        projection: Any = None,
        rename: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Figure:
        """Draw a map of a day, or several with one scale.

        Parameters
        ----------
        target : str, Model or DataArray
        day : str or sequence of str
            For instance ``"2012-07-15"``.
        as_ : {"value", "percentile", "anomaly"}
            What is drawn: values; how many in 100 days of the same time of year, in all years of
            the record, were lower (in the classes of drought monitors); or how far values are
            above the mean of these days. See `xstefa.evaluation.climatology`.
        model, rename
            As for `predict`.
        outline, columns, limits, title, projection
            As for `xstefa.plotting.soil_moisture_maps`.

        Returns
        -------
        matplotlib.figure.Figure

        Notes
        -----
        Of a map of more than 600 cells along an axis every second, third or so is predicted and
        drawn, which the heading says.
        """
        dataset, note = thinned(self._dataset, rename=rename)
        if isinstance(target, xr.DataArray):
            target = target.isel(note.steps, missing_dims="ignore")
        if as_ == "value" and not isinstance(target, xr.DataArray):
            days = sorted(as_list(day))
            how.setdefault("period", (days[0], days[-1]))
        shown = Shown.of(dataset, target, one=False, model=model, rename=rename, **how)
        figure = soil_moisture_maps(
            shown.predicted,
            dates=as_list(day),
            as_=as_,
            outline=outline,
            columns=columns,
            limits=limits,
            title=title,
            projection=projection,
        )
        return sign(figure, " · ".join(filter(None, [note.text, shown.signature])))

    @checked
    def skill(
        self,
        target: str | Model | xr.Dataset = "streamflow",
        *,
        score: str = "nse",
        model: ModelLike | None = None,
        projection: Any = None,
        rename: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Figure:
        """Draw a score at all sites: where, and how many sites are below each value.

        Parameters
        ----------
        target : str, Model or Dataset
            What to predict, or what `evaluate` returned.
        score : str
            As for `evaluate`.
        model, rename
            As for `evaluate`, as are other keywords.
        projection
            As for `xstefa.plotting.soil_moisture_maps`.

        Returns
        -------
        matplotlib.figure.Figure
            Sites that the model did not learn from, as its provenance tells, are circles, those
            that it learned from squares, others diamonds.
        """
        if isinstance(target, xr.Dataset):
            scored = target
        else:
            how |= {"model": model, "rename": rename}
            scored = evaluate(self._dataset, target, scores=[score], **how).compute()
        return sign(plot_skill(scored, score, projection=projection), made_by(scored.attrs))

    @checked
    def trust(
        self,
        model: ModelLike = "streamflow",
        *,
        variable: str | None = None,
        outline: Outline = "auto",
        projection: Any = None,
        rename: Mapping[str, str] | None = None,
    ) -> Figure:
        """Draw how far to trust a model at each site, without observations there.

        Parameters
        ----------
        model : str or Model
        variable : str, optional
            Of what `trust` returns; by default the score to expect, of a model that was not
            calibrated the distance to the nearest training site.
        outline, projection
            As for `xstefa.plotting.soil_moisture_maps`.
        rename
            As for `trust`.

        Returns
        -------
        matplotlib.figure.Figure
            Sites outside of what the model has seen are crossed out.
        """
        dataset, note = thinned(self._dataset, rename=rename)
        found = trust(dataset, model, rename=rename).compute()
        name = variable or ("expected_score" if "expected_score" in found else "distance")
        if name not in found:
            raise OptionError(
                variable="variable", found=repr(name), expected=" or ".join(map(str, found))
            )
        how: dict[str, Any] = {"outline": outline, "projection": projection}
        figure = plot_map(found[name], crossed=found["outside"], **how)
        return sign(figure, " · ".join(filter(None, [note.text, made_by(found.attrs)])))


def hydrograph_of(shown: Shown, *, period: Any = None, log: bool = False) -> Figure:
    """Draw what is shown of one site."""
    draw = partial(sites.hydrograph, log=log) if flows(shown.predicted) else sites.series
    figure = draw(
        shown.predicted,
        shown.observed,
        quantiles=shown.quantiles,
        precipitation=shown.precipitation,
        period=slice(*((period, period) if isinstance(period, str) else period or (None, None))),
    )
    return sign(figure, shown.signature)
