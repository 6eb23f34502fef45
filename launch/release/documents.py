"""Export the clean documents of a run for datasets.load_dataset: Parquet files or JSON lines, and a card."""

import functools
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from data_prep.config import EngineConfig
from data_prep.documents import DOCUMENT_SCHEMA
from data_prep.engine import Counts, Progress, Step, Unit, Workspace, identity_of, run_step
from data_prep.funnel.report import read_counts
from data_prep.kept_columns import as_integers, common_type, is_temporal
from data_prep.parquet import THREADS, opened, read_batches
from launch import prepare_documents, train_tokenizer
from launch.release.model_card import funnel_lines, language_lines, pages, table
from launch.release.out_folder import CARD, RECORD, at_address, keep_only, whole_folder
from launch.run_folder.checks import refuse_link
from launch.stages.stage import read_marker
from lm.errors import InputError, UsageError, shown
from lm.run_paths import RunPaths
from lm.storage import Place, appearing, inside, write_atomically, write_json
from lm.tokenizer import Tokenizer
from viewer.run_folder import reasons_in_order

TOKEN_COUNT, DATA = "token_count", "data"


@dataclass(frozen=True)
class DocumentsRun:
    """A run with finished documents, opened for an export."""

    folder: RunFolder
    experiment: Experiment
    files: tuple[Place, ...]
    """Files in documents/, sorted by name; in a bucket, its objects."""
    key: str
    """Key of the stage "documents": the hash of everything that determined its outputs."""
    tokenizer: Tokenizer | None
    """The run's tokenizer; None if it has none yet."""

    @property
    def place(self) -> Place:
        return self.folder.place

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Exported:
    """Schema and counts of an exported dataset."""

    schema: pa.Schema
    rows: int
    """Number of documents."""
    text_bytes: int
    """UTF-8 bytes of the texts."""
    files: int
    """Number of data files."""
    format: str


def open_documents(folder: RunFolder) -> DocumentsRun:
    """Open a run to export its documents, checking the files by name and size. Raises InputError if the stage
    "documents" is not finished, if the tokenizer is damaged, or if a link leads out of the run folder."""
    root, place = folder.root, folder.place
    experiment = folder.experiment()
    refuse_link(root / RunPaths.documents)
    folder.fetch(RunPaths.config_json, RunPaths.funnel, RunPaths.tokenizer, published=True)
    marker = read_marker(prepare_documents.STAGE, root)
    if marker is None:
        raise InputError(
            f"{place} has no finished documents. First run, or wait for: python -m {prepare_documents.STAGE.script} "
            f"{shlex.quote(str(place))}"
        )
    names = sorted(name for name in marker["files"] if name.startswith(f"{RunPaths.documents}/"))
    files = tuple(inside(place, name, folder.marker("documents")) for name in names if name.endswith(".parquet"))
    tokenizer = folder.load_tokenizer() if read_marker(train_tokenizer.STAGE, root) else None
    return DocumentsRun(folder, experiment, files, marker["key"], tokenizer)


FORMATS = ("parquet", "jsonl")
"""File formats of a dataset, which are also the suffixes."""


class DamagedDocumentsError(UsageError):
    """Raised for documents that cannot be exported. The export stops at once: skipping a shard would not help."""

    exit_code = InputError.exit_code


class Group(NamedTuple):
    """A row group of a Parquet file in documents/, by its number in the file."""

    file: Place
    number: int
    rows: int
    """Number of documents."""
    bytes: int
    """Uncompressed size, by the file's metadata."""


def export_documents(
    run: DocumentsRun,
    out: Place,
    *,
    format: str,
    columns: Sequence[str],
    shard_bytes: int,
    workers: int,
    on_progress: Callable[[Progress], None],
) -> Exported:
    """Write the documents to the folder `out` as data/train-00000-of-00007.parquet and so on, with README.md,
    atomically. In a bucket, files appear one by one, and gristmill_export.json marks the export as unfinished until the
    end.

    `columns` defaults to those of FineWeb and of pages.keep_columns. A file has as many row groups of documents/ as fit
    in `shard_bytes` uncompressed, at least one. The output does not depend on the number of workers. Raises UsageError
    for invalid options, unknown columns, or an `out` with other files; InputError for damaged documents, and for
    columns without a common type.
    """
    if format not in FORMATS:
        raise UsageError(f"--format is {shown(format)}; choose one of {', '.join(FORMATS)}.")
    if shard_bytes < 1 or not 1 <= workers <= 10_000:
        raise UsageError(
            f"--shard-bytes is {shard_bytes} and --workers is {workers}. Give at least 1 for --shard-bytes, and "
            "from 1 to 10000 for --workers."
        )
    whole = lambda place: f"{place.resolve() if isinstance(place, Path) else place}/"
    if whole(out).startswith(whole(run.place)):
        raise UsageError(f"--out {out} is in the run folder {run.place}. Give a folder outside it.")
    schema, groups = contents_of(run, columns)
    shards = cut(groups, shard_bytes)
    names = [f"{DATA}/train-{n:05d}-of-{len(shards):05d}.{format}" for n in range(len(shards))]
    with whole_folder(out, "--out") if isinstance(out, Path) else at_address(out, "--out", names) as partial:
        tokenizer = run.tokenizer if TOKEN_COUNT in schema.names else None
        work = WriteShard(schema, format, tokenizer)
        of_all = [run.key, format, schema.to_string(), tokenizer and tokenizer.fingerprint]
        units = tuple(
            Unit(
                Path(name).stem, identity_of(of_all, name, [(one.file.name, one.number) for one in some]),
                sum(one.bytes for one in some), (name, some),
            )
            for name, some in zip(names, shards, strict=True)
        )  # fmt: skip
        step = Step("export", units, work, inputs="files")
        made = run_step(step, EngineConfig(workers=workers, max_failed=0.0), partial, on_progress).values()
        folder = run.folder if isinstance(run.place, Path) else RunFolder.to_read(run.place)
        marker = read_marker(prepare_documents.STAGE, folder.root)
        if marker is None or marker["key"] != run.key:
            raise InputError(f"The documents of {run.place} were written again meanwhile. Run the same command again.")
        total = lambda name: sum(one.counts[name] for one in made)
        exported = Exported(schema, total("rows"), total("text_bytes"), len(shards), format)
        write_atomically(partial / CARD, dataset_card(run, exported, out.name))
        record = {"run": run.name, "format": format, "columns": schema.names}
        files = keep_only(partial, [CARD, *names])
        write_json(partial / RECORD, record | {"files": files})
    return exported


def contents_of(run: DocumentsRun, columns: Sequence[str]) -> tuple[pa.Schema, list[Group]]:
    """Return the schema of the dataset with these columns, and all row groups to export, from the files' metadata.
    Raises InputError if there are no documents, UsageError for a column that is missing or named twice."""
    with ThreadPoolExecutor(THREADS) as pool:
        found = [one for one in pool.map(index_of, run.files) if one[1]]
    if not found:
        raise InputError(
            f"{run.place / RunPaths.documents} has no documents. Loosen the filters, and run "
            "launch.prepare_documents again."
        )
    there = list(dict.fromkeys(name for schema, _ in found for name in schema.names))
    script = [name for name in ("language_script",) if name in there]
    names = list(columns) or [*DOCUMENT_SCHEMA.names, *script, *run.experiment.pages.keep_columns]
    if unknown := [name for name in names if name not in there]:
        raise UsageError(
            f"--columns has {shown(unknown[0])}, but the documents have: {', '.join(map(shown, there))}."
            if columns
            else f"The documents of {run.place} have no column {shown(unknown[0])}. Choose columns with --columns."
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--columns has {shown(twice[0])} twice. List each column once.")
    fields = [pa.field(name, type_in(name, found)) for name in names]
    if run.tokenizer is not None:
        fields = [pa.field(one.name, pa.int64()) if one.name == TOKEN_COUNT else one for one in fields]
    return pa.schema(fields), [group for _, groups in found for group in groups]


def index_of(file: Place) -> tuple[pa.Schema, list[Group]]:
    """Return the schema and the row groups of a Parquet file. Raises InputError if it is damaged."""
    with opened(file) as table:
        chunks = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        groups = [Group(file, n, one.num_rows, max(one.total_byte_size, 0)) for n, one in enumerate(chunks)]
        return table.schema_arrow.remove_metadata(), [one for one in groups if one.rows > 0]


def type_in(name: str, found: list[tuple[pa.Schema, list[Group]]]) -> pa.DataType:
    """Return the common type of the column `name` in the schemas of all files. Raises InputError if there is none."""
    known, known_in = pa.null(), found[0][1][0].file
    for schema, groups in found:
        place = schema.get_field_index(name)
        if place < 0:
            raise InputError(
                f"{groups[0].file} has no column {shown(name)}, but other files have it. Give --columns without it."
            )
        kind = schema.field(place).type
        common = common_type(known, kind)
        if common is None:
            raise InputError(
                f"The column {shown(name)} is {known} in {known_in} and {kind} in {groups[0].file}, which have no "
                "common type. Give --columns without this column."
            )
        known, known_in = common, known_in if common == known else groups[0].file
    return known


def cut(groups: Sequence[Group], shard_bytes: int) -> list[list[Group]]:
    """Divide the row groups, in order, into shards of at most `shard_bytes`, or of one row group that is larger."""
    shards = []
    size = 0
    for group in groups:
        if not shards or size + group.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(group)
        size += group.bytes
    return shards


@dataclass(frozen=True)
class WriteShard:
    """Function for `run_step` that writes one file of the dataset from its row groups."""

    schema: pa.Schema
    format: str
    tokenizer: Tokenizer | None
    """Tokenizer to count tokens with; None if the column is copied from documents/, or not exported."""

    def __call__(self, unit: Unit[tuple[str, list[Group]]], space: Workspace) -> Counts:
        name, groups = unit.input
        write = {"parquet": write_parquet, "jsonl": write_lines}[self.format]
        text_bytes = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal text_bytes
            for group in groups:
                columns = list(dict.fromkeys([*self.schema.names, "text"]))
                for batch in read_batches(group.file, columns, row_groups=[group.number]):
                    sizes = pc.call_function("binary_length", [batch["text"]])
                    text_bytes += pc.call_function("sum", [sizes]).as_py() or 0
                    yield self.exported(batch, group.file)
                    space.count(rows=batch.num_rows)

        try:
            with appearing(space.output(name), space.scratch) as partial:
                write(partial, self.schema, batches())
        except InputError as error:
            raise DamagedDocumentsError(str(error)) from error
        return {"rows": space.rows, "text_bytes": text_bytes}

    def exported(self, batch: pa.RecordBatch, file: Place) -> pa.RecordBatch:
        """Convert a batch of documents of `file` to the dataset's schema. Raises InputError if the type of a column in
        the schema cannot represent a value exactly."""
        columns = []
        for field in self.schema:
            if field.name == TOKEN_COUNT and self.tokenizer is not None:
                counts = [len(self.tokenizer.encode(text)) for text in batch["text"].to_pylist()]
                columns.append(pa.array(counts, pa.int64()))
                continue
            try:
                columns.append(batch[field.name].cast(field.type))
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{file}: the column {shown(field.name)} has a value that does not fit {field.type}, the common "
                    f"type of the files: {shown(str(error), quotes=False)}. Give --columns without this one."
                ) from error
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def write_parquet(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_lines(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Write each row as a line of JSON; timestamps and dates in ISO 8601, NaN and Infinity as Python writes them."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for batch in batches:
            for row in zip(*map(json_values, batch.columns), strict=True):
                file.write(json.dumps(dict(zip(schema.names, row, strict=True)), ensure_ascii=False) + "\n")


def json_values(array: pa.Array) -> list:
    """Return the values of a column as JSON types; timestamps and dates as ISO 8601 strings."""
    if not is_temporal(array.type):
        return array.to_pylist()
    is_date = pa.types.is_date(array.type)
    unit, zone = ("D", "") if is_date else (array.type.unit, "Z" if array.type.tz else "")
    as_text = functools.partial(np.datetime_as_string, unit=unit)
    return [
        None if value is None else str(as_text(np.datetime64(value, unit))) + zone
        for value in as_integers(array).to_pylist()
    ]


SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
COLUMNS = {
    "text": "the text, cleaned",
    "id": "identifies the document",
    "dump": "the crawl that it is from",
    "url": "its address",
    "date": "when it was fetched",
    "file_path": "the file that it is from",
    "language": "its language",
    "language_script": "its script",
    "language_score": "probability of the language",
    TOKEN_COUNT: "tokens of the text",
}


def dataset_card(run: DocumentsRun, exported: Exported, folder: str) -> str:
    """Return README.md of an exported dataset: YAML front matter and Markdown. `folder` is the name of the dataset's
    folder, for the example that loads it."""
    lines = itertools.chain(pages(run.folder, run.experiment), funnel_lines(run.folder, run.experiment))
    source = "\n".join(["## Source and settings", "", *lines])
    parts = [head(run, exported), about(run, exported), how_to_load(folder), columns(run, exported.schema), source]
    return "\n\n".join(part for part in [*parts, dropped(run), limits(run)] if part) + "\n"


def head(run: DocumentsRun, exported: Exported) -> str:
    """YAML front matter of the card. It lists the data files, so that load_dataset ignores other files in the folder,
    and the column types, which load_dataset would otherwise infer from the first JSONL file."""
    size = SIZES[min(max(len(str(exported.rows)) - 3, 0), len(SIZES) - 1)]
    return "\n".join([
        "---", *language_lines(run.experiment), "task_categories:",
        "- text-generation", "size_categories:", f"- {size}", "dataset_info:", "  features:",
        *features(exported.schema), "configs:", "- config_name: default", "  data_files:", "  - split: train",
        f"    path: {DATA}/*.{exported.format}", "tags:", "- gristmill", "---",
    ])  # fmt: skip


def features(schema: pa.Schema) -> Iterator[str]:
    """Yield the lines of YAML that describe the columns, as in `dataset_info` of the library datasets."""
    words = {"double": "float64", "float": "float32", "date32[day]": "date32"}
    for field in schema:
        is_list = pa.types.is_list(field.type)
        kind = str(field.type.value_type if is_list else field.type)
        yield f"  - name: {json.dumps(field.name)}"
        yield f"    {'sequence' if is_list else 'dtype'}: {json.dumps(words.get(kind, kind))}"


def about(run: DocumentsRun, exported: Exported) -> str:
    return (
        f"# {run.name}\n\n{exported.rows:,} documents with {exported.text_bytes:,} bytes of text, in "
        f"{exported.files:,} files ({exported.format}). They are the documents that Gristmill kept in the run "
        f"{run.name}."
    )


def how_to_load(folder: str) -> str:
    return (
        "## How to load it\n\n```python\nfrom datasets import load_dataset\n\n"
        f'documents = load_dataset("{re.sub(r"[^\w. -]", "_", folder)}", split="train")\n```'
    )


def columns(run: DocumentsRun, schema: pa.Schema) -> str:
    counted = "by the run's own tokenizer" if run.tokenizer else "from the input table, for the text in it"
    kept = dict.fromkeys(run.experiment.pages.keep_columns, "a column of the input tables")
    words = {**COLUMNS, TOKEN_COUNT: f"{COLUMNS[TOKEN_COUNT]}, {counted} (FineWeb counts those of GPT-2)"} | kept
    rows = [(f"`{one.name}`", str(one.type), words.get(one.name, "measured on the text")) for one in schema]
    return "\n".join(["## Columns", "", *table(("column", "type", "what it is"), rows)])


def dropped(run: DocumentsRun) -> str:
    """Markdown table of the documents that each step dropped, with reasons; "" if there are none."""
    found = reasons_in_order(read_counts(run.folder.funnel).counts, run.experiment.documents)
    rows = [(stage, reason, f"{documents:,}") for stage, reason, documents, _ in found]
    return "\n".join(["## Dropped documents", "", *table(("step", "reason", "documents"), rows)]) if rows else ""


def limits(run: DocumentsRun) -> str:
    kinds = ", ".join(run.experiment.documents.personal_data.kinds) or "none"
    return (
        f"## Limits\n\nKinds of personal data that were replaced: {kinds}. Other kinds, and personal data that was "
        "not recognized, are still there; columns of the input tables are unchanged. The texts belong to their "
        "authors; this dataset gives no license to them."
    )
