"""The stage "texts": convert every input file to one Parquet file of texts and their signals.

The unit of work is a file: a page is converted from bytes to its row in one function call.
"""

import contextlib
import functools
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.by_language.splitters import check_splitters
from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig
from data_prep.dates import read_date
from data_prep.engine import Counts, OnProgress, Step, Unit, Workspace, identity_of, run_step
from data_prep.kept_columns import common_type
from data_prep.measure.row import KEPT, rows_of_input, text_schema
from data_prep.parquet import read_rows, write_rows
from data_prep.sources import InputFile
from data_prep.sources.inputs import RECORDS
from lm.errors import InputError, shown
from lm.storage import Place, file_sha256, write_atomically, writing

TEXTS = "texts"
"""Name of the step, and of its output folder in the step's folder."""
MOST_STEM_BYTES = 150
"""Maximum bytes of the stem in a unit's name: file names have at most 255 bytes, and partial outputs longer names."""
SUFFIXES = (".gz", ".zst", ".parquet", ".jsonl", ".warc", ".wet")


def extract_texts(
    files: list[InputFile],
    config: DocumentsConfig,
    folder: Place,
    on_progress: OnProgress = lambda progress: None,
    engine: EngineConfig = ONE_PROCESS,
    external: object = None,
) -> Counts:
    """Extract the texts of all input files, measure them, and write folder/texts/NAME.parquet (`text_schema`) for each
    file. `external` identifies other inputs that determine the texts: hashes of URL lists and models.

    Returns {"files": finished files, "rows": rows written, "seen": records read, "skipped": {reason: records without a
    row}, "no_dates": documents whose date cannot be read, "no_date": one of these dates, or ""}. "seen" and "skipped"
    are also written to folder/texts/records.json. Raises InputError if there are no pages, or more files failed than
    engine.max_failed allows. Errors that affect every file (UsageError, a full disk) are raised immediately.
    """
    check_splitters(config.thresholds_by_language)
    work = functools.partial(write_texts, config=config)
    step = Step(TEXTS, units_of(files, config, external), work, rows="pages", digest=digest_of)
    markers = run_step(step, engine, folder, on_progress)
    counts = [marker.counts for marker in markers.values()]
    skipped: Counter[str] = Counter()
    for one in counts:
        skipped.update(one["skipped"])
    total = lambda name: sum(one[name] for one in counts)
    records = {"seen": total("seen"), "skipped": dict(sorted(skipped.items()))}
    with writing(folder):
        write_atomically(folder / TEXTS / RECORDS, json.dumps(records))
    if not total("rows"):
        named = ", ".join(str(file.path) for file in files[:3]) + (", …" if len(files) > 3 else "")
        raise InputError(
            f"There is no page in {len(files)} files ({named}): they hold no HTML response and no text. Perhaps they "
            "are WAT or metadata files, or damaged. Give files with pages (pages.*)."
        )
    undated = [one for one in counts if one.get("no_dates")]
    return {
        "files": len(counts), "rows": total("rows"), **records,
        "no_dates": sum(one["no_dates"] for one in undated), "no_date": undated[0]["no_date"] if undated else "",
    }  # fmt: skip


def units_of(files: list[InputFile], config: DocumentsConfig, external: object = None) -> tuple[Unit[InputFile], ...]:
    """Return one unit of work per input file. Its identity depends on the file's name and contents, not its
    location."""
    settings = identity_of(config.of_texts(), external)
    identity = lambda file: identity_of(settings, file.identity)
    return tuple(
        Unit(name, identity(file), file.bytes, file) for name, file in zip(unit_names(files), files, strict=True)
    )


def digest_of(unit: Unit[InputFile]) -> str:
    """Return the SHA-256 of a unit's input file if it is local; "" for a remote file or a dataset. Raises OSError."""
    path = unit.input.path
    return file_sha256(path) if isinstance(path, Path) and path.is_file() else ""


def write_texts(unit: Unit[InputFile], space: Workspace, config: DocumentsConfig) -> dict:
    """Write the rows of a file to texts/, including the columns in pages.keep_columns if it is a table. Return {"rows":
    rows written, "seen": records read, "skipped": {reason: records without a row}}, and if the dates of some cannot be
    read, "no_dates": their number, and "no_date": the first of these dates."""
    skipped: Counter[str] = Counter()
    undated: dict[str, Any] = {}
    path = space.output(f"{TEXTS}/{unit.name}.parquet")

    def counted() -> Iterator[dict]:
        for row in rows_of_input(unit.input, config, skipped, lambda size: space.count(bytes=size)):
            space.count(rows=1)
            if row["date"] and read_date(row["date"]) is None:
                undated["no_dates"] = undated.get("no_dates", 0) + 1
                undated.setdefault("no_date", shown(row["date"]))
            yield row

    rows = counted()
    schema, kept = text_schema(config), unit.input.keep_columns
    if kept:
        with typed_columns(rows, unit.input, schema, space) as (rows, columns):
            write_rows(((path, row) for row in rows), {path: pa.schema([*schema, *columns])}, scratch=space.scratch)
    else:
        write_rows(((path, row) for row in rows), {path: schema}, scratch=space.scratch)
    return {"rows": space.rows, "seen": space.rows + skipped.total(), "skipped": dict(skipped), **undated}


@contextlib.contextmanager
def typed_columns(
    rows: Iterable[dict], file: InputFile, schema: pa.Schema, space: Workspace
) -> Generator[tuple[Iterator[dict], list[pa.Field]]]:
    """Yield (rows with the values of the columns in pages.keep_columns, Arrow fields of these columns). A column's type
    is known only after the last row, so rows are first written to a temporary file, with the kept values as JSON.
    Raises InputError if no document has a kept column (not even null), or the values of one have no common type."""
    types: dict[str, pa.DataType] = {}
    documents = 0
    waiting = space.scratch / f"{secrets.token_hex(8)}.columns"

    def as_json() -> Iterator[tuple[Path, dict]]:
        nonlocal documents
        for row in rows:
            documents += row["stage"] != "read"  # otherwise a damaged place
            for name, kind, value in row[KEPT]:
                before = types.setdefault(name, kind)
                common = before if kind == before else common_type(before, kind)
                if common is None:
                    raise InputError(
                        f"{file.path}: the column {shown(name)} is {kind} in {shown(row['id'])} and {before} in "
                        "earlier documents, but a kept column has one type (pages.keep_columns). Correct the file, or "
                        "remove the column."
                    )
                types[name] = common
                row[name] = json.dumps(value, ensure_ascii=False)
            yield waiting, row

    def typed() -> Iterator[dict]:
        for row in read_rows(waiting):
            yield row | {name: exact(json.loads(row[name] or "null"), types[name], name, row["id"]) for name in types}

    def exact(value: object, kind: pa.DataType, name: str, id: str) -> object:
        if isinstance(value, int) and kind == pa.float64() and int(float(value)) != value:
            raise InputError(
                f"{file.path}: the column {shown(name)} has the integer {value} in {shown(id)}, and floats elsewhere, "
                "but the integer is not exact as a float (pages.keep_columns). Correct the file, or remove the "
                "column."
            )
        return float(value) if isinstance(value, int) and kind == pa.float64() else value

    try:
        names = [pa.field(name, pa.string()) for name in file.keep_columns]
        write_rows(as_json(), {waiting: pa.schema([*schema, *names])}, scratch=space.scratch)
        missing = [name for name in file.keep_columns if name not in types]
        if missing and documents:
            raise InputError(
                f"{file.path} has no column {shown(missing[0])} in any of its documents (pages.keep_columns). Add the "
                "column (null is a value), or remove the file or the column."
            )
        yield typed(), [pa.field(name, types[name]) for name in file.keep_columns if name in types]
    finally:
        waiting.unlink(missing_ok=True)


def unit_names(files: list[InputFile]) -> list[str]:
    """Return a unique name for each file: the last part of its name, without suffixes. If the name has folders or is
    long, a hash of the name, kind, rows and split is appended, so the result does not depend on other files. Of two
    files that differ only in suffixes or case ("a.jsonl", "a.parquet"), the second also gets a hash."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem = stem_of(file.name)
        identity = json.dumps([file.name, file.kind, file.rows, file.split])
        begin = stem.encode()[:MOST_STEM_BYTES].decode(errors="ignore")
        own = f"{begin}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        plain = "/" not in file.name and stem.lower() not in taken and len(stem.encode()) <= MOST_STEM_BYTES
        names.append(stem if plain else own)
        taken.add(names[-1].lower())
    return names


def stem_of(name: str) -> str:
    """Return the last part of a file name, without the suffixes of its format: "b" for "a/b.warc.gz"."""
    stem = Path(name).name
    while stem.lower().endswith(SUFFIXES):
        shorter = stem[: stem.rindex(".")]
        if not shorter:
            break
        stem = shorter
    return stem
