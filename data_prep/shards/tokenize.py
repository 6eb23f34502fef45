"""Documents -> tokens -> fixed-length sequence records. Writes no files."""

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data_prep.engine.tasks import FILTERING, StoredFile, stored_files
from data_prep.parquet import check_columns, opened, read_batches
from data_prep.shards.held_out import SplitName, splits_of
from lm.data.records import SequenceRecord
from lm.errors import InputError
from lm.storage import Place

Encode = Callable[[str], np.ndarray]
"""Converts a text to its token ids, uint32 (tokens,)."""
COLUMNS = ["id", "url", "text"]
REPEAT = "repeat"
"""Column of documents/ with the number of copies to train on (documents.minhash.upsampling_weights)."""
DOCUMENTS_AT_ONCE = 256  # maximum read at once from a row group; affects only memory
PACKED_AT_ONCE = 2**24
"""Tokens of documents that are packed together (packed_records)."""


class DocumentFile(StoredFile):
    @property
    def rows(self) -> int:
        return self.counts["documents"]

    @property
    def text_bytes(self) -> int:
        """Uncompressed size of the text column in the Parquet file; less than the sum of the texts if texts repeat."""
        return self.counts["text_bytes"]


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    number: int
    """Position in its file. If ends are held out: twice the position for the beginning, plus one for the end."""
    id: str
    url: str
    file: str
    split: SplitName
    """Split of the document; "withheld" documents are in neither split (held_out.py)."""
    text_bytes: int
    """UTF-8 bytes of its text."""
    tokens: np.ndarray
    """uint32 (1 + tokens of the text,), beginning with the `head` of `tokenize_file`; empty for withheld documents."""
    repeat: int = 1
    """Number of times that training shards contain it (shards.repeat_documents)."""


def document_files(folder: Place) -> list[DocumentFile]:
    """Return the files folder/*.parquet, by name. Raises InputError if there are none, one is unreadable or all are
    empty."""
    stored = stored_files(folder, FILTERING, "documents", "text_bytes")
    files = [DocumentFile(one.path, one.bytes, one.sha256, one.counts) for one in stored]
    if not any(file.rows for file in files):
        raise InputError(
            f"There are no documents in {folder} ({len(files)} Parquet files). Run: python -m launch.prepare_documents"
        )
    return files


def read_texts(files: Iterable[DocumentFile]) -> Iterator[str]:
    """Yield the texts of all documents in order. Raises InputError like `read_batches`."""
    for file in files:
        for rows in read_batches(file.path, ["text"], DOCUMENTS_AT_ONCE):
            yield from rows.column("text").to_pylist()


def texts_where(file: DocumentFile, column: str, chosen: Callable[[Any], bool]) -> Iterator[tuple[Any, str]]:
    """Yield (value of `column`, text), in order, of the documents of a file for which chosen(value) is True. Row groups
    without such documents are not read. Raises InputError like `read_batches`."""
    with opened(file.path) as table:
        check_columns(table, file.path, [column, "text"])
        for group in range(table.num_row_groups):
            values = table.read_row_group(group, [column])[column].to_pylist()
            hit = np.flatnonzero([chosen(value) for value in values])
            first = 0
            for batch in (
                table.iter_batches(DOCUMENTS_AT_ONCE, row_groups=[group], columns=["text"]) if len(hit) else ()
            ):
                for row in hit[(first <= hit) & (hit < first + len(batch))].tolist():
                    yield values[row], batch["text"][row - first].as_py()
                first += len(batch)


def tokenize_file(
    file: DocumentFile,
    encode: Encode,
    head: int,
    fraction: float,
    index: np.ndarray,
    held_out: Literal["documents", "ends"] = "documents",
    repeats: bool = False,
) -> Iterator[TokenizedDocument]:
    """Yield the documents of a file as tokens, in order, each beginning with the token `head`.

    `index` has the sorted keys of all held-out documents; with `fraction`, it decides the splits (`splits_of`), and
    withheld documents have no tokens. If `held_out` is "ends", each document becomes two: the last `fraction` of its
    characters is for validation. With `repeats`, the column "repeat" is the number of copies of training documents.
    Raises InputError, with the document's id, if the tokenizer cannot encode a text.
    """
    heading, number = np.array([head], np.uint32), 0
    for batch in read_batches(file.path, [*COLUMNS, REPEAT] if repeats else COLUMNS, DOCUMENTS_AT_ONCE):
        rows = batch.to_pylist()
        parts: list[tuple[dict, str, SplitName]] = []
        if held_out == "documents":
            splits = splits_of([(row["url"], row["text"]) for row in rows], fraction, index)
            parts = [(row, row["text"], split) for row, split in zip(rows, splits, strict=True)]
        else:
            for row in rows:
                end = int(len(row["text"]) * (1 - fraction))
                parts += [(row, row["text"][:end], "train"), (row, row["text"][end:], "val")]
        for row, text, split in parts:
            try:
                tokens = heading[:0] if split == "withheld" else np.concatenate((heading, encode(text)))
            except InputError as error:  # a byte or character is not in the vocabulary
                raise type(error)(f"{file.path}, document {row['id']}: {error}") from error
            size = len(text.encode())
            times = row[REPEAT] if repeats and split == "train" else 1
            yield TokenizedDocument(number, row["id"], row["url"], file.path.name, split, size, tokens, times)
            number += 1


def cut_records(documents: Iterable[tuple[int, np.ndarray]], length: int, dtype: str) -> Iterator[SequenceRecord]:
    """Concatenate documents (number, tokens), cut the stream into records of `length` + 1 tokens that overlap by one,
    and yield these. Only the last record may be padded. A stream of one token has no targets, so it gives no record."""
    tokens, filled = np.zeros(length + 1, dtype), 0
    starts: list[int] = []
    numbers: list[int] = []

    def record() -> SequenceRecord:
        return SequenceRecord(tokens, filled, np.array(starts, np.uint32), np.array(numbers, np.uint64))

    for number, document in documents:
        used = 0
        while used < len(document):
            if filled == length + 1:
                yield record()
                last, tokens = tokens[-1], np.zeros(length + 1, dtype)
                tokens[0], filled, starts, numbers = last, 1, [0], numbers[-1:]
            if used == 0:
                starts.append(filled)
                numbers.append(number)
            taken = min(len(document) - used, length + 1 - filled)
            tokens[filled : filled + taken] = document[used : used + taken]
            used, filled = used + taken, filled + taken
    if filled > 1:
        yield record()


def packed_records(documents: Iterable[tuple[int, np.ndarray]], length: int, dtype: str) -> Iterator[SequenceRecord]:
    """Yield records of `length` tokens, filled with whole documents (number, tokens) by best-fit decreasing (Ding et
    al. 2024, arXiv:2404.10830), PACKED_AT_ONCE tokens at a time.

    Only documents of more than `length` tokens are split: into full records and a rest, which begins another record. A
    record also has the target of its last token: the next one of its document, or else a document head. The rest of a
    record is padding. No token is lost or repeated.
    """
    held: list[tuple[int, np.ndarray]] = []
    size = 0
    for number, tokens in documents:
        held.append((number, tokens))
        size += len(tokens)
        if size >= PACKED_AT_ONCE:
            yield from packed_together(held, length, dtype)
            held, size = [], 0
    yield from packed_together(held, length, dtype)


def packed_together(documents: list[tuple[int, np.ndarray]], length: int, dtype: str) -> Iterator[SequenceRecord]:
    """Yield `packed_records` of a list of documents, in the order of the first document of each record."""
    bins: list[list[tuple[int, np.ndarray]]] = []
    """Pieces of each record, as (index of the document, its tokens and, in a full record, the next one)."""
    rooms: list[int] = []
    """Sizes of free space for which there are records, ascending."""
    with_room: dict[int, list[int]] = {}
    """{free space: records}."""

    def leave_room(record: int, room: int) -> None:
        if room and room not in with_room:
            bisect.insort(rooms, room)
        with_room.setdefault(room, []).append(record)

    for index, (_, tokens) in enumerate(documents):
        for begin in range(0, len(tokens), length) if len(tokens) > length else ():
            bins.append([(index, tokens[begin : begin + length + 1])])
            leave_room(len(bins) - 1, max(length - (len(tokens) - begin), 0))
    whole = [index for index, (_, tokens) in enumerate(documents) if len(tokens) <= length]
    for index in sorted(whole, key=lambda index: -len(documents[index][1])):
        size = len(documents[index][1])
        if (place := bisect.bisect_left(rooms, size)) < len(rooms):
            room = rooms[place]
            record = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[place]
        else:
            record, room = len(bins), length
            bins.append([])
        bins[record].append((index, documents[index][1]))
        leave_room(record, room - size)
    for pieces in sorted(bins, key=lambda pieces: min(index for index, _ in pieces)):
        head = documents[0][1][:1]
        stored = np.concatenate([*(tokens for _, tokens in pieces), head])[: length + 1]
        tokens = np.zeros(length + 1, dtype)
        tokens[: len(stored)] = stored
        starts = np.cumsum([0, *(len(piece) for _, piece in pieces[:-1])])
        numbers = [documents[index][0] for index, _ in pieces]
        yield SequenceRecord(tokens, len(stored), starts.astype(np.uint32), np.array(numbers, np.uint64))
