"""What is done to documents after the deduplication of whole ones: the steps that look at parts of texts, in order.

Decontamination comes last: an n-gram is frequent by the documents that would be kept, not by copies of one of them.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.config import DocumentsConfig, EngineConfig
from data_prep.config.documents import AFTER_DEDUP
from data_prep.decontamination.run import decontaminate
from data_prep.dedup.clusters import make_node
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.scope import scope_of
from data_prep.dedup.substrings import remove_substrings
from data_prep.dedup.survivors import Survivor, SurvivorFile, write_survivors
from data_prep.engine.over_files import run_over_files
from data_prep.engine.progress import Progress
from data_prep.parquet import rows_in
from data_prep.select.duplicates import Found, duplicates_of, watching
from data_prep.select.filtered import filtered_rows
from data_prep.select.keys import DocumentShard


def find_edits(
    files: list[DocumentShard],
    config: DocumentsConfig,
    found: Found,
    folder: Path,
    report: Path,
    on_progress: Callable[[Progress], None],
    engine: EngineConfig,
) -> dict[str, tuple[Path, ...]]:
    """{step in use: the edits of each file, by its index}, in the order of the steps.

    `folder` keeps what is done for a later call; `report` gets what the steps tell of themselves. Raises
    InputError as the steps do.
    """
    used = [step for step in AFTER_DEDUP if step in config.steps]
    if not used:
        return {}
    survivors = folder / "survivors"
    survivors.mkdir(parents=True, exist_ok=True)
    over = functools.partial(run_over_files, engine=engine)
    with watching(files, "documents left", lambda file: survivors / file.texts.name, on_progress):
        over(functools.partial(find_survivors, folder=survivors, config=config, found=found), files)
    left = [SurvivorFile(file.index, survivors / file.texts.name) for file in files]
    edits: dict[str, tuple[Path, ...]] = {}
    for step in used:
        made = STEPS[step](left, getattr(config, step), folder / step, report, over)
        edits[step] = tuple(made)
        left = [SurvivorFile(one.index, one.path, (*one.edits, path)) for one, path in zip(left, made, strict=True)]
    return edits


def find_survivors(file: DocumentShard, folder: Path, config: DocumentsConfig, found: Found) -> None:
    """Writes the file's documents that pass the rules and are copies of no other, unless they are there."""
    path = folder / file.texts.name
    if rows_in(path) is None:
        write_survivors(path, survivors_of(file, config, found))


def survivors_of(file: DocumentShard, config: DocumentsConfig, found: Found) -> Iterator[Survivor]:
    duplicates = {row: (one.stage, one.reason) for row, one in duplicates_of(file, found).items()}
    for filtered in filtered_rows(file.texts, config, found.min_quality, file.note, duplicates):
        for number, (row, verdict) in enumerate(zip(filtered.rows, filtered.verdicts, strict=True), filtered.first):
            if verdict is None:
                when, _ = make_node(row["date"], row["id"], file.index, number)
                yield Survivor(number, when, row["id"], scope_of(row, config), row["text"])
    file.note.unlink(missing_ok=True)


STEPS: dict[str, Callable[..., list[Path]]] = {
    "line_dedup": remove_lines,
    "substring_dedup": remove_substrings,
    "decontamination": decontaminate,
}
"""{step: step(files, its section of the config, folder, report, over) gives the edits of each file}."""
