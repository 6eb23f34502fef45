"""CorpusIndex: which passages of tokens stand in the shards of a run, how often, and in which documents."""

import bisect
import contextlib
import functools
import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm.corpus_index import format as files
from lm.corpus_index.build import crc32_of
from lm.data.records import MAKE_SHARDS, MANIFEST, document_tables
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import Place


class Spot(NamedTuple):
    """Where a passage stands."""

    part: "MappedPart"
    position: int
    """In the part's tokens."""


@dataclass(frozen=True)
class Matches:
    """All that begin with a passage: [low, high) in the order of each part's positions."""

    ranges: tuple[tuple["MappedPart", int, int], ...]

    @property
    def count(self) -> int:
        return sum(high - low for _, low, high in self.ranges)

    def spots(self, most: int) -> Iterator[Spot]:
        """At most `most` of them, evenly spread in the order of what follows the passage."""
        count = self.count
        for number in range(min(most, count)):
            at = number * count // min(most, count)
            for part, low, high in self.ranges:
                if at < high - low:
                    yield Spot(part, part.positions[low + at])
                    break
                at -= high - low


class Document(NamedTuple):
    """A document of the corpus, as it stands in the index."""

    number: int
    """A row of the tables of documents."""
    id: str
    url: str
    split: str
    part: "MappedPart"
    begin: int
    """Its first token, without the separator, in the part's tokens."""
    end: int

    @property
    def tokens(self) -> np.ndarray:
        return self.part.tokens[self.begin : self.end].astype(np.int64)


class MappedPart:
    """A part of the index, mapped into memory."""

    def __init__(self, folder: Path, about: files.Part, dtype: str, run: Path):
        self.name, self.split, self.about = about.name, about.split, about
        of = lambda array, kind, shape: files.mapped(
            files.file_of(folder, about.name, array), kind, shape, about.bytes.get(array), run
        )
        self.tokens = of("tokens", dtype, (about.tokens,))
        self.documents = of("documents", "<u8", (about.documents, 2))
        self.positions = memoryview(of("positions", "<u4", (about.tokens,)))
        self.bytes = memoryview(self.tokens.view(np.uint8))
        self.width = np.dtype(dtype).itemsize

    def range_of(self, wanted: bytes) -> tuple[int, int]:
        """[low, high) of the positions from which the tokens, as bytes, begin with `wanted`."""
        width, data, length = self.width, self.bytes, len(wanted)
        key = lambda position: bytes(data[position * width : position * width + length])
        low = bisect.bisect_left(self.positions, wanted, key=key)
        return low, bisect.bisect_right(self.positions, wanted, lo=low, key=key)

    def longest(self, wanted: bytes) -> int:
        """Tokens of the longest beginning of `wanted` that stands here: it is that of a neighbour in the order."""
        width, data, length = self.width, self.bytes, len(wanted)
        key = lambda position: bytes(data[position * width : position * width + length])
        at = bisect.bisect_left(self.positions, wanted, key=key)
        near = (key(self.positions[one]) for one in (at - 1, at) if 0 <= one < len(self.positions))
        return max((common(one, wanted) // width for one in near), default=0)


def common(one: bytes, other: bytes) -> int:
    """Bytes that both begin with."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    differ = np.frombuffer(one, np.uint8, length) != np.frombuffer(other, np.uint8, length)
    return int(differ.argmax())


class CorpusIndex:
    """The index in corpus_index/ of the run folder `run`, of its shards in tokens/.

    Raises InputError where none was made, where it is of other shards than those that are there, and for a file that is
    missing or has another size, which is named; `check` reads them all.
    """

    def __init__(self, run: Path):
        paths = RunPaths(run)
        self.run, self.folder, self.shards = run, paths.corpus_index, paths.tokens
        self.header = files.read_header(self.folder, run)
        manifest = self.shards / MANIFEST
        if not manifest.is_file() or hashlib.sha256(manifest.read_bytes()).hexdigest() != self.header.shards:
            raise InputError(
                f"{self.folder} is out of date: it is of other shards than those that {self.shards} holds now. "
                + files.MAKE_AGAIN.format(run=run)
            )
        dtype = files.token_type(self.header.vocab_size)
        self.parts = [MappedPart(self.folder, part, dtype, run) for part in self.header.parts]
        self.counts = files.mapped(self.folder / files.COUNTS, "<i8", (self.header.vocab_size,), None, run)
        self.dtype = np.dtype(dtype)

    def check(self) -> None:
        """Reads every file. Raises InputError, which names the first that is not what was written."""
        for part in self.header.parts:
            for array, expected in part.crc32.items():
                path = files.file_of(self.folder, part.name, array)
                if (found := crc32_of(path)) != expected:
                    raise InputError(
                        f"{path} is damaged: its checksum is {found:08x}, but {expected:08x} was written. "
                        + files.MAKE_AGAIN.format(run=self.run)
                    )

    def splits(self) -> dict[str, dict[str, int]]:
        """{split: {"tokens", "documents"}}, without separators."""
        found: dict[str, dict[str, int]] = {}
        for part in self.header.parts:
            one = found.setdefault(part.split, {"tokens": 0, "documents": 0})
            one["tokens"] += part.tokens - part.documents - 1
            one["documents"] += part.documents
        return found

    def bytes_of(self, tokens: Sequence[int] | np.ndarray) -> bytes:
        """Tokens as the parts hold them. Raises ValueError for an id that is in no vocabulary of this size."""
        array = np.asarray(tokens, np.int64)
        if len(array) and not 0 <= array.min() <= array.max() < self.header.vocab_size:
            raise ValueError(f"token ids go from 0 to {self.header.vocab_size - 1}")
        return array.astype(self.dtype).tobytes()

    def find(self, tokens: Sequence[int] | np.ndarray, split: str | None = None) -> Matches:
        """Where the passage stands; in all splits, if none is named. No match goes over the end of a document."""
        wanted = self.bytes_of(tokens)
        parts = [part for part in self.parts if split in (None, part.split)]
        return Matches(tuple((part, *part.range_of(wanted)) for part in parts) if wanted else ())

    def longest(self, tokens: Sequence[int] | np.ndarray, split: str | None = None) -> int:
        """How many tokens the longest beginning of the passage has that stands anywhere."""
        wanted = self.bytes_of(tokens)
        return max((part.longest(wanted) for part in self.parts if split in (None, part.split)), default=0)

    def document_at(self, spot: Spot) -> Document:
        """The document in which a spot lies."""
        part = spot.part
        row = int(np.searchsorted(part.documents[:, 0], spot.position, side="right")) - 1
        return self.document(part, row)

    def document(self, part: MappedPart, row: int) -> Document:
        """A part's document by its row there."""
        begin, number = (int(value) for value in part.documents[row])
        end = int(part.documents[row + 1, 0]) if row + 1 < len(part.documents) else len(part.tokens) - 1
        id, url = self.name_of(number)
        return Document(number, id, url, part.split, part, begin + 1, end)

    def sampled(self, split: str, number: int, of: int, least: int) -> Document | None:
        """Document `number` of `of` that are spread evenly over the split's, of those with at least `least` tokens
        the nearest behind it in its part; None where the split has none there."""
        parts = [part for part in self.parts if part.split == split]
        total = sum(len(part.documents) for part in parts)
        at = number * total // of
        for part in parts:
            if at < len(part.documents):
                starts = np.append(part.documents[:, 0].astype(np.int64), len(part.tokens) - 1)
                enough = np.flatnonzero(np.diff(starts) > least)
                behind = enough[enough >= at]
                row = behind[:1] if len(behind) else enough[-1:]
                return self.document(part, int(row[0])) if len(row) else None
            at -= len(part.documents)
        return None

    @functools.cached_property
    def tables(self) -> list[tuple[pq.ParquetFile, int]]:
        """(table of documents, number of its first row). Raises InputError for one that is missing or damaged."""
        found, first = [], 0
        for place in document_tables(self.shards):
            with readable(place):
                table = pq.ParquetFile(place)
            found.append((table, first))
            first += table.metadata.num_rows
        return found

    def name_of(self, number: int) -> tuple[str, str]:
        """(id, URL) of a document by its number. Raises InputError where the tables do not have it."""
        index = bisect.bisect_right(self.tables, number, key=lambda one: one[1]) - 1
        table, first = self.tables[index]
        at = number - first
        for group in range(table.metadata.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if at < rows:
                names = self.names_in(index, group)
                return names["id"][at].as_py() or "", names["url"][at].as_py() or ""
            at -= rows
        raise InputError(f"The tables of documents in {self.shards} have no document {number:,}.")

    @functools.lru_cache(maxsize=32)  # noqa: B019  (an index lives as long as its server)
    def names_in(self, table: int, group: int) -> pa.Table:
        """Of the documents in a row group of a table. Raises InputError where it is damaged."""
        with readable(document_tables(self.shards)[table]):
            return self.tables[table][0].read_row_group(group, ["id", "url"])


@contextlib.contextmanager
def readable(table: Place) -> Generator[None]:
    """Raises InputError, which names the table, where it turns out in the block to be none that is whole."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(f"{table} cannot be read: {error}. {MAKE_SHARDS}") from error
