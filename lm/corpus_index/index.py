"""CorpusIndex: find passages of tokens in the shards of a run, count them, and return their documents."""

import bisect
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm.config import TrainConfig
from lm.corpus_index import format as files
from lm.corpus_index.build import crc32_of
from lm.data.document_rows import DocumentRows
from lm.data.records import MANIFEST, document_tables
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import is_url


class Spot(NamedTuple):
    """Position of one occurrence of a passage in the corpus."""

    part: "MappedPart"
    position: int
    """Index of the passage's first token in the part's tokens."""


@dataclass(frozen=True)
class Matches:
    """Occurrences of a passage. `ranges` has (part, low, high) for each part: the range [low, high) of its sorted
    positions."""

    ranges: tuple[tuple["MappedPart", int, int], ...]

    @property
    def count(self) -> int:
        return sum(high - low for _, low, high in self.ranges)

    def spots(self, most: int) -> Iterator[Spot]:
        """Yield at most `most` of the occurrences, evenly spaced in the order of the text that follows the passage."""
        count = self.count
        for number in range(min(most, count)):
            at = number * count // min(most, count)
            for part, low, high in self.ranges:
                if at < high - low:
                    yield Spot(part, part.positions[low + at])
                    break
                at -= high - low


class Document(NamedTuple):
    """A document of the corpus."""

    number: int
    """Row of the document in its source's tables of documents."""
    id: str
    url: str
    split: str
    part: "MappedPart"
    begin: int
    """Index of the document's first token, after the separator, in the part's tokens."""
    end: int
    """Index after its last token."""
    source: str = ""
    """Folder of train.mixture that the document belongs to; "" for the run's own shards."""

    @property
    def tokens(self) -> np.ndarray:
        return self.part.tokens[self.begin : self.end].astype(np.int64)


class MappedPart:
    """A part of the index (format.py), memory-mapped."""

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

    def bytes_at(self, length: int) -> Callable[[int], bytes]:
        """Return a function that returns `length` bytes of the tokens from a position on."""
        width, data = self.width, self.bytes
        return lambda position: bytes(data[position * width : position * width + length])

    def range_of(self, wanted: bytes) -> tuple[int, int]:
        """Return the range [low, high) of sorted positions at which the tokens, as bytes, begin with `wanted`."""
        key = self.bytes_at(len(wanted))
        low = bisect.bisect_left(self.positions, wanted, key=key)
        return low, bisect.bisect_right(self.positions, wanted, lo=low, key=key)

    def longest(self, wanted: bytes) -> int:
        """Return the length in tokens of the longest prefix of `wanted` that occurs in this part."""
        key = self.bytes_at(len(wanted))
        at = bisect.bisect_left(self.positions, wanted, key=key)
        near = (key(self.positions[one]) for one in (at - 1, at) if 0 <= one < len(self.positions))
        return max((common(one, wanted) // self.width for one in near), default=0)


def common(one: bytes, other: bytes) -> int:
    """Return the length in bytes of the common prefix."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    differ = np.frombuffer(one, np.uint8, length) != np.frombuffer(other, np.uint8, length)
    return int(differ.argmax())


class CorpusIndex:
    """The index, in corpus_index/ of the run folder `run`, of the run's shards in tokens/ and those in its
    train.mixture. `check` verifies the contents of its files. Raises InputError, with the file, if there is no index,
    if a file is missing or has another size, and if the index is not of the current shards or does not fit `train`, the
    run's config."""

    def __init__(self, run: Path, train: TrainConfig | None = None):
        paths = RunPaths(run)
        self.run, self.folder, self.shards = run, paths.corpus_index, paths.tokens
        self.header = files.read_header(self.folder, run)
        self.refuse_others(train)
        dtype = files.token_type(self.header.vocab_size)
        self.parts = [MappedPart(self.folder, part, dtype, run) for part in self.header.parts]
        self.counts = files.mapped(self.folder / files.COUNTS, "<i8", (self.header.vocab_size,), None, run)
        self.dtype = np.dtype(dtype)
        again = files.MAKE_AGAIN.format(run=run)
        copies = [files.names_of(self.folder, number) for number, _ in enumerate(self.header.sources, start=1)]
        self.names = [
            DocumentRows(document_tables(self.shards), files.COLUMNS),
            *(DocumentRows([one], files.COLUMNS, again) for one in copies),
        ]

    def refuse_others(self, train: TrainConfig | None) -> None:
        """Raise InputError if the index is of other shards than the run's, or of another mixture than train.mixture;
        with `train` None, the mixture is not compared. Folders of the mixture that no longer exist, or are in a bucket,
        are not checked."""
        again = files.MAKE_AGAIN.format(run=self.run)
        others = [source for source in self.header.sources if not is_url(source.folder)]
        read = [(str(self.shards), self.shards, self.header.shards)]
        read += [(source.tokens, Path(source.folder), source.shards) for source in others]
        for number, (named, folder, shards) in enumerate(read):
            manifest = folder / MANIFEST
            if not manifest.is_file() and number:
                continue
            if not manifest.is_file() or hashlib.sha256(manifest.read_bytes()).hexdigest() != shards:
                raise InputError(
                    f"{self.folder} is out of date: the shards in {named} changed after the index was built. {again}"
                )
        indexed = [source.tokens for source in self.header.sources]
        if train is not None and indexed != (wanted := [source.tokens for source in train.mixture]):
            raise InputError(
                f"{self.folder} is out of date: train.mixture has {', '.join(wanted) or 'none'}, but the index was "
                f"built with {', '.join(indexed) or 'none'}. {again}"
            )

    def source_of(self, part: MappedPart) -> str:
        """Return the folder of train.mixture that the part is from; "" for the run's own shards."""
        return self.header.sources[part.about.source - 1].tokens if part.about.source else ""

    def check(self) -> None:
        """Verify the checksums of all files. Raises InputError for the first that differs."""
        again = files.MAKE_AGAIN.format(run=self.run)
        written = {
            files.file_of(self.folder, part.name, array): expected
            for part in self.header.parts
            for array, expected in part.crc32.items()
        }
        for number, source in enumerate(self.header.sources, start=1):
            written[files.names_of(self.folder, number)] = source.names_crc32
        for path, expected in written.items():
            if not path.is_file():
                raise InputError(f"{path} is missing. {again}")
            if (found := crc32_of(path)) != expected:
                raise InputError(
                    f"{path} is damaged: its checksum is {found:08x}; it should be {expected:08x}. {again}"
                )

    def splits(self) -> dict[str, dict[str, int]]:
        """Return {split: {"tokens": number, "documents": number}}, without separators."""
        found: dict[str, dict[str, int]] = {}
        for part in self.header.parts:
            one = found.setdefault(part.split, {"tokens": 0, "documents": 0})
            one["tokens"] += part.tokens - part.documents - 1
            one["documents"] += part.documents
        return found

    def bytes_of(self, tokens: Sequence[int] | np.ndarray) -> bytes:
        """Convert tokens to the bytes that the parts store for them. Raises ValueError for an id outside the
        vocabulary."""
        array = np.asarray(tokens, np.int64)
        if len(array) and not 0 <= array.min() <= array.max() < self.header.vocab_size:
            raise ValueError(f"token ids are {array.min()} to {array.max()}; give 0 to {self.header.vocab_size - 1}")
        return array.astype(self.dtype).tobytes()

    def find(self, tokens: Sequence[int] | np.ndarray, split: str | None = None) -> Matches:
        """Return the occurrences of a passage in a split (None: in all splits). They never cross a document's end."""
        wanted = self.bytes_of(tokens)
        parts = [part for part in self.parts if split in (None, part.split)]
        return Matches(tuple((part, *part.range_of(wanted)) for part in parts) if wanted else ())

    def longest(self, tokens: Sequence[int] | np.ndarray, split: str | None = None) -> int:
        """Return the length in tokens of the longest prefix of `tokens` that occurs in a split (None: in any split)."""
        wanted = self.bytes_of(tokens)
        return max((part.longest(wanted) for part in self.parts if split in (None, part.split)), default=0)

    def document_at(self, spot: Spot) -> Document:
        """Return the document that contains a spot."""
        part = spot.part
        row = int(np.searchsorted(part.documents[:, 0], spot.position, side="right")) - 1
        return self.document(part, row)

    def document(self, part: MappedPart, row: int) -> Document:
        """Return the document in row `row` of a part's array of documents. Raises InputError if its number is not in
        the tables of the run."""
        begin, number = (int(value) for value in part.documents[row])
        end = int(part.documents[row + 1, 0]) if row + 1 < len(part.documents) else len(part.tokens) - 1
        names = self.names[part.about.source]
        if (found := names.at(number)) is None:
            raise InputError(f"Document {number:,} is not in the tables of {names.tables[-1].parent}. {names.remedy}")
        return Document(
            number, found["id"] or "", found["url"] or "", part.split, part, begin + 1, end, self.source_of(part)
        )

    def sampled(self, split: str, number: int, of: int, least: int) -> Document | None:
        """Return the document at place `number` of `of` evenly spaced places in the split. If it has fewer than `least`
        tokens, take the next document of the same part with enough, else the part's last one with enough, or None."""
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
