"""From texts to clean, deduplicated documents: runs the passes in their order, and tells what became of the pages."""

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep.by_language.fixes import check_fixes
from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig
from data_prep.dedup_index.format import FOLDER, open_indices
from data_prep.engine.over_files import run_over_files
from data_prep.engine.progress import Progress
from data_prep.funnel.counts import Counts, merge
from data_prep.funnel.domains import count_domains
from data_prep.funnel.report import write_funnel
from data_prep.select.apply_filters import apply_filters
from data_prep.select.duplicates import Found, find_clusters, find_sizes, watching, write_index_of
from data_prep.select.edits import find_edits
from data_prep.select.keys import DocumentShard
from data_prep.select.score_threshold import lowest_score
from data_prep.sources.inputs import read_records
from lm.errors import InputError
from lm.storage import writing


@dataclass(frozen=True)
class Outcome:
    """What became of the pages."""

    pages: int
    """Rows of texts/: pages, documents and damaged records."""
    kept: int
    dropped: dict[tuple[str, str], int]
    """{(stage, reason): documents}, in the order of the stages, the most frequent reason first."""
    extracted_bytes: dict[tuple[str, str], int]
    """The UTF-8 bytes of their texts as extracted, by the same names; of what is kept under ("", "documents")."""
    clean_text_bytes: int
    """UTF-8 bytes of the kept documents."""
    replaced: dict[str, int]
    """{kind of personal data: how many were replaced}, in the kept documents."""

    def table(self) -> str:
        """A few lines for the terminal."""
        rows = [("", "pages", self.pages, sum(self.extracted_bytes.values()))]
        rows += [(*name, -number, -self.extracted_bytes[name]) for name, number in self.dropped.items()]
        rows += [("", "documents", self.kept, self.extracted_bytes["", "documents"])]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{stage:<{widths[0]}}  {reason:<{widths[1]}} {number:>10,} {size / 1e6:>12,.1f} MB"
            for stage, reason, number, size in rows
        )


def prepare_documents(
    texts: Path,
    config: DocumentsConfig,
    partial: Path,
    documents_dir: Path,
    dropped_dir: Path,
    funnel: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    engine: EngineConfig = ONE_PROCESS,
) -> Outcome:
    """Filters the files of `texts` into documents_dir/NAME.parquet and dropped_dir/NAME.parquet; `funnel` tells how.
    Where the config asks for an index of the documents, it is written beside documents_dir.

    `partial`, on the same disk, keeps what is done for a later call with the same files and config. Raises InputError
    when a file cannot be read or written, and when no document survives.
    """
    indices = open_indices(config)
    check_fixes(config.by_language)
    files, records = lay_out(texts, partial, documents_dir, dropped_dir), read_records(texts)
    with writing(documents_dir.parent):
        for folder in ("url-keys", "keys", "near-keys", "hosts", "counts", "notes"):
            (partial / folder).mkdir(parents=True, exist_ok=True)
        for folder in (documents_dir, dropped_dir):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in [*partial.rglob("*.partial"), *(partial / "notes").iterdir()]:
            leftover.unlink()
        min_quality = lowest_score([file.texts for file in files], config, partial / "scores", on_progress, engine)
        clusters = find_clusters(files, config, min_quality, partial, indices, on_progress, engine)
        sizes = find_sizes(clusters, config, partial, on_progress, engine)
        found = Found(tuple(file.texts.name for file in files), clusters, min_quality, sizes, indices)
        if config.dedup_index.write:
            index_dir = documents_dir.parent / FOLDER
            write_index_of(files, config, found, index_dir, partial / "index", on_progress, engine)
        edits = find_edits(files, config, found, partial / "edits", dropped_dir, on_progress, engine)
        found = dataclasses.replace(found, edits=edits)
        with watching(files, "filtering", lambda file: file.counts, on_progress):
            run_over_files(functools.partial(apply_filters, config=config, found=found), files, engine)
        domains = count_domains([file.hosts for file in files], partial / "merged-hosts", engine, on_progress)
    counts = merge(json.loads(file.counts.read_text(encoding="utf-8")) for file in files)
    write_funnel(funnel, counts, domains, [file.texts for file in files], records, config, partial, min_quality)
    outcome = outcome_of(counts, config)
    if not outcome.kept:
        raise InputError(
            f"No document survives of {outcome.pages} pages in {len(files)} files:\n{outcome.table()}\n"
            "Loosen the rule that takes the most (documents.* in the config), or bring other pages (pages.*)."
        )
    return outcome


def lay_out(texts: Path, partial: Path, documents_dir: Path, dropped_dir: Path) -> list[DocumentShard]:
    """Where the results of each file of `texts` go, under the file's own name."""
    return [
        DocumentShard(
            index=index,
            texts=path,
            url_keys=partial / "url-keys" / f"{path.stem}.pairs",
            exact_keys=partial / "keys" / f"{path.stem}.pairs",
            near_keys=partial / "near-keys" / f"{path.stem}.pairs",
            index_keys=partial / "index-keys" / path.stem,
            documents=documents_dir / path.name,
            dropped=dropped_dir / path.name,
            hosts=partial / "hosts" / path.name,
            counts=partial / "counts" / f"{path.stem}.json",
            note=partial / "notes" / f"{path.stem}.rows",
        )
        for index, path in enumerate(sorted(texts.glob("*.parquet")))
    ]


def outcome_of(counts: Counts, config: DocumentsConfig) -> Outcome:
    """The outcome from the counts of all files."""
    pairs = {tuple(name.split("/", 1)): pair for name, pair in counts["reasons"].items()}
    reasons = {name: documents for name, (documents, _) in pairs.items()}
    order = sorted(reasons, key=lambda reason: (config.stage_order(reason[0]), -reasons[reason], reason[1]))
    return Outcome(
        pages=counts["rows"],
        kept=counts["kept"][0],
        dropped={(stage, reason): reasons[stage, reason] for stage, reason in order},
        extracted_bytes={name: size for name, (_, size) in pairs.items()} | {("", "documents"): counts["kept"][1]},
        clean_text_bytes=counts["clean_text_bytes"],
        replaced=counts["replaced"],
    )
