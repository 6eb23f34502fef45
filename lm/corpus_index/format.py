"""Format of the folder corpus_index/: index.json, and three memory-mapped .npy arrays per part.

A part is a stretch of a split's stream, in whole documents, of at most PART_TOKENS tokens. A longer document is cut,
and passages across the cut are not found. Files of each part:

    NAME.tokens.npy      big-endian uint16 or uint32 (n,), so that the order of bytes is the order of tokens. The
                         separator, vocab_size, replaces the first token (BOS) of each document and follows the last one
    NAME.positions.npy   uint32 (n,): their suffix_array
    NAME.documents.npy   uint64 (documents, 2): index of the document's separator in the tokens, and its number, a row
                         of tokens/documents/ (lm.data.records.document_tables)

For each folder of train.mixture, which may be in a bucket or be moved, a copy of its tables of documents:

    names-NUMBER.parquet id and url, a row for each document in the order of their numbers
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm.config import TrainConfig
from lm.data.document_rows import opened_table
from lm.data.records import document_tables
from lm.errors import MALFORMED, InputError, shown
from lm.storage import Place, appearing, relative_name, writing

FORMAT = 1
INDEX = "index.json"
COUNTS = "counts.npy"
"""File of the number of occurrences of each token in the training split: int64 (vocab_size,)."""
PART_TOKENS = 2**25
"""Maximum tokens of a part; a build with this takes 1.4 GB of memory."""
COLUMNS = ("id", "url")
ROWS = 8192
"""Rows of a row group in names-NUMBER.parquet; a lookup reads one row group."""
is_count = lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0
VALID: dict[object, Callable[[Any], bool]] = {
    int: is_count,
    str: lambda value: isinstance(value, str),
    dict[str, int]: lambda value: isinstance(value, dict) and all(map(is_count, value.values())),
}
"""{type of a field of index.json: whether a value is valid}. The index may be a stranger's."""
ARRAYS = ("tokens", "positions", "documents")
MAKE = "Build it: python -m launch.index_corpus {run}"
MAKE_AGAIN = "Delete that folder, and build it again: python -m launch.index_corpus {run}"


@dataclass(frozen=True)
class Part:
    """One part of the index: consecutive tokens of a split, with their own sorted positions."""

    name: str
    split: str
    tokens: int
    """Length of the array of tokens, including separators."""
    documents: int
    """Number of its documents; one that is cut counts in each of its parts."""
    bytes: dict[str, int]
    """{array, such as "positions": size of its file}."""
    crc32: dict[str, int]
    """{array: CRC-32 of its file}."""
    source: int
    """Number of the folder that it is from: 0 for the run's own shards, n for the n-th of Header.sources."""


@dataclass(frozen=True)
class Source:
    """A folder of shards that is indexed in addition to the run's own: one entry of the config field train.mixture."""

    tokens: str
    """The folder's name in the config."""
    folder: str
    """Absolute path or URL of the folder when the index was built."""
    shards: str
    """SHA-256 of the folder's manifest."""
    names_crc32: int
    """CRC-32 of names-NUMBER.parquet."""


@dataclass(frozen=True)
class Header:
    """Contents of index.json."""

    format: int
    """Version of the format: FORMAT."""
    tokenizer_fingerprint: str
    vocab_size: int
    """Token ids are below it; it is the id of the separator."""
    shards: str
    """SHA-256 of the manifest of the run's own shards."""
    parts: tuple[Part, ...]
    sources: tuple[Source, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def settings_of(train: TrainConfig) -> dict[str, object]:
    """Return the values of a run's config that determine its index."""
    found: dict[str, object] = {"format": FORMAT, "part_tokens": PART_TOKENS}
    if train.mixture:
        found |= {"mixture": [source.tokens for source in train.mixture], "own": train.reads_own_shards}
    return found


def token_type(vocab_size: int) -> str:
    """Return the NumPy type of the array of tokens: it holds every token id, and the separator."""
    return ">u2" if vocab_size < 2**16 else ">u4"


def file_of(folder: Path, part: str, array: str) -> Path:
    return folder / f"{part}.{array}.npy"


def names_of(folder: Path, source: int) -> Path:
    """Return the path of names-NUMBER.parquet, for the source with this number, from 1."""
    return folder / f"names-{source}.parquet"


def read_header(folder: Path, run: Path) -> Header:
    """Read index.json in `folder`. Raises InputError if there is no index, or it is damaged or of another version."""
    path = folder / INDEX
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"its format is {fields['format']!r}; this version reads {FORMAT}")
        fields["parts"] = tuple(Part(**part) for part in fields["parts"])
        for part in fields["parts"]:
            relative_name(part.name, path)
        fields["sources"] = tuple(Source(**source) for source in fields["sources"])
        header = Header(**fields)
        for one in (header, *header.parts, *header.sources):
            for field in dataclasses.fields(one):
                if field.type in VALID and not VALID[field.type](value := getattr(one, field.name)):
                    raise ValueError(f"{field.name} is {shown(value)}")
        if any(part.source > len(header.sources) for part in header.parts):
            raise ValueError(f"a part is from a folder after the last of {len(header.sources)}")
        return header
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"There is no index of the corpus in {folder}: the training text cannot be searched yet. "
            + MAKE.format(run=run)
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    except MALFORMED as error:
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}. {MAKE_AGAIN.format(run=run)}") from error


def mapped(path: Path, dtype: str, shape: tuple[int, ...], size: int | None, run: Path) -> np.ndarray:
    """Memory-map the array in an .npy file. Raises InputError, with the file, unless its size in bytes (None: any),
    type and shape are as given."""
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            raise ValueError(f"it has {found:,} bytes instead of {size:,}")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise ValueError(f"it holds {array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}")
    except FileNotFoundError:
        raise InputError(f"{path} is missing. {MAKE_AGAIN.format(run=run)}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}. {MAKE_AGAIN.format(run=run)}") from error
    return array


def copy_names(shards: Place, out: Path) -> None:
    """Write the ids and URLs of all documents in a folder of shards, which may be in a bucket, to the Parquet file
    `out`. Raises InputError on read or write errors."""
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    with writing(out), appearing(out) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for place in document_tables(shards):
            with opened_table(place) as table:
                for batch in table.iter_batches(ROWS, columns=list(COLUMNS)):
                    writer.write_table(pa.Table.from_batches([batch]).select(COLUMNS).cast(schema))
