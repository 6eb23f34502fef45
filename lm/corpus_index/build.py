"""Build the folder corpus_index/ from token shards, part by part (format.py); complete parts are reused."""

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm.config import TrainConfig
from lm.corpus_index.format import (
    ARRAYS,
    COUNTS,
    FORMAT,
    INDEX,
    PART_TOKENS,
    Header,
    Part,
    Source,
    copy_names,
    file_of,
    names_of,
    token_type,
)
from lm.corpus_index.suffix_array import suffix_array
from lm.data.batches import Windows
from lm.data.mixture import manifest_sha256, mixture_of
from lm.data.records import check_request, read_manifest
from lm.errors import InputError
from lm.storage import Place, appearing, note_write, relative_name, write_atomically, writing

SPLITS = ("train", "val")
READ_AT_ONCE = 2**24
"""Bytes that are read at once for checksums."""


class Shards(NamedTuple):
    """A folder of token shards, and which of its splits to index."""

    name: str
    """The folder's name in train.mixture; "" for the run's own shards."""
    folder: Place
    splits: tuple[str, ...]


class Stretch(NamedTuple):
    """Consecutive tokens of a split, and their documents."""

    tokens: np.ndarray
    """(n,): token ids, with the separator instead of the first token (BOS) of each document."""
    documents: np.ndarray
    """uint64 (documents, 2), as in NAME.documents.npy (format.py)."""


def build_index(
    tokens: Place,
    out: Path,
    part_tokens: int = PART_TOKENS,
    say: Callable[[str], None] = lambda text: None,
    train: TrainConfig | None = None,
) -> Header:
    """Write the index of the shards in the folder `tokens`, and of those in `train.mixture`, to the folder `out`,
    index.json last; return the contents of that file. Complete parts from an interrupted build of the same shards are
    reused. `say` is called with progress messages.

    Raises InputError and UsageError for shards that are missing, damaged or of another tokenizer than `tokens`, and
    InputError if another process or thread is building in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with held(out):
        read = shards_of(tokens, train)
        (out / INDEX).unlink(missing_ok=True)
        manifest = read_manifest(tokens)
        fingerprint = manifest.tokenizer_fingerprint  # all shards of a run have one tokenizer
        counts = np.zeros(manifest.vocab_size + 1, np.int64)
        parts: list[Part] = []
        sources: list[Source] = []
        for source, shards in enumerate(read):
            of = manifest_sha256(shards.folder)
            if source:
                names = names_of(out, source)
                copy_names(shards.folder, names)
                sources.append(Source(shards.name, str(shards.folder.resolve()), of, crc32_of(names)))
            given = read_manifest(shards.folder)
            for split in (one for one in shards.splits if one in given.splits and given.splits[one].records):
                check_request(given, shards.folder, split, given.record_length, fingerprint)
                windows = Windows(shards.folder, given, split, given.record_length)
                before = f"{split}-{source}" if source else split
                for number, stretch in enumerate(stretches(windows, given.vocab_size, part_tokens)):
                    if split == "train":
                        counts += np.bincount(stretch.tokens, minlength=len(counts))
                    name = f"{before}-{number:05d}"
                    part = write_part(
                        out, name, split, source, stretch, shards=of, vocab_size=manifest.vocab_size, say=say
                    )
                    parts.append(part)
        with writing(out / COUNTS), appearing(out / COUNTS) as path, path.open("wb") as file:
            np.save(file, counts[:-1])
        own = manifest_sha256(tokens)
        header = Header(FORMAT, fingerprint, manifest.vocab_size, own, tuple(parts), tuple(sources))
        write_atomically(out / INDEX, header.to_json())
        for part in parts:
            note_of(out, part.name).unlink(missing_ok=True)
        return header


def shards_of(tokens: Place, train: TrainConfig | None) -> list[Shards]:
    """Return the folders to index, the run's own (`tokens`) first. Of the mixture's folders only the training split is
    indexed: their held-out splits are neither training text nor this run's validation. The run's own training split is
    left out if no stage reads it. Raises the errors of lm.data.mixture.mixture_of."""
    if train is None:
        return [Shards("", tokens, SPLITS)]
    others = [folder for folder in mixture_of(train, tokens) if folder != tokens]
    named = [source.tokens for source in train.mixture]
    own = Shards("", tokens, SPLITS if train.reads_own_shards else ("val",))
    return [own, *(Shards(name, folder, ("train",)) for name, folder in zip(named, others, strict=True))]


@contextlib.contextmanager
def held(out: Path) -> Generator[None]:
    """Lock the folder during one build: two would move each other's files away. Raises InputError if it is locked."""
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise InputError(f"Another process or thread is building the index in {out}. Wait for it to end.") from error
    except OSError:  # NFS cannot lock folders; the run's own lock excludes a second command
        pass
    try:
        yield
    finally:
        os.close(handle)


def stretches(windows: Windows, separator: int, part_tokens: int) -> Iterator[Stretch]:
    """Yield consecutive stretches of a split's tokens. A stretch has at most `part_tokens` tokens, or those of one
    record if it is longer, and ends between documents if possible."""
    dtype = token_type(separator).replace(">", "=")
    tokens, documents, size, last, head = [], [], 0, None, None
    first_records = set(windows.first_records)
    for index, record in enumerate(windows.all_records()):
        first = index in first_records
        begin = 0 if first else 1  # records overlap by one token
        own = record.tokens[: record.valid].astype(dtype)
        starts, ids = record.segment_starts.astype(np.int64), record.document_ids
        if windows.is_packed:  # records do not overlap; a part of a long document gets a separator too
            head = record.tokens[starts[-1]] if first else head
            begin, own = 0, own[:-1]
            if own[0] != head:
                own, starts = np.concatenate([[separator], own]).astype(dtype), np.append(0, starts[1:] + 1)
        elif not first and starts[0] == 0 and ids[0] == last:
            starts, ids = starts[1:], ids[1:]  # the document continues
        own[starts] = separator
        last = record.document_ids[-1]
        tokens.append(own[begin:])
        documents.append(np.stack([(starts - begin + size).astype(np.uint64), ids.astype(np.uint64)], axis=1))
        size += len(own) - begin
        if size >= part_tokens:
            whole, rest = cut(np.concatenate(tokens), np.concatenate(documents), part_tokens, separator)
            yield whole
            tokens, documents, size = [rest.tokens], [rest.documents], len(rest.tokens)
    if size:
        yield ended(np.concatenate(tokens), np.concatenate(documents), separator)


def cut(tokens: np.ndarray, documents: np.ndarray, part_tokens: int, separator: int) -> tuple[Stretch, Stretch]:
    """Split a stretch into (the documents that end within `part_tokens`, the rest); a single longer document is cut."""
    starts = documents[:, 0].astype(np.int64)
    inside = starts[(starts > 0) & (starts <= part_tokens)]
    at = int(inside[-1]) if len(inside) else part_tokens
    later = documents[starts >= at].copy()
    later[:, 0] -= np.uint64(at)
    rest = tokens[at:]
    if not len(inside) and len(rest):  # the document continues after a separator
        rest = np.concatenate([np.array([separator], rest.dtype), rest])
        later[:, 0] += np.uint64(1)
        later = np.concatenate([np.array([[0, documents[0, 1]]], np.uint64), later])
    return ended(tokens[:at], documents[starts < at], separator), Stretch(rest, later)


def ended(tokens: np.ndarray, documents: np.ndarray, separator: int) -> Stretch:
    return Stretch(np.append(tokens, np.array(separator, tokens.dtype)), documents)


def write_part(
    out: Path,
    name: str,
    split: str,
    source: int,
    stretch: Stretch,
    *,
    shards: str,
    vocab_size: int,
    say: Callable[[str], None],
) -> Part:
    """Write the files of an index part, unless an interrupted build left them; return its entry in index.json. `shards`
    is the SHA-256 of the manifest of its shards."""
    note = note_of(out, name)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(note.read_text(encoding="utf-8"))
        if found["shards"] == shards:
            part = Part(**found["part"])
            relative_name(part.name, note)
            for array in ARRAYS:
                note_write(file_of(out, name, array))
            return part
    note.unlink(missing_ok=True)
    say(f"{name}: {len(stretch.tokens):,} tokens of {len(stretch.documents):,} documents")
    arrays = {"tokens": stretch.tokens.astype(token_type(vocab_size)), "documents": stretch.documents}
    arrays["positions"] = suffix_array(stretch.tokens, vocab_size)
    sizes, sums = {}, {}
    for array in ARRAYS:
        path = file_of(out, name, array)
        with writing(path), appearing(path) as partial, partial.open("wb") as file:
            np.save(file, arrays.pop(array))
        sizes[array], sums[array] = path.stat().st_size, crc32_of(path)
    part = Part(name, split, len(stretch.tokens), len(stretch.documents), sizes, sums, source)
    write_atomically(note, json.dumps({"shards": shards, "part": vars(part)}))
    return part


def note_of(out: Path, name: str) -> Path:
    """Return the file that marks a part of an unfinished index as complete."""
    return out / f"{name}.json"


def crc32_of(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(READ_AT_ONCE):
            value = zlib.crc32(piece, value)
    return value
