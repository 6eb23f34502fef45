"""Documents -> ArrayRecord shards of sequence records, with a manifest and a table of documents.

A group of document files is the unit of work: a worker writes its training shard alone (several, where one would be
larger than shards.shard_bytes), so that neither the number of workers nor an interruption can change a byte. The tokens
of held-out documents are set aside on the way, unit by unit, and make the validation shard at the end. A finished unit
leaves `units/<shard>.json`; without it the unit is written again.
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
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.config import ONE_PROCESS, EngineConfig, ShardsConfig
from data_prep.engine.over_files import run_over_files
from data_prep.parquet import read_batches, rows_in
from data_prep.shards.sizes import check_record_fits, estimated_tokens, held_out_fraction, most_bytes, shard_count
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
HELD_OUT_SCHEMA = pa.schema([("number", pa.int64()), ("text_bytes", pa.int64()), ("tokens", pa.list_(pa.uint32()))])


@dataclass(frozen=True)
class Unit:
    """The work of making the training shards of some document files."""

    shard: str
    """Name of the first shard's file."""
    files: tuple[DocumentFile, ...]
    out: Path
    key: str
    """Hash of all that decides the bytes: a finished unit with another key is not ours."""
    fraction: float
    """Share that is held out."""

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


class Entry(NamedTuple):
    """A document as it goes into a shard."""

    number: int
    text_bytes: int
    tokens: np.ndarray


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


def write_shards(
    documents: Path, tokenizer: Tokenizer, out: Path, config: ShardsConfig, engine: EngineConfig = ONE_PROCESS
) -> Manifest:
    """Makes `out`: shards of both splits, documents.parquet, manifest.json (last). Goes on where it was interrupted.

    Raises UsageError when token_dtype cannot hold the vocabulary or shard_bytes a record, or as `fast_encoder`;
    InputError when there are no documents, a split gets nothing to predict, or the disk does not take the files.
    """
    limit = 2 ** (8 * DTYPES[config.token_dtype])
    if tokenizer.vocab_size > limit:
        raise UsageError(
            f"The tokenizer has {tokenizer.vocab_size} symbols, but shards.token_dtype = {config.token_dtype} "
            f"holds ids below {limit}. Set shards.token_dtype = uint32."
        )
    check_record_fits(config)
    files = document_files(documents)
    units = plan_units(files, tokenizer, out, config)
    with writing(out):
        (out / UNITS).mkdir(parents=True, exist_ok=True)
    left = [unit for unit in units if not is_done(unit)]
    if left:
        encode = tokenizer.encode_array if config.encoder == "tiktoken" else fast_encoder(tokenizer)
        write = functools.partial(write_unit, encode=encode, head=tokenizer.bos_id, config=config)
        run_over_files(write, left, engine)
    done = [json.loads(unit.done.read_text()) for unit in units]
    with writing(out):
        validation = write_stream(held_out_of(units), out / VALIDATION, out / UNITS, config)
    trained = [Shard(**shard) for one in done for shard in one["shards"]]
    splits = {"train": sum_up(trained), "val": sum_up(validation)}
    check_splits(splits, config)
    manifest = Manifest(tokenizer.fingerprint, tokenizer.vocab_size, config.record_length, config.token_dtype, splits)
    with writing(out):
        join_tables(units, out / DOCUMENTS)
        write_atomically(out / MANIFEST, manifest.to_json().encode(), scratch=out / UNITS)
        shutil.rmtree(out / UNITS)
    return manifest


def plan_units(files: list[DocumentFile], tokenizer: Tokenizer, out: Path, config: ShardsConfig) -> list[Unit]:
    """One unit for each contiguous group of files."""
    tokens = estimated_tokens(files, tokenizer.encode_array)
    fraction = held_out_fraction(tokens, config)
    identity = [
        [
            tokenizer.fingerprint,
            config.record_length,
            config.token_dtype,
            fraction,
            config.held_out,
            config.shard_bytes,
        ],
        [[file.path.name, file.path.stat().st_size, file.rows] for file in files],
    ]

    def unit(index: int, count: int, part: list[DocumentFile]) -> Unit:
        shard = f"train-{index:05d}-of-{count:05d}.array_record"
        key = hashlib.sha256(json.dumps([identity, shard]).encode()).hexdigest()
        return Unit(shard, tuple(part), out, key, fraction)

    count = shard_count(len(files), tokens, config)
    bounds = [len(files) * i // count for i in range(count + 1)]
    return [unit(i, count, files[bounds[i] : bounds[i + 1]]) for i in range(count)]


def is_done(unit: Unit) -> bool:
    """Whether the unit was finished, by a run with the same inputs, and its files are as they were."""
    try:
        found = json.loads(unit.done.read_text())
        if found["key"] != unit.key:
            return False
        shards = [Shard(**shard) for shard in found["shards"]]
        return (
            all((unit.out / shard.file).stat().st_size == shard.bytes for shard in shards)
            and rows_in(unit.table) == sum(shard.documents for shard in shards) + found["held_out"]
            and rows_in(unit.held_out) == found["held_out"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_unit(unit: Unit, encode: Encode, head: int, config: ShardsConfig) -> None:
    """Writes its shards, the table of its documents and those held out, then marks the unit as done.

    Raises InputError when the disk does not take them.
    """
    path = unit.out / unit.shard
    with writing(path):
        with (
            appearing(unit.table, unit.scratch) as table_file,
            appearing(unit.held_out, unit.scratch) as held_out_file,
            Notes(table_file, held_out_file) as notes,
        ):
            documents = notes.training(documents_of(unit, encode, head, config))
            shards = write_stream(documents, path, unit.scratch, config)
        done = {
            "key": unit.key,
            "shards": [dataclasses.asdict(shard) for shard in shards],
            "held_out": notes.held_out_documents,
        }
        write_atomically(unit.done, json.dumps(done).encode(), unit.scratch)


def held_out_of(units: list[Unit]) -> Iterator[Entry]:
    """What the units set aside, in the order of their numbers."""
    for unit in units:
        for batch in read_batches(unit.held_out, HELD_OUT_SCHEMA.names):
            for number, text_bytes, tokens in zip(*batch.columns, strict=True):
                yield Entry(number.as_py(), text_bytes.as_py(), tokens.values.to_numpy())


def write_stream(documents: Iterator[Entry], path: Path, scratch: Path, config: ShardsConfig) -> list[Shard]:
    """Writes the documents to `path`, and from the first that could make that larger than config.shard_bytes on to
    further files. A file at least, whether or not there are documents. Raises OSError when the disk takes no more."""
    shards: list[Shard] = []
    waiting = next(documents, None)
    while waiting is not None or not shards:
        file = path if not shards else path.with_name(further_name(path.name, len(shards)))
        tally = Tally()

        def of_this_file(tally: Tally = tally) -> Iterator[tuple[int, np.ndarray]]:
            nonlocal waiting
            while waiting is not None:
                size = most_bytes(tally.tokens + len(waiting.tokens), tally.documents + 1, config)
                if tally.documents and size > config.shard_bytes:
                    return
                tally.add(1, len(waiting.tokens), waiting.text_bytes)
                number, tokens = waiting.number, waiting.tokens
                waiting = next(documents, None)
                yield number, tokens

        with appearing(file, scratch) as partial:
            records = write_records(partial, cut_records(of_this_file(), config.record_length, config.token_dtype))
            size, sha256 = partial.stat().st_size, file_sha256(partial)
        shards.append(Shard(file.name, records, size, sha256, tally.documents, tally.tokens, tally.text_bytes))
    return shards


def further_name(name: str, number: int) -> str:
    """Of a file that goes on where the one called `name` is full: train-00000-of-00002-part-00001.array_record."""
    stem, _, suffix = name.partition(".")
    return f"{stem}-part-{number:05d}.{suffix}"


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
        yield from tokenize_file(file, encode, head, unit.fraction, config.held_out)


class Notes:
    """What is noted of a unit's documents as they pass by: rows of the table, and the tokens of those held out."""

    def __init__(self, table: Path, held_out: Path):
        self.table, self.held_out = pq.ParquetWriter(table, TABLE_SCHEMA), pq.ParquetWriter(held_out, HELD_OUT_SCHEMA)
        self.rows: list[dict] = []
        self.aside: list[TokenizedDocument] = []
        self.tokens_aside = 0
        self.held_out_documents = 0

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.closing(self.held_out), contextlib.closing(self.table):
            self.flush_rows()
            self.flush_aside()

    def training(self, documents: Iterator[TokenizedDocument]) -> Iterator[Entry]:
        """The documents that are not held out."""
        for d in documents:
            split = "val" if d.held_out else "train"
            row = {"id": d.id, "url": d.url, "file": d.file, "split": split}
            self.rows.append(row | {"tokens": len(d.tokens), "text_bytes": d.text_bytes})
            if len(self.rows) == ROWS_AT_ONCE:
                self.flush_rows()
            if not d.held_out:
                yield Entry(d.number, d.text_bytes, d.tokens)
                continue
            self.held_out_documents += 1
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
        text_bytes = pa.array([d.text_bytes for d in self.aside], pa.int64())
        lists = pa.ListArray.from_arrays(ends, tokens)
        self.held_out.write_table(pa.table([numbers, text_bytes, lists], HELD_OUT_SCHEMA))
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
            whole = config.held_out == "documents"
            ends = " --shards.held-out ends holds out the end of every document instead of whole ones;"
            raise InputError(
                f"shards.validation_fraction = {config.validation_fraction} gives {counts}: nothing to predict in "
                f"{name} (shards.validation_tokens = {config.validation_tokens:,}).{ends if whole else ''} or choose "
                "another fraction or number of tokens (--shards.validation-fraction, --shards.validation-tokens), or "
                "prepare more documents."
            )
