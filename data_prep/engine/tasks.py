"""Steps whose units are tasks or files, and merges of many small files."""

import dataclasses
import functools
import itertools
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import manifest_of, read_manifest
from data_prep.engine.progress import OnProgress
from data_prep.engine.run import run_step
from data_prep.engine.units import (
    Counts,
    Marker,
    Step,
    Unit,
    Workspace,
    delete_files,
    identity_of,
    marker_of,
    quarantine_of,
    read_marker,
    read_quarantine,
)
from data_prep.parquet import THREADS, parquet_files, read_footer, sha256_of_end, text_bytes_of
from lm.errors import InputError
from lm.storage import Place, write_atomically, writing

FILES_AT_ONCE = 64
FILTERING = "filtering"
"""Name of the step that writes documents/."""
File = tuple[str, str]
"""(name in the step's folder, SHA-256) of an output file."""
DIGEST = re.compile("[0-9a-f]{12}")
"""Matches the digest in the name of a join's folder: a hash of the keys that the join reads."""


def allow_no_failures(engine: EngineConfig, units: int) -> EngineConfig:
    """Return `engine` for a step in which no unit may fail: with max_failed = 0. If the step has one unit and the
    engine uses only this machine, the unit runs in this process, which saves a second for starting a worker."""
    alone = units == 1 and engine.executor.this_machine
    return dataclasses.replace(engine, max_failed=0.0, workers=1 if alone else engine.workers)


def files_of(markers: Iterable[Marker], folder: str = "") -> list[File]:
    """Return (name, SHA-256) of the outputs of finished units, in order, if their names begin with `folder`."""
    return [(name, sha) for one in markers for name, (_, sha) in one.outputs.items() if name.startswith(folder)]


def file_of_each(markers: Collection[Marker], folder: str) -> list[File]:
    """Return (name, SHA-256) of the output that each finished unit has in `folder`. Raises InputError unless each has
    one, because documents would be missing from the results."""
    files = files_of(markers, folder)
    if len(files) != len(markers):
        raise InputError(
            f"{len(markers):,} units of work are recorded as done (units/ in the run folder), but the records list "
            f"{len(files):,} output files in {folder}, not one for each: a record was changed. Delete units/, then "
            "give the same command again. It repeats the finished work."
        )
    return files


Merge = Callable[[Sequence[Path], Path, Path], int]
"""(input files, output file, folder for temporary files) -> number of rows written"""


def merge_files(unit: Unit[tuple[str, ...]], space: Workspace, folder: str, merge: Merge) -> Counts:
    """Merge the input files of a unit into `folder`/<unit name>.merged with `merge`. Returns {"rows": rows written}."""
    target = space.output(f"{folder}/{unit.name}.merged")
    return {"rows": merge([space.input(name) for name in unit.input], target, space.scratch)}


def merge_in_groups(
    name: str, files: Sequence[File], merge: Merge, folder: Place, engine: EngineConfig, on_progress: OnProgress
) -> Sequence[File]:
    """Merge `files` into at most FILES_AT_ONCE files and return these: groups of FILES_AT_ONCE are merged into one file
    each, repeatedly, in parts/<name> of `folder`. Raises InputError if a merge fails."""
    for level in itertools.count(1):
        if len(files) <= FILES_AT_ONCE:
            return files
        units = [
            Unit(
                f"{level}-{number:06d}",
                identity_of(name, [sha256 for _, sha256 in group]),
                len(group),
                tuple(file for file, _ in group),
            )
            for number, group in enumerate(itertools.batched(files, FILES_AT_ONCE))
        ]
        work = functools.partial(merge_files, folder=f"parts/{name}", merge=merge)
        step = Step(f"{name}-{level}", tuple(units), work, "rows", "groups")
        files = files_of(run_step(step, allow_no_failures(engine, len(units)), folder, on_progress).values())
    raise AssertionError("a count ended")


Work = Callable[[Any, Path], Counts | None]
"""(task, local path to write) -> counts, or None for no counts"""
Run = Callable[[Sequence[Any], Work], list[Counts]]
"""Runs the work on all tasks: (tasks, work) -> counts of each task, in order. A task is a dataclass with a field
`run_file`, the path of its output. Tasks whose output exists are skipped."""


def delete_other_digests(folder: Place) -> None:
    """Delete outdated results of joins: the folders next to `folder` whose names differ from its name only in the
    digest of the joined keys. They could fill the disk; in a bucket they stay until the stage ends. Each is renamed
    first, so that an interrupted deletion leaves no folder that looks complete."""
    if not isinstance(folder, Path) or not folder.parent.is_dir():
        return
    name = re.compile(DIGEST.sub(DIGEST.pattern, re.escape(folder.name)) + r"(\.deleted)?")
    for other in [one for one in folder.parent.iterdir() if one != folder and name.fullmatch(one.name)]:
        renamed = other.with_name(f"{other.name.removesuffix('.deleted')}.deleted")
        other.rename(renamed)
        shutil.rmtree(renamed)


def absolute(place: Place) -> Place:
    """Return `place` with an absolute path, since workers may have another working folder. URLs are unchanged."""
    return place.absolute() if isinstance(place, Path) else place


def relative(folder: Place, place: Place) -> str:
    """Return the path of the file `place` relative to `folder`. Raises ValueError if the file is not in the folder."""
    above, below = f"{folder}/", str(place)
    if not below.startswith(above):
        raise ValueError(f"{place} is not in {folder}")
    return below.removeprefix(above)


def run_task(unit: Unit[Any], space: Workspace, work: Work) -> Counts:
    """Call `work` with the unit's task and a local path to write; return its counts. The file is stored at the task's
    `run_file`."""
    return work(unit.input, space.output(relative(space.folder, unit.input.run_file))) or {}


@dataclass(frozen=True)
class StoredFile:
    path: Place
    bytes: int
    """File size."""
    sha256: str
    """Hash of the contents if the step's manifest has the file, otherwise of its end (`sha256_of_end`)."""
    counts: Counts
    """Counts of the unit that wrote it."""
    id: int = 0
    """For files of texts/ and files derived from them: number of the file in deduplication, a hash of its name
    (`file_ids`)."""

    @property
    def name(self) -> str:
        """Name without .parquet, unique in its folder."""
        return self.path.name.removesuffix(".parquet")

    @property
    def identity(self) -> list:
        return [self.path.name, self.bytes, self.sha256, self.id]


def stored_files(folder: Place, step: str, *counts: str) -> list[StoredFile]:
    """Return the Parquet files of `folder`, sorted by name, with hashes and counts. The manifest of the `step` that
    wrote the files has these, so footers are not read. A file that is not in the manifest is identified by its end
    (`sha256_of_end`) and, if names of `counts` are given, has "documents" and "text_bytes" from its footer. Raises
    InputError if a footer cannot be read."""
    made = read_manifest(step, folder.parent).values()
    known = {name: (*about, one.counts) for one in made for name, about in one.outputs.items()}

    def stored(file: tuple[Place, int]) -> StoredFile:
        place, size = file
        found = known.get(f"{folder.name}/{place.name}")
        numbers = [found[2].get(name) for name in counts] if found else []
        if found and found[0] == size and all(type(one) is int and 0 <= one < 2**63 for one in numbers):
            return StoredFile(place, *found)
        footer = read_footer(place) if counts else None
        about = {"documents": footer.num_rows, "text_bytes": sum(text_bytes_of(footer))} if footer else {}
        return StoredFile(place, size, sha256_of_end(place), about)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(stored, parquet_files(folder).items()))


@dataclass(frozen=True)
class FileRunner:
    """Runs pipeline steps in which each input file is one unit of work. Outputs and the records of finished files are
    written to `folder`, so a repeated call processes only new or changed files."""

    folder: Place
    engine: EngineConfig
    on_progress: OnProgress
    failed: dict[str, str] = field(default_factory=dict)
    """{name of a failed file: the first step in which it failed}, over all steps so far."""

    def __call__[F: StoredFile](
        self, step: str, files: Sequence[F], work: Callable[[F, Workspace], Counts | None], identity: object
    ) -> tuple[list[F], dict[str, Marker]]:
        """Run `work` on each file. Return the finished files and their markers; failed files are printed, or end the
        step (`run_step`). `identity`, a value or a function of the file, is whatever else determines the outputs."""
        of = identity if callable(identity) else lambda file: identity
        units = tuple(Unit(one.name, identity_of(step, one.identity, of(one)), one.bytes, one) for one in files)
        wanted = Step(step, units, functools.partial(run_file, work=work), label=step.replace("-", " "))
        made = run_step(wanted, self.engine, self.folder, self.on_progress)
        for one in files:
            if one.name not in made:
                self.failed.setdefault(one.name, step)
        return [one for one in files if one.name in made], dict(made)

    def merge(self, name: str, files: Sequence[File], merge: Merge) -> list[Place]:
        few = merge_in_groups(name, files, merge, self.folder, self.engine, self.on_progress)
        return [self.folder / name for name, _ in few]

    def tasks(self, label: str, identity: str = "") -> Run:
        """Return a function (tasks, work) that runs each task as one unit of a step. `label` names the work in progress
        lines; `identity` is a hash of everything that determines the outputs, except their names. The function raises
        like `run_step`, also if a single task fails."""

        def run(tasks: Sequence[Any], work: Work) -> list[Counts]:
            names = [relative(self.folder, task.run_file) for task in tasks]
            units = tuple(
                Unit(name.replace("/", "."), identity_of("task", identity, name), 1, task)
                for name, task in zip(names, tasks, strict=True)
            )
            # The path of the first file distinguishes this step from others of the same work, and of other digests.
            named = f"{label.replace(' ', '-')}.{names[0].replace('/', '.')}"
            part = tasks[0].run_file.parent.name  # such as "round-2"
            told = label if DIGEST.search(part) else f"{label}, {part.replace('-', ' ')}"
            step = Step(named, units, functools.partial(run_task, work=work), rows="", inputs="tasks", label=told)
            made = run_step(step, allow_no_failures(self.engine, len(units)), self.folder, self.on_progress)
            return [made[unit.name].counts for unit in units]

        return run


def run_file(unit: Unit[Any], space: Workspace, work: Callable[[Any, Workspace], Counts | None]) -> Counts:
    counts = work(unit.input, space)
    return {"rows": space.rows, **(counts or {})}


def quarantine_in(step: str, file: str, failed_in: str, folder: Place) -> None:
    """Quarantine a file in the earlier step `step` because it failed in the later step `failed_in`, and delete its
    outputs of `step`. Later runs of `step` skip the file until the file or the settings change, or failed units are
    retried. Raises InputError if the record of the failure is missing."""
    record = read_quarantine(quarantine_of(failed_in, file, folder))
    marker = read_marker(marker_of(step, file, folder))
    if record is None or marker is None:
        raise InputError(f"{quarantine_of(failed_in, file, folder)} is missing or damaged. Run the same command again.")
    record |= {"identity": marker.identity, "error": f"{failed_in}: {record['error']}"}
    place = quarantine_of(step, file, folder)
    with writing(folder):
        write_atomically(place, json.dumps(record, indent=1) + "\n")
        manifest_of(step, folder).unlink(missing_ok=True)
        marker_of(step, file, folder).unlink(missing_ok=True)
    delete_files(folder, marker.outputs)
