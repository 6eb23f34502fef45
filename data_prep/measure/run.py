"""The stage "texts": every input file becomes one Parquet file of texts with what was measured of them.

The unit of work is a file: a page goes from bytes to its row inside one function call, and nothing travels between
workers. A file that is there is whole, and a restart does not make it again.
"""

import contextlib
import functools
import gc
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.by_language.splitters import check_splitters
from data_prep.config import DocumentsConfig
from data_prep.engine.over_files import run_over_files
from data_prep.engine.progress import FileProgress, Progress, ProgressReporter
from data_prep.measure.row import rows_of_input, text_schema
from data_prep.parquet import rows_in, write_rows
from data_prep.sources import InputFile
from data_prep.sources.inputs import RECORDS
from lm.errors import InputError
from lm.storage import write_atomically, writing

ROWS_BETWEEN_NOTES = 10
SUFFIXES = (".gz", ".zst", ".parquet", ".jsonl", ".warc", ".wet")


@dataclass(frozen=True)
class TextShard:
    """An input file and where its texts go."""

    index: int
    input: InputFile
    part: Path
    """The Parquet file of its texts."""
    scratch: Path
    """Folder of the same disk in which it is built."""

    @property
    def note(self) -> Path:
        """Holds the number of rows written while the part is being made."""
        return self.scratch / f"{self.part.stem}.pages"

    @property
    def records(self) -> Path:
        """What was read and what was passed over, in numbers (JSON); written last, the sign that the file is done."""
        return self.scratch / f"{self.part.stem}.records.json"

    @property
    def bytes(self) -> int:
        """Size of the input: what the time left is estimated by."""
        return self.input.bytes


def extract_texts(
    files: list[InputFile],
    config: DocumentsConfig,
    out: Path,
    scratch: Path,
    on_progress: Callable[[Progress], None],
) -> Path:
    """Writes out/NAME.parquet (`text_schema`) for each input file and returns `out`; files that are there are kept.

    out/records.json counts everything that was seen in the input files: {"seen": records and rows, "skipped": {why:
    those that have no row in the Parquet files}}.

    Raises InputError when a file cannot be read or written, and when there is nothing at all in the files.
    """
    check_splitters(config.thresholds_by_language)
    targets = lay_out(files, out, scratch)
    with writing(out):
        for folder in (out, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in [*scratch.glob("*.partial"), *scratch.glob("*.pages")]:
            leftover.unlink()
    with ProgressReporter(FileProgress(targets), on_progress):
        run_over_files(functools.partial(write_texts, config=config), targets, config)
    write_records(targets, out / RECORDS)
    if not any(rows_in(target.part) for target in targets):
        named = ", ".join(str(file.path) for file in files[:3]) + (", …" if len(files) > 3 else "")
        raise InputError(
            f"There is no page in {len(files)} files ({named}): they hold no HTML response and no text. Perhaps they "
            "are WAT or metadata files, or damaged. Bring files with pages (pages.*)."
        )
    return out


def write_texts(file: TextShard, config: DocumentsConfig) -> None:
    """Writes the file's texts, then its records, unless they are there."""
    if file.records.is_file() and rows_in(file.part) is not None:
        return
    skipped: Counter[str] = Counter()
    rows = noted(rows_of_input(file.input, config, skipped), file.note)
    with rare_collections():
        write_rows(((file.part, row) for row in rows), {file.part: text_schema(config)}, scratch=file.scratch)
    records = {"seen": (rows_in(file.part) or 0) + skipped.total(), "skipped": dict(skipped)}
    with writing(file.records):
        write_atomically(file.records, json.dumps(records).encode(), file.scratch)
        file.note.unlink(missing_ok=True)


def write_records(files: list[TextShard], path: Path) -> None:
    """Writes the sum of the files' records."""
    seen, skipped = 0, Counter()
    for file in files:
        records = json.loads(file.records.read_text(encoding="utf-8"))
        seen += records["seen"]
        skipped.update(records["skipped"])
    with writing(path):
        write_atomically(
            path, json.dumps({"seen": seen, "skipped": dict(sorted(skipped.items()))}).encode(), path.parent
        )


@contextlib.contextmanager
def rare_collections() -> Generator[None]:
    """Python looks for cycles 50 times as seldom, and not among what is there already: a tenth of the time of a page.

    A page makes tens of thousands of objects, hardly any of them in a cycle.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def noted(rows: Iterable[dict], note: Path) -> Iterator[dict]:
    """`rows`, with their number noted as they pass."""
    for number, row in enumerate(rows):
        if number % ROWS_BETWEEN_NOTES == 0:
            note.write_text(str(number))
        yield row


def lay_out(files: list[InputFile], out: Path, scratch: Path) -> list[TextShard]:
    """Where everything goes, by file names that are the inputs' own, made unique where two share one."""
    stems = [stem_of(file.name) for file in files]
    bearers = Counter(stem.lower() for stem in stems)
    names = [f"{stem}-{index:05d}" if bearers[stem.lower()] > 1 else stem for index, stem in enumerate(stems)]
    if len({name.lower() for name in names}) < len(names):  # "a-00001" beside two files "a"
        names = [f"{stem}-{index:05d}" for index, stem in enumerate(stems)]
    return [
        TextShard(index, file, out / f"{name}.parquet", scratch)
        for index, (file, name) in enumerate(zip(files, names, strict=True))
    ]


def stem_of(name: str) -> str:
    """The last part of a file's name without the suffixes of its format: "a/b.warc.gz" -> "b"."""
    stem = Path(name).name
    while stem.lower().endswith(SUFFIXES):
        shorter = stem[: stem.rindex(".")]
        if not shorter:
            break
        stem = shorter
    return stem
