"""The ``.stefa`` accessor: it checks arguments and delegates."""

from __future__ import annotations

from collections.abc import Mapping

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
        rename : mapping of str to str, optional
            Dataset variable to token, where matching by metadata and name does not suffice.
        device : str, optional
            Torch device; default as set by `set_options`.
        precision : {"fp32", "bf16"}, optional
            Arithmetic; default as set by `set_options`.
        batch_size : int, optional
            Windows per call of the network; default as set by `set_options`.

        Returns
        -------
        DataArray
            Dimensions, coordinates and coordinate reference system as in the dataset; lazy exactly
            if the dataset is chunked.

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
            rename=rename,
            device=device,
            precision=precision,
            batch_size=batch_size,
        )
