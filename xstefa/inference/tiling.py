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
    stored : int
        Bytes of the stored input.
    reads : float
        How often it is read in all.
    held : int
        Bytes of computed pieces that one block needs at once.
    """

    sizes: Mapping[str, int]
    lengths: Mapping[str, int]
    stored: int
    reads: float
    held: int

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Return the chunks as dask writes them."""
        return tuple(
            tuple(part.stop - part.start for part in self._parts(dim)) for dim in self.sizes
        )

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], dict[str, slice]]]:
        """Yield the number and the region of each block."""
        parts = [list(enumerate(self._parts(dim))) for dim in self.sizes]
        for chosen in product(*parts):
            yield (
                tuple(i for i, _ in chosen),
                dict(zip(self.sizes, (part for _, part in chosen), strict=True)),
            )

    def __len__(self) -> int:
        return math.prod(len(self._parts(dim)) for dim in self.sizes)

    def _parts(self, dim: str) -> list[slice]:
        size, length = self.sizes[dim], self.lengths[dim]
        return [slice(i, min(i + length, size)) for i in range(0, max(size, 1), length)]


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
    sizes : mapping of str to int
        Length of every dimension of the output, in its order.
    stored : sequence of Stored
        The forcings.
    time : str
        The time dimension.
    tiles : mapping of str to int
        Largest length of a block along each site dimension: the chunks that the user chose.
    policy : WindowPolicy
    values : int
        Values of 4 bytes that a block keeps of each site and day, inputs and outputs.
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
        blocks = Blocks(
            sizes=sizes,
            lengths={dim: lengths[dim] for dim in sizes},
            stored=sum(s.itemsize * math.prod(sizes[d] for d in s.pieces) for s in stored),
            reads=_reads(stored, sizes, lengths, time, policy),
            held=_held(stored, sizes, lengths, time, policy),
        )
        # Windows that reach over a border are computed on both sides of it.
        twice = 1 + (policy.stride + policy.blend) / span if span < steps else 1.0
        crowding = max(0.0, blocks.held / (2 * block_bytes) - 1)
        candidates.append((twice + READ_WORK * blocks.reads + crowding, blocks))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _reach(span: int, steps: int, policy: WindowPolicy) -> int:
    """Return how many steps a block of `span` steps reads, of a record of `steps`."""
    return span if span >= steps else min(steps, span + policy.longest + policy.spin_up)


def _spans(
    stored: Stored,
    sizes: Mapping[str, int],
    lengths: Mapping[str, int],
    time: str,
    policy: WindowPolicy,
) -> Iterator[tuple[int, int, int]]:
    """Yield (steps answered, steps read, length of the dimension) along each dimension."""
    for dim, stored_piece in stored.pieces.items():
        # A map may have no cells at all.
        size, piece = max(1, sizes[dim]), max(1, stored_piece)
        length = min(lengths[dim], size)
        reach = _reach(length, size, policy) if dim == time else length
        # A run of `reach` steps that begins anywhere touches this many pieces on average.
        touched = 1 if piece >= size else (reach - 1) / piece + 1
        if dim != time and length % piece == 0:
            touched = reach / piece
        yield length, math.ceil(min(touched * piece, math.ceil(size / piece) * piece)), size


def _reads(
    stored: Sequence[Stored],
    sizes: Mapping[str, int],
    lengths: Mapping[str, int],
    time: str,
    policy: WindowPolicy,
) -> float:
    """How often the stored input is read in all: the worst of the variables that are read."""
    return max(
        (
            math.prod(
                read * -(-size // length) / max(size, read)
                for length, read, size in _spans(each, sizes, lengths, time, policy)
            )
            for each in stored
            if not each.computed
        ),
        default=1.0,
    )


def _held(
    stored: Sequence[Stored],
    sizes: Mapping[str, int],
    lengths: Mapping[str, int],
    time: str,
    policy: WindowPolicy,
) -> int:
    """Bytes of the computed pieces that one block needs."""
    return sum(
        each.itemsize * math.prod(read for _, read, _ in _spans(each, sizes, lengths, time, policy))
        for each in stored
        if each.computed
    )


def advice(blocks: Blocks, *, time: str, policy: WindowPolicy, values: int) -> str | None:
    """Say what is wrong with the chunks of the input, and the call that helps, if anything is."""
    fix = "; ".join(_rewriting(blocks, time=time, values=values))
    read = min(policy.longest, blocks.sizes[time])
    if blocks.reads > TOLERATED_READS and blocks.reads * blocks.stored > TOLERATED_BYTES:
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


def _rewriting(blocks: Blocks, *, time: str, values: int) -> Iterator[str]:
    """Yield the calls that rewrite the input to whole records of small tiles.

    Dask holds all that it rechunks. A large input is therefore rewritten twice: to as many days of
    the whole map as fit `REWRITE_BYTES`, in tiles whose whole records fit it too; and from there.
    """

    def call(chunks: Mapping[str, int], target: str) -> str:
        order = {dim: chunks[dim] for dim in blocks.sizes}
        # The encoding would keep the chunks that were read, which contradict the new ones.
        return f"ds.chunk({order}).drop_encoding().to_zarr({target!r})"

    tile = _sensible_tile(blocks, time=time, values=values)
    if (parts := -(-blocks.stored // REWRITE_BYTES)) > 1:
        tiles = math.prod(-(-blocks.sizes[dim] // length) for dim, length in tile.items())
        several = max(1, math.floor((tiles / parts) ** (1 / max(1, len(tile)))))
        wide = {dim: min(blocks.sizes[dim], n * several) for dim, n in tile.items()}
        days = max(1, blocks.sizes[time] // parts)
        yield call(wide | {time: days}, "staged.zarr")
        yield "ds = xr.open_zarr('staged.zarr')"
    yield call(tile | {time: -1}, "rechunked.zarr")


def _sensible_tile(blocks: Blocks, *, time: str, values: int) -> dict[str, int]:
    """Return tiles of sites, about square, whose whole record fits a block."""
    sites = {dim: size for dim, size in blocks.sizes.items() if dim != time}
    cells = max(1, BLOCK_BYTES // (4 * values * blocks.sizes[time]))
    tile: dict[str, int] = {}
    for passed, (dim, size) in enumerate(sorted(sites.items(), key=lambda site: site[1])):
        left = len(sites) - passed
        tile[dim] = max(1, min(size, round(cells ** (1 / left))))
        cells = max(1, cells // tile[dim])
    return tile
