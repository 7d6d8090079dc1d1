"""The ``.stefa`` accessor: it checks arguments and delegates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from xstefa.binding import TokenTable, plan
from xstefa.inference.predict import predict
from xstefa.model.checkpoint import Model
from xstefa.schema import Schema, load_schema


@xr.register_dataset_accessor("stefa")
class StefaAccessor:
    """What StefaLand can do with a dataset.

    Its representation is the token table: which of the dataset's variables provide which of the
    model's tokens, by which rule, and what is missing.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        return repr(self.tokens())

    def _repr_html_(self) -> str:
        return self.tokens()._repr_html_()

    def tokens(
        self,
        schema: Schema | str | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> TokenTable:
        """Match the dataset's variables to the tokens of a schema; reads no data.

        Parameters
        ----------
        schema : Schema or str, optional
            A schema, or the name or path of one; by default that of the bundled models.
        rename : mapping of str to str, optional
            Dataset variable to token, where matching by metadata and name does not suffice.

        Returns
        -------
        TokenTable
        """
        if not isinstance(schema, Schema):
            schema = load_schema(schema or "stefaland")
        return plan(self._dataset, schema, rename=rename).table

    def predict(
        self,
        target: str | Model,
        *,
        model: str | Model | None = None,
        quantiles: Sequence[float] | None = None,
        coverage: bool = False,
        min_coverage: float = 0.0,
        rename: Mapping[str, str] | None = None,
        device: str | None = None,
        precision: str | None = None,
        batch_size: int | None = None,
    ) -> xr.DataArray:
        """Predict a target for every site and day of the dataset.

        Parameters
        ----------
        target : str or Model
            ``"streamflow"``, ``"soil_moisture"``, or a model with a target of its own.
        model : str or Model, optional
            Name or path of a model. By default the bundled model for the target, of those that
            were trained on observations of the dataset's support: grid cells or points.
        quantiles : sequence of float, optional
            Levels between 0 and 1, of the spread of a model with several heads. The result then has
            a first dimension ``quantile``, as that of `xarray.DataArray.quantile`; by default it is
            the mean of the heads.
        coverage : bool
            Add a coordinate ``coverage``: the share of the model's daily forcings that were known
            in the windows behind each value.
        min_coverage : float
            Answer NaN where the coverage is less. Whatever it is, there is no answer from windows
            in which a required token is not known on a single day.
        rename : mapping of str to str, optional
            Dataset variable to token, where matching by metadata and name does not suffice.
        device : str, optional
            Torch device; default as set by `set_options`, else the first GPU of the process that
            computes if it has one, else its CPU.
        precision : {"fp32", "bf16"}, optional
            Arithmetic; default as set by `set_options`, else ``"fp32"``.
        batch_size : int, optional
            Windows per call of the network, rounded up to a multiple of 16; default as set by
            `set_options`, else 16 on a CPU and 512 on a GPU. Halved where memory runs out.

        Returns
        -------
        DataArray
            Dimensions, coordinates and coordinate reference system as in the dataset; lazy exactly
            if the dataset is chunked.

        Notes
        -----
        The mean, quantiles and coverage of one dataset and model come from one pass over the data
        if they are computed together, for instance as variables of one Dataset. Coverage is a
        coordinate, so that it goes where the prediction goes, and only on request, because xarray
        compares coordinates when it joins arrays: the difference of two lazy predictions that
        carry it would compute both at once. Turn it into a variable with ``.reset_coords()``.

        Raises
        ------
        MissingTokenError, AmbiguousMatchError, UnitsError, LayoutError, CalendarError
            If the dataset does not fit, with what was found and how to mend it.
        ModelError
            If no model, or more than one, predicts the target.
        """
        return predict(
            self._dataset,
            target,
            model=model,
            quantiles=quantiles,
            coverage=coverage,
            min_coverage=min_coverage,
            rename=rename,
            device=device,
            precision=precision,
            batch_size=batch_size,
        )
