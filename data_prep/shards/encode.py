"""Per-file units of the stage "shards": write the keys of held-out documents, then tokenize.

documents ─ keys ─► held-out index ─ encode ─► tokens by split ─► shards (write.py)
"""

import bisect
import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.config import ShardsConfig
from data_prep.engine import Counts, Step, Unit, Workspace, identity_of, run_step
from data_prep.engine.tasks import FileRunner, allow_no_failures, files_of, merge_in_groups
from data_prep.parquet import opened, read_batches
from data_prep.shards.held_out import RULE, article_keys, is_drawn, may_be_drawn, read_index, union, write_index
from data_prep.shards.tokenize import DocumentFile, Encode, TokenizedDocument, texts_where, tokenize_file
from lm.data.records import HELD_OUT_KEYS
from lm.errors import InputError
from lm.storage import Place, appearing, writing

PARTS = "parts"
"""Folder in tokens/ for intermediate files. It is deleted when the stage is finished."""
ROWS_AT_ONCE = 10_000  # rows of the table of documents in memory
TOKENS_AT_ONCE = 1 << 20  # tokens in memory per split, exceeded by at most one document
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
MOST_COPIES = 100
"""Maximum number of copies of a document. Each needs a pass over its group, with some documents in memory."""
SPLITS = ("train", "val")


class Entry(NamedTuple):
    """A document to write to a shard: its number (row of tokens/documents/), the UTF-8 bytes of its text, `text_bytes`,
    and its tokens, uint32 (tokens,), with BOS."""

    number: int
    text_bytes: int
    tokens: np.ndarray


def held_out_index(
    files: Sequence[DocumentFile], fraction: float, earlier: Sequence[Place], run: FileRunner
) -> tuple[str, str]:
    """Write the held-out index (held_out.py): the keys of the documents drawn for validation at `fraction`, and those
    of the `earlier` indices. Return (path in `run.folder`, SHA-256). Raises InputError like `read_index`,
    `read_batches`, `run_step`."""
    _, made = run("keys", files, functools.partial(write_keys, fraction=fraction), [RULE, fraction])
    tables = files_of(made.values())
    some = merge_in_groups("join-keys", tables, join_keys, run.folder, run.engine, run.on_progress)
    settings = [[sha256 for _, sha256 in some], [identity_of_index(place) for place in earlier]]
    unit = Unit("index", identity_of("index", settings), len(some), tuple(name for name, _ in some))
    step = Step("index", (unit,), functools.partial(join_all_keys, earlier=tuple(earlier)), "keys", "tables")
    return files_of(run_step(step, allow_no_failures(run.engine, 1), run.folder, run.on_progress).values())[0]


def identity_of_index(place: Place) -> str:
    return hashlib.sha256(read_index(place).tobytes()).hexdigest()


def write_keys(file: DocumentFile, space: Workspace, fraction: float) -> Counts:
    """Write the keys of the documents in a file that are drawn for validation (held_out.py). Texts are read only in row
    groups with a URL that may be drawn."""
    some = texts_where(file, "url", lambda url: may_be_drawn(url, fraction))
    keys = union(article_keys(url, text) for url, text in some if is_drawn(url, text, fraction))
    write_index(space.output(f"{PARTS}/keys/{file.name}.parquet"), keys, space.scratch)
    return {"rows": file.rows}


def join_keys(tables: Sequence[Place], path: Path, scratch: Path) -> int:
    """Write the keys of several held-out indices to one, each once, and return their number."""
    keys = union(map(read_index, tables))
    write_index(path, keys, scratch)
    return len(keys)


def join_all_keys(unit: Unit[tuple[str, ...]], space: Workspace, earlier: Sequence[Place]) -> Counts:
    tables = [*map(space.input, unit.input), *earlier]
    return {"rows": join_keys(tables, space.output(f"{PARTS}/{HELD_OUT_KEYS}"), space.scratch)}


def encode_file(
    file: DocumentFile, space: Workspace, encode: Encode, head: int, fraction: float, index: str | None,
    config: ShardsConfig,
) -> Counts:  # fmt: skip
    """Write the tokens of a file's documents, one output per split, and one row per document to the table of documents
    (tokens/documents/). Returns counts of documents and tokens per split. `head` is the token at the beginning of each
    document. `index` is the name of the held-out index in the run folder; None if the ends of documents are held
    out."""
    keys = read_index(space.input(index)) if index else np.empty(0, np.uint64)
    paths = {kind: space.output(f"{PARTS}/encoded/{file.name}.{kind}") for kind in (*SPLITS, "table")}
    documents = tokenize_file(file, encode, head, fraction, keys, config.held_out, config.repeat_documents)
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(paths["table"].parent))
        partials = {kind: stack.enter_context(appearing(path, space.scratch)) for kind, path in paths.items()}
        notes = stack.enter_context(Notes(partials))
        for document in documents:
            notes.add(document)
            space.count(1, document.text_bytes)
    return notes.counts


class Notes:
    """Writes the outputs of `encode_file`: rows of the table of documents, and the tokens of each split."""

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
    """Yield the documents of a split that `encode_file` wrote for the file `name`, in order, numbered from `first`."""
    for batch in read_batches(space.input(f"{PARTS}/encoded/{name}.{split}"), ENTRY):
        for number, text_bytes, tokens in zip(*batch.columns, strict=True):
            yield Entry(first + number.as_py(), text_bytes.as_py(), tokens.values.to_numpy())


def repeated(space: Workspace, files: Sequence[tuple[str, int]], split: str) -> Iterator[Entry]:
    """Yield the documents of a split of several encoded files, with their copies far apart from one another. `files` is
    [(name, number of the first document)].

    With P copies of the most repeated document, P cursors walk through all documents together; cursor i starts at i/P.
    A document with r copies is yielded by r evenly chosen cursors, so its copies are about 1/r of the documents apart.
    Raises InputError if a document would be written less than once or more than MOST_COPIES times.
    """
    times: list[int] = []
    groups: list[tuple[Path, int, int]] = []  # (file, number of its first document, row group)
    begins: list[int] = []  # position of the first document of each group
    for name, first in files:
        path = space.input(f"{PARTS}/encoded/{name}.{split}")
        with opened(path) as table:
            for group in range(table.num_row_groups):
                groups.append((path, first, group))
                begins.append(len(times))
                times += table.read_row_group(group, ["repeat"])["repeat"].to_pylist()
    if not times:
        return
    count, cursors = len(times), max(times)
    if cursors > MOST_COPIES or min(times) < 1:
        raise InputError(
            f"Documents of {files[0][0]} to {files[-1][0]} are to be repeated {min(times)} to {cursors} times; give "
            f"documents.minhash.upsampling_weights of 1 to {MOST_COPIES}."
        )

    @functools.lru_cache(cursors + 1)
    def read(group: int) -> pa.Table:
        path, _, number = groups[group]
        with opened(path) as table:
            return table.read_row_group(number, ENTRY)

    chosen = {number: {copy * cursors // number for copy in range(number)} for number in set(times)}
    for step in range(count):
        for cursor in range(cursors):
            place = (step + cursor * count // cursors) % count
            if cursor in chosen[times[place]]:
                group = bisect.bisect_right(begins, place) - 1
                number, text_bytes, tokens = (read(group)[name][place - begins[group]] for name in ENTRY)
                yield Entry(groups[group][1] + number.as_py(), text_bytes.as_py(), tokens.values.to_numpy())
