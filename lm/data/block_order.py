"""Order of windows shuffled in blocks (train.shuffle_block > 1), as a pure function of the step.

A block is `shuffle_block` neighboring windows, so one request reads all of it. Row r of the batch takes its windows in
random order from K blocks for K x shuffle_block steps, then from the next K blocks. So a block is read only by the
process that has the row. K is the smallest number such that all B rows together use at least BLOCKS_MIXED blocks: 1 for
B >= 64, 8 for B = 8. In a mixture (lm/data/mixture.py), sources take turns by groups of K blocks instead of sequences.

Each epoch cuts the windows of a source into blocks at a different offset and draws a new order of the blocks. One block
joins the end of an epoch and the beginning of the next, so each window is used once per epoch.

The last groups of a stage (lm/config/stages.py) are shortened to its remaining steps. The next stage, with another
number of rows, starts with unread windows.
"""

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.config import Stages
from lm.data.mixture import Turns

BLOCKS_MIXED = 64
"""Minimum number of blocks that the batches come from at any time. A run with batches of 8 that used only 8 blocks of
the demo's shards for 64 steps looked diverged when all 8 changed at once."""


def steps_in_blocks(block: int, batch_size: int) -> int:
    """Return for how many steps a row of the batch takes its windows from the same blocks of `block` windows."""
    return block * -(-BLOCKS_MIXED // batch_size) if block > 1 else 1


def raw_bits(count: int, *seed: int) -> np.ndarray:
    """Return random bits: (count,) uint64. Unlike permutation(), NumPy guarantees the same values in later versions."""
    return np.random.PCG64(list(seed)).random_raw(count)


class BlockStream:
    """Windows of one source, without end, in shuffled blocks of `block` neighboring windows. A group has the windows
    of some blocks, shuffled together; a row of the batch reads one group after the other."""

    def __init__(self, windows: range, block: int, *seed: int):
        self.windows, self.block, self.seed = windows, block, seed
        self._shuffled = functools.lru_cache(4)(self._order_of_blocks)

    def group(self, number: int, position: int, size: int) -> np.ndarray:
        """Return the window numbers of a group in random order: (size,) int64. `number` is the number of the group, and
        `position` the number of windows in all groups before it."""
        found, end = [], position + size
        while position < end:
            epoch, place = divmod(position, len(self.windows))
            part = self._part(epoch, place)[: end - position]
            found.append(part)
            position += len(part)
        numbers = np.concatenate(found)
        return self.windows.start + numbers[np.argsort(raw_bits(size, *self.seed, 1, number), kind="stable")]

    def _part(self, epoch: int, place: int) -> np.ndarray:
        """Return neighboring windows from position `place` of an epoch to the end of their block."""
        count = len(self.windows)
        head = min(-epoch * count % self.block, count)
        """Windows that complete the last block of the previous epoch."""
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


def between(turns: Turns, first: int, end: int) -> list[int]:
    """Return how many of the turns `first` to `end` - 1 each source gets."""
    return [after - before for before, after in zip(turns.counts(first), turns.counts(end), strict=True)]


@dataclass(frozen=True)
class Span:
    """Range of steps in which all groups have the same size. A group is the windows that a row of the batch reads from
    the same blocks."""

    first_step: int
    """First step of the range, from 0."""
    steps: int
    """Steps per group, which is also its number of windows."""
    rows: int
    """Windows per step."""
    turns: Turns
    """Source of each group."""
    first_turn: int
    """Turn of the first group: the number of groups of this size in the windows read since the mixture began. So
    sources continue to take turns, instead of restarting with the first source."""
    windows_before: list[int]
    """Windows of each source that earlier spans read."""
    groups_before: list[int]
    """Groups of each source that earlier spans read."""


class BlockOrder:
    """Order in which a run reads windows that are shuffled in blocks: `order[step]` returns the window numbers of a
    step, (windows of the batch,) int64. `sources` has the range of window numbers of each source, `block` the windows
    per block, `weights` for each stage of the run (lm/config/stages.py) the weight of each source."""

    def __init__(
        self, sources: Sequence[range], weights: Sequence[Sequence[float]], seed: int, stages: Stages, block: int
    ):
        self.streams = [BlockStream(windows, block, seed, index) for index, windows in enumerate(sources)]
        self.spans: list[Span] = []
        windows, groups, mixture, began = [0] * len(sources), [0] * len(sources), None, 0
        for stage, own in zip(stages, weights, strict=True):
            turns, whole = Turns(own), steps_in_blocks(block, stage.windows)
            if mixture != (mixture := tuple(own)):
                began = stage.windows_before
            times, left = divmod(stage.end - stage.first_step, whole)
            for first, steps, count in (
                (stage.first_step, whole, times), (stage.first_step + times * whole, left, 1)
            ):  # fmt: skip
                if steps and count:
                    turn = (stages.windows_before(first) - began) // steps
                    self.spans.append(Span(first, steps, stage.windows, turns, turn, windows, groups))
                    made = between(turns, turn, turn + count * stage.windows)
                    windows = [before + one * steps for before, one in zip(windows, made, strict=True)]
                    groups = [before + one for before, one in zip(groups, made, strict=True)]
        self._first_steps = [span.first_step for span in self.spans]
        self._rows = functools.lru_cache(4)(self._rows_of)

    def __getitem__(self, step: int) -> np.ndarray:
        index, slot, offset = self._place(step)
        return self._rows(index, slot)[:, offset]

    def _place(self, step: int) -> tuple[int, int, int]:
        """Return (index of a step's span, number of groups that each row has finished there, offset in the next
        group)."""
        index = bisect.bisect_right(self._first_steps, step) - 1
        return index, *divmod(step - self.spans[index].first_step, self.spans[index].steps)

    def _rows_of(self, index: int, slot: int) -> np.ndarray:
        """Return one group of blocks for each row: (rows, steps) int64."""
        span = self.spans[index]
        found, before = [], span.turns.counts(span.first_turn)
        for row in range(span.rows):
            source, turn = span.turns[span.first_turn + slot * span.rows + row]
            turn -= before[source]
            position = span.windows_before[source] + turn * span.steps
            found.append(self.streams[source].group(span.groups_before[source] + turn, position, span.steps))
        return np.stack(found)

    def windows_read(self, step: int) -> list[int]:
        """Return how many windows of each source the steps 0 to `step` - 1 read."""
        index, slot, offset = self._place(step)
        span = self.spans[index]
        of_span = lambda groups: between(span.turns, span.first_turn, span.first_turn + groups)
        made, more = of_span(slot * span.rows), of_span((slot + 1) * span.rows)
        return [
            before + one * span.steps + (next_one - one) * offset
            for before, one, next_one in zip(span.windows_before, made, more, strict=True)
        ]
