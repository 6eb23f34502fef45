"""The units of the stage "shards" that are one file of documents each: keys of what is held out, then tokens.

documents ─ keys ─► held-out index ─ encode ─► tokens by split ─► shards (write.py)
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.config import EngineConfig, ShardsConfig
from data_prep.engine import Step, Unit, Workspace, identity_of, run_step
from data_prep.engine.tasks import OnProgress, files_of, merge_in_groups, whole
from data_prep.parquet import check_columns, opened, read_batches
from data_prep.shards.held_out import RULE, article_keys, is_drawn, may_be_drawn, read_index, union, write_index
from data_prep.shards.tokenize import DOCUMENTS_AT_ONCE, DocumentFile, Encode, TokenizedDocument, tokenize_file
from lm.data.records import HELD_OUT_KEYS
from lm.storage import Place, appearing, writing

PARTS = "parts"
"""Folder in tokens/ of what units hand on; gone when all is done."""
ROWS_AT_ONCE = 10_000  # rows of the table of documents held in memory
TOKENS_AT_ONCE = 1 << 20  # held in memory, and a document
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
TOKENS_SCHEMA = pa.schema(
    [("number", pa.int64()), ("text_bytes", pa.int64()), ("tokens", pa.list_(pa.uint32())), ("repeat", pa.int64())]
)
ENTRY = ["number", "text_bytes", "tokens"]
SPLITS = ("train", "val")


class Entry(NamedTuple):
    """A document as it goes into a shard."""

    number: int
    text_bytes: int
    tokens: np.ndarray


def held_out_index(
    files: Sequence[DocumentFile],
    fraction: float,
    earlier: Sequence[Place],
    folder: Place,
    engine: EngineConfig,
    on_progress: OnProgress,
) -> tuple[str, str]:
    """(file in `folder`, SHA-256) of the index of all that is drawn at `fraction` and of the `earlier` indices. Raises
    InputError as `read_index`, `read_batches` and `run_step`."""
    units = [Unit(file.name, identity_of("keys", RULE, file.identity, fraction), file.bytes, file) for file in files]
    tables = files_of(run_step(Step("keys", tuple(units), Keys(fraction)), engine, folder, on_progress).values())
    some = merge_in_groups("join-keys", tables, join_tables_of_keys, folder, engine, on_progress)
    settings = [[sha256 for _, sha256 in some], [identity_of_index(place) for place in earlier]]
    unit = Unit("index", identity_of("index", settings), len(some), tuple(name for name, _ in some))
    step = Step("index", (unit,), Index(tuple(earlier)), "keys", "tables")
    return files_of(run_step(step, whole(engine, 1), folder, on_progress).values())[0]


def identity_of_index(place: Place) -> str:
    """SHA-256 of the keys. Raises InputError as `read_index`."""
    return hashlib.sha256(read_index(place).tobytes()).hexdigest()


@dataclass(frozen=True)
class Keys:
    """Writes the keys of what is drawn in a file: reads its URLs, and texts of the row groups that are hit alone."""

    fraction: float

    def __call__(self, unit: Unit[DocumentFile], space: Workspace) -> dict[str, int]:
        keys = union(drawn_keys(unit.input, self.fraction))
        write_keys_table(keys, space.output(f"{PARTS}/keys/{unit.name}.parquet"), space.scratch)
        return {"rows": unit.input.rows}


@dataclass(frozen=True)
class Index:
    """Joins tables of keys, and earlier indices."""

    earlier: tuple[Place, ...]

    def __call__(self, unit: Unit[tuple[str, ...]], space: Workspace) -> dict[str, int]:
        keys = union(map(read_index, [*map(space.input, unit.input), *self.earlier]))
        write_keys_table(keys, space.output(f"{PARTS}/{HELD_OUT_KEYS}"), space.scratch)
        return {"rows": len(keys)}


def join_tables_of_keys(tables: Sequence[Path], path: Path, scratch: Path) -> int:
    keys = union(map(read_index, tables))
    write_keys_table(keys, path, scratch)
    return len(keys)


def write_keys_table(keys: np.ndarray, path: Path, scratch: Path) -> None:
    with writing(path), appearing(path, scratch=scratch) as partial:
        write_index(partial, keys)


def drawn_keys(file: DocumentFile, fraction: float) -> Iterator[np.ndarray]:
    """The keys of each document that is drawn. Raises InputError as `read_batches`."""
    with opened(file.path) as table:
        check_columns(table, file.path, ["url", "text"])
        for group in range(table.num_row_groups):
            urls = table.read_row_group(group, ["url"])["url"].to_pylist()
            may_be = np.array([may_be_drawn(url, fraction) for url in urls], bool)
            first = 0
            if not may_be.any():
                continue
            for batch in table.iter_batches(DOCUMENTS_AT_ONCE, row_groups=[group], columns=["text"]):
                for row in np.flatnonzero(may_be[first : first + len(batch)]).tolist():
                    url, text = urls[first + row], batch["text"][row].as_py()
                    if is_drawn(url, text, fraction):
                        yield article_keys(url, text)
                first += len(batch)


@dataclass(frozen=True)
class EncodeFile:
    """Writes the tokens of a file's documents, by split, and a row of the table of documents for each."""

    encode: Encode
    head: int
    fraction: float
    index: str | None
    """The held-out index, a file in the folder of the steps; None where ends are held out."""
    config: ShardsConfig

    def __call__(self, unit: Unit[DocumentFile], space: Workspace) -> dict[str, int]:
        index = read_index(space.input(self.index)) if self.index else np.empty(0, np.uint64)
        paths = {kind: space.output(f"{PARTS}/encoded/{unit.name}.{kind}") for kind in (*SPLITS, "table")}
        documents = tokenize_file(
            unit.input, self.encode, self.head, self.fraction, index, self.config.held_out, self.config.repeat_documents
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(writing(paths["table"].parent))
            partials = {kind: stack.enter_context(appearing(path, space.scratch)) for kind, path in paths.items()}
            notes = stack.enter_context(Notes(partials))
            for document in documents:
                notes.add(document)
                space.count(1, document.text_bytes)
        return notes.counts


class Notes:
    """What is noted of a file's documents as they pass by: rows of the table, and the tokens of each split."""

    def __init__(self, paths: dict[str, Path]):
        self.table = pq.ParquetWriter(paths["table"], TABLE_SCHEMA)
        self.writers = {split: pq.ParquetWriter(paths[split], TOKENS_SCHEMA) for split in SPLITS}
        self.rows: list[dict] = []
        self.waiting: dict[str, list[TokenizedDocument]] = {split: [] for split in SPLITS}
        self.tokens_waiting = dict.fromkeys(SPLITS, 0)
        self.counts = {"rows": 0, "withheld": 0, "train": 0, "val": 0, "train_tokens": 0, "val_tokens": 0}
        self.counts["repeats"] = 0

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.ExitStack() as stack:
            for writer in (self.table, *self.writers.values()):
                stack.enter_context(contextlib.closing(writer))
            self.flush_rows()
            for split in SPLITS:
                self.flush_tokens(split)

    def add(self, one: TokenizedDocument) -> None:
        row = {"id": one.id, "url": one.url, "file": one.file, "split": one.split}
        self.rows.append(row | {"tokens": len(one.tokens), "text_bytes": one.text_bytes})
        if len(self.rows) == ROWS_AT_ONCE:
            self.flush_rows()
        self.counts["rows"] += 1
        self.counts[one.split] += 1
        if one.split == "withheld":
            return
        self.counts[f"{one.split}_tokens"] += one.repeat * len(one.tokens)
        self.counts["repeats"] += one.repeat - 1
        self.waiting[one.split].append(one)
        self.tokens_waiting[one.split] += len(one.tokens)
        if self.tokens_waiting[one.split] >= TOKENS_AT_ONCE:
            self.flush_tokens(one.split)

    def flush_rows(self) -> None:
        self.table.write_table(pa.Table.from_pylist(self.rows, TABLE_SCHEMA))
        self.rows = []

    def flush_tokens(self, split: str) -> None:
        documents = self.waiting[split]
        ends = np.cumsum([0, *(len(one.tokens) for one in documents)], dtype=np.int32)
        tokens = np.concatenate([np.empty(0, np.uint32), *(one.tokens for one in documents)])
        numbers = pa.array([one.number for one in documents], pa.int64())
        text_bytes = pa.array([one.text_bytes for one in documents], pa.int64())
        lists = pa.ListArray.from_arrays(ends, tokens)
        repeats = pa.array([one.repeat for one in documents], pa.int64())
        self.writers[split].write_table(pa.table([numbers, text_bytes, lists, repeats], TOKENS_SCHEMA))
        self.waiting[split], self.tokens_waiting[split] = [], 0


def encoded(space: Workspace, name: str, split: str, first: int) -> Iterator[Entry]:
    """The documents of a split of the unit called `name`, numbered from `first`, in order."""
    for batch in read_batches(space.input(f"{PARTS}/encoded/{name}.{split}"), ENTRY):
        for number, text_bytes, tokens in zip(*batch.columns, strict=True):
            yield Entry(first + number.as_py(), text_bytes.as_py(), tokens.values.to_numpy())
