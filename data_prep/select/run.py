"""From texts to clean, deduplicated documents: runs the passes in their order, and tells what became of the pages."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

from data_prep.by_language.fixes import check_fixes
from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig
from data_prep.config.documents import AFTER_FILTERS, DEDUP
from data_prep.dedup_index.format import FOLDER, Index, open_indices
from data_prep.engine import Progress, identity_of
from data_prep.engine.tasks import File, FileRunner, absolute, set_aside_in
from data_prep.funnel.counts import Counts
from data_prep.funnel.domains import count_domains
from data_prep.funnel.report import write_funnel
from data_prep.parquet import identity_of_file
from data_prep.select.apply_filters import apply_filters
from data_prep.select.duplicates import Found, find_clusters, find_sizes, names_of, write_duplicates, write_index_of
from data_prep.select.edits import find_edits
from data_prep.select.keys import DocumentShard
from data_prep.select.merge_counts import merge_counts
from data_prep.select.score_threshold import lowest_score
from data_prep.select.texts_files import TextsFile, texts_files
from data_prep.sources.inputs import read_records
from lm.errors import InputError
from lm.storage import Place, writing


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
    texts: Place,
    config: DocumentsConfig,
    partial: Place,
    documents_dir: Place,
    dropped_dir: Place,
    funnel: Place,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    engine: EngineConfig = ONE_PROCESS,
) -> Outcome:
    """Filters the files of `texts` into documents_dir/NAME.parquet and dropped_dir/NAME.parquet; `funnel` tells how.
    Where the config asks for an index of the documents, it is written beside documents_dir.

    `partial`, beside documents_dir and dropped_dir, keeps what units hand on, and units/ there their markers: what
    agrees with these is kept, so that files that come or go cost their own work, and that of the joins. If a file fails
    after the joins, they are made again without it, so that no document is dropped as a copy of one that never comes.
    Raises InputError as `run_step`, and when no document survives.
    """
    texts, partial, documents_dir, dropped_dir = map(absolute, (texts, partial, documents_dir, dropped_dir))
    funnel.unlink(missing_ok=True)
    indices = open_indices(config)
    check_fixes(config.by_language)
    every, records = lay_out(texts_files(texts), partial, documents_dir, dropped_dir), read_records(texts)
    given_up: set[str] = set()
    while True:
        run = FileRunner(documents_dir.parent, engine, on_progress)
        made = select(every, config, partial, dropped_dir, indices, run)
        late = {name: step for name, step in run.failed.items() if step != first_step(config)}
        if not late or not {*AFTER_FILTERS} & set(config.steps):
            break
        if late.keys() <= given_up:
            raise InputError(
                f"{', '.join(sorted(late))}: failed again after being set aside. Run the same command again."
            )
        given_up |= late.keys()
        for name, step in late.items():
            set_aside_in(first_step(config), name, step, run.folder)
        told = ", ".join(f"{name} ({step})" for name, step in sorted(late.items()))
        print(f"The joins are made again without {told}; see quarantine/{first_step(config)}/.", flush=True)
        engine = dataclasses.replace(engine, retry_failed=False)
    min_quality, hosts, parts = made
    domains = count_domains(hosts, run.folder, engine, on_progress)
    counts = merge_counts(parts, run.folder, engine, on_progress)
    with writing(funnel):
        names = {file.id: file.texts.name for file in every}
        write_funnel(funnel, counts, domains, names, records, config, min_quality)
    outcome = outcome_of(counts, config)
    if not outcome.kept:
        raise InputError(
            f"No document survives of {outcome.pages} pages in {len(parts)} files:\n{outcome.table()}\n"
            "Loosen the rule that takes the most (documents.* in the config), or bring other pages (pages.*)."
        )
    return outcome


def select(
    files: list[DocumentShard],
    config: DocumentsConfig,
    partial: Place,
    dropped_dir: Place,
    indices: tuple[Index, ...],
    run: FileRunner,
) -> tuple[float | None, list[File], list[File]]:
    """Run all steps once; `run.failed` has the files that failed, and in which step.

    Returns the quality classifier's threshold, and the counts of hosts and of rows of each file that was filtered.
    """
    names = {file.id: file.texts.name for file in files}
    files, min_quality = lowest_score(files, config, run, partial / "scores")
    files, clusters = find_clusters(files, config, min_quality, partial, indices, run)
    sizes = find_sizes(clusters, config, partial, run)
    found = Found(names, clusters, sizes, indices)
    work = functools.partial(write_duplicates, found=found)
    files, written = run("duplicates", files, work, ["duplicates"], [names_of(clusters), sizes is not None])
    settings = identity_of(config, min_quality)
    told = {file.name: [settings, one["duplicates"][1]] for file, one in zip(files, written, strict=True)}
    edits = find_edits(files, config, min_quality, lambda file: told[file.name], partial, dropped_dir, run)
    files = [file for file in files if all(file.id in places for places in edits.values())]
    files, written = run(
        "filtering",
        files,
        functools.partial(apply_filters, config=config, min_quality=min_quality, edits=edits),
        ["documents", "dropped", "hosts", "counts"],
        lambda file: [*told[file.name], [identity_of_file(places[file.id]) for places in edits.values()]],
    )
    if config.dedup_index.write and {*run.failed.values()} <= {first_step(config)}:
        write_index_of(files, config, found, run.folder / FOLDER, partial / "index", run)
    return min_quality, [one["hosts"] for one in written], [one["counts"] for one in written]


def first_step(config: DocumentsConfig) -> str:
    """The first step that reads the files of texts/. A file that fails in a later one is set aside in it
    (`set_aside_in`), so that no other file's documents are compared with documents that never come."""
    steps = set(config.steps)
    if "quality_classifier" in steps:
        return "scores"
    return "addresses" if "url_dedup" in steps else "keys" if {*DEDUP} & steps else "duplicates"


def lay_out(files: list[TextsFile], partial: Place, documents_dir: Place, dropped_dir: Place) -> list[DocumentShard]:
    """Where the results of each file of texts/ go, under the file's own name."""
    return [
        DocumentShard(
            id=file.id,
            texts=file.texts,
            bytes=file.bytes,
            end=file.end,
            url_keys=partial / "url-keys" / f"{file.name}.pairs",
            exact_keys=partial / "keys" / f"{file.name}.pairs",
            near_keys=partial / "near-keys" / f"{file.name}.pairs",
            index_url=partial / "index-keys/url" / f"{file.name}.pairs",
            index_exact=partial / "index-keys/exact" / f"{file.name}.pairs",
            index_near=partial / "index-keys/near" / f"{file.name}.pairs",
            same_url=partial / "same-url" / f"{file.name}.json",
            duplicates=partial / "duplicates" / f"{file.name}.json",
            documents=documents_dir / file.texts.name,
            dropped=dropped_dir / file.texts.name,
            hosts=partial / "hosts" / file.texts.name,
            counts=partial / "counts" / f"{file.name}.json",
        )
        for file in files
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
