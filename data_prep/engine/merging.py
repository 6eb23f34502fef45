"""Many small files become few, and these fewer, by units: what grows with the corpus passes through no one process."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_prep.config.engine import EngineConfig
from data_prep.engine.progress import Progress
from data_prep.engine.run import run_step
from data_prep.engine.units import Marker, Step, Unit, Workspace, identity_of
from lm.storage import Place

FILES_AT_ONCE = 64
"""Files that one unit merges."""
File = tuple[str, str]
"""Name in the step's folder, SHA-256."""
OnProgress = Callable[[Progress], None]


def whole(engine: EngineConfig, units: int) -> EngineConfig:
    """The engine for a step that may lack no unit; a single unit needs no other process, nor the second it takes."""
    alone = units == 1 and engine.runner == "processes"
    return dataclasses.replace(engine, max_failed=0.0, workers=1 if alone else engine.workers)


def files_of(markers: Mapping[str, Marker], suffix: str = "") -> list[File]:
    """The outputs whose names end so, in the order of the units."""
    return [(name, sha) for one in markers.values() for name, (_, sha) in one.outputs.items() if name.endswith(suffix)]


@dataclasses.dataclass(frozen=True)
class MergeFiles:
    """Merges some files, the unit's input, to folder/<name of the unit>.merged."""

    folder: str
    merge: Callable[[Sequence[Path], Path, Path], int]
    """(files, the file to write, folder for scratch) -> rows"""

    def __call__(self, unit: Unit[tuple[str, ...]], space: Workspace) -> dict[str, int]:
        target = space.output(f"{self.folder}/{unit.name}.merged")
        return {"rows": self.merge([space.input(name) for name in unit.input], target, space.scratch)}


def merge_in_groups(
    name: str,
    files: Sequence[File],
    merge: Callable[[Sequence[Path], Path, Path], int],
    folder: Place,
    engine: EngineConfig,
    on_progress: OnProgress,
    at_once: int = FILES_AT_ONCE,
) -> Sequence[File]:
    """The files, or at most `at_once` that are merged of them, `at_once` to one and again, in parts/<name>. Raises as
    `run_step`."""
    for level in itertools.count(1):
        if len(files) <= at_once:
            return files
        units = [
            Unit(
                f"{level}-{number:06d}",
                identity_of(name, [sha256 for _, sha256 in group]),
                len(group),
                tuple(file for file, _ in group),
            )
            for number, group in enumerate(itertools.batched(files, at_once))
        ]
        step = Step(f"{name}-{level}", tuple(units), MergeFiles(f"parts/{name}", merge), "rows", "groups")
        files = files_of(run_step(step, whole(engine, len(units)), folder, on_progress))
    raise AssertionError("a count ended")
