"""At which steps a document was in the batch: the inverse of BatchSource.documents, without a log.

The windows that hold a document are found in the shards; at which steps these come, by walking the order of the steps,
which is kept as far as it fits MOST_HELD.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from lm.data.batches import BatchSource, Windows
from lm.data.records import read_manifest

MOST_HELD = 4_000_000
"""Sequences whose windows are kept in memory, 8 bytes each."""
STEPS_AT_ONCE = 64


class Seen(NamedTuple):
    """What a look-up found."""

    places: list[tuple[int, int]]
    """(step, from 0, window of its batch) of each window of the document, in their order."""
    next: int | None
    """The step to go on from; None where all steps were looked at."""


def windows_with(
    windows: Windows, document: int, rising: bool, stop: Callable[[], bool] = lambda: False
) -> tuple[np.ndarray, bool]:
    """(numbers of the windows of whose inputs some are the document's, rising, int64; whether all could be looked at).

    `rising` says that the documents' numbers rise through the shards, so that few records need be read
    (`numbers_rise`). Otherwise records are read one by one until `stop` says so. Raises InputError for a damaged one.
    """
    found: dict[int, None] = {}
    count = windows.first_records[-1]
    for index in range(first_with(windows, document) if rising else 0, count):
        if not rising and stop():
            return np.array(sorted(found), np.int64), False
        record = windows.record(index)
        ends = [*record.segment_starts[1:].tolist(), record.valid]
        for number, begin, end in zip(record.document_ids.tolist(), record.segment_starts.tolist(), ends, strict=True):
            if number == document:
                found.update(dict.fromkeys(windows.windows_of(index, begin, end)))
        if rising and int(record.document_ids[-1]) > document:
            break
    return np.array(sorted(found), np.int64), True


def first_with(windows: Windows, document: int) -> int:
    """The first record whose last document is `document` or a later one."""
    low, high = 0, windows.first_records[-1]
    while low < high:
        middle = (low + high) // 2
        if int(windows.record(middle).document_ids[-1]) < document:
            low = middle + 1
        else:
            high = middle
    return low


def numbers_rise(windows: Windows) -> bool:
    """Whether the numbers of documents rise through the shards: they do where none is repeated
    (data_prep.shards.write); of folders from before December 2026 that is not known."""
    manifest = read_manifest(windows.folder)
    return bool(manifest.documents) and not manifest.repeats


class StepOrder:
    """The windows of the steps of a run, 0 to `steps`."""

    def __init__(self, source: BatchSource, steps: int, most_held: int = MOST_HELD):
        self.source, self.steps = source, steps
        self._held = source.stages.step_of(most_held)[0]
        """Steps whose windows are kept."""
        self._numbers = np.zeros(source.stages.windows_before(min(steps, self._held)), np.int64)
        self._walked = 0

    def places(self, numbers: np.ndarray, first: int, stop: Callable[[], bool]) -> Seen:
        """Where the windows `numbers` (BatchSource.numbers) come from step `first` on, until `stop` says so or the
        steps end. A few steps at least are looked at."""
        found: list[tuple[int, int]] = []
        stages = self.source.stages
        for begin, end, read in self._read(first):
            places = np.flatnonzero(np.isin(read, numbers)) + stages.windows_before(begin)
            found += map(stages.step_of, places.tolist())
            if stop() and end < self.steps:
                return Seen(found, end)
        return Seen(found, None)

    def _read(self, first: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """(first step, end, numbers of the windows in their order) of all steps from `first` on, some at a time."""
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
