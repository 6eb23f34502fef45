"""From WARC files to clean, deduplicated documents: lays out the files, runs the pipeline, and tells what became of the
pages."""

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep import pipeline
from data_prep.beam_runner import counters, run_pipeline
from data_prep.config import DocumentsConfig
from data_prep.parquet import rows_in
from data_prep.pipeline import SourceFile
from data_prep.progress import Progress, Watch
from lm.errors import InputError

STAGES = ("url_filter", "extract", "language", "gopher_quality", "exact_dedup")


@dataclass(frozen=True)
class Outcome:
    """What became of the pages."""

    pages: int
    kept: int
    dropped: dict[tuple[str, str], int]
    """{(stage, reason): documents}, in the order of the stages, the most frequent reason first."""
    clean_text_bytes: int
    """UTF-8 bytes of the kept documents."""
    emails_replaced: int

    def table(self) -> str:
        """A few lines for the terminal."""
        rows = [("", "pages", self.pages)]
        rows += [(stage, reason, -number) for (stage, reason), number in self.dropped.items()]
        rows += [("", "documents", self.kept)]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{stage:<{widths[0]}}  {reason:<{widths[1]}} {number:>10,}" for stage, reason, number in rows)


def prepare_documents(
    files: list[Path],
    config: DocumentsConfig,
    partial: Path,
    documents_dir: Path,
    dropped_dir: Path,
    workers: int,
    on_progress: Callable[[Progress], None],
    relative_to: Path | None = None,
) -> Outcome:
    """Reads the WARC files and writes documents_dir/NAME.parquet and dropped_dir/NAME.parquet for each.

    The order of `files` decides which of equal documents stays. `partial`, on the same disk, keeps what is done for a
    later call with the same files and config. Documents name their file by its path, from `relative_to` on where it
    lies below that. Raises InputError when a file cannot be read or written, and when no document survives.
    """
    sources = lay_out(files, partial, documents_dir, dropped_dir, relative_to)
    try:
        for folder in (documents_dir, dropped_dir):  # divided anew, from parts that are kept: that takes moments
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        partial.mkdir(parents=True, exist_ok=True)
        for leftover in [*partial.glob("*.partial"), *partial.glob("*.pages")]:
            leftover.unlink()
        with Watch(functools.partial(look, sources), on_progress):
            result = run_pipeline(lambda graph: pipeline.add_pipeline(graph, sources, config, workers), workers)
    except OSError as error:
        raise InputError(
            f"Documents cannot be written to {documents_dir.parent}: {error.strerror or error}. "
            "Make room on the disk, or mend the permissions."
        ) from error
    outcome = outcome_of(counters(result, pipeline.COUNTERS))
    if not outcome.kept:
        raise InputError(
            f"No document survives of {outcome.pages} pages in {len(files)} WARC files:\n{outcome.table()}\n"
            "Loosen the rule that takes the most (documents.* in the config), or bring other pages (pages.*)."
        )
    return outcome


def lay_out(
    files: list[Path], partial: Path, documents_dir: Path, dropped_dir: Path, relative_to: Path | None
) -> list[SourceFile]:
    """Where everything goes, by file names that are the WARC files' own, made unique where two share one."""
    stems = [path.name.removesuffix(".gz").removesuffix(".warc") for path in files]
    shared = {stem for stem in stems if [other.lower() for other in stems].count(stem.lower()) > 1}
    names = [f"{stem}-{index:05d}" if stem in shared else stem for index, stem in enumerate(stems)]
    if len({name.lower() for name in names}) < len(names):  # "a-00001" beside two files "a"
        names = [f"{stem}-{index:05d}" for index, stem in enumerate(stems)]
    return [
        SourceFile(
            index=index,
            warc=path,
            file_path=str(path.relative_to(relative_to))
            if relative_to and path.is_relative_to(relative_to)
            else str(path),
            part=partial / f"{name}.parquet",
            documents=documents_dir / f"{name}.parquet",
            dropped=dropped_dir / f"{name}.parquet",
        )
        for index, (path, name) in enumerate(zip(files, names, strict=True))
    ]


def look(sources: list[SourceFile]) -> Progress:
    """Progress, as the parts that are whole and the notes beside those in the making tell it."""
    pages = done = 0
    for source in sources:
        rows = rows_in(source.part)
        if rows is not None:
            pages, done = pages + rows, done + 1
            continue
        try:
            pages += int(source.note.read_text())
        except (OSError, ValueError):
            continue  # not begun, or just being written
    return Progress(pages, done, len(sources))


def outcome_of(counts: dict[str, int]) -> Outcome:
    """The outcome from the pipeline's counters, in which a reason is written "stage/reason"."""
    reasons = {tuple(name.split("/")): number for name, number in counts.items() if "/" in name}
    order = sorted(reasons, key=lambda reason: (STAGES.index(reason[0]), -reasons[reason], reason[1]))
    kept = counts.get(pipeline.KEPT, 0)
    return Outcome(
        pages=kept + sum(reasons.values()),
        kept=kept,
        dropped={(stage, reason): reasons[stage, reason] for stage, reason in order},
        clean_text_bytes=counts.get(pipeline.TEXT_BYTES, 0),
        emails_replaced=counts.get(pipeline.EMAILS, 0),
    )
