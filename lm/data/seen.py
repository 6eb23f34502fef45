"""Find the steps at which a document was in the batch: the inverse of BatchSource.documents, without a log.

First the windows that contain the document are found in the shards; then the order of the steps is searched for these
windows. The order is cached up to MOST_HELD windows.
"""

import bisect
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from lm.data.batches import BatchSource, Windows
from lm.data.records import read_manifest

MOST_HELD = 4_000_000
"""Maximum number of cached window numbers, 8 bytes each."""
STEPS_AT_ONCE = 64


class Seen(NamedTuple):
    """Steps at which training read a document, as far as they were searched."""

    places: list[tuple[int, int]]
    """(step, from 0; position in the batch) of each of the document's windows, in order."""
    next: int | None
    """Step to continue from; None if all steps were searched."""


def windows_with(
    windows: Windows, document: int, rising: bool, stop: Callable[[], bool] = lambda: False
) -> tuple[np.ndarray, bool]:
    """Return (sorted numbers of the windows with inputs from a document, int64; whether the search is complete).

    `rising` means that document numbers ascend through the shards (see `numbers_rise`): a binary search then reads few
    records. Otherwise records are read from the start until `stop()` is true. Raises InputError if a record is damaged.
    """
    found: dict[int, None] = {}
    count = windows.first_records[-1]
    for index in range(first_with(windows, document) if rising else 0, count):
        if not rising and stop():
            return np.array(sorted(found), np.int64), False
        record = windows.record(index)
        starts = record.segment_starts.tolist()
        ends = [*starts[1:], min(record.valid, record.length)]  # one more token is an input of the next record, if any
        for number, begin, end in zip(record.document_ids.tolist(), starts, ends, strict=True):
            if number == document:
                found.update(dict.fromkeys(windows.windows_of(index, begin, end)))
        if rising and int(record.document_ids[-1]) > document:
            break
    return np.array(sorted(found), np.int64), True


def first_with(windows: Windows, document: int) -> int:
    """Return the number of the first record whose last document is `document` or a later one, by binary search."""
    last_document = lambda index: int(windows.record(index).document_ids[-1])
    return bisect.bisect_left(range(windows.first_records[-1]), document, key=last_document)


def numbers_rise(windows: Windows) -> bool:
    """Return whether document numbers ascend through the shards, as they do if no document is repeated and records are
    not packed."""
    return not read_manifest(windows.folder).repeats and not windows.is_packed


class StepOrder:
    """Finds at which of the steps 0 to `steps` - 1 given windows are read. Caches up to `most_held` numbers."""

    def __init__(self, source: BatchSource, steps: int, most_held: int = MOST_HELD):
        self.source, self.steps = source, steps
        self._held = source.stages.step_of(most_held)[0]
        """Number of steps whose windows are cached."""
        self._numbers = np.zeros(source.stages.windows_before(min(steps, self._held)), np.int64)
        self._walked = 0

    def places(self, numbers: np.ndarray, first: int, stop: Callable[[], bool]) -> Seen:
        """Find the steps from `first` on that read any of the windows `numbers` (numbered as by BatchSource.numbers).
        Ends when `stop()` is true or no steps are left, but searches at least a few steps."""
        found: list[tuple[int, int]] = []
        stages = self.source.stages
        for begin, end, read in self._read(first):
            places = np.flatnonzero(np.isin(read, numbers)) + stages.windows_before(begin)
            found += map(stages.step_of, places.tolist())
            if stop() and end < self.steps:
                return Seen(found, end)
        return Seen(found, None)

    def _read(self, first: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (first step, end, window numbers in order) for all steps from `first` on, several steps at a time."""
        before = self.source.stages.windows_before
        if first < self._walked:
            yield first, self._walked, self._numbers[before(first) : before(self._walked)]
            first = self._walked
        for begin in range(first, self.steps, STEPS_AT_ONCE):
            end = min(begin + STEPS_AT_ONCE, self.steps)
            read = np.concatenate([self.source.numbers(step) for step in range(begin, end)])
            if begin == self._walked and end <= self._held:
                self._numbers[before(begin) : before(end)] = read
                self._walked = end
            yield begin, end, read
