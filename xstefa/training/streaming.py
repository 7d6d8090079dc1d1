"""Training on datasets larger than memory: some blocks of sites at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Protocol

import dask.array as da
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.model.ranges import Range, join_ranges, ranges_of
from xstefa.schema import Schema
from xstefa.splits.sites import Mask, Sites
from xstefa.training.samples import Record, attributes, joined
from xstefa.training.sampling import Windows
from xstefa.windows import Days, Floats

RESIDENT = 4
STEPS_PER_BLOCK = 50

Slices = Mapping[str, slice]


class Prepare(Protocol):
    """Makes of a record what the network reads."""

    def __call__(self, record: Record, *, raw: bool) -> tuple[Record, Floats | None]:
        """Return the record and its site weights."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """A chunked dataset that is read block by block.

    Attributes
    ----------
    binding : Binding
    sites : Sites
    blocks : tuple of mapping of str to slice
        Blocks of sites, along the chunks of the dataset, each small enough that `RESIDENT` of them
        and one that is being read fit in memory.
    target : str or None
    length : int
        Days of a window.
    keep : ndarray of bool, shape (site,)
        Sites that are learned from.
    days : ndarray of int64, optional
        Days whose observations count.
    """

    binding: Binding
    sites: Sites
    blocks: tuple[Slices, ...]
    target: str | None
    length: int
    keep: Mask
    days: Days | None = None

    def restricted(self, keep: Mask, days: Days | None) -> Stream:
        """Learn from some sites and days only; blocks without any are not read."""
        numbers = [n for n in range(len(self.blocks)) if self.within(n, keep).any()]
        return replace(
            self, keep=keep, days=days, blocks=tuple(self.blocks[number] for number in numbers)
        )

    def sample(self) -> tuple[Record, Mask]:
        """Read as many blocks as training will hold, and say which sites they have."""
        places = np.arange(len(self.sites)).reshape(self.sites.shape)
        found: list[Record] = []
        rows: list[NDArray[np.int64]] = []
        order = self.order(0)
        for number in (next(order) for _ in self.blocks):
            record = self.read(number)
            inside = places[tuple(self.blocks[number].values())].ravel()
            rows.append(inside[np.isin(self.sites.ids[inside], record.ids)])
            found.append(record)
            if len(found) >= RESIDENT and any(len(record.ids) for record in found):
                break
        sorting = np.argsort(np.concatenate(rows))
        present = np.zeros(len(self.sites), dtype=bool)
        present[np.concatenate(rows)] = True
        return joined(found).select_rows(sorting), present

    def read(self, number: int) -> Record:
        """Read the sites of a block that are learned from, and of which enough is known."""
        block = self.blocks[number]
        names = self.sites.ids.reshape(self.sites.shape)[tuple(block.values())].ravel()
        record = Record.from_binding(
            self.binding, ids=names.tolist(), target=self.target, block=block
        )
        present = record.known_at(self.binding.schema.columns(self.binding.needs))
        present &= self.within(number, self.keep)
        record = record.select(present).at_least(self.length)
        return record if self.days is None else record.observed_on(self.days)

    def attributes(self, number: int) -> Floats:
        """Read the attributes of the sites of a block that are learned from, shape (site, S)."""
        inside = self.within(number, self.keep)
        return attributes(self.binding, len(inside), self.blocks[number])[inside]

    def within(self, number: int, sites: Mask) -> Mask:
        """Return the part of a mask over all sites that lies in a block."""
        return sites.reshape(self.sites.shape)[tuple(self.blocks[number].values())].ravel()

    def order(self, seed: int) -> Iterator[int]:
        """Yield block numbers without end, each once before any comes again."""
        random = np.random.default_rng(seed)
        while True:
            yield from random.permutation(len(self.blocks)).tolist()

    @cached_property
    def digest(self) -> str:
        """Name of the content, without reading it."""
        arrays = [*self.binding.forcing.values(), *self.binding.static.values()]
        return tokenize(self.sites.ids, self.days, [array.variable for array in arrays])


def seen(
    schema: Schema, records: Sequence[Record], streams: Sequence[Stream | None] | None = None
) -> dict[str, Range]:
    """Return the range of each token over the training sites.

    Parameters
    ----------
    schema : Schema
    records : sequence of Record
        Training sites; of a stream its sample, which has to do for the forcings.
    streams : sequence of Stream or None, optional
        Their attributes are few, and all are read.
    """
    found: dict[str, Range] = {}
    for record, stream in zip(records, streams or [None] * len(records), strict=True):
        found = join_ranges(found, ranges_of(schema, record.forcing, record.static))
        if stream is not None:
            none = np.empty((0, 0, len(schema.forcings)), dtype=np.float32)
            for number in range(len(stream.blocks)):
                static = stream.attributes(number)
                found = join_ranges(found, ranges_of(schema, none, static))
    return found


def is_too_large(binding: Binding, memory: int) -> bool:
    """Whether a dataset is chunked and its forcings are larger than `memory` bytes."""
    forcings = binding.forcing.values()
    chunked = any(isinstance(array.data, da.Array) for array in forcings)
    return chunked and _size(binding) > memory


def cut(binding: Binding, memory: int) -> tuple[Slices, ...]:
    """Cut the sites into blocks of which `RESIDENT` and one more fit in `memory` bytes."""
    layout = binding.layout
    template = binding.template
    sizes = {dim: layout.coords.sizes.get(dim, template.sizes[dim]) for dim in layout.site_dims}
    affordable = max(1, int(prod(sizes.values()) * memory / (RESIDENT + 1) / _size(binding)))
    edges = []
    for dim, size in sizes.items():
        chunk = max(template.chunksizes.get(dim, (size,)))
        step = min(chunk, affordable)
        affordable = max(1, affordable // step)
        edges.append(
            [(dim, slice(begin, min(begin + step, size))) for begin in range(0, size, step)]
        )
    return tuple(dict(parts) for parts in product(*edges))


def _size(binding: Binding) -> int:
    """Return the bytes of a record of all sites."""
    layout, schema = binding.layout, binding.schema
    days = int(layout.days[-1] - layout.days[0]) + 1
    template = binding.template
    sites = prod(layout.coords.sizes.get(d, template.sizes.get(d, 1)) for d in layout.site_dims)
    return 4 * sites * (days * (len(schema.forcings) + 1) + len(schema.statics))


class StreamedWindows:
    """A `Supply` of which some datasets are streamed.

    Of each stream `RESIDENT` blocks are in memory; every `STEPS_PER_BLOCK` steps the one that has
    been there longest makes place for the next, which has been read meanwhile. What is in memory
    at a step depends on the step and the seed only, so that a training can go on anywhere.

    Parameters
    ----------
    sources : sequence of Record or Stream
    prepare : callable
        From a record to one as the network reads it, and its site weights; ``raw`` says whether it
        was just read.
    find : callable
        `Windows.find`, but for records, weights and shares.
    shares : sequence of float
        How often each source is drawn from.
    seed : int
    """

    def __init__(
        self,
        sources: Sequence[Record | Stream],
        *,
        prepare: Prepare,
        find: Callable[..., Windows],
        shares: Sequence[float],
        seed: int,
    ) -> None:
        self._find = find
        self._shares = shares
        self._period = -1
        self._reader = ThreadPoolExecutor(max_workers=1)
        self._sources = [
            _Cycle(source, prepare, seed + number, self._reader)
            if isinstance(source, Stream)
            else prepare(source, raw=False)
            for number, source in enumerate(sources)
        ]
        self._windows: Windows | None = None

    def at(self, step: int) -> Windows:
        """Return the windows in memory at a step."""
        period = step // STEPS_PER_BLOCK
        if self._windows is None or period != self._period:
            self._period = period
            records: list[Record] = []
            weights: list[Floats] = []
            shares: list[float] = []
            for source, share in zip(self._sources, self._shares, strict=True):
                parts = source.at(period) if isinstance(source, _Cycle) else [source]
                count = sum(len(record.ids) for record, _ in parts)
                for record, weight in parts:
                    records.append(record)
                    shares.append(share * len(record.ids) / count)
                    if weight is not None:
                        weights.append(weight)
            self._windows = self._find(records, site_weights=weights or None, shares=shares)
        return self._windows


class _Cycle:
    """The resident blocks of one stream."""

    def __init__(
        self,
        stream: Stream,
        prepare: Prepare,
        seed: int,
        reader: ThreadPoolExecutor,
    ) -> None:
        self._stream = stream
        self._prepare = prepare
        self._seed = seed
        self._reader = reader
        self._held: dict[int, Future[tuple[Record, Floats | None]]] = {}

    def at(self, period: int) -> list[tuple[Record, Floats | None]]:
        """Return what is resident in a period, and have the block of the next one read."""
        order = self._stream.order(self._seed)
        sequence = [next(order) for _ in range(period + RESIDENT + 1)][period:]
        self._held = {number: f for number, f in self._held.items() if number in sequence}
        for number in dict.fromkeys(sequence):
            self._request(number)
        found = [self._request(number).result() for number in dict.fromkeys(sequence[:RESIDENT])]
        found = [part for part in found if len(part[0].ids)]
        tried = len(sequence)
        while not found and tried < len(self._stream.blocks) + period + RESIDENT + 1:
            # Nothing but water: what is next.
            part = self._request(sequence[-1]).result()
            found = [part] if len(part[0].ids) else []
            sequence.append(next(order))
            tried += 1
        return found

    def _request(self, number: int) -> Future[tuple[Record, Floats | None]]:
        """Have a block read, unless that was done."""
        if number not in self._held:
            self._held[number] = self._reader.submit(self._read, number)
        return self._held[number]

    def _read(self, number: int) -> tuple[Record, Floats | None]:
        return self._prepare(self._stream.read(number), raw=True)
