"""Remove token sequences that occur more than once from all places but the first (Lee et al. 2022, arXiv:2107.06499).

Documents are compared in groups of bounded size. In a group they are in the order of their nodes (clusters.py), so that
the kept occurrence does not depend on the order of files.

Repeated sequences are found with a suffix array that is sorted only to the length of the sequences. The ranks of
sequences of 2^k tokens follow from those of 2^(k-1) (Karp, Miller and Rosenberg 1972; Manber and Myers 1993): six sorts
for sequences of 50 tokens. A sequence occurs twice only if both halves do, so little is left after the first sorts. No
step compares hashes. The full suffix array of Lee et al. finds the same sequences.
"""

import dataclasses
import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.config.deduplicate import SubstringDedupConfig
from data_prep.dedup.minhash import WITHOUT_SPACES
from data_prep.dedup.survivors import (
    EDIT_SCHEMA,
    SurvivorFile,
    edit_of,
    edits_from,
    edits_name,
    read_survivors,
    with_gaps,
    write_edits,
    write_totals,
)
from data_prep.engine import Counts, Workspace, identity_of
from data_prep.engine.tasks import FileRunner, delete_other_digests
from data_prep.grouping import grouped
from data_prep.parquet import read_rows, write_rows
from lm.storage import Place

REASONS = ("repeated_substrings", "short_after_substring_dedup")
GROUP_SCHEMA = pa.schema([("file", pa.int64()), *EDIT_SCHEMA])
PIECE = re.compile(f"[{WITHOUT_SPACES}]|[^{WITHOUT_SPACES}]+")
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Group:
    """A task: row groups of files, whose documents are compared with each other, and the file for their edits."""

    parts: tuple[tuple[SurvivorFile, tuple[int, ...]], ...]
    """(file, numbers of its row groups)."""
    bytes: int
    """UTF-8 bytes of the texts."""
    run_file: Place


def remove_substrings(files: list[SurvivorFile], config: SubstringDedupConfig, run: FileRunner) -> list[SurvivorFile]:
    """Find passages that are repeated within groups of files, and write the edits that remove all but the first. Return
    the files with these edits, without failed files. Raises InputError if too many fail (engine.max_failed)."""
    identity = identity_of([file.sha256 for file in files], config)
    folder = run.folder / "parts/substring_dedup" / identity[:12]
    delete_other_digests(folder)
    groups = groups_of(files, config.group_bytes, folder)
    if groups:
        run.tasks("repeated passages")(groups, functools.partial(write_group_edits, config=config))
    places = places_by_file(groups)
    files = [dataclasses.replace(file, groups=tuple(places[file.id])) for file in files]
    files, edits = run("substring-edits", files, write_substring_edits, identity)
    write_totals(run.folder / "dropped/_substring_dedup.json", edits.values())
    return [file.edited("substring_dedup", run.folder, edits[file.name]) for file in files]


def groups_of(files: Sequence[SurvivorFile], most: int, folder: Place) -> list[Group]:
    """Divide the row groups of all files, in order, into tasks of at most `most` bytes of text. A larger row group is a
    task of its own. The tasks write their edits to files in `folder`."""
    rows = ((file, number, size) for file in files for number, size in enumerate(file.counts["text_bytes"]))
    groups = []
    for some in grouped(rows, lambda row: row[2], most):
        of_files = itertools.groupby(some, key=lambda row: row[0])
        parts = tuple((file, tuple(number for _, number, _ in of_file)) for file, of_file in of_files)
        groups.append(Group(parts, sum(size for *_, size in some), folder / f"{len(groups):06d}.parquet"))
    return groups


def places_by_file(groups: Sequence[Group]) -> dict[int, list[Place]]:
    """Return {number of a file: paths of the edits of all groups that have documents of the file}."""
    places: dict[int, list[Place]] = defaultdict(list)
    for group in groups:
        for file, _ in group.parts:
            places[file.id].append(group.run_file)
    return places


def write_group_edits(group: Group, path: Path, config: SubstringDedupConfig) -> None:
    """Write the edits that remove passages repeated within a group of documents. The texts are read twice, and are
    never all in memory."""
    covered = covered_tokens(group, config)

    def rows() -> Iterator[tuple[Path, dict]]:
        for file, row_groups in group.parts:
            for one in read_survivors(file, row_groups):
                own = covered.get((file.id, one.row))
                if own is not None and (spans := with_gaps(one.text, spans_of(one.text, own))):
                    edit = edit_of(one.text, spans, config.max_removed, config.min_words_left, REASONS)
                    yield path, {"file": file.id, **edit.row(one.row)}

    write_rows(rows(), {path: GROUP_SCHEMA}, scratch=path.parent)


def covered_tokens(group: Group, config: SubstringDedupConfig) -> dict[tuple[int, int], np.ndarray]:
    """Return {(file, row): which tokens of the document to remove, bool (tokens,)}. Documents that lose no token are
    left out."""
    numbers: dict[str, int] = {}
    documents: list[tuple[int, int, int, np.ndarray]] = []
    for file, row_groups in group.parts:
        for one in read_survivors(file, row_groups):
            documents.append((one.when, file.id, one.row, numbered(one.text, numbers)))
    del numbers
    documents.sort(key=lambda one: one[:3])
    ends = np.cumsum([len(tokens) + 1 for *_, tokens in documents])
    tokens = np.zeros(int(ends[-1]) if documents else 0, np.uint32)
    for (*_, own), end in zip(documents, ends.tolist(), strict=True):
        tokens[end - 1 - len(own) : end - 1] = own
    places = [(file, row, len(own)) for _, file, row, own in documents]
    del documents
    counts = np.bincount(tokens, minlength=1)
    counts[0] = 0
    covered = repeated_earlier(np.where(counts[tokens] > 1, tokens, np.uint32(0)), config.length)
    found = {}
    for (file, row, length), end in zip(places, ends.tolist(), strict=True):
        own = covered[end - 1 - length : end - 1]
        if own.any():
            found[file, row] = own
    return found


def write_substring_edits(file: SurvivorFile, space: Workspace) -> Counts:
    rows = (row for place in file.groups for row in read_rows(place) if row["file"] == file.id)
    return write_edits(space.output(edits_name("substring_dedup", file.name)), edits_from(rows))


def numbered(text: str, numbers: dict[str, int]) -> np.ndarray:
    """Return the words of the text as numbers from 1, uint32 (words,). New words are added to `numbers`."""
    words = words_of(text)
    return np.fromiter((numbers.setdefault(word, len(numbers) + 1) for word in words), np.uint32, len(words))


def words_of(text: str) -> list[str]:
    """Return the words of a text: what is between white space; in scripts without spaces, each character."""
    words = text.split()
    if text.isascii():
        return words
    return [piece for word in words for piece in ((word,) if word.isascii() else PIECE.findall(word))]


def spans_of(text: str, chosen: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, end), in characters, of each stretch of consecutive chosen words. `chosen` is bool (words,)."""
    edges = np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]]))
    stretches = zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    places = list(word_places(text))
    return [(places[start][0], places[end - 1][1]) for start, end in stretches]


def word_places(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end), in characters, of each word of `words_of`."""
    for word in WORD.finditer(text):
        if word[0].isascii():
            yield word.span()
        else:
            for piece in PIECE.finditer(text, *word.span()):
                yield piece.span()


def sequence_ranks(tokens: np.ndarray, length: int) -> np.ndarray:
    """Return uint32 (n,): an ID of the sequence of `length` tokens that begins at each position. Equal sequences have
    the same ID; a sequence that occurs only once has the ID 0. `tokens` is uint32 (n,), with 0 for tokens that occur
    only once."""
    ranks, depth = tokens, 1
    while depth < length and len(ranks):
        step = min(depth, length - depth)
        places = np.flatnonzero(ranks)
        places = places[places < len(ranks) - step]
        places = places[ranks[places + step] > 0]
        pairs = ranks[places].astype(np.uint64)
        pairs <<= np.uint64(32)
        pairs |= ranks[places + step]
        ranks = np.zeros(len(ranks), np.uint32)
        ranks[places] = number_repeated(pairs)
        del pairs, places
        depth += step
    return ranks


def number_repeated(values: np.ndarray) -> np.ndarray:
    """Return an ID for each value, uint32 (n,): equal values have the same ID, larger values have larger IDs, and a
    value that occurs only once has the ID 0. Sorts `values` in place."""
    order = np.argsort(values)
    values[:] = values[order]
    same = values[1:] == values[:-1]
    begins = np.ones(len(values), bool)
    begins[1:] = ~same
    alone = begins.copy()
    alone[:-1] &= ~same
    numbers = np.cumsum(begins & ~alone, dtype=np.uint32)
    numbers[alone] = 0
    ranks = np.empty(len(values), np.uint32)
    ranks[order] = numbers
    return ranks


def repeated_earlier(tokens: np.ndarray, length: int) -> np.ndarray:
    """Return bool (n,): which tokens are in a sequence of `length` tokens that also occurs earlier, without overlap.
    `tokens` is as for `sequence_ranks`. A 0 separates documents, because sequences with a 0 are ignored."""
    ranks = sequence_ranks(tokens, length)
    places = np.flatnonzero(ranks)
    numbers = ranks[places]
    first = np.zeros(int(numbers.max(initial=0)) + 1, np.int64)
    first[numbers[::-1]] = places[::-1]  # for equal numbers the last write wins: the earliest place
    later = places[places >= first[numbers] + length]
    inside = np.zeros(len(tokens) + 1, np.int8)
    covered = np.zeros(len(tokens), bool)
    if len(later):
        new = np.ones(len(later), bool)
        new[1:] = np.diff(later) > length  # merge adjacent or overlapping sequences
        starts = later[new]
        ends = later[np.append(np.flatnonzero(new)[1:] - 1, len(later) - 1)] + length
        inside[starts], inside[ends] = 1, -1
        covered = np.cumsum(inside[:-1], dtype=np.int8) > 0
    return covered
