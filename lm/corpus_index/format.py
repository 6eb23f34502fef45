"""The folder corpus_index/: index.json, and three arrays a part, as .npy files that are mapped into memory.

A part is a stretch of a split's stream, in whole documents, of at most PART_TOKENS tokens. A document longer than that
is cut, and a passage over the cut is not found. Of each part:

    NAME.tokens.npy      big-endian uint16 or uint32 (n,): compared as bytes they are in the order of the tokens. Before
                         each document, in place of its head, and behind the last, stands the separator: vocab_size
    NAME.positions.npy   uint32 (n,): suffix_array of them
    NAME.documents.npy   uint64 (documents, 2): where each begins in the tokens (its separator), and its number, a row
                         of tokens/documents/ (lm.data.records.document_tables)
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm.errors import InputError

FORMAT = 1
INDEX = "index.json"
COUNTS = "counts.npy"
"""int64 (vocab_size,): how often each token stands in the training split."""
PART_TOKENS = 2**25
"""At which a build takes 1.4 GB."""
ARRAYS = ("tokens", "positions", "documents")
MAKE = "Make it: python -m launch.index_corpus {run}"
MAKE_AGAIN = "Delete that folder, and make it again: python -m launch.index_corpus {run}"


@dataclass(frozen=True)
class Part:
    """A stretch of a split's stream."""

    name: str
    split: str
    tokens: int
    """Of its array, separators included."""
    documents: int
    bytes: dict[str, int]
    """Of its files, by the array's name."""
    crc32: dict[str, int]


@dataclass(frozen=True)
class Header:
    """index.json."""

    format: int
    tokenizer_fingerprint: str
    vocab_size: int
    shards: str
    """SHA-256 of the manifest of the shards that were read."""
    parts: tuple[Part, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def token_type(vocab_size: int) -> str:
    """That holds every token and the separator."""
    return ">u2" if vocab_size < 2**16 else ">u4"


def file_of(folder: Path, part: str, array: str) -> Path:
    return folder / f"{part}.{array}.npy"


def read_header(folder: Path, run: Path) -> Header:
    """Raises InputError where no index is, or its header is damaged or another version's."""
    path = folder / INDEX
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']!r}, and this version reads {FORMAT}")
        return Header(**(fields | {"parts": tuple(Part(**part) for part in fields["parts"])}))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"There is no index of the corpus in {folder}: what stands in the training text cannot be looked up yet. "
            + MAKE.format(run=run)
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}. {MAKE_AGAIN.format(run=run)}") from error


def mapped(path: Path, dtype: str, shape: tuple[int, ...], size: int | None, run: Path) -> np.ndarray:
    """The array of a file, mapped into memory. Raises InputError, which names the file, unless it is what was
    written, by its size, type and shape."""
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            raise ValueError(f"it has {found:,} bytes, but {size:,} were written")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise ValueError(f"it holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    except FileNotFoundError:
        raise InputError(f"{path} is missing. {MAKE_AGAIN.format(run=run)}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}. {MAKE_AGAIN.format(run=run)}") from error
    return array
