"""From WARC files to clean, deduplicated documents: lays out the files, runs the pipeline, and tells what became of the
pages."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep import pipeline
from data_prep.beam_runner import counters, run_pipeline
from data_prep.config import DocumentsConfig
from data_prep.documents import stage_order
from data_prep.files import writing
from data_prep.pipeline import SourceFile
from data_prep.progress import Progress, Watch, looking_at
from lm.errors import InputError


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
    """In the kept documents."""
    damaged: int
    """Places in the WARC files that could not be read and were passed over, of the files read in this run."""

    def table(self) -> str:
        """A few lines for the terminal."""
        rows = [("", "pages", self.pages)]
        rows += [(stage, reason, -number) for (stage, reason), number in self.dropped.items()]
        rows += [("", "documents", self.kept)]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{stage:<{widths[0]}}  {reason:<{widths[1]}} {number:>10,}" for stage, reason, number in rows)


def prepare_documents(
    files: list[Path],
    names: list[str],
    config: DocumentsConfig,
    partial: Path,
    documents_dir: Path,
    dropped_dir: Path,
    workers: int,
    on_progress: Callable[[Progress], None],
) -> Outcome:
    """Reads the WARC files and writes documents_dir/NAME.parquet and dropped_dir/NAME.parquet for each.

    The order of `files` decides which of equal documents stays. `partial`, on the same disk, keeps what is done for a
    later call with the same files and config. Documents name their file as `names` does.

    Raises InputError when a file cannot be read or written, when there is no page in the files, and when no document
    survives.
    """
    sources = lay_out(files, names, partial, documents_dir, dropped_dir)
    with writing(documents_dir.parent):
        for folder in (documents_dir, dropped_dir):  # divided anew, from parts that are kept: that takes moments
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        partial.mkdir(parents=True, exist_ok=True)
        for leftover in [*partial.glob("*.partial"), *partial.glob("*.pages")]:
            leftover.unlink()
        with Watch(looking_at(sources), on_progress):
            result = run_pipeline(lambda graph: pipeline.add_pipeline(graph, sources, config, workers), workers)
    outcome = outcome_of(counters(result, pipeline.COUNTERS))
    if not outcome.pages:
        named = ", ".join(map(str, files[:3])) + (", …" if len(files) > 3 else "")
        raise InputError(
            f"There is no page in {len(files)} WARC files ({named}): they hold no HTML response. Perhaps they are WET, "
            "WAT or metadata files, or damaged. Bring WARC files with responses (pages.*)."
        )
    if not outcome.kept:
        raise InputError(
            f"No document survives of {outcome.pages} pages in {len(files)} WARC files:\n{outcome.table()}\n"
            "Loosen the rule that takes the most (documents.* in the config), or bring other pages (pages.*)."
        )
    return outcome


def lay_out(
    files: list[Path], names: list[str], partial: Path, documents_dir: Path, dropped_dir: Path
) -> list[SourceFile]:
    """Where everything goes, by file names that are the WARC files' own, made unique where two share one."""
    stems = [path.name.removesuffix(".gz").removesuffix(".warc") for path in files]
    bearers = Counter(stem.lower() for stem in stems)
    outputs = [f"{stem}-{index:05d}" if bearers[stem.lower()] > 1 else stem for index, stem in enumerate(stems)]
    if len({output.lower() for output in outputs}) < len(outputs):  # "a-00001" beside two files "a"
        outputs = [f"{stem}-{index:05d}" for index, stem in enumerate(stems)]
    return [
        SourceFile(
            index=index,
            warc=path,
            file_path=name,
            part=partial / f"{output}.parquet",
            documents=documents_dir / f"{output}.parquet",
            dropped=dropped_dir / f"{output}.parquet",
        )
        for index, (path, name, output) in enumerate(zip(files, names, outputs, strict=True))
    ]


def outcome_of(counts: dict[str, int]) -> Outcome:
    """The outcome from the pipeline's counters, in which a reason is written "stage/reason"."""
    reasons = {tuple(name.split("/", 1)): number for name, number in counts.items() if "/" in name}
    order = sorted(reasons, key=lambda reason: (stage_order(reason[0]), -reasons[reason], reason[1]))
    kept = counts.get(pipeline.KEPT, 0)
    return Outcome(
        pages=kept + sum(reasons.values()),
        kept=kept,
        dropped={(stage, reason): reasons[stage, reason] for stage, reason in order},
        clean_text_bytes=counts.get(pipeline.TEXT_BYTES, 0),
        emails_replaced=counts.get(pipeline.EMAILS, 0),
        damaged=counts.get(pipeline.DAMAGED, 0),
    )
