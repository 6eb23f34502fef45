"""Documents -> one stream of tokens -> fixed-length sequence records. Pure: no file is written here."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from data_prep.parquet import read_batches, remedy
from lm.data.records import SequenceRecord
from lm.errors import InputError

Encode = Callable[[str], np.ndarray]
"""A text to its token ids, uint32 (tokens,)."""
COLUMNS = ["id", "url", "text"]
DOCUMENTS_AT_ONCE = 256  # at most, of one row group: read together; changes nothing but the memory


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """One Parquet file of documents, and where its rows stand in the numbering of all documents."""

    path: Path
    first: int
    """Number of its first row; documents are numbered by sorted file name, then row."""
    rows: int
    text_bytes: int
    """Bytes of its texts, uncompressed, by the file's index: of texts that are alike, fewer."""


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """One document as it enters the stream."""

    number: int
    """Its row in tokens/documents.parquet."""
    id: str
    url: str
    file: str
    """Name of the Parquet file that it is from."""
    held_out: bool
    """Whether it is of the validation split."""
    text_bytes: int
    tokens: np.ndarray
    """(1 + tokens of the text,) uint32; the first is the document's head."""


def document_files(folder: Path) -> list[DocumentFile]:
    """The files folder/*.parquet, sorted. Raises InputError when there is none, one is unreadable, or all are empty."""
    files, first = [], 0
    for path in sorted(folder.glob("*.parquet")):
        try:
            index = pq.read_metadata(path)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise InputError(f"{path} is not a readable Parquet file: {error}. {remedy(path)}") from error
        files.append(DocumentFile(path, first, index.num_rows, text_bytes_in(index)))
        first += index.num_rows
    if not first:
        raise InputError(
            f"There are no documents in {folder} ({len(files)} Parquet files). Make them: "
            "python -m launch.prepare_documents"
        )
    return files


def text_bytes_in(index: pq.FileMetaData) -> int:
    """Bytes of the column "text" of a Parquet file, uncompressed; 0 where it has none, as its reader will say."""
    if "text" not in index.schema.names:
        return 0
    column = index.schema.names.index("text")
    groups = (index.row_group(group).column(column) for group in range(index.num_row_groups))
    return sum(group.total_uncompressed_size for group in groups)


def read_texts(files: Iterable[DocumentFile]) -> Iterator[str]:
    """The texts of all documents, in the order of their numbers. Raises InputError as `read_batches`."""
    for file in files:
        for rows in read_batches(file.path, ["text"], DOCUMENTS_AT_ONCE):
            yield from rows.column("text").to_pylist()


def sample_texts(files: list[DocumentFile], characters: int) -> Iterator[str]:
    """About `characters` characters of text, or all where there are no more: whole documents, drawn by the hash of
    their ids, so that every part of the corpus has its share and the order of the files none.

    How large a share is asked of the files' indices, which count bytes: text in other scripts than Latin gives fewer
    characters. Raises InputError as `read_batches`.
    """
    text_bytes = sum(file.text_bytes for file in files)
    share = characters / text_bytes if text_bytes else 1
    if share >= 1:
        yield from read_texts(files)
        return
    none = True
    for file in files:
        for rows in read_batches(file.path, ["id", "text"], DOCUMENTS_AT_ONCE):
            for id, text in zip(rows.column("id"), rows.column("text"), strict=True):
                if position(id.as_py(), b"tokenizer") < share:
                    none = False
                    yield text.as_py()
    if none:  # a few large documents: who reads takes as much of the first as it wants
        yield from read_texts(files)


def position(id: str, purpose: bytes) -> float:
    """Where in [0, 1) the hash of a document's id lies, another place for each purpose."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8, key=purpose).digest(), "big") / 2**64


def is_held_out(id: str, fraction: float) -> bool:
    """Whether the document is held out for validation: its id's SHA-256, as a share of all values, is below `fraction`.

    So a document stays on its side when others come or go, and copies that share an id stay together.
    """
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") < fraction * 2**64


def tokenize_file(
    file: DocumentFile, encode: Encode, head: int, fraction: float, held_out: Literal["documents", "ends"] = "documents"
) -> Iterator[TokenizedDocument]:
    """The documents in order, each headed by the token `head`, and on which side of the split it is.

    By "ends", each document is two: what comes before its last `fraction` of characters, and these, held out. Their
    numbers are twice the document's, and one more.
    """
    heading = np.array([head], np.uint32)
    rows = (row for batch in read_batches(file.path, COLUMNS, DOCUMENTS_AT_ONCE) for row in batch.to_pylist())
    for number, row in enumerate(rows, file.first):
        id, text = row["id"], row["text"]
        if held_out == "documents":
            parts = [(number, text, is_held_out(id, fraction))]
        else:
            end = int(len(text) * (1 - fraction))
            parts = [(2 * number, text[:end], False), (2 * number + 1, text[end:], True)]
        for part, content, aside in parts:
            tokens = np.concatenate((heading, encode(content)))
            yield TokenizedDocument(part, id, row["url"], file.path.name, aside, len(content.encode()), tokens)


def cut_records(documents: Iterable[tuple[int, np.ndarray]], length: int, dtype: str) -> Iterator[SequenceRecord]:
    """The stream of all documents (number, tokens), cut into records of length + 1 tokens that overlap by one.

    Only the last record may be padded. A stream of a single token has no targets, and so no record.
    """
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
                tokens, filled, starts, numbers = start_after(tokens), 1, [0], numbers[-1:]
            if used == 0:
                starts.append(filled)
                numbers.append(number)
            taken = min(len(document) - used, length + 1 - filled)
            tokens[filled : filled + taken] = document[used : used + taken]
            used, filled = used + taken, filled + taken
    if filled > 1:
        yield record()


def start_after(tokens: np.ndarray) -> np.ndarray:
    """A record's tokens, empty but for the last token of the record before it."""
    fresh = np.zeros(len(tokens), tokens.dtype)
    fresh[0] = tokens[-1]
    return fresh
