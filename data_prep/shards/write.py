"""Documents -> ArrayRecord shards of sequence records, with a manifest and a table of documents.

A training shard is the unit of work: a worker writes it alone, from the document files that belong to it, so that
neither the number of workers nor an interruption can change a byte. The tokens of held-out documents are set aside on
the way, unit by unit, and make the validation shard at the end. A finished unit leaves `units/<shard>.json`; without it
the unit is written again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.config import ShardsConfig
from data_prep.engine.over_files import run_over_files
from data_prep.parquet import read_batches, rows_in
from data_prep.shards.tokenize import (
    DocumentFile,
    Encode,
    TokenizedDocument,
    cut_records,
    document_files,
    tokenize_file,
)
from lm.data.records import DTYPES, MANIFEST, Manifest, SequenceRecord, Shard, Split, to_bytes
from lm.errors import InputError, UsageError
from lm.storage import appearing, file_sha256, write_atomically, writing
from lm.tokenizer import Tokenizer
from lm.tokenizer.fast import fast_encoder

DOCUMENTS = "documents.parquet"
VALIDATION = "val-00000-of-00001.array_record"
UNITS = "units"
WRITER_OPTIONS = "group_size:1"  # one record a chunk: random reads are 17 to 26 times as fast as with group_size:64
ROWS_AT_ONCE = 10_000  # rows of the table of documents held in memory
TOKENS_AT_ONCE = 1 << 20  # of held-out documents held in memory, and a document
TABLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("file", pa.string()),
        ("split", pa.string()),
        ("tokens", pa.int64()),
        ("text_bytes", pa.int64()),
    ]
)
HELD_OUT_SCHEMA = pa.schema([("number", pa.int64()), ("tokens", pa.list_(pa.uint32()))])


@dataclass(frozen=True)
class Unit:
    """The work of making one training shard."""

    shard: str
    """Name of the shard's file."""
    files: tuple[DocumentFile, ...]
    out: Path
    key: str
    """Hash of all that decides the bytes: a finished unit with another key is not ours."""

    @property
    def bytes(self) -> int:
        """About how much work it is."""
        return sum(file.path.stat().st_size for file in self.files)

    @property
    def scratch(self) -> Path:
        return self.out / UNITS

    @property
    def done(self) -> Path:
        return self.scratch / f"{self.shard}.json"

    @property
    def table(self) -> Path:
        """All documents of its files."""
        return self.scratch / f"{self.shard}.parquet"

    @property
    def held_out(self) -> Path:
        """The tokens of those that are held out."""
        return self.scratch / f"{self.shard}.held-out.parquet"


@dataclass
class Tally:
    """Of some documents."""

    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0

    def add(self, documents: int, tokens: int, text_bytes: int) -> None:
        self.documents += documents
        self.tokens += tokens
        self.text_bytes += text_bytes


def write_shards(documents: Path, tokenizer: Tokenizer, out: Path, config: ShardsConfig) -> Manifest:
    """Makes `out`: shards of both splits, documents.parquet, manifest.json (last). Goes on where it was interrupted.

    Raises UsageError when token_dtype cannot hold the vocabulary, or as `fast_encoder`; InputError when there are no
    documents, a split gets nothing to predict, or the disk does not take the files.
    """
    limit = 2 ** (8 * DTYPES[config.token_dtype])
    if tokenizer.vocab_size > limit:
        raise UsageError(
            f"The tokenizer has {tokenizer.vocab_size} symbols, but shards.token_dtype = {config.token_dtype} "
            f"holds ids below {limit}. Set shards.token_dtype = uint32."
        )
    files = document_files(documents)
    units = plan_units(files, tokenizer, out, config)
    with writing(out):
        (out / UNITS).mkdir(parents=True, exist_ok=True)
    left = [unit for unit in units if not is_done(unit)]
    if left:
        encode = tokenizer.encode_array if config.encoder == "tiktoken" else fast_encoder(tokenizer)
        write = functools.partial(write_unit, encode=encode, head=tokenizer.bos_id, config=config)
        run_over_files(write, left, config)
    done = [json.loads(unit.done.read_text()) for unit in units]
    held_out = Tally()
    for one in done:
        held_out.add(**one["held_out"])
    with writing(out):
        validation = write_validation(units, out / VALIDATION, held_out, config)
    splits = {"train": sum_up([Shard(**one["shard"]) for one in done]), "val": sum_up([validation])}
    check_splits(splits, config)
    manifest = Manifest(tokenizer.fingerprint, tokenizer.vocab_size, config.record_length, config.token_dtype, splits)
    with writing(out):
        join_tables(units, out / DOCUMENTS)
        write_atomically(out / MANIFEST, manifest.to_json().encode(), scratch=out / UNITS)
        shutil.rmtree(out / UNITS)
    return manifest


def plan_units(files: list[DocumentFile], tokenizer: Tokenizer, out: Path, config: ShardsConfig) -> list[Unit]:
    """One unit for each contiguous group of files."""
    identity = [
        [
            tokenizer.fingerprint,
            config.record_length,
            config.token_dtype,
            config.validation_fraction,
            config.held_out,
        ],
        [[file.path.name, file.path.stat().st_size, file.rows] for file in files],
    ]

    def unit(index: int, count: int, part: list[DocumentFile]) -> Unit:
        shard = f"train-{index:05d}-of-{count:05d}.array_record"
        key = hashlib.sha256(json.dumps([identity, shard]).encode()).hexdigest()
        return Unit(shard, tuple(part), out, key)

    count = min(config.train_shards, len(files))
    bounds = [len(files) * i // count for i in range(count + 1)]
    return [unit(i, count, files[bounds[i] : bounds[i + 1]]) for i in range(count)]


def is_done(unit: Unit) -> bool:
    """Whether the unit was finished, by a run with the same inputs, and its files are as they were."""
    try:
        found = json.loads(unit.done.read_text())
        if found["key"] != unit.key:
            return False
        shard, held_out = Shard(**found["shard"]), Tally(**found["held_out"])
        return (
            (unit.out / unit.shard).stat().st_size == shard.bytes
            and rows_in(unit.table) == shard.documents + held_out.documents
            and rows_in(unit.held_out) == held_out.documents
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_unit(unit: Unit, encode: Encode, head: int, config: ShardsConfig) -> None:
    """Writes one shard, the table of its documents and those held out, then marks the unit as done.

    Raises InputError when the disk does not take them.
    """
    path = unit.out / unit.shard
    with writing(path):
        with (
            appearing(path, unit.scratch) as shard_file,
            appearing(unit.table, unit.scratch) as table_file,
            appearing(unit.held_out, unit.scratch) as held_out_file,
        ):
            with Notes(table_file, held_out_file) as notes:
                stream = notes.training(documents_of(unit, encode, head, config))
                records = write_records(shard_file, cut_records(stream, config.record_length, config.token_dtype))
            trained = notes.tallies[False]
            shard = Shard(
                unit.shard, records, shard_file.stat().st_size, file_sha256(shard_file), trained.documents,
                trained.tokens, trained.text_bytes,
            )  # fmt: skip
        done = {
            "key": unit.key,
            "shard": dataclasses.asdict(shard),
            "held_out": dataclasses.asdict(notes.tallies[True]),
        }
        write_atomically(unit.done, json.dumps(done).encode(), unit.scratch)


def write_validation(units: list[Unit], path: Path, held_out: Tally, config: ShardsConfig) -> Shard:
    """Writes the validation shard of what the units set aside. Raises OSError when the disk does not take it."""

    def stream() -> Iterator[tuple[int, np.ndarray]]:
        for unit in units:
            for batch in read_batches(unit.held_out, HELD_OUT_SCHEMA.names):
                for number, tokens in zip(*batch.columns, strict=True):
                    yield number.as_py(), tokens.values.to_numpy()

    with appearing(path, units[0].scratch) as partial:
        records = write_records(partial, cut_records(stream(), config.record_length, config.token_dtype))
        size, sha256 = partial.stat().st_size, file_sha256(partial)
    return Shard(path.name, records, size, sha256, held_out.documents, held_out.tokens, held_out.text_bytes)


def write_records(path: Path, records: Iterable[SequenceRecord]) -> int:
    """Writes an ArrayRecord file; how many records. Raises OSError when the disk does not take it."""
    from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

    written = 0
    with os_errors():
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for record in records:
        with os_errors():
            writer.write(to_bytes(record))
        written += 1
    with os_errors():
        writer.close()
    return written


@contextlib.contextmanager
def os_errors() -> Generator[None]:
    """ArrayRecord raises RuntimeError whatever goes wrong with its file: here it becomes an OSError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def documents_of(unit: Unit, encode: Encode, head: int, config: ShardsConfig) -> Iterator[TokenizedDocument]:
    for file in unit.files:
        yield from tokenize_file(file, encode, head, config.validation_fraction, config.held_out)


class Notes:
    """What is noted of a unit's documents as they pass by: rows of the table, and the tokens of those held out."""

    def __init__(self, table: Path, held_out: Path):
        self.table, self.held_out = pq.ParquetWriter(table, TABLE_SCHEMA), pq.ParquetWriter(held_out, HELD_OUT_SCHEMA)
        self.rows: list[dict] = []
        self.aside: list[TokenizedDocument] = []
        self.tokens_aside = 0
        self.tallies = {False: Tally(), True: Tally()}
        """{held out: its documents}."""

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.closing(self.held_out), contextlib.closing(self.table):
            self.flush_rows()
            self.flush_aside()

    def training(self, documents: Iterator[TokenizedDocument]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, tokens) of the documents that are not held out."""
        for d in documents:
            split = "val" if d.held_out else "train"
            row = {"id": d.id, "url": d.url, "file": d.file, "split": split}
            self.rows.append(row | {"tokens": len(d.tokens), "text_bytes": d.text_bytes})
            if len(self.rows) == ROWS_AT_ONCE:
                self.flush_rows()
            self.tallies[d.held_out].add(1, len(d.tokens), d.text_bytes)
            if not d.held_out:
                yield d.number, d.tokens
                continue
            self.aside.append(d)
            self.tokens_aside += len(d.tokens)
            if self.tokens_aside >= TOKENS_AT_ONCE:
                self.flush_aside()

    def flush_rows(self) -> None:
        self.table.write_table(pa.Table.from_pylist(self.rows, TABLE_SCHEMA))
        self.rows = []

    def flush_aside(self) -> None:
        ends = np.cumsum([0, *(len(d.tokens) for d in self.aside)], dtype=np.int32)
        tokens = np.concatenate([np.empty(0, np.uint32), *(d.tokens for d in self.aside)])
        numbers = pa.array([d.number for d in self.aside], pa.int64())
        self.held_out.write_table(pa.table([numbers, pa.ListArray.from_arrays(ends, tokens)], HELD_OUT_SCHEMA))
        self.aside, self.tokens_aside = [], 0


def join_tables(units: list[Unit], path: Path) -> None:
    """Writes the table of all documents, row = number."""
    with appearing(path, units[0].scratch) as partial, pq.ParquetWriter(partial, TABLE_SCHEMA) as writer:
        for unit in units:
            for batch in read_batches(unit.table):
                writer.write_batch(batch)


def sum_up(shards: list[Shard]) -> Split:
    """The split that consists of `shards`."""
    total = lambda name: sum(getattr(shard, name) for shard in shards)
    return Split(total("documents"), total("tokens"), total("text_bytes"), total("records"), tuple(shards))


def check_splits(splits: dict[str, Split], config: ShardsConfig) -> None:
    """Raises InputError when a split has no token to predict."""
    for name, split in splits.items():
        if not split.records:
            counts = ", ".join(f"{other.documents} to {key}" for key, other in splits.items())
            ends = " --shards.held-out ends holds out the end of every document instead of whole ones;"
            raise InputError(
                f"shards.validation_fraction = {config.validation_fraction} gives {counts}: nothing to predict in "
                f"{name}.{ends if config.held_out == 'documents' else ''} or choose another fraction "
                "(--shards.validation-fraction), or prepare more documents."
            )
