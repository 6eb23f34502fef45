"""Documents -> ArrayRecord shards of sequence records, with tables of documents and a manifest.

Steps of units, each of which writes its files alone, so that neither the number of workers nor an interruption can
change a byte (units.py): the files of documents are encoded one by one (encode.py), then each unit here makes the
shard of a split from a group of them, several where one would be larger than shards.shard_bytes. So a file that comes
or goes has itself encoded, and the shards of its group made.
"""

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from data_prep.config import ShardsConfig
from data_prep.parquet import read_batches
from data_prep.shards.encode import TABLE_SCHEMA, EncodeFile, Entry, FileUnit, encoded, held_out_index
from data_prep.shards.sizes import check_record_fits, estimated_tokens, held_out_fraction, most_bytes, shard_count
from data_prep.shards.tokenize import cut_records, document_files
from data_prep.shards.units import Made, identity_of, run_step
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

PARTS, MARKERS = "parts", "units"
"""Folders in tokens/ of what units hand on, and of their markers; gone when all is done."""
WRITER_OPTIONS = "group_size:1"  # one record a chunk: random reads are 17 to 26 times as fast as with group_size:64


@dataclass(frozen=True)
class ShardUnit:
    """The work of making the shards of one split from some encoded files; of the training split, also their table."""

    split: Literal["train", "val"]
    index: int
    count: int
    """Units of its split."""
    files: tuple[tuple[str, int], ...]
    """(name, number of the first document) of each file's unit."""
    identity: str
    bytes: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"

    @property
    def table(self) -> str:
        """In tokens/, the table of the documents of its files."""
        return f"documents/{self.index:05d}-of-{self.count:05d}.parquet"


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
    """Makes `out`: shards of both splits, documents/, the held-out index, manifest.json (last). Goes on where it was
    interrupted.

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
    fraction = held_out_fraction(estimated_tokens(files, tokenizer.encode_array), config)
    index, index_sha256 = None, ""
    if config.held_out == "documents":
        earlier: list[Place] = [place_of(name) for name in config.held_out_index]
        index, index_sha256 = held_out_index(files, fraction, earlier, out, config)
    encode = tokenizer.encode_array if config.encoder == "tiktoken" else fast_encoder(tokenizer)
    settings = [tokenizer.fingerprint, fraction, config.held_out, index_sha256]
    units = [FileUnit(file, identity_of("encode", file.identity, settings)) for file in files]
    work = EncodeFile(encode, tokenizer.bos_id, fraction, index, config)
    made = run_step("encode", units, work, out, config)
    shard_units = plan_shards(units, made, config)
    done = run_step("shards", shard_units, WriteShards(config), out, config)
    shards = {split: [Shard(**shard) for unit, one in zip(shard_units, done, strict=True) if unit.split == split
                      for shard in one.counts["shards"]] for split in ("train", "val")}  # fmt: skip
    splits = {name: sum_up(of_split) for name, of_split in shards.items()}
    check_splits(splits, config)
    tables = tuple(DocumentTable(**one.counts["table"]) for one in done if "table" in one.counts)
    withheld = sum(one.counts["withheld"] for one in made)
    manifest = Manifest(
        tokenizer.fingerprint, tokenizer.vocab_size, config.record_length, config.token_dtype, splits, tables, withheld
    )
    with writing(out):
        if index:
            (out / index).rename(out / HELD_OUT_KEYS)
        write_atomically(out / MANIFEST, manifest.to_json().encode(), scratch=out / PARTS)
        for folder in (PARTS, MARKERS):
            shutil.rmtree(out / folder)
    return manifest


def plan_shards(units: Sequence[FileUnit], made: Sequence[Made], config: ShardsConfig) -> list[ShardUnit]:
    """One unit for each contiguous group of encoded files, of each split as many groups as its tokens ask for."""
    parts = 2 if config.held_out == "ends" else 1
    firsts = itertools.accumulate((one.counts["rows"] for one in made), initial=0)
    named = [(unit.name, first) for unit, first in zip(units, firsts, strict=False)]
    assert parts * sum(unit.file.rows for unit in units) == sum(one.counts["rows"] for one in made)
    planned = []
    for split in ("train", "val"):
        tokens = sum(one.counts[f"{split}_tokens"] for one in made)
        count = shard_count(len(units), tokens, config, least=config.train_shards if split == "train" else 1)
        bounds = [len(units) * i // count for i in range(count + 1)]
        for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
            hashes = [one.outputs for one in made[begin:end]]
            settings = [config.record_length, config.token_dtype, config.shard_bytes]
            identity = identity_of("shards", split, i, count, named[begin:end], hashes, settings)
            size = sum(unit.bytes for unit in units[begin:end])
            planned.append(ShardUnit(split, i, count, tuple(named[begin:end]), identity, size))
    return planned


@dataclass(frozen=True)
class WriteShards:
    """Writes the shards of a unit, and the table of its documents."""

    config: ShardsConfig

    def __call__(self, unit: ShardUnit, folder: Path) -> tuple[dict, list[str]]:
        path, scratch = folder / f"{unit.name}.array_record", folder / PARTS
        with writing(path):
            entries = itertools.chain.from_iterable(
                encoded(folder, name, unit.split, first) for name, first in unit.files
            )
            shards = write_stream(entries, path, scratch, self.config)
            counts: dict = {"shards": [dataclasses.asdict(shard) for shard in shards]}
            names = [shard.file for shard in shards]
            if unit.split == "train":
                tables = [folder / PARTS / f"encoded/{name}.table" for name, _ in unit.files]
                rows = join_tables(tables, folder / unit.table, scratch)
                counts["table"] = dataclasses.asdict(DocumentTable(unit.table, rows, *digest(folder / unit.table)))
                names.append(unit.table)
        return counts, names


def join_tables(tables: Sequence[Path], path: Path, scratch: Path) -> int:
    """Writes the rows of some tables of documents to one; how many."""
    rows = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path, scratch) as partial, pq.ParquetWriter(partial, TABLE_SCHEMA) as writer:
        for table in tables:
            for batch in read_batches(table):
                writer.write_batch(batch)
                rows += len(batch)
    return rows


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
