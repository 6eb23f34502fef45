"""The order of windows if they are shuffled in blocks (train.shuffle_block above 1), a pure function of the step.

A block is `shuffle_block` neighbouring windows, so that one request reads all of it. Row r of the batch takes its
windows from K blocks, in a random order, for K x shuffle_block steps, then from the next K. K is such that all B rows
together take theirs from BLOCKS_MIXED blocks or more: 1 for B = 64 and larger batches, 8 for B = 8. So a block is read
only by the process that has the row. In a mixture (lm/data/mixture.py) groups of K blocks take turns instead of
sequences.

Each epoch cuts the windows of a source into blocks at another place and draws another order of the blocks. One block
joins the end of an epoch and the beginning of the next, so that each window is used once an epoch.
"""

import functools
import sys
from collections.abc import Sequence

import numpy as np

from lm.data.mixture import Turns

BLOCKS_MIXED = 64
"""Blocks that the batches of some steps are from, at least. A run with batches of 8 that stayed in 8 blocks of the
demo's shards for 64 steps looked diverged when all 8 changed at once."""


def steps_in_blocks(block: int, batch_size: int) -> int:
    """For how many steps a row takes its windows from the same blocks."""
    return block * -(-BLOCKS_MIXED // batch_size) if block > 1 else 1


def raw_bits(count: int, *seed: int) -> np.ndarray:
    """(count,) uint64, random. NumPy promises that these stay the same in later versions; not so of permutation()."""
    return np.random.PCG64(list(seed)).random_raw(count)


class BlockStream:
    """Groups of `size` windows of a source, of whole blocks, one after the other, without end."""

    def __init__(self, windows: range, block: int, size: int, *seed: int):
        self.windows, self.block, self.size, self.seed = windows, block, size, seed
        self._shuffled = functools.lru_cache(4)(self._order_of_blocks)

    def __getitem__(self, number: int) -> np.ndarray:
        """(size,) int64: the windows of group `number`, shuffled."""
        found, position, end = [], number * self.size, (number + 1) * self.size
        while position < end:
            epoch, place = divmod(position, len(self.windows))
            part = self._part(epoch, place)[: end - position]
            found.append(part)
            position += len(part)
        numbers = np.concatenate(found)
        return self.windows.start + numbers[np.argsort(raw_bits(self.size, *self.seed, 1, number), kind="stable")]

    def _part(self, epoch: int, place: int) -> np.ndarray:
        """Neighbouring windows from position `place` of an epoch on, to the end of their block."""
        count = len(self.windows)
        head = min(-epoch * count % self.block, count)
        """Windows that complete the last block of the epoch before."""
        blocks = (count - head) // self.block
        if place < head:
            begin, end = place, head
        elif place < head + blocks * self.block:
            index, offset = divmod(place - head, self.block)
            begin = head + self._shuffled(epoch, blocks)[index] * self.block + offset
            end = begin + self.block - offset
        else:
            begin, end = place, count
        turned_by = int(raw_bits(1, *self.seed, 0, epoch)[0] % np.uint64(count))
        return (np.arange(begin, end) + turned_by) % count

    def _order_of_blocks(self, epoch: int, blocks: int):
        import grain

        seed = int(np.random.SeedSequence([*self.seed, 2, epoch]).generate_state(1)[0])
        return grain.MapDataset.range(blocks).seed(seed).shuffle()


class BlockOrder:
    """order[step]: the (batch_size,) int64 numbers of the windows of a step."""

    def __init__(self, sources: Sequence[range], weights: Sequence[float], seed: int, batch_size: int, block: int):
        self.batch_size, self.turns = batch_size, Turns(weights)
        self.steps = steps_in_blocks(block, batch_size)
        self.streams = [BlockStream(windows, block, self.steps, seed, index) for index, windows in enumerate(sources)]
        self._rows = functools.lru_cache(4)(self._rows_of)

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size  # without end

    def __getitem__(self, step: int) -> np.ndarray:
        return self._rows(step // self.steps)[:, step % self.steps]

    def _rows_of(self, number: int) -> np.ndarray:
        """(batch_size, steps) int64: a group of blocks for each row."""
        turns = [self.turns[number * self.batch_size + row] for row in range(self.batch_size)]
        return np.stack([self.streams[source][turn] for source, turn in turns])
