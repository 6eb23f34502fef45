"""What is done to documents after the deduplication of whole ones: the steps that look at parts of texts, in order.

Decontamination comes last: an n-gram is frequent by the documents that would be kept, not by copies of one of them.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_prep.config import DocumentsConfig
from data_prep.config.documents import AFTER_DEDUP
from data_prep.decontamination.run import decontaminate
from data_prep.dedup.clusters import make_node
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.scope import scope_of
from data_prep.dedup.substrings import remove_substrings
from data_prep.dedup.survivors import Survivor, SurvivorFile, write_survivors
from data_prep.engine import Counts
from data_prep.engine.tasks import FileRunner, here, no_note
from data_prep.select.duplicates import FoundOfFile
from data_prep.select.filtered import filtered_rows
from data_prep.select.keys import DocumentShard
from lm.storage import Place


@dataclass(frozen=True)
class ShardSurvivors:
    """A unit: a file of texts/, and where its survivors go."""

    shard: DocumentShard
    survivors: Place
    note: Callable[[int], None] = no_note

    @property
    def name(self) -> str:
        return self.shard.name

    @property
    def bytes(self) -> int:
        return self.shard.bytes

    @property
    def identity(self) -> list:
        return self.shard.identity


def find_edits(
    files: list[DocumentShard],
    config: DocumentsConfig,
    min_quality: float | None,
    identity: Callable[[DocumentShard], object],
    partial: Place,
    report: Place,
    run: FileRunner,
) -> dict[str, dict[int, Place]]:
    """{step in use: {number of a file: its edits}}, in the order of the steps; of files that failed, none.

    `identity` tells what decides the survivors of a file; `partial` is of what units hand on; `report` gets what the
    steps tell of themselves. Raises InputError as the steps do.
    """
    used = [step for step in AFTER_DEDUP if step in config.steps]
    if not used:
        return {}
    units = [ShardSurvivors(file, partial / "survivors" / file.texts.name) for file in files]
    work = functools.partial(find_survivors, config=config, min_quality=min_quality)
    units, written = run("survivors", units, work, ["survivors"], lambda unit: identity(unit.shard))
    left = [
        SurvivorFile(
            unit.shard.id, unit.survivors, unit.bytes, one["survivors"][1], text_bytes=tuple(counts["text_bytes"])
        )
        for unit, one, counts in zip(units, written, run.counts["survivors"], strict=True)
    ]
    for step in used:
        left = STEPS[step](left, getattr(config, step), partial / step, report, run)
    return {step: {file.id: file.edits[number] for file in left} for number, step in enumerate(used)}


def find_survivors(unit: ShardSurvivors, config: DocumentsConfig, min_quality: float | None) -> Counts:
    """Writes the file's documents that pass the rules and are copies of no other."""
    return write_survivors(here(unit.survivors), survivors_of(unit, config, min_quality))


def survivors_of(unit: ShardSurvivors, config: DocumentsConfig, min_quality: float | None) -> Iterator[Survivor]:
    file, duplicates = unit.shard, FoundOfFile.at(unit.shard.duplicates).reasons
    for filtered in filtered_rows(file.texts, config, min_quality, unit.note, duplicates):
        for number, (row, verdict) in enumerate(zip(filtered.rows, filtered.verdicts, strict=True), filtered.first):
            if verdict is None:
                when, _ = make_node(row["date"], row["id"], file.id, number)
                yield Survivor(number, when, row["id"], scope_of(row, config), row["text"])


STEPS: dict[str, Callable[..., list[SurvivorFile]]] = {
    "line_dedup": remove_lines,
    "substring_dedup": remove_substrings,
    "decontamination": decontaminate,
}
"""{step: step(files, its section of the config, folder, report, run) gives the files with their edits}."""
