"""Remove lines or paragraphs that occur in several documents from all but the first of them.

The keys of the lines of each file, 32 bytes per row, are joined by key. A key that is in more documents than allowed
gives a row for each document except the first; these rows are joined by document.
"""

import functools
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.config.deduplicate import LineDedupConfig
from data_prep.dedup.clusters import LOW_WORD
from data_prep.dedup.keys import salt_of
from data_prep.dedup.partitions import Partition, Partitions, Rows, join
from data_prep.dedup.sorted_runs import (
    first_rows,
    joined,
    keys_of_file,
    put_together,
    read_blocks,
    runs_in,
    sorted_rows,
    spread,
    with_keys,
    write_run_file,
)
from data_prep.dedup.survivors import (
    Edit,
    SurvivorFile,
    edit_of,
    edits_name,
    read_survivors,
    with_gaps,
    write_edits,
    write_totals,
)
from data_prep.dedup.words import hashed_words
from data_prep.engine import Counts, Workspace, identity_of
from data_prep.engine.tasks import FileRunner, Run, delete_other_digests, files_of
from data_prep.npz import read_array, write_array
from lm.storage import Place

REASONS = ("repeated_lines", "short_after_line_dedup")
UNITS = {"line": re.compile(r"[^\n]+"), "paragraph": re.compile(r"[^\n](?:[^\n]|\n(?![^\S\n]*\n))*")}
ROWS_AT_ONCE = 1 << 20


def remove_lines(files: list[SurvivorFile], config: LineDedupConfig, run: FileRunner) -> list[SurvivorFile]:
    """Find lines or paragraphs that are in more than config.max_documents documents, and write the edits that remove
    them from all but the first. Return the files with their edits, without failed files. Raises InputError if too many
    fail."""
    files, keys = run("line-keys", files, functools.partial(write_line_keys, config=config), [config])
    written = files_of(keys.values())
    identity = identity_of([sha256 for _, sha256 in written], config)
    folder = run.folder / "parts/line_dedup" / identity[:12]
    delete_other_digests(folder)
    removed = join_lines([run.folder / name for name, _ in written], config, folder, run.tasks("repeated lines"))
    files, found = run("line-duplicates", files, functools.partial(write_removed, removed=removed), identity)
    work = functools.partial(write_line_edits, config=config)
    files, edits = run("line-edits", files, work, lambda file: [config, found[file.name].outputs])
    write_totals(run.folder / "dropped/_line_dedup.json", edits.values())
    return [file.edited("line_dedup", run.folder, edits[file.name]) for file in files]


def write_line_keys(file: SurvivorFile, space: Workspace, config: LineDedupConfig) -> None:
    def blocks() -> Iterator[np.ndarray]:
        for one in read_survivors(file):
            keys = np.frombuffer(b"".join({key for key, *_ in keyed_spans(one.text, one.scope, config)}), ">u8")
            block = np.empty((4, len(keys) // 2), np.uint64)
            block[:2] = keys.reshape(-1, 2).T
            block[2:] = np.array([[one.when], [file.id << 32 | one.row]], np.uint64)
            yield block

    path = space.output(f"parts/line_dedup/keys/{file.name}.runs")
    write_run_file(path, put_together(blocks(), ROWS_AT_ONCE))


def keyed_spans(text: str, scope: str, config: LineDedupConfig) -> Iterator[tuple[bytes, int, int]]:
    """Yield (key, start, end), in characters, of each span of the text that has at least config.min_words words, in
    order. A span is config.span consecutive lines or paragraphs. Spans with the same words have the same key."""
    salt = salt_of(scope)
    units = [(hashed_words(found[0]), *found.span()) for found in UNITS[config.unit].finditer(text)]
    units = [unit for unit in units if len(unit[0])]
    for first in range(len(units) - config.span + 1):
        some = units[first : first + config.span]
        if sum(len(words) for words, *_ in some) >= config.min_words:
            words = b"".join(len(words).to_bytes(8, "little") + words.astype("<u8").tobytes() for words, *_ in some)
            yield hashlib.blake2b(words, digest_size=16, key=salt).digest(), some[0][1], some[-1][2]


def join_lines(keys: Sequence[Place], config: LineDedupConfig, folder: Place, run: Run) -> Partitions:
    """Find the spans that are repeated, by joining the keys of all files. Return files with one row for each distinct
    span to remove from a document: the document's place (permuted by `spread`), the two words of the span's key, and
    0."""
    work = functools.partial(write_repeated, max_documents=config.max_documents)
    repeated, _ = join(keys, work, run, folder / "keys", ROWS_AT_ONCE)
    return join(repeated.places, write_by_place, run, folder / "removed", ROWS_AT_ONCE)[0]


def write_repeated(task: Partition, path: Path, read: Rows, max_documents: int) -> None:
    """Write a row like those of `join_lines` for each document from which a span of this partition is removed: all but
    the first, if more than `max_documents` have the span."""
    counts: list[np.ndarray] = [np.empty(0, np.int64)]
    group, first = first_rows(read(), counts)
    total = np.bincount(group, np.concatenate(counts))

    def rows() -> Iterator[np.ndarray]:
        for block, starts, keys in with_keys(read(), group):
            row = np.cumsum(starts) - 1
            is_removed = (total[keys] > max_documents)[row] & (block[2:] != first[2:, keys][:, row]).any(axis=0)
            yield np.stack([spread(block[3]), block[0], block[1], np.zeros_like(block[0])])[:, is_removed]

    write_run_file(path, rows())


def write_by_place(task: Partition, path: Path, rows: Rows) -> None:
    write_run_file(path, rows())


def removed_name(file: SurvivorFile) -> str:
    return f"parts/line_dedup/removed/{file.name}.npy"


def write_removed(file: SurvivorFile, space: Workspace, removed: Partitions) -> None:
    """Write the spans to remove from the documents of a file, uint64 (3, spans): row of the document, then the two
    words of the span's key. They are sorted, so that equal sets give equal bytes. `removed` is from `join_lines`."""
    low, last = keys_of_file(file.id)
    blocks = read_blocks(runs_in(removed.of(low)), low, last, ROWS_AT_ONCE)
    rows = sorted_rows(joined(blocks))[:3]
    rows[0] &= np.uint64(LOW_WORD)
    write_array(space.output(removed_name(file)), rows, space.scratch)


def write_line_edits(file: SurvivorFile, space: Workspace, config: LineDedupConfig) -> Counts:
    removed: dict[int, set[bytes]] = {}
    """{row of a document: keys of the spans to remove}"""
    rows = read_array(space.place(removed_name(file)))
    every = np.ascontiguousarray(rows[1:].T).astype(">u8").tobytes()
    for number, row in enumerate(rows[0].tolist()):
        removed.setdefault(row, set()).add(every[16 * number : 16 * number + 16])

    def edits() -> Iterator[tuple[int, Edit]]:
        for one in read_survivors(file):
            if keys := removed.get(one.row):
                spans: list[tuple[int, int]] = []
                for key, start, end in keyed_spans(one.text, one.scope, config):
                    if key in keys:
                        if spans and not one.text[spans[-1][1] : start].strip():  # adjacent or overlapping: merge
                            start = spans.pop()[0]
                        spans.append((start, end))
                spans = with_gaps(one.text, spans)
                yield one.row, edit_of(one.text, spans, config.max_removed, config.min_words_left, REASONS)

    return write_edits(space.output(edits_name("line_dedup", file.name)), edits())
