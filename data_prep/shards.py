"""Documents -> ArrayRecord shards of sequence records, with a manifest and a table of documents.

One shard is the unit of work: a worker writes it alone, from the document files that belong to it, so that neither
the number of workers nor an interruption can change a byte. A finished unit leaves `units/<shard>.json`; without it the
unit is written again.
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

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.config import ShardsConfig
from data_prep.files import appearing, file_sha256, replace_file, writing
from data_prep.over_files import run_over_files
from data_prep.parquet import rows_in
from data_prep.tokenize import DocumentFile, TokenizedDocument, cut_records, document_files, tokenize_file
from lm.errors import InputError, UsageError
from lm.records import DTYPES, MANIFEST, Manifest, SequenceRecord, Shard, Split, to_bytes
from lm.tokenizer import Tokenizer

DOCUMENTS = "documents.parquet"
UNITS = "units"
WRITER_OPTIONS = "group_size:1"  # one record a chunk: random reads are 17 to 26 times as fast as with group_size:64
ROWS_AT_ONCE = 10_000  # rows of the table of documents held in memory
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
NUMBERED_SCHEMA = pa.schema([("number", pa.int64()), *TABLE_SCHEMA])


@dataclass(frozen=True)
class Unit:
    """The work of making one shard."""

    split: str
    shard: str
    """Name of the shard's file."""
    files: tuple[DocumentFile, ...]
    out: Path
    key: str
    """Hash of all that decides the bytes: a finished unit with another key is not ours."""

    @property
    def bytes(self) -> int:
        """About how much work it is: those of its files; all of them are read for the few documents held out."""
        return sum(file.path.stat().st_size for file in self.files)

    @property
    def scratch(self) -> Path:
        return self.out / UNITS

    @property
    def done(self) -> Path:
        return self.scratch / f"{self.shard}.json"

    @property
    def table(self) -> Path:
        return self.scratch / f"{self.shard}.parquet"


def write_shards(documents: Path, tokenizer: Tokenizer, out: Path, config: ShardsConfig) -> Manifest:
    """Makes `out`: shards of both splits, documents.parquet, manifest.json (last). Goes on where it was interrupted.

    Raises UsageError when token_dtype cannot hold the vocabulary, and InputError when there are no documents, a split
    gets nothing to predict, or the disk does not take the files.
    """
    limit = 2 ** (8 * DTYPES[config.token_dtype])
    if tokenizer.vocabulary_size > limit:
        raise UsageError(
            f"The tokenizer has {tokenizer.vocabulary_size} symbols, but shards.token_dtype = {config.token_dtype} "
            f"holds ids below {limit}. Set shards.token_dtype = uint32."
        )
    files = document_files(documents)
    units = plan_units(files, tokenizer, out, config)
    with writing(out):
        (out / UNITS).mkdir(parents=True, exist_ok=True)
    left = [unit for unit in units if not is_done(unit)]
    if left:
        run_over_files(functools.partial(write_unit, tokenizer=tokenizer, config=config), left, config)
    shards = {unit.shard: Shard(**json.loads(unit.done.read_text())["shard"]) for unit in units}
    splits = {name: sum_up([shards[u.shard] for u in units if u.split == name]) for name in ("train", "val")}
    check_splits(splits, config)
    manifest = Manifest(
        tokenizer.fingerprint, tokenizer.vocabulary_size, config.record_length, config.token_dtype, splits
    )
    with writing(out):
        join_tables(units, out / DOCUMENTS)
        replace_file(out / MANIFEST, manifest.to_json().encode(), scratch=out / UNITS)
        shutil.rmtree(out / UNITS)
    return manifest


def plan_units(files: list[DocumentFile], tokenizer: Tokenizer, out: Path, config: ShardsConfig) -> list[Unit]:
    """One unit for the validation split over all files, and one for each contiguous group of files for training."""
    identity = [
        [tokenizer.fingerprint, config.record_length, config.token_dtype, config.validation_fraction],
        [[file.path.name, file.path.stat().st_size, file.rows] for file in files],
    ]

    def unit(split: str, index: int, count: int, part: list[DocumentFile]) -> Unit:
        shard = f"{split}-{index:05d}-of-{count:05d}.array_record"
        key = hashlib.sha256(json.dumps([identity, shard]).encode()).hexdigest()
        return Unit(split, shard, tuple(part), out, key)

    count = min(config.train_shards, len(files))
    bounds = [len(files) * i // count for i in range(count + 1)]
    train = [unit("train", i, count, files[bounds[i] : bounds[i + 1]]) for i in range(count)]
    return [unit("val", 0, 1, files), *train]


def is_done(unit: Unit) -> bool:
    """Whether the unit was finished, by a run with the same inputs, and its files are as they were."""
    try:
        found = json.loads(unit.done.read_text())
        if found["key"] != unit.key:
            return False
        shard = Shard(**found["shard"])
        return (unit.out / unit.shard).stat().st_size == shard.bytes and rows_in(unit.table) == shard.documents
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_unit(unit: Unit, tokenizer: Tokenizer, config: ShardsConfig) -> None:
    """Writes one shard and its rows of the table of documents, then marks the unit as done.

    Raises InputError when the disk does not take them.
    """
    path = unit.out / unit.shard
    with writing(path):
        with appearing(path, unit.scratch) as shard_file, appearing(unit.table, unit.scratch) as table_file:
            with TableWriter(table_file, unit.split) as table:
                documents = table.noting(documents_of(unit, tokenizer, config))
                stream = ((document.number, document.tokens) for document in documents)
                records = write_records(shard_file, cut_records(stream, config.record_length, config.token_dtype))
            size, sha256 = shard_file.stat().st_size, file_sha256(shard_file)
        shard = Shard(unit.shard, records, size, sha256, table.documents, table.tokens, table.text_bytes)
        done = {"key": unit.key, "shard": dataclasses.asdict(shard)}
        replace_file(unit.done, json.dumps(done).encode(), unit.scratch)


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


def documents_of(unit: Unit, tokenizer: Tokenizer, config: ShardsConfig) -> Iterator[TokenizedDocument]:
    for file in unit.files:
        yield from tokenize_file(file, tokenizer, unit.split == "val", config.validation_fraction)


class TableWriter:
    """Notes the documents that pass by, in a Parquet file of NUMBERED_SCHEMA, and sums them up."""

    def __init__(self, path: Path, split: str):
        self.split, self.file = split, pq.ParquetWriter(path, NUMBERED_SCHEMA)
        self.rows: list[dict] = []
        self.documents = self.tokens = self.text_bytes = 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_) -> None:
        self.flush()
        self.file.close()

    def noting(self, documents: Iterator[TokenizedDocument]) -> Iterator[TokenizedDocument]:
        for d in documents:
            row = {"id": d.id, "url": d.url, "file": d.file, "tokens": len(d.tokens), "text_bytes": d.text_bytes}
            self.rows.append({"number": d.number, "split": self.split, **row})
            self.documents += 1
            self.tokens += len(d.tokens)
            self.text_bytes += d.text_bytes
            if len(self.rows) == ROWS_AT_ONCE:
                self.flush()
            yield d

    def flush(self) -> None:
        self.file.write_table(pa.Table.from_pylist(self.rows, NUMBERED_SCHEMA))
        self.rows = []


def join_tables(units: list[Unit], path: Path) -> None:
    """Writes the table of all documents, row = number: for each training shard, its rows and the held-out ones between.

    Memory holds the rows of one training shard and those of the validation split.
    """
    held_out = pq.read_table(next(unit.table for unit in units if unit.split == "val"))
    number = pc.field("number")
    with appearing(path, units[0].scratch) as partial, pq.ParquetWriter(partial, TABLE_SCHEMA) as writer:
        for unit in units:
            if unit.split == "val":
                continue
            first, end = unit.files[0].first, unit.files[-1].first + unit.files[-1].rows
            between = held_out.filter((number >= first) & (number < end))
            rows = pa.concat_tables([pq.read_table(unit.table), between]).sort_by("number")
            writer.write_table(rows.drop_columns("number").cast(TABLE_SCHEMA))


def sum_up(shards: list[Shard]) -> Split:
    """The split that consists of `shards`."""
    total = lambda name: sum(getattr(shard, name) for shard in shards)
    return Split(total("documents"), total("tokens"), total("text_bytes"), total("records"), tuple(shards))


def check_splits(splits: dict[str, Split], config: ShardsConfig) -> None:
    """Raises InputError when a split has no token to predict."""
    for name, split in splits.items():
        if not split.records:
            counts = ", ".join(f"{other.documents} to {key}" for key, other in splits.items())
            raise InputError(
                f"shards.validation_fraction = {config.validation_fraction} gives {counts}: nothing to predict in "
                f"{name}. Choose another fraction, or prepare more documents."
            )
