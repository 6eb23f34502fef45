"""Survivors of small corpora, and a step that runs on them without the rest of the pipeline."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_prep.config import ONE_PROCESS
from data_prep.dedup.clusters import make_node
from data_prep.dedup.survivors import Survivor, SurvivorFile, read_survivors, write_survivors
from data_prep.engine.tasks import FileRunner
from lm.storage import file_sha256

Corpus = Sequence[Sequence[Survivor]]
"""Survivors of each file."""


def survivor(file: int, row: int, text: str, day: int = 1, scope: str = "d") -> Survivor:
    name = f"<urn:{file}-{row}>"
    when, _ = make_node(f"2026-01-{day:02d}T00:00:00Z", name, file, row)
    return Survivor(row, when, name, scope, text)


def written(corpus: Corpus, folder: Path) -> list[SurvivorFile]:
    files = []
    for index, rows in enumerate(corpus):
        path = folder / "survivors" / f"{index}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        counts = write_survivors(path, rows)
        files.append(SurvivorFile(path, path.stat().st_size, file_sha256(path), counts, index))
    return files


def after(step: Callable[..., list[SurvivorFile]], corpus: Corpus, config: Any, folder: Path) -> dict[str, str]:
    """{id: text} after a step."""
    run = FileRunner(folder, ONE_PROCESS, lambda progress: None)
    left = step(written(corpus, folder), config, run)
    return {one.id: one.text for file in left for one in read_survivors(file)}
