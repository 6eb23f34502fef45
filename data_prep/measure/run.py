"""The stage "texts": every input file becomes one Parquet file of texts with what was measured of them.

The unit of work is a file: a page goes from bytes to its row inside one function call, and nothing travels between
workers. A file that is done has a marker, and a restart does not make it again.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data_prep.by_language.splitters import check_splitters
from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig
from data_prep.engine import Counts, Progress, Step, Unit, Workspace, identity_of, read_markers, run_step
from data_prep.measure.row import rows_of_input, text_schema
from data_prep.parquet import write_rows
from data_prep.sources import InputFile
from data_prep.sources.inputs import RECORDS
from lm.errors import InputError
from lm.storage import Place, file_sha256, write_atomically

TEXTS = "texts"
"""The step, and the folder of its outputs in the step's folder."""
MERGE = "texts-records"
"""The step that adds up what was seen."""
MOST_STEM_BYTES = 150
"""Of a unit's name: a file name has at most 255 bytes, and outputs in the making have longer ones."""
SUFFIXES = (".gz", ".zst", ".parquet", ".jsonl", ".warc", ".wet")


def extract_texts(
    files: list[InputFile],
    config: DocumentsConfig,
    folder: Place,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    engine: EngineConfig = ONE_PROCESS,
    external: object = None,
) -> Counts:
    """Writes folder/texts/NAME.parquet (`text_schema`) for each input file, and their markers beside it
    (data_prep.engine). Files that are done are kept. `external` is what else decides the texts: hashes of lists and
    models. Returns {"files", "rows", "seen", "skipped"}.

    folder/texts/records.json counts everything that was seen in the input files: {"seen": records and rows, "skipped":
    {why: those that have no row in the Parquet files}}.

    Raises as `run_step`, and InputError when there is nothing at all in the files.
    """
    check_splitters(config.thresholds_by_language)
    work = functools.partial(write_texts, config=config)
    step = Step(TEXTS, units_of(files, config, external), work, rows="pages", digest=digest_of)
    markers = run_step(step, engine, folder, on_progress)
    whole = {unit.name: unit.identity for unit in step.units if unit.name in markers}
    merge = Unit("records", identity_of(whole), 0, tuple(whole))
    counts = run_step(Step(MERGE, (merge,), write_records, light=True), engine, folder)[merge.name].counts
    if not counts["rows"]:
        named = ", ".join(str(file.path) for file in files[:3]) + (", …" if len(files) > 3 else "")
        raise InputError(
            f"There is no page in {len(files)} files ({named}): they hold no HTML response and no text. Perhaps they "
            "are WAT or metadata files, or damaged. Bring files with pages (pages.*)."
        )
    return counts


def units_of(files: list[InputFile], config: DocumentsConfig, external: object = None) -> tuple[Unit[InputFile], ...]:
    """A unit for each input file. What it is called and holds decides, and not where it lies."""
    settings = identity_of(config.of_texts(), external)
    identity = lambda file: identity_of(settings, file.identity)
    return tuple(
        Unit(name, identity(file), file.bytes, file) for name, file in zip(unit_names(files), files, strict=True)
    )


def digest_of(unit: Unit[InputFile]) -> str:
    """SHA-256 of a file of a disk, at a gigabyte a second; "" of a file elsewhere, which has an ETag, and of a
    dataset. Raises OSError."""
    path = unit.input.path
    return file_sha256(path) if isinstance(path, Path) and path.is_file() else ""


def write_texts(unit: Unit[InputFile], space: Workspace, config: DocumentsConfig) -> dict:
    """Writes the file's texts; how many, and what was passed over."""
    skipped: Counter[str] = Counter()
    path = space.output(f"{TEXTS}/{unit.name}.parquet")
    on_read = lambda size: space.count(bytes=size)
    rows = counted(rows_of_input(unit.input, config, skipped, on_read), space)
    write_rows(((path, row) for row in rows), {path: text_schema(config)}, scratch=space.scratch)
    return {"rows": space.rows, "seen": space.rows + skipped.total(), "skipped": dict(skipped)}


def write_records(unit: Unit[tuple[str, ...]], space: Workspace) -> Counts:
    """Writes the sum of what was seen in all files."""
    counts = [marker.counts for marker in read_markers(TEXTS, unit.input, space.folder).values()]
    skipped: Counter[str] = Counter()
    for one in counts:
        skipped.update(one["skipped"])
    total = lambda name: sum(one[name] for one in counts)
    records = {"seen": total("seen"), "skipped": dict(sorted(skipped.items()))}
    write_atomically(space.output(f"{TEXTS}/{RECORDS}"), json.dumps(records), space.scratch)
    return {"files": len(counts), "rows": total("rows"), **records}


def counted(rows: Iterable[dict], space: Workspace) -> Iterator[dict]:
    """`rows`, counted as they pass."""
    for row in rows:
        space.count(rows=1)
        yield row


def unit_names(files: list[InputFile]) -> list[str]:
    """A name for each file: that of the input without its suffixes and, if it has folders, with a hash of the whole
    name instead of them. So it follows from the input's own name, whichever other files there are. Only of two files
    without folders that differ in suffixes or case ("a.jsonl", "a.parquet") the second has a hash, too. A long name is
    cut, and has one."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem = stem_of(file.name)
        told = json.dumps([file.name, file.kind, file.rows, file.split])
        begin = stem.encode()[:MOST_STEM_BYTES].decode(errors="ignore")
        own = f"{begin}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        plain = "/" not in file.name and stem.lower() not in taken and len(stem.encode()) <= MOST_STEM_BYTES
        names.append(stem if plain else own)
        taken.add(names[-1].lower())
    return names


def stem_of(name: str) -> str:
    """The last part of a file's name without the suffixes of its format: "a/b.warc.gz" -> "b"."""
    stem = Path(name).name
    while stem.lower().endswith(SUFFIXES):
        shorter = stem[: stem.rindex(".")]
        if not shorter:
            break
        stem = shorter
    return stem
