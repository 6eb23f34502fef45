"""Survivors of small corpora, and a step that is run on them without the rest of the pipeline."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.dedup.clusters import make_node
from data_prep.dedup.survivors import Survivor, SurvivorFile, read_survivors, write_survivors

Corpus = Sequence[Sequence[Survivor]]
"""The survivors of each file."""


def in_turn(work: Callable[[Any], None], units: Iterable[Any]) -> None:
    """In no particular order, as workers do it."""
    units = list(units)
    random.Random(len(units)).shuffle(units)
    for unit in units:
        work(unit)


def survivor(file: int, row: int, text: str, day: int = 1, scope: str = "d") -> Survivor:
    name = f"<urn:{file}-{row}>"
    when, _ = make_node(f"2026-01-{day:02d}T00:00:00Z", name, file, row)
    return Survivor(row, when, name, scope, text)


def written(corpus: Corpus, folder: Path) -> list[SurvivorFile]:
    files = []
    for index, rows in enumerate(corpus):
        path = folder / "survivors" / f"{index}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_survivors(path, rows)
        files.append(SurvivorFile(index, path))
    return files


def after(step: Callable[..., list[Path]], corpus: Corpus, config: Any, folder: Path) -> dict[str, str]:
    """{id: text} of what a step leaves."""
    files = written(corpus, folder)
    edits = step(files, config, folder / "step", folder, in_turn)
    left = [SurvivorFile(file.index, file.path, (path,)) for file, path in zip(files, edits, strict=True)]
    return {one.id: one.text for file in left for one in read_survivors(file)}
