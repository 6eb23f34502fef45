"""Arrays of a page's blocks, shared by the groups of features. Sums are of integers: exact, and the same on every
machine.

Array axes: N blocks, M elements.
"""

import functools
from collections.abc import Iterator

import numpy as np

from data_prep.extract.blocks import KINDS, Blocks
from data_prep.extract.hints import HINTS

# Character classes, by code points of the Basic Multilingual Plane; higher ones are OTHER.
OTHER, UPPER, WIDE, TERMINAL, SPACE, DIGIT, CURRENCY = range(7)
CLASS_RANGES = {
    UPPER: ((0x41, 0x5A), (0xC0, 0xDE), (0x391, 0x3A9), (0x410, 0x42F)),
    WIDE: ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7AF)),  # one of these carries as much text as three letters
    TERMINAL: tuple((ord(mark), ord(mark)) for mark in ".!?…。！？؟।"),
    SPACE: ((0x0A, 0x0A), (0x20, 0x20)),
    DIGIT: ((0x30, 0x39),),
    CURRENCY: ((0x24, 0x24), (0xA3, 0xA3), (0xA5, 0xA5), (0x20A0, 0x20BF)),
}
PROSE_SIZE, PROSE_LINKS = 80, 0.4  # blocks with a sentence from this size and below this link density are prose
FAR = 999


@functools.cache
def class_table() -> np.ndarray:
    table = np.zeros(0x10000, np.uint8)
    for name, ranges in CLASS_RANGES.items():
        for low, high in ranges:
            table[low : high + 1] = name
    return table


@functools.cache
def places(hints: tuple[str, ...]) -> np.ndarray:
    return np.array([[HINTS.index(hint)] for hint in hints])


def bits_of(masks: np.ndarray, hints: tuple[str, ...]) -> np.ndarray:
    """Return (hints, len(masks)) of 0 and 1."""
    return masks >> places(hints) & 1


@functools.cache
def among(kinds: frozenset[int]) -> np.ndarray:
    """Return (kinds,) bool: whether each kind of element is in `kinds`. Indexing it is several times faster than
    np.isin."""
    return np.array([kind in kinds for kind in range(len(KINDS))])


@functools.cache
def levels() -> np.ndarray:
    """Return the heading level of each kind of element: 1 to 6, or 9 if it is not a heading."""
    of_tag = {f"h{level}": level for level in range(1, 7)}
    return np.array([of_tag.get(tag, 9) for tag in KINDS])


def running(values: np.ndarray) -> np.ndarray:
    """Return cumulative sums, N + 1 values from 0; [end] - [start] is the sum of a range."""
    return np.concatenate([[0], np.cumsum(values)])


def ratio(part, whole):
    return part / np.maximum(whole, 1)


def shifted(values: np.ndarray, fill: float) -> np.ndarray:
    """Return the value of each block's predecessor."""
    return np.concatenate([[fill], values[:-1]])


def outside(index_N: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return the distance in blocks from each block to the range: negative before it, 0 in it."""
    return np.minimum(index_N - first, 0) + np.maximum(index_N - last + 1, 0)


def ancestors(parent_M: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the ancestors 1, 2, 4, 8, ... levels above each element, until all are the root. Gathering a value over
    these jumps gathers it over all ancestors, in log2(depth) steps."""
    jump_M = parent_M
    while jump_M.any():
        yield jump_M
        jump_M = jump_M[jump_M]


def nearest(chosen_M: np.ndarray, parent_M: np.ndarray) -> np.ndarray:
    """Return the innermost chosen element among each element and its ancestors, or the root."""
    found_M = np.where(chosen_M, np.arange(len(parent_M)), parent_M)
    found_M[0] = 0
    while True:
        wider_M = found_M[found_M]
        if (wider_M == found_M).all():
            return found_M
        found_M = wider_M


class Page:
    """Arrays that several groups of features use."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.N = len(blocks.texts)
        self.index = np.arange(self.N)
        self.owner = np.array(blocks.owner)
        self.parent = np.maximum(blocks.parent, 0)  # the root is its own parent
        self.own, self.mask = np.array(blocks.own, np.int64), np.array(blocks.mask, np.int64)
        self.first, self.last = np.array(blocks.first), np.array(blocks.last)
        self.kind_M, self.name_M = np.array(blocks.kind), np.array(blocks.name)
        self.kind = self.kind_M[self.owner]
        self.length = np.fromiter(map(len, blocks.texts), np.int64, self.N)
        codes = np.frombuffer("".join(blocks.texts).encode("utf-32-le", "replace"), np.uint32)
        self.classes = class_table().take(codes, mode="clip")  # code points above the table get its last value
        self.ends = running(self.length)
        self.starts = self.ends[:-1]
        self.counts: dict[int, np.ndarray] = {}
        self.size = self.length + 2 * self.count(WIDE)
        self.link_length = np.array(blocks.link)
        self.link = self.link_length * self.size // self.length
        self.link_density = self.link / self.size
        prose = (self.size >= PROSE_SIZE) & (self.link_density < PROSE_LINKS) & (self.count(TERMINAL) > 0)
        self.prose = np.where(prose, self.size - self.link, 0)
        self.totals = np.zeros((3, self.N + 1), np.int64)
        np.stack((self.size, self.link, self.prose)).cumsum(1, out=self.totals[:, 1:])
        self.sums = dict(zip(("size", "link", "prose"), self.totals, strict=True))
        self.heading_level = levels()[self.kind]
        self.all_size = int(self.sums["size"][-1])
        self.all_prose = max(int(self.sums["prose"][-1]), 1)

    def count(self, character_class: int) -> np.ndarray:
        """Return the number of characters of the class in each block."""
        found_N = self.counts.get(character_class)
        if found_N is None:
            before = (self.classes == character_class).nonzero()[0].searchsorted(self.ends)
            found_N = self.counts[character_class] = before[1:] - before[:-1]
        return found_N

    def all_between(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return size, link and prose between each `first` and `last`, a row of that shape for each."""
        return self.totals.take(last, 1) - self.totals.take(first, 1)

    def between(self, what: str, first, last):
        return self.sums[what][last] - self.sums[what][first]
