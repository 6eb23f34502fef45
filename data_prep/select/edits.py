"""Steps that edit texts after the deduplication of whole documents. Decontamination is last, so that n-gram frequencies
are those of documents that would be kept, without their copies."""

import functools
from collections.abc import Callable, Iterator

from data_prep.config import DocumentsConfig
from data_prep.config.documents import AFTER_DEDUP
from data_prep.decontamination.run import decontaminate
from data_prep.dedup.clusters import make_node
from data_prep.dedup.keys import scope_of
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.substrings import remove_substrings
from data_prep.dedup.survivors import Survivor, SurvivorFile, write_survivors
from data_prep.engine import Counts, Workspace
from data_prep.engine.tasks import FileRunner, StoredFile
from data_prep.select.duplicates import read_duplicates
from data_prep.select.filtered import filtered_rows


def find_edits(
    files: list[StoredFile],
    config: DocumentsConfig,
    min_quality: float | None,
    identity: Callable[[StoredFile], object],
    run: FileRunner,
) -> dict[str, str]:
    """Run the editing steps. Return {name of a file: SHA-256 of its edits} (`edits_name`), without files that failed.
    `identity` of a file is everything that determines its survivors. Raises the errors of the steps."""
    work = functools.partial(find_survivors, config=config, min_quality=min_quality)
    files, made = run("survivors", files, work, identity)
    left = []
    for file in files:
        marker = made[file.name]
        ((name, (_, sha256)),) = marker.outputs.items()
        left.append(SurvivorFile(run.folder / name, file.bytes, sha256, marker.counts, file.id))
    for step in steps_in(config):
        left = STEPS[step](left, getattr(config, step), run)
    return {file.name: file.sha256 for file in left}


def steps_in(config: DocumentsConfig) -> list[str]:
    return [step for step in AFTER_DEDUP if step in config.steps]


def find_survivors(file: StoredFile, space: Workspace, config: DocumentsConfig, min_quality: float | None) -> Counts:
    """Write the file's documents that pass the rules and are no duplicates."""
    duplicates, _ = read_duplicates(file, space)
    reasons = {row: (one.stage, one.reason) for row, one in duplicates.items()}

    def survivors() -> Iterator[Survivor]:
        for filtered in filtered_rows(file.path, config, min_quality, space.count, reasons):
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
