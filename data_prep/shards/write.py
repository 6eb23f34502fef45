"""Write documents as ArrayRecord shards of sequence records, with tables of documents and a manifest.

Each unit writes its own files, so that the output does not depend on the number of workers or on interruptions. Files
of documents are encoded one by one (encode.py); then each unit writes the shards of one split from a group of encoded
files. Adding or removing a file requires encoding that file and rewriting the shards of the groups that change.
"""

import contextlib
import dataclasses
import errno
import functools
import itertools
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from data_prep.config import ONE_PROCESS, EngineConfig, ShardsConfig
from data_prep.engine import OnProgress, Step, Unit, Workspace, identity_of, run_step
from data_prep.engine.attempts import names_in
from data_prep.engine.tasks import FileRunner, absolute, allow_no_failures
from data_prep.engine.units import QUARANTINE, WriteError, delete_all
from data_prep.parquet import read_batches, read_footer
from data_prep.shards.encode import PARTS, TABLE_SCHEMA, Entry, encode_file, encoded, held_out_index, repeated
from data_prep.shards.sizes import estimated_tokens, held_out_fraction, most_bytes, shard_count
from data_prep.shards.tokenize import REPEAT, cut_records, document_files, packed_records
from lm.data.records import (
    DTYPES,
    HELD_OUT_KEYS,
    MANIFEST,
    DocumentTable,
    Manifest,
    SequenceRecord,
    Shard,
    Split,
    to_bytes,
)
from lm.errors import InputError, UsageError
from lm.storage import Place, appearing, digest, file_sha256, place_of, write_atomically, writing
from lm.tokenizer import Tokenizer
from lm.tokenizer.fast import fast_encoder

WRITER_OPTIONS = "group_size:1"  # one record per chunk: random reads are 17 to 26 times as fast as with group_size:64
type ToRecords = Callable[[Iterable[tuple[int, np.ndarray]], int, str], Iterator[SequenceRecord]]
ERRNO_OF = {os.strerror(code): code for code in errno.errorcode}


@dataclass(frozen=True)
class Group:
    """Encoded files from which one unit writes the shards of a split and, for train, a table of all documents of the
    files."""

    split: Literal["train", "val"]
    index: int
    count: int
    """Number of groups of the split; `index` counts them from 0."""
    files: tuple[tuple[str, int], ...]
    """(name, number of its first document) of each encoded file."""

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"

    @property
    def table(self) -> str:
        """Path, relative to tokens/, of the table of the group's documents."""
        return f"documents/{self.index:05d}-of-{self.count:05d}.parquet"


def write_shards(
    documents: Place,
    tokenizer: Tokenizer,
    out: Place,
    config: ShardsConfig,
    engine: EngineConfig = ONE_PROCESS,
    on_progress: OnProgress = lambda progress: None,
) -> Manifest:
    """Write the shards of both splits, documents/, the held-out index and, last, manifest.json to `out`. Return the
    manifest.

    Resumes from the folders PARTS, UNITS and SCRATCH of `out`, which the caller deletes. Raises UsageError if
    token_dtype is too small for the vocabulary or shard_bytes for a record, if documents to be repeated have no column
    "repeat", and like `fast_encoder`; InputError if there are no documents or a split has no token to predict, and like
    `run_step`.
    """
    documents, out = absolute(documents), absolute(out)
    # Readers that ignore the stage's marker find no shards until all are written.
    (out / MANIFEST).unlink(missing_ok=True)
    limit = 2 ** (8 * DTYPES[config.token_dtype])
    if tokenizer.vocab_size > limit:
        raise UsageError(
            f"The tokenizer has {tokenizer.vocab_size} symbols, but shards.token_dtype = {config.token_dtype} "
            f"holds ids below {limit}. Set shards.token_dtype = uint32."
        )
    if (least := most_bytes(config.record_length + 1, 1, config)) > config.shard_bytes:
        raise UsageError(
            f"shards.shard_bytes = {config.shard_bytes:,} is too small: a file with one record of "
            f"shards.record_length = {config.record_length:,} tokens needs {least:,} bytes. Raise shard_bytes, or "
            "shorten the records."
        )
    files = document_files(documents)
    if config.repeat_documents and REPEAT not in read_footer(files[0].path).schema.names:
        raise UsageError(
            f"shards.repeat_documents is {config.repeat_documents}, but {files[0].path} has no column {REPEAT}. "
            "Prepare the documents with documents.minhash.upsampling_weights, or set shards.repeat_documents to "
            "False."
        )
    fraction = held_out_fraction(estimated_tokens(files, tokenizer.encode_array), config)
    run, index, index_sha256 = FileRunner(out, engine, on_progress), None, ""
    if config.held_out == "documents":
        earlier: list[Place] = [place_of(name) for name in config.held_out_index]
        index, index_sha256 = held_out_index(files, fraction, earlier, run)
    encode = tokenizer.encode_array if config.encoder == "tiktoken" else fast_encoder(tokenizer)
    settings = [tokenizer.fingerprint, fraction, config.held_out, index_sha256]
    settings += ["repeated"] if config.repeat_documents else []
    work = functools.partial(
        encode_file, encode=encode, head=tokenizer.bos_id, fraction=fraction, index=index, config=config
    )
    _, made = run("encode", files, work, settings)
    files, groups = list(made.items()), list[Unit[Group]]()
    firsts = itertools.accumulate((one.counts["rows"] for one in made.values()), initial=0)
    named = list(zip(made, firsts, strict=False))
    for split in ("train", "val"):
        tokens = sum(one.counts[f"{split}_tokens"] for one in made.values())
        count = shard_count(len(files), tokens, config, least=config.train_shards if split == "train" else 1)
        bounds = [len(files) * i // count for i in range(count + 1)]
        for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
            group = Group(split, i, count, tuple(named[begin:end]))
            hashes = [one.outputs for _, one in files[begin:end]]
            settings: list[object] = [config.record_length, config.token_dtype, config.shard_bytes]
            settings += [config.packing] if split == "train" and config.packing != "concatenate" else []
            size = sum(one.counts[f"{split}_tokens"] for _, one in files[begin:end])
            groups.append(Unit(group.name, identity_of("shards", group, hashes, settings), size, group))
    step = Step("shards", tuple(groups), functools.partial(write_group, config=config), inputs="shards")
    done = run_step(step, allow_no_failures(engine, len(groups)), out, on_progress)
    shards: dict[str, list[Shard]] = {"train": [], "val": []}
    for unit in groups:
        shards[unit.input.split] += [Shard(**shard) for shard in done[unit.name].counts["shards"]]
    total = lambda some, name: sum(getattr(shard, name) for shard in some)
    names = ("documents", "tokens", "text_bytes", "records")
    splits = {split: Split(*(total(some, name) for name in names), tuple(some)) for split, some in shards.items()}
    check_splits(splits, config)
    tables = tuple(DocumentTable(**one.counts["table"]) for one in done.values() if "table" in one.counts)
    withheld = sum(one.counts["withheld"] for one in made.values())
    repeats = sum(one.counts["repeats"] for one in made.values()) if config.repeat_documents else 0
    manifest = Manifest(
        tokenizer.fingerprint, tokenizer.vocab_size, config.record_length, config.token_dtype, splits, tables, withheld,
        repeats, config.packing,
    )  # fmt: skip
    scratch = out / PARTS if isinstance(out, Path) else None
    with writing(out):
        if index:
            write_atomically(out / HELD_OUT_KEYS, (out / index).read_bytes(), scratch)
        write_atomically(out / MANIFEST, manifest.to_json().encode(), scratch)
        if not any(names_in(out / QUARANTINE / step) for step in ("keys", "encode")):  # unless units failed
            delete_all(out / QUARANTINE)
    return manifest


def write_group(unit: Unit[Group], space: Workspace, config: ShardsConfig) -> dict[str, Any]:
    group = unit.input
    path = space.root / f"{group.name}.array_record"
    with writing(path):
        if config.repeat_documents and group.split == "train":
            entries = repeated(space, group.files, group.split)
        else:
            parts = (encoded(space, name, group.split, first) for name, first in group.files)
            entries = itertools.chain.from_iterable(parts)
        packed = group.split == "train" and config.packing == "best_fit"
        shards = write_stream(entries, path, space.scratch, config, packed_records if packed else cut_records)
        for shard in shards:
            space.output(shard.file)
        counts = {"rows": sum(shard.documents for shard in shards)}
        counts["shards"] = [dataclasses.asdict(shard) for shard in shards]
        if group.split == "train":
            table, rows = space.output(group.table), 0
            with appearing(table, space.scratch) as partial, pq.ParquetWriter(partial, TABLE_SCHEMA) as writer:
                for name, _ in group.files:
                    for batch in read_batches(space.input(f"{PARTS}/encoded/{name}.table")):
                        writer.write_batch(batch)
                        rows += len(batch)
            counts["table"] = dataclasses.asdict(DocumentTable(group.table, rows, *digest(table)))
    return counts


def write_stream(
    documents: Iterator[Entry], path: Path, scratch: Path, config: ShardsConfig, to_records: ToRecords = cut_records
) -> list[Shard]:
    """Write the documents to the shard `path`, as records made by `to_records`. If a document could make the shard
    exceed config.shard_bytes, continue in another file such as train-00000-of-00002-part-00001.array_record. Return the
    shards, at least one. Raises OSError if the disk is full."""
    shards: list[Shard] = []
    stem, _, suffix = path.name.partition(".")
    waiting = next(documents, None)
    while waiting is not None or not shards:
        file = path.with_name(f"{stem}-part-{len(shards):05d}.{suffix}") if shards else path
        counted = text_bytes = tokens = 0

        def of_this_file() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal waiting, counted, text_bytes, tokens
            while (one := waiting) is not None:
                size = most_bytes(tokens + len(one.tokens), counted + 1, config)
                if counted and size > config.shard_bytes:
                    return
                counted, tokens, text_bytes = counted + 1, tokens + len(one.tokens), text_bytes + one.text_bytes
                waiting = next(documents, None)
                yield one.number, one.tokens

        with appearing(file, scratch) as partial:
            records = write_records(partial, to_records(of_this_file(), config.record_length, config.token_dtype))
            size, sha256 = partial.stat().st_size, file_sha256(partial)
            tokens += int(bool(tokens) and to_records is packed_records)  # then each of them is a target
        shards.append(Shard(file.name, records, size, sha256, counted, tokens, text_bytes))
    return shards


def write_records(path: Path, records: Iterable[SequenceRecord]) -> int:
    """Write an ArrayRecord file and return the number of records. Raises WriteError if the disk is full or fails."""
    from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

    written = 0
    with os_errors(path):
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for record in records:
        with os_errors(path):
            writer.write(to_bytes(record))
        written += 1
    with os_errors(path):
        writer.close()
    return written


@contextlib.contextmanager
def os_errors(path: Path) -> Generator[None]:
    """Convert errors of ArrayRecord's writer to WriteError with an errno.

    The writer raises RuntimeError for every failure and reports the cause only as the system's message ("write()
    failed: No space left on device; writing PATH; at byte 921600"). Errors without such a cause are raised unchanged.
    """
    try:
        yield
    except RuntimeError as error:
        cause = re.match(r"\w+\(\) failed: ([^;]*)", str(error))
        code = ERRNO_OF.get(cause[1]) if cause else None
        if code is None:
            raise
        raise WriteError(code, os.strerror(code), str(path)) from error


def check_splits(splits: dict[str, Split], config: ShardsConfig) -> None:
    """Raise InputError if a split has no token to predict."""
    for name, split in splits.items():
        if not split.records:
            counts = ", ".join(f"{other.documents} to {key}" for key, other in splits.items())
            whole = config.held_out == "documents"
            choose = "Hold out the end of every document (--shards.held-out ends), choose" if whole else "Choose"
            raise InputError(
                f"shards.validation_fraction = {config.validation_fraction} gives {counts}: nothing to predict in "
                f"{name} (shards.validation_tokens = {config.validation_tokens:,}). {choose} "
                "another fraction or number of tokens (--shards.validation-fraction, --shards.validation-tokens), or "
                "prepare more documents."
            )
