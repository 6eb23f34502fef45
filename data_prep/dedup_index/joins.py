"""Joins for an index: of a run with its own keys, to write the index, and of a later run with the index."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.config import DocumentsConfig
from data_prep.dedup.clusters import INDEX_FILES, LOW_WORD, ROWS_AT_ONCE
from data_prep.dedup.partitions import Partition, Partitions, Rows, join
from data_prep.dedup.sorted_runs import (
    LAST_KEY,
    begins,
    joined,
    read_blocks,
    runs_in,
    sorted_rows,
    write_run_file,
    writing_run_file,
)
from data_prep.dedup_index.format import HEADER, ID_SCHEMA, Index, KeyFile, header_of
from data_prep.engine.tasks import Run
from data_prep.parquet import read_batches, write_rows
from lm.storage import Place, appearing, write_json, writing

KEYS_IN_GROUP = 1 << 16
"""Keys per row group, about 0.7 MB: the smallest part of an index that can be read."""


# An index also has the keys of dropped duplicates: a document near one belongs to its cluster and is dropped.


def map_keys(
    texts: Place, pairs: Sequence[tuple[Place, Path]], places: Mapping[int, tuple[int, int]], ids: Path
) -> None:
    """Write the keys of one file of texts/ for an index, each with the document that is kept for it, and the IDs of the
    kept documents of this file.

    `pairs` is [(file of keys, file to write)]. `places` is {row of a duplicate: (file, row) of the document of this run
    that is kept}. Duplicates of documents of an earlier index are not in `places`: like kept documents, they are
    written with their own place and ID.
    """
    duplicates = np.array(sorted(places), np.uint64)
    kept_places = np.array([places[row][0] << 32 | places[row][1] for row in sorted(places)], np.uint64)
    kept_rows = [np.empty(0, np.uint64)]

    def mapped(pairs: Place) -> Iterator[np.ndarray]:
        for rows in read_blocks(runs_in(pairs), 0, LAST_KEY, ROWS_AT_ONCE):
            row = rows[3] & np.uint64(LOW_WORD)
            at = np.searchsorted(duplicates, row)
            is_duplicate = np.zeros(len(row), bool)
            if len(duplicates):
                is_duplicate = duplicates[np.minimum(at, len(duplicates) - 1)] == row
            kept_rows.append(np.unique(row[~is_duplicate]))
            rows[2:, is_duplicate] = np.stack([np.zeros(is_duplicate.sum(), np.uint64), kept_places[at[is_duplicate]]])
            yield rows

    for source, target in pairs:
        write_run_file(target, mapped(source))
    named = np.unique(np.concatenate(kept_rows)).astype(np.int64)

    def kept_ids() -> Iterator[tuple[Path, dict]]:
        first = 0
        for batch in read_batches(texts, ["id"]):
            begin, end = np.searchsorted(named, [first, first + batch.num_rows])
            for row in named[begin:end].tolist():
                yield ids, {"row": row, "id": batch["id"][row - first].as_py()}
            first += batch.num_rows

    write_rows(kept_ids(), {ids: ID_SCHEMA}, ids.parent)


def write_index(
    texts: Mapping[int, str],
    mapped: Mapping[str, Sequence[Place]],
    config: DocumentsConfig,
    identity: str,
    folder: Place,
    partial: Place,
    run: Run,
    rows_at_once: int = ROWS_AT_ONCE,
) -> None:
    """Write the keys and index.json of an index to `folder`, which already has the IDs. `texts` is {number of a file in
    the joins: its name}; `mapped` has the files of `map_keys` by kind; `identity` is a hash of the contents; `partial`
    gets intermediate files. Raises InputError if the disk cannot be written."""
    keys: dict[str, list[KeyFile]] = {}
    work = functools.partial(write_keys, files=tuple(texts), key_bytes=config.dedup_index.key_bytes)
    for kind, places in mapped.items():
        made = functools.partial(Partitions, folder / "keys" / kind, suffix=".parquet")
        parts, _ = join(places, work, run, partial / kind, rows_at_once, made)
        keys[kind] = [KeyFile(one.run_file.name, one.low, one.last) for one in parts.tasks]
    with writing(folder):
        write_json(folder / HEADER, header_of(config, keys, texts.values(), identity))


def write_keys(task: Partition, path: Path, blocks: Rows, files: Sequence[int], key_bytes: int) -> None:
    """Write each key of one partition to an index once, with the smallest of its nodes (documents). `files` are the
    numbers of the run's files; the index stores the position of a number in this list."""
    found = []
    for block in blocks():
        if key_bytes == 8:
            block = sorted_rows(block * np.array([[1], [0], [1], [1]], np.uint64))
        found.append(block[:, begins(block[:2])])  # so the memory for a key of many documents is bounded by a block
    rows = sorted_rows(joined(found))
    rows = rows[:, begins(rows[:2])]
    columns = {"key_0": rows[0]} | ({"key_1": rows[1]} if key_bytes > 8 else {})
    order = np.argsort(np.array(files, np.uint64))
    place = order[np.searchsorted(np.array(files, np.uint64)[order], rows[3] >> np.uint64(32))]
    columns |= {"file": place.astype(np.uint32), "row": rows[3].astype(np.uint32)}
    encodings = {"key_0": "DELTA_BINARY_PACKED", "file": "BYTE_STREAM_SPLIT", "row": "BYTE_STREAM_SPLIT"}
    with appearing(path, scratch=path.parent) as partial:
        pq.write_table(
            pa.table(columns),
            partial,
            row_group_size=KEYS_IN_GROUP,
            compression="zstd",
            use_dictionary=False,
            column_encoding={name: encodings[name] for name in columns if name in encodings},
        )


# Which documents of another run share a key with an index: a join that reads the same range of keys from each index. It
# writes pairs (key, node) for `find_duplicates`: for each shared key, the nodes of the run and a smaller node of the
# index. So the document of the index is kept and the whole cluster that shares its key is dropped, as in a single run
# over both.


def write_matching_pairs(
    task: Partition, path: Path, rows: Rows, indices: Sequence[Index], kinds: Sequence[str]
) -> None:
    """Find the documents of one partition of this run's keys (`writing_pairs`) that share keys of `kinds` with
    documents in the indices of earlier runs. Writes rows (key, node), uint64 (4, rows): the shared keys and all their
    documents, as input for `find_duplicates`. Files of the indices have numbers from INDEX_FILES on. Reads the run's
    rows twice and the keys of the indices once."""
    own = sorted_rows(joined((block[:2, begins(block[:2])] for block in rows()), 2))
    met = np.zeros(own.shape[1], bool)
    with writing_run_file(path) as add:
        first_file = INDEX_FILES
        for index in indices:
            for kind in kinds:
                for keys in index.read_keys(kind, task.low, task.last):
                    mine, theirs = matches(own, keys.first, keys.second)
                    met[mine] = True
                    place = keys.place[theirs] + np.uint64(first_file << 32)
                    add(np.stack([*own[:, mine], np.zeros_like(place), place]))
            first_file += len(index.texts)
        own = own[:, met]
        if own.shape[1]:
            for block in rows():
                found, _ = matches(block[:2], *own)
                add(block[:, np.unique(found)])


def matches(keys: np.ndarray, first: np.ndarray, second: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions in `keys`, positions in the index) of equal keys. `keys` is uint64 (2, n); the index's sorted
    keys have the words `first` and `second`. If `second` is None, only first words are compared."""
    begin = np.searchsorted(first, keys[0], side="left")
    many = np.searchsorted(first, keys[0], side="right") - begin
    mine, theirs = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for step in range(int(many.max(initial=0))):  # more than once only if keys differ only after 8 bytes
        some = np.flatnonzero(many > step)
        at = begin[some] + step
        if second is not None:
            same = second[at] == keys[1, some]
            some, at = some[same], at[same]
        mine.append(some)
        theirs.append(at)
    return np.concatenate(mine), np.concatenate(theirs)
