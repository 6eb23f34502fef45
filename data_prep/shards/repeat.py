"""Documents that stand in the stream several times, far from one another. The documents of a group of files are gone
over in as many passes, side by side, as the most repeated one asks for, each begun one part of the group further on.
One that is to stand there r times is in r passes, evenly chosen: between two copies is about an r-th of the group."""

import heapq
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.engine import Workspace
from data_prep.parquet import opened
from data_prep.shards.encode import ENTRY, PARTS, Entry
from lm.errors import InputError

MOST = 100
"""Copies of a document: each pass holds some documents in memory."""


def repeated(space: Workspace, files: Sequence[tuple[str, int]], split: str) -> Iterator[Entry]:
    """The documents of a split of some units, (name, number of the first document) of each, with their copies. Raises
    InputError if one is to be repeated more than MOST times."""
    times = [column(space, name, split) for name, _ in files]
    wanted = np.concatenate([np.empty(0, np.int64), *times])
    if not len(wanted):
        return
    count, passes = len(wanted), int(wanted.max())
    if passes > MOST or wanted.min() < 1:
        raise InputError(
            f"Documents of {files[0][0]} to {files[-1][0]} are to stand there {wanted.min()} to {passes} times; 1 to "
            f"{MOST} can be. "
            "Give other documents.minhash.upsampling_weights."
        )
    sizes = [len(one) for one in times]

    def of_pass(number: int) -> Iterator[tuple[int, Entry]]:
        having = [value for value in np.unique(wanted).tolist() if number in passes_of(value, passes)]
        chosen, start = np.isin(wanted, having), number * count // passes
        for begin, end in ((start, count), (0, start)):
            for place, entry in entries(space, files, sizes, split, chosen, begin, end):
                yield (place - start) % count, entry

    for _, entry in heapq.merge(*map(of_pass, range(passes)), key=lambda found: found[0]):
        yield entry


def passes_of(times: int, passes: int) -> list[int]:
    """In which of the passes a document is that is to stand there `times` times."""
    return [copy * passes // times for copy in range(times)]


def column(space: Workspace, name: str, split: str) -> np.ndarray:
    """How often each document of a unit is to stand there, int64 (documents,)."""
    with opened(space.input(f"{PARTS}/encoded/{name}.{split}")) as table:
        return table.read(["repeat"])["repeat"].to_numpy()


def entries(
    space: Workspace, files: Sequence[tuple[str, int]], sizes: Sequence[int], split: str, chosen: np.ndarray,
    begin: int, end: int,
) -> Iterator[tuple[int, Entry]]:  # fmt: skip
    """(place in the group, document) of those chosen from place `begin` to `end`; other row groups are not read."""
    for (name, first), before, size in zip(files, itertools.accumulate(sizes, initial=0), sizes, strict=False):
        if not chosen[max(before, begin) : min(before + size, end)].any():
            continue
        with opened(space.input(f"{PARTS}/encoded/{name}.{split}")) as table:
            place = before
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                low, high = max(place, begin), min(place + rows, end)
                hit = low + np.flatnonzero(chosen[low:high]) if low < high else []
                if len(hit):
                    read = table.read_row_group(group, ENTRY)
                    for at in hit:
                        number, text_bytes, tokens = (read[name][int(at) - place] for name in ENTRY)
                        entry = Entry(first + number.as_py(), text_bytes.as_py(), tokens.values.to_numpy())
                        yield int(at), entry
                place += rows
