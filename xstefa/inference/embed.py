"""Embeddings: what the encoder makes of a site, or of each of its days, as labeled arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import xarray as xr

from xstefa.arguments import checked
from xstefa.binding.time_axis import has_time
from xstefa.inference.engine import Answer
from xstefa.inference.run import prepare
from xstefa.inference.sites import SiteRun, SiteVectors
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike, foundation_model, load_model

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.network import StefaLand

FEATURE = "feature"
"""Dimension of the elements of an embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings(Answer):
    """The encoder's representation of each site, or of each day."""

    level: Literal["site", "day"]

    @property
    def daily(self) -> bool:
        """Whether there is one for each day."""
        return self.level == "day"

    def width(self, spec: ModelSpec) -> int:
        """Return the length of an embedding."""
        assert spec.architecture.encoder is not None
        return spec.architecture.encoder.width

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return embeddings, shape (B, T, d) or (B, d)."""
        encoded = network.encode(forcing, static)
        return encoded.days if self.daily else encoded.site


@checked
def embed(
    dataset: xr.Dataset,
    *,
    level: Literal["site", "day"] = "site",
    model: ModelLike | None = None,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    extrapolate: bool = False,
) -> xr.DataArray:
    """Represent every site, or every day of every site, as a vector.

    Parameters
    ----------
    level : {"site", "day"}
        One vector a site, the mean over its windows; or one a day, which knows the weather of
        the days around it. Of a dataset without days, or by a model of static targets, that of
        the site is made of its attributes alone.
    model : str or Model, optional
        Any model with an encoder; by default the bundled foundation model.
    rename : mapping of str to str, optional
        Dataset variable to token.
    device, precision, batch_size, extrapolate
        As for `predict`.

    Returns
    -------
    DataArray
        Dimensions and coordinates as in the dataset, without time for sites, and a last
        dimension ``feature``. Lazy exactly if the dataset is chunked.

    Notes
    -----
    A year of embedded days takes 365 times the length of a vector, for each site: chunk time
    before, or reduce lazily.

    Raises
    ------
    ModelError
        If the model has no encoder, or none is bundled.
    """
    if level == "site" and (of_sites := _without_days(dataset, model)) is not None:
        alone = SiteRun.of(
            dataset,
            of_sites,
            rename=rename,
            device=device,
            precision=precision,
            extrapolate=extrapolate,
        )
        vectors = alone.compute(SiteVectors(), FEATURE).isel({FEATURE: slice(0, -1)})
        said = {"long_name": "StefaLand embedding of the attributes of each site", "units": "1"}
        return alone.label(vectors, done="sites embedded", name="embedding", **said)
    chosen = foundation_model(model, causal=False)
    chosen.require("encoder")
    answer = Embeddings(level=level)
    run = prepare(
        dataset,
        chosen,
        rename=rename,
        device=device,
        precision=precision,
        batch_size=batch_size,
        extrapolate=extrapolate,
    )
    block = run.compute(answer)
    frame = run.frame(daily=answer.daily)
    attrs = {"long_name": f"StefaLand embedding of each {level}", "units": "1"}
    result = xr.DataArray(
        block[..., :-1],
        dims=(*frame.dims, FEATURE),
        coords=frame.coords,
        name="embedding",
        attrs=frame.attrs | attrs | run.attrs(f"{level}s embedded"),
    )
    result.encoding = frame.encoding
    return result


def _without_days(dataset: xr.Dataset, model: ModelLike | None) -> Model | None:
    """Return the model that embeds sites by their attributes; None if there are days to read."""
    chosen = None if model is None else load_model(model)
    if not (chosen is not None and chosen.spec.static) and has_time(dataset):
        return None
    chosen = foundation_model(chosen, causal=True)
    chosen.require("encoder")
    return chosen
