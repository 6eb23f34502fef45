"""What is done to documents after the deduplication of whole ones: the steps that look at parts of texts, in order.

Decontamination comes last: an n-gram is frequent by the documents that would be kept, not by copies of one of them.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.config import DocumentsConfig
from data_prep.config.documents import AFTER_DEDUP
from data_prep.decontamination.run import decontaminate
from data_prep.dedup.clusters import make_node
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.scope import scope_of
from data_prep.dedup.substrings import remove_substrings
from data_prep.dedup.survivors import Survivor, SurvivorFile, write_survivors
from data_prep.engine.tasks import FileRunner, PathRunner
from data_prep.parquet import rows_in
from data_prep.select.duplicates import FoundOfFile
from data_prep.select.filtered import filtered_rows
from data_prep.select.keys import DocumentShard
from lm.errors import UsageError
from lm.storage import Place


def find_edits(
    files: list[DocumentShard],
    config: DocumentsConfig,
    min_quality: float | None,
    identity: str,
    partial: Place,
    report: Place,
    run: FileRunner,
) -> dict[str, dict[int, Path]]:
    """{step in use: {index of a file: its edits}}, in the order of the steps.

    `partial` keeps what is done, in a folder of `identity`, which is what decides it; `report` gets what the steps tell
    of themselves. Raises UsageError where the run is in a bucket: these steps need a disk that all workers share; and
    InputError as the steps do.
    """
    used = [step for step in AFTER_DEDUP if step in config.steps]
    if not used:
        return {}
    if not isinstance(partial, Path) or not isinstance(report, Path):
        raise UsageError(
            f"documents.steps has {', '.join(used)}, but {partial} is in a bucket: these steps need a disk that all "
            "workers share. Leave them out, or run the stage in a folder."
        )
    folder, over = partial / f"edits-{identity[:12]}", PathRunner(run, identity)
    survivors = folder / "survivors"
    survivors.mkdir(parents=True, exist_ok=True)
    report.mkdir(parents=True, exist_ok=True)
    over(functools.partial(find_survivors, folder=survivors, config=config, min_quality=min_quality), files)
    left = [SurvivorFile(file.index, survivors / file.texts.name) for file in files]
    edits: dict[str, dict[int, Path]] = {}
    for step in used:
        made = STEPS[step](left, getattr(config, step), folder / step, report, over)
        edits[step] = {file.index: path for file, path in zip(left, made, strict=True)}
        left = [SurvivorFile(one.index, one.path, (*one.edits, path)) for one, path in zip(left, made, strict=True)]
    return edits


def find_survivors(file: DocumentShard, folder: Path, config: DocumentsConfig, min_quality: float | None) -> None:
    """Writes the file's documents that pass the rules and are copies of no other, unless they are there."""
    path = folder / file.texts.name
    if rows_in(path) is None:
        write_survivors(path, survivors_of(file, config, min_quality))


def survivors_of(file: DocumentShard, config: DocumentsConfig, min_quality: float | None) -> Iterator[Survivor]:
    duplicates = FoundOfFile.at(file.duplicates).reasons
    for filtered in filtered_rows(file.texts, config, min_quality, file.note, duplicates):
        for number, (row, verdict) in enumerate(zip(filtered.rows, filtered.verdicts, strict=True), filtered.first):
            if verdict is None:
                when, _ = make_node(row["date"], row["id"], file.index, number)
                yield Survivor(number, when, row["id"], scope_of(row, config), row["text"])


STEPS: dict[str, Callable[..., list[Path]]] = {
    "line_dedup": remove_lines,
    "substring_dedup": remove_substrings,
    "decontamination": decontaminate,
}
"""{step: step(files, its section of the config, folder, report, over) gives the edits of each file}."""
