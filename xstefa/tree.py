"""The ``.stefa`` accessor of a tree of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from xstefa.errors import LayoutError, XstefaError
from xstefa.model.checkpoint import Model


@xr.register_datatree_accessor("stefa")
class StefaTreeAccessor:
    """What StefaLand can do with the datasets of a tree."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    def predict(self, target: str | Model | Sequence[str], **how: Any) -> xr.DataTree:
        """Predict one target or several at every node that has daily series.

        Parameters
        ----------
        target : str, Model or sequence of str
        **how
            As for `StefaAccessor.predict`, alike at all nodes.

        Returns
        -------
        DataTree
            The same nodes; those without a series in time are empty.

        Raises
        ------
        XstefaError
            As for a dataset, with the path of its node; also if no node has a series.
        """
        found: dict[str, xr.Dataset | None] = {}
        for path, (node,) in xr.group_subtrees(self._tree):
            dataset = node.to_dataset()
            try:
                found[path] = xr.Dataset()
                if _has_series(dataset):
                    answer: xr.DataArray | xr.Dataset = dataset.stefa.predict(target, **how)
                    if isinstance(answer, xr.DataArray):
                        answer = answer.to_dataset()
                    found[path] = answer
            except XstefaError as error:
                place = f"at node {path!r}"
                error.message = f"{place}: {error.message}" if error.message else place
                raise
        if not any(found.values()):
            raise LayoutError(
                "no node of the tree has a series in time",
                variable=str(self._tree.name or "/"),
                found=f"nodes {', '.join(found)}",
                expected="a node with daily forcings, on a dimension of time",
                fix="tree = xarray.open_datatree(path)",
            )
        return xr.DataTree.from_dict(found, name=self._tree.name)


def _has_series(dataset: xr.Dataset) -> bool:
    """Whether a variable, and not only a coordinate that is inherited, lies on what may be time."""
    dims = {dim for variable in dataset.data_vars.values() for dim in variable.dims}
    return any(
        dim == "time"
        or isinstance(dataset.indexes.get(dim), pd.DatetimeIndex | pd.PeriodIndex | xr.CFTimeIndex)
        or (dim in dataset.coords and " since " in str(dataset[dim].attrs.get("units")))
        for dim in dims
    )
