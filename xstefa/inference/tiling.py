"""How a prediction is cut into blocks: tiles of sites times spans of days.

Any cut gives the same numbers. It decides how much memory a block takes, how many windows are
computed twice because they reach over a border, and how often stored pieces are read again because
tiles share them. The cut with the least work within the memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dask.array.core import normalize_chunks, slices_from_chunks

from xstefa.windows import WindowPolicy

BLOCK_BYTES = 128 * 2**20

# Work of reading and unpacking a site-day, in units of running it. Measured: 1/50 for the plain
# LSTM on one core, 1/1000 for an encoder; on a GPU, where it matters, about as much as this.
READ_WORK = 1 / 20

# How often a store may be read over, and how much may be read too often, before it is worth a word.
TOLERATED_READS = 3.0
TOLERATED_BYTES = 2 * 2**30

# Memory that rewriting the input may take.
REWRITE_BYTES = 4 * 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """How one variable lies: in pieces that are read (or computed) as a whole.

    Attributes
    ----------
    pieces : mapping of str to int
        Size of a piece along each dimension of the variable.
    computed : bool
        Whether dask makes the pieces and keeps them in memory, each once, for all blocks that
        need them. Otherwise each block reads its pieces again.
    itemsize : int
        Bytes of a value.
    """

    pieces: Mapping[str, int]
    computed: bool
    itemsize: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """The cut.

    Attributes
    ----------
    sizes : mapping of str to int
        Length of every dimension of the output, in its order.
    lengths : mapping of str to int
        Length of a block along it; the last block may be shorter.
    time : str
        The time dimension.
    policy : WindowPolicy
    stored : sequence of Stored
        The forcings.
    values : int
        Values of 4 bytes that a block keeps of each site and day, inputs and outputs.
    """

    sizes: Mapping[str, int]
    lengths: Mapping[str, int]
    time: str
    policy: WindowPolicy
    stored: Sequence[Stored]
    values: int

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Return the chunks as dask writes them."""
        lengths = tuple(self.lengths[dim] for dim in self.sizes)
        return normalize_chunks(lengths, tuple(self.sizes.values()))

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], dict[str, slice]]]:
        """Yield the number and the region of each block."""
        numbers = product(*(range(len(sizes)) for sizes in self.chunks))
        for number, region in zip(numbers, slices_from_chunks(self.chunks), strict=True):
            yield number, dict(zip(self.sizes, region, strict=True))

    def __len__(self) -> int:
        return math.prod(map(len, self.chunks))

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored input."""
        return sum(s.itemsize * math.prod(self.sizes[d] for d in s.pieces) for s in self.stored)

    @property
    def reads(self) -> float:
        """How often it is read in all: the worst of the variables that are read."""
        return max(
            (
                math.prod(
                    read * -(-size // length) / max(size, read)
                    for length, read, size in self._spans(each)
                )
                for each in self.stored
                if not each.computed
            ),
            default=1.0,
        )

    @property
    def held(self) -> int:
        """Bytes of computed pieces that one block needs at once."""
        return sum(
            each.itemsize * math.prod(read for _, read, _ in self._spans(each))
            for each in self.stored
            if each.computed
        )

    def work(self, block_bytes: int) -> float:
        """Work of a site-day: running it, perhaps twice, reading it, and memory that is short."""
        span = self.lengths[self.time]
        # Windows that reach over a border are computed on both sides of it.
        twice = (self.policy.stride + self.policy.blend) / span
        crowding = max(0.0, self.held / (2 * block_bytes) - 1)
        return 1 + twice * (span < self.sizes[self.time]) + READ_WORK * self.reads + crowding

    def _spans(self, stored: Stored) -> Iterator[tuple[int, int, int]]:
        """Yield (steps answered, steps read, length of the dimension) along each dimension."""
        for dim, stored_piece in stored.pieces.items():
            # A map may have no cells at all.
            size, piece = max(1, self.sizes[dim]), max(1, stored_piece)
            length = min(self.lengths[dim], size)
            reach = _reach(length, size, self.policy) if dim == self.time else length
            # A run of `reach` steps that begins anywhere touches this many pieces on average.
            touched = 1 if piece >= size else (reach - 1) / piece + 1
            if dim != self.time and length % piece == 0:
                touched = reach / piece
            yield length, math.ceil(min(touched * piece, math.ceil(size / piece) * piece)), size


def plan_blocks(
    sizes: Mapping[str, int],
    stored: Sequence[Stored],
    *,
    time: str,
    tiles: Mapping[str, int],
    policy: WindowPolicy,
    values: int,
    whole_record: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Blocks:
    """Choose blocks.

    Parameters
    ----------
    sizes, stored, time, policy, values
        As of `Blocks`.
    tiles : mapping of str to int
        Largest length of a block along each site dimension: the chunks that the user chose.
    whole_record : bool
        Never cut time: the answer is for sites, not for days.
    block_bytes : int
        Memory that a block may take.
    """
    steps = sizes[time]
    spans = [steps]
    while not whole_record and spans[-1] > policy.stride:
        spans.append(-(-steps // 2 ** len(spans)))
    candidates = []
    for span in spans:
        affordable = max(1, block_bytes // (4 * values * _reach(span, steps, policy)))
        lengths = {dim: max(1, tile) for dim, tile in tiles.items()}
        while math.prod(lengths.values()) > affordable:
            longest = max(lengths, key=lambda dim: lengths[dim])
            lengths[longest] = -(-lengths[longest] // 2)
        lengths[time] = span
        candidates.append(
            Blocks(
                sizes=sizes,
                lengths={dim: lengths[dim] for dim in sizes},
                time=time,
                policy=policy,
                stored=stored,
                values=values,
            )
        )
    return min(candidates, key=lambda blocks: blocks.work(block_bytes))


def _reach(span: int, steps: int, policy: WindowPolicy) -> int:
    """Return how many steps a block of `span` steps reads, of a record of `steps`."""
    return span if span >= steps else min(steps, span + policy.longest + policy.spin_up)


def advice(blocks: Blocks) -> str | None:
    """Say what is wrong with the chunks of the input, and the call that helps, if anything is."""
    fix = "; ".join(_rewriting(blocks))
    read = min(blocks.policy.longest, blocks.sizes[blocks.time])
    if blocks.reads > TOLERATED_READS and blocks.reads * blocks.stored_bytes > TOLERATED_BYTES:
        return (
            f"The input is chunked across the map rather than along time, so each of its chunks is "
            f"read about {blocks.reads:.0f} times. The result is the same, only later. If reading "
            f"is slow, rewrite the input once and predict from the copy: {fix}"
        )
    if blocks.held > 4 * BLOCK_BYTES:
        return (
            f"Each block of the prediction needs {blocks.held / 2**30:.1f} GiB of the input's "
            f"chunks in memory at once, because they are wide in space and short in time (a window "
            f"is {read} days). If memory is short, rewrite the input once and predict "
            f"from the copy: {fix}"
        )
    return None


def _rewriting(blocks: Blocks) -> Iterator[str]:
    """Yield the calls that rewrite the input to whole records of small tiles.

    Dask holds all that it rechunks. A large input is therefore rewritten twice: to as many days of
    the whole map as fit `REWRITE_BYTES`, in tiles whose whole records fit it too; and from there.
    """

    def call(chunks: Mapping[str, int], target: str) -> str:
        order = {dim: chunks[dim] for dim in blocks.sizes}
        # The encoding would keep the chunks that were read, which contradict the new ones.
        return f"ds.chunk({order}).drop_encoding().to_zarr({target!r})"

    tile = _sensible_tile(blocks)
    if (parts := -(-blocks.stored_bytes // REWRITE_BYTES)) > 1:
        tiles = math.prod(-(-blocks.sizes[dim] // length) for dim, length in tile.items())
        several = max(1, math.floor((tiles / parts) ** (1 / max(1, len(tile)))))
        wide = {dim: min(blocks.sizes[dim], n * several) for dim, n in tile.items()}
        days = max(1, blocks.sizes[blocks.time] // parts)
        yield call(wide | {blocks.time: days}, "staged.zarr")
        yield "ds = xr.open_zarr('staged.zarr')"
    yield call(tile | {blocks.time: -1}, "rechunked.zarr")


def _sensible_tile(blocks: Blocks) -> dict[str, int]:
    """Return tiles of sites, about square, whose whole record fits a block."""
    sites = {dim: size for dim, size in blocks.sizes.items() if dim != blocks.time}
    cells = max(1, BLOCK_BYTES // (4 * blocks.values * blocks.sizes[blocks.time]))
    tile: dict[str, int] = {}
    for passed, (dim, size) in enumerate(sorted(sites.items(), key=lambda site: site[1])):
        left = len(sites) - passed
        tile[dim] = max(1, min(size, round(cells ** (1 / left))))
        cells = max(1, cells // tile[dim])
    return tile
