"""What the tasks of one prediction have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr

from xstefa.binding import Layout
from xstefa.binding.sources import TokenSource
from xstefa.inference.engine import Answer, EngineKey
from xstefa.inference.file_reads import Chunked


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """All that the tasks of one prediction have in common: it is in the graph once.

    Attributes
    ----------
    key : EngineKey
    answer : Answer
    sources : mapping of str to Source
        The recipe of each token.
    layout : Layout
        Without coordinates.
    dataset : Dataset
        The variables that tasks read or hold themselves, and the coordinates that recipes need.
    operands : tuple of Chunked
        The variables whose chunks tasks receive, in the order in which they do.
    checked : bool
        Whether the values were looked at as a whole; else each block looks at its own.
    past_days : int
        Days of the record that they go on from, if they do.
    """

    key: EngineKey
    answer: Answer
    sources: Mapping[str, TokenSource]
    layout: Layout
    dataset: xr.Dataset
    operands: tuple[Chunked, ...]
    checked: bool
    past_days: int = 0

    def part(self, region: Mapping[str, slice], chunks: list[object]) -> xr.Dataset:
        """Return a region of the dataset; what lies in files is read when it is asked for.

        Parameters
        ----------
        region : mapping of str to slice
        chunks : list
            For each of the operands the chunks that the region touches.
        """
        part = {dim: where for dim, where in region.items() if dim in self.dataset.dims}
        computed = {
            each.name: each.cut(found, region)
            for each, found in zip(self.operands, chunks, strict=True)
        }
        return self.dataset.isel(part).assign(computed)

    def __repr__(self) -> str:
        # Dask prints arguments when a task fails.
        return (
            f"<{type(self.answer).__name__} of {self.key.model!r} for {dict(self.dataset.sizes)}>"
        )
