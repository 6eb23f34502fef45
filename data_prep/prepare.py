"""From texts to clean, deduplicated documents: run all passes in order, and report the totals.

Steps that edit texts come after the deduplication of whole documents. Decontamination is last, so that n-gram
frequencies are those of documents that would be kept, without their copies.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig
from data_prep.config.documents import AFTER_FILTERS, DEDUP
from data_prep.decontamination.run import decontaminate
from data_prep.dedup.clusters import count_clusters, make_node
from data_prep.dedup.keys import scope_of
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.substrings import remove_substrings
from data_prep.dedup.survivors import Survivor, SurvivorFile, write_survivors
from data_prep.dedup_index.format import Index, open_indices
from data_prep.dedup_index.joins import write_matching_pairs
from data_prep.dedup_index.of_run import write_index_of
from data_prep.engine import Counts, Marker, OnProgress, Workspace, identity_of
from data_prep.engine.tasks import (
    FILTERING,
    FileRunner,
    StoredFile,
    absolute,
    delete_other_digests,
    file_of_each,
    quarantine_in,
)
from data_prep.funnel.counts import Counts as FunnelCounts
from data_prep.funnel.report import FUNNEL, drop_lines, write_funnel
from data_prep.select.apply_filters import apply_filters, merge_counts
from data_prep.select.duplicates import (
    Found,
    find_clusters,
    names_of,
    read_duplicates,
    write_duplicates,
)
from data_prep.select.filtered import edit_steps, filtered_rows, texts_files
from data_prep.select.fixes import check_fixes
from data_prep.select.keep_share import share_filters, step_of, with_min_scores
from data_prep.sources.inputs import read_records
from lm.errors import InputError, print_untrusted
from lm.storage import Place, writing


def find_survivors(file: StoredFile, space: Workspace, config: DocumentsConfig) -> Counts:
    """Write the survivors of a file: its documents that pass the rules and are not duplicates."""
    duplicates, _ = read_duplicates(file, space)

    def survivors() -> Iterator[Survivor]:
        for filtered in filtered_rows(file.path, config, space.count, duplicates):
            for number, (row, verdict) in enumerate(zip(filtered.rows, filtered.verdicts, strict=True), filtered.first):
                if verdict is None:
                    when, _ = make_node(row["date"], row["id"], file.id, number)
                    yield Survivor(number, when, row["id"], scope_of(row, config), row["text"])

    return write_survivors(space.output(f"parts/survivors/{file.path.name}"), survivors())


STEPS: dict[str, Callable[..., list[SurvivorFile]]] = {
    "line_dedup": remove_lines,
    "substring_dedup": remove_substrings,
    "decontamination": decontaminate,
}
"""{step: function}. step(files, its section of the config, run) returns the files with their edits."""


@dataclass(frozen=True)
class Outcome:
    pages: int
    """Rows of texts/: pages, documents of tables, and damaged records."""
    kept: int
    """Documents in documents/."""
    dropped: dict[tuple[str, str], int]
    """{(stage, reason): documents}, in the order of the stages, the most frequent reason first."""
    extracted_bytes: dict[tuple[str, str], int]
    """{(stage, reason): UTF-8 bytes of the dropped texts as extracted}; those of kept documents as ("",
    "documents")."""
    clean_text_bytes: int
    """UTF-8 bytes of the texts of kept documents, as written."""
    replaced: dict[str, int]
    """{kind of personal data: number of replacements} in the kept documents."""
    explained: str = ""
    """Lines on the rules that dropped the most, if they dropped most pages (funnel.report.drop_lines)."""

    def table(self) -> str:
        rows = [("", "pages", self.pages, sum(self.extracted_bytes.values()))]
        rows += [(*name, -number, -self.extracted_bytes[name]) for name, number in self.dropped.items()]
        rows += [("", "documents", self.kept, self.extracted_bytes["", "documents"])]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        # A rounded number plus 0 is never -0.0.
        return "\n".join(
            f"{stage:<{widths[0]}}  {reason:<{widths[1]}} {number:>10,} {round(size / 1e6, 1) + 0:>12,.1f} MB"
            for stage, reason, number, size in rows
        )


def prepare_documents(
    texts: Place,
    config: DocumentsConfig,
    folder: Place,
    on_progress: OnProgress = lambda progress: None,
    engine: EngineConfig = ONE_PROCESS,
) -> Outcome:
    """Select documents from the files of `texts`: write folder/documents/ and folder/dropped/, folder/funnel.json, and
    folder/dedup_index/ if the config asks for it.

    Intermediate files are in folder/parts/ and the records of finished files in folder/units/, so adding or removing
    files costs only the work on these files and the joins. If a file fails after the joins, they are repeated without
    it, so that no document is dropped as a copy of one that is missing. Raises InputError like `run_step`, and if no
    document is kept.
    """
    texts, folder = absolute(texts), absolute(folder)
    (folder / FUNNEL).unlink(missing_ok=True)
    indices = open_indices(config)
    check_fixes(config.by_language)
    every, records = texts_files(texts), read_records(texts)
    given_up: set[str] = set()
    while True:
        run = FileRunner(folder, engine, on_progress)
        applied, made = select(every, config, indices, run)
        late = {name: step for name, step in run.failed.items() if step != first_step(config)}
        if not late or not {*AFTER_FILTERS} & set(config.steps):
            break
        if late.keys() <= given_up:
            raise InputError(f"{', '.join(sorted(late))}: failed again after quarantine. Run the same command again.")
        given_up |= late.keys()
        for name, step in late.items():
            quarantine_in(first_step(config), name, step, run.folder)
        failed = ", ".join(f"{name} ({step})" for name, step in sorted(late.items()))
        print_untrusted(f"The joins are repeated without {failed}; see quarantine/{first_step(config)}/.")
        engine = dataclasses.replace(engine, retry_failed=False)
    counts = merge_counts(file_of_each(made, "parts/counts/"), run)
    with writing(folder / FUNNEL):
        names = {file.id: file.path.name for file in every}
        write_funnel(folder / FUNNEL, counts, names, records, applied)
    explained = "\n".join(drop_lines(texts, counts, names, applied))
    outcome = dataclasses.replace(outcome_of(counts, config), explained=explained)
    if not outcome.kept:
        raise InputError(
            f"No document is left of {outcome.pages} pages in {len(made)} files:\n{outcome.table()}\n{explained}\n"
            "Change these settings, or give other pages (pages.*)."
        )
    return outcome


def select(
    files: list[StoredFile], config: DocumentsConfig, indices: tuple[Index, ...], run: FileRunner
) -> tuple[DocumentsConfig, list[Marker]]:
    """Run all steps from texts/ to documents/ once. Return (`config` with the minimum scores that keep_share gives;
    markers of the filtered files, which list their outputs and counts). Failed files are in `run.failed`."""
    names = {file.id: file.path.name for file in files}
    files, config = with_min_scores(files, config, run)
    match = functools.partial(write_matching_pairs, indices=indices) if indices else None
    files, clusters = find_clusters(files, config, [index.name for index in indices], match, run)
    sizes = None
    if config.counts_clusters:
        *_, last = clusters.values()  # its clusters include those of earlier steps
        folder = run.folder / f"parts/{last.folder.parent.name}-sizes"
        delete_other_digests(folder)
        sizes = count_clusters(last, folder, run.tasks("sizes of clusters"))
    found = Found(names, clusters, sizes, indices)
    work = functools.partial(write_duplicates, found=found)
    files, made = run("duplicates", files, work, [names_of(clusters), sizes is not None])
    settings = identity_of(config)
    identities = {name: [settings, marker.outputs] for name, marker in made.items()}
    edits: dict[str, str] = {}
    """{name of a file: SHA-256 of its survivors (documents that pass the rules and deduplication) and their edits}"""
    if edit_steps(config):
        work = functools.partial(find_survivors, config=config)
        files, survivors = run("survivors", files, work, lambda file: identities[file.name])
        left = []
        for file in files:
            marker = survivors[file.name]
            ((name, (_, sha256)),) = marker.outputs.items()
            left.append(SurvivorFile(run.folder / name, file.bytes, sha256, marker.counts, file.id))
        for step in edit_steps(config):
            left = STEPS[step](left, getattr(config, step), run)
        edits = {file.name: file.sha256 for file in left}
        files = [file for file in files if file.name in edits]
    work = functools.partial(apply_filters, config=config)
    files, made = run(FILTERING, files, work, lambda file: [identities[file.name], edits.get(file.name)])
    if config.dedup_index.write and {*run.failed.values()} <= {first_step(config)}:
        write_index_of(files, config, found, run)
    return config, list(made.values())


def first_step(config: DocumentsConfig) -> str:
    """Return the name of the first step that reads texts/. If a file fails in a later step, it is quarantined in this
    first step (`quarantine_in`), so that no step uses the file, and no document is dropped as a copy of one in it."""
    steps = set(config.steps)
    if filters := share_filters(config):
        return step_of(filters[0])
    return "addresses" if "url_dedup" in steps else "keys" if {*DEDUP} & steps else "duplicates"


def outcome_of(counts: FunnelCounts, config: DocumentsConfig) -> Outcome:
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
