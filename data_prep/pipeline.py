"""The Beam graph from WARC files to kept and dropped documents.

    file ─► judge ─► part (Parquet: every page with its verdict) ─► equal texts meet ─► later copies
      └───────────────────────────────────────────────────────────────────────────────► divide ─► documents/, dropped/

The unit of work is a file: a page goes from bytes to verdict inside one function call, and only keys, positions and
counts travel between workers. The part is also what a restart finds: a file whose part is whole is not judged again.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from data_prep.config import DocumentsConfig
from data_prep.dedup import exact
from data_prep.documents import DOCUMENT_SCHEMA, REJECTION_SCHEMA, Document, Rejection
from data_prep.judge import judge
from data_prep.parquet import read_rows, rows_in, write_rows
from data_prep.pii import remove_personal_data

if TYPE_CHECKING:
    import apache_beam as beam

COUNTERS = "documents"
KEPT, TEXT_BYTES, EMAILS, DAMAGED = "kept", "clean_text_bytes", "emails_replaced", "damaged"
PAGES_BETWEEN_NOTES = 10
# stage and reason are null for what passed, dedup_key for what did not
PART_SCHEMA = pa.schema([*REJECTION_SCHEMA, ("dedup_key", pa.string())])


@dataclass(frozen=True)
class SourceFile:
    """A WARC file and where its results go."""

    index: int
    """Place among all files; of equal documents the one in the earlier file stays."""
    warc: Path
    file_path: str
    """How documents name the file."""
    part: Path
    documents: Path
    dropped: Path

    @property
    def note(self) -> Path:
        """Holds the number of pages judged while the part is being made."""
        return self.part.with_suffix(".pages")


def add_pipeline(pipeline: "beam.Pipeline", files: list[SourceFile], config: DocumentsConfig, workers: int) -> None:
    """Adds the whole graph to `pipeline`. The result depends on the files' indices, not on the order of the list."""
    import apache_beam as beam

    read = pipeline | "files" >> beam.Create(files, reshuffle=workers > 1)
    duplicates = (
        read
        | "judge" >> beam.FlatMap(judge_file, config=config)
        | "meet" >> beam.GroupByKey()
        | "later copies" >> beam.FlatMapTuple(lambda _, positions: exact.later_copies(positions))
    )
    (
        {"file": read | "index" >> beam.Map(lambda file: (file.index, file)), "duplicates": duplicates}
        | "by file" >> beam.CoGroupByKey()
        | "divide" >> beam.MapTuple(lambda _, joined: divide_file(joined["file"], joined["duplicates"], config))
    )


def judge_file(file: SourceFile, config: DocumentsConfig) -> Iterator[tuple[str, exact.Position]]:
    """Writes the file's part unless it is there, and yields the key and position of every document that passed."""
    if rows_in(file.part) is None:
        rows = judged_rows(file, config)
        write_rows(((file.part, row) for row in rows), {file.part: PART_SCHEMA}, scratch=file.part.parent)
        file.note.unlink(missing_ok=True)
    for number, row in enumerate(read_rows(file.part, columns=["dedup_key"])):
        if row["dedup_key"] is not None:
            yield row["dedup_key"], (file.index, number)


def judged_rows(file: SourceFile, config: DocumentsConfig) -> Iterator[dict]:
    """One row of PART_SCHEMA for each page, in the file's order."""
    from apache_beam.metrics import Metrics

    from data_prep.warc import read_pages

    damaged = Metrics.counter(COUNTERS, DAMAGED)
    for number, page in enumerate(read_pages(file.warc, on_damage=lambda offset: damaged.inc())):
        if number % PAGES_BETWEEN_NOTES == 0:
            file.note.write_text(str(number))
        verdict = judge(page, config)
        if isinstance(verdict, Rejection):
            document, outcome = verdict.document, {"stage": verdict.stage, "reason": verdict.reason, "dedup_key": None}
        else:
            document, outcome = verdict, {"stage": None, "reason": None, "dedup_key": exact.text_key(verdict.text)}
        yield {**asdict(document), "file_path": file.file_path, **outcome}


def divide_file(files: Iterable[SourceFile], duplicates: Iterable[int], config: DocumentsConfig) -> None:
    """Writes the one file's kept and dropped documents, in reading order; `duplicates` are the rows that are copies.

    Personal data is replaced in both (not before: which texts are equal is asked of what was read); the counters of
    bytes and of replacements are about the kept ones.
    """
    from apache_beam.metrics import Metrics

    (file,) = files
    copies = frozenset(duplicates)
    count = functools.partial(Metrics.counter, COUNTERS)

    def divided() -> Iterator[tuple[Path, dict]]:
        for number, row in enumerate(read_rows(file.part)):
            del row["dedup_key"]
            stage, reason = row["stage"], row["reason"]
            if number in copies:
                stage, reason = "exact_dedup", exact.REASON
            del row["stage"], row["reason"]
            document, emails = remove_personal_data(Document(**row), config.personal_data)
            if reason is not None:
                count(f"{stage}/{reason}").inc()
                yield file.dropped, {**asdict(document), "stage": stage, "reason": reason}
                continue
            count(KEPT).inc()
            count(TEXT_BYTES).inc(len(document.text.encode()))
            count(EMAILS).inc(emails)
            yield file.documents, asdict(document)

    schemas = {file.documents: DOCUMENT_SCHEMA, file.dropped: REJECTION_SCHEMA}
    write_rows(divided(), schemas, scratch=file.part.parent)
