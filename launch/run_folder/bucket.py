"""A run folder in a bucket, of which a command holds some files on this disk (lm/storage/local_copy.py): what a stage
reads is fetched before it, and what it has made is uploaded after it, its marker last. Stages that are `direct` do both
at the address itself, and so does training with its checkpoints and shards. Nothing here does anything where the run
folder is on a disk."""

import contextlib
import glob
import json
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from configs.experiment.run_folder import RunFolder
from data_prep.engine.tasks import DIGEST
from data_prep.engine.units import UNITS, delete_all
from launch.run_folder.checks import LOGS, MARKS, PASSED_OVER
from launch.run_folder.markers import read_note
from launch.run_folder.outputs import NOT_OURS
from lm.errors import InputError, UsageError
from lm.run_paths import HEARTBEATS, SUPERVISORS, RunPaths
from lm.storage import LocalCopy, local_copy_of, local_folder, objects, size_of, unused
from lm.storage.local_copy import LEASE

BOOKS = (RunPaths.config_json, RunPaths.stages)
AT_ADDRESS = (RunPaths.checkpoints, RunPaths.snapshots, RunPaths.damaged_checkpoints)
"""Folders that every process reads and writes directly in the bucket, never through a local copy."""
GROWING = (RunPaths.metrics, RunPaths.skipped_steps, RunPaths.goodput, RunPaths.samples, HEARTBEATS, SUPERVISORS)
"""Logs that are pushed while training goes on, too; the others with each checkpoint."""


@contextlib.contextmanager
def held(workdir: Path) -> Generator[None]:
    """This process alone works in the run folder, and its books are here, until the block ends.

    Raises UsageError when what is there is no run, InputError when a process of another machine is at work in it.
    """
    copy = local_copy_of(workdir)
    if copy is None:
        yield
        return
    refuse_no_run_there(copy)
    print(f"run folder: {copy.url}; what has to be on this disk for it is in {workdir}", flush=True)
    with copy.held(GROWING, joined=(SUPERVISORS,)):  # a supervisor writes before its command is here
        copy.fetch((), BOOKS)
        try:
            yield
        except BaseException:
            with contextlib.suppress(InputError):  # there is something else to be told
                copy.push(copy.here(GROWING))
            raise
        copy.push(copy.here(GROWING))


def process_folder(workdir: Path, index: int) -> Path:
    """The folder in which process `index` works: of a run in a bucket, another one for each, from which only that of
    process 0 is uploaded; else `workdir`. Nothing is read."""
    copy = local_copy_of(workdir) if index else None
    return local_folder(copy.url, f"process-{index}") if copy else workdir


def prepared_folder(workdir: Path, index: int) -> Path:
    """`process_folder` of a process other than 0, with the config and the markers."""
    if copy := local_copy_of(folder := process_folder(workdir, index)):
        copy.clear()
        copy.fetch((), BOOKS)
    return folder


def to_read(workdir: Path) -> Path:
    """The folder by which the run is read without a change to it: in a bucket, a copy for that purpose."""
    if (copy := local_copy_of(workdir)) is None:
        return workdir
    return RunFolder.to_read(copy.url).root


def refuse_no_run_there(copy: LocalCopy) -> None:
    """Raises UsageError where other things than a run's lie below the address. Where a lease was taken, a run has
    begun, though a kill may have come before its first marker."""
    if copy.matching(MARKS) or (copy.url / LEASE).is_file():
        return
    tops = dict.fromkeys(name.split("/")[0] for name in copy.there)
    others = [top for top in tops if top not in PASSED_OVER and not any(PurePosixPath(top).match(log) for log in LOGS)]
    if others:
        more = f" and {len(others) - 3} more" if others[3:] else ""
        raise UsageError(
            f"--workdir {copy.url} is not empty ({', '.join(others[:3])}{more}), and is not the folder of a run. "
            "Nothing was changed. Give an address below which nothing is."
        )


def size_in(workdir: Path, name: str) -> int | None:
    """Bytes of a file of the run, be it here or in the bucket alone; None where there is none."""
    copy = local_copy_of(workdir)
    return copy.size(name) if copy else size_of(workdir / name)


def fetch(workdir: Path, names: Iterable[str], patterns: Iterable[str] = ()) -> None:
    """Brings files of these names, and all that are one of the shell patterns or lie in a folder that is one."""
    if copy := local_copy_of(workdir):
        copied = lambda one: one.split("/")[0] not in AT_ADDRESS
        copy.fetch(filter(copied, names), filter(copied, patterns))


def fetch_inputs(
    workdir: Path, markers: Iterable[Mapping[str, Any]], patterns: Iterable[str], at_address: Iterable[str] = ()
) -> None:
    """Brings what finished stages have made, by their markers, and their logs, by the patterns; but nothing of the
    outputs that this stage reads `at_address`."""
    left_out = {*at_address}
    fetch(workdir, [name for one in markers for name in one["files"] if name.split("/")[0] not in left_out], patterns)


def announce(name: str, workdir: Path) -> None:
    """Upload `.begun` and delete the marker before the first output, so that another machine can resume."""
    if copy := local_copy_of(workdir):
        copy.push(names_of(workdir, RunPaths(workdir).config_json, RunPaths(workdir).begun(name)))
        copy.delete(names_of(workdir, RunPaths(workdir).marker(name)))


def there(copy: LocalCopy, outputs: Iterable[str]) -> dict[str, int]:
    """{name: bytes} of the files of a stage's outputs at the address, as listed now."""
    copy.listed = None
    return {name: copy.there[name].size for name in copy.matching(map(glob.escape, outputs))}


def set_aside(workdir: Path, stage: str, outputs: Iterable[str]) -> None:
    """Move what training has written to the address, in these outputs, to `replaced-<n>/` there."""
    if copy := local_copy_of(workdir):
        move_aside(copy, stage, there(copy, outputs))


def move_aside(copy: LocalCopy, stage: str, names: Iterable[str]) -> None:
    """Move objects that the stage did not write to `replaced-<n>/` at the address, and print their names."""
    if not (found := sorted({*names} - written_there(copy, stage))):
        return
    copy.may_write()
    aside = unused(copy.url / RunPaths.replaced)
    for name in found:
        for part in copy.objects_of(name):
            objects.rename(f"{copy.url}/{part}", f"{aside}/{part}")
    copy.listed = None
    shown = ", ".join(found[:3]) + (", …" if found[3:] else "")
    print(f"{copy.url}: what is there as {shown} {NOT_OURS}. Moved to {aside}", flush=True)


def delete_joins(workdir: Path) -> None:
    """Delete the markers of joins, steps with a digest in their name: what they made is intermediate, too."""
    if copy := local_copy_of(workdir):
        copy.delete([name for name in copy.there if name.startswith(f"{UNITS}/") and DIGEST.search(name.split("/")[1])])
        return
    for folder in RunPaths(workdir).units.glob("*"):
        if DIGEST.search(folder.name):
            delete_all(folder)


def publish(name: str, workdir: Path, by_products: Iterable[str], made_here: bool = True) -> None:
    """Push what the finished stage of that name has made, unless it is there: its files if they were `made_here`, its
    logs, and its marker last. Files of the previous version are deleted. Files that no run wrote stay."""
    copy, paths = local_copy_of(workdir), RunPaths(workdir)
    (marker_name,) = names_of(workdir, paths.marker(name))
    if copy is None or copy.unchanged(marker_name):
        return
    marker = read_note(paths.marker(name))
    assert marker is not None
    copy.delete([marker_name])
    before = written_there(copy, name)
    copy.push(marker["files"] if made_here else ())
    copy.delete(before - {*marker["files"]})
    seen = [paths.seen(name)] if paths.seen(name).is_file() else []
    copy.push([*copy.here(by_products), *names_of(workdir, paths.config_json, paths.written(name), *seen)])
    copy.push([marker_name])
    copy.delete(names_of(workdir, paths.begun(name)))


def written_there(copy: LocalCopy, name: str) -> set[str]:
    """The files that the stage wrote when it was last published."""
    (record,) = names_of(copy.folder, RunPaths(copy.folder).written(name))
    if record not in copy.there:
        return set()
    with contextlib.suppress(ValueError):
        found = json.loads((copy.url / record).read_text())
        return {*found} if isinstance(found, dict) else set()
    return set()


def push(workdir: Path, patterns: Iterable[str]) -> None:
    """Pushes files that belong to no stage."""
    if copy := local_copy_of(workdir):
        copy.push(copy.here(patterns))


def names_of(workdir: Path, *paths: Path) -> list[str]:
    return [str(path.relative_to(workdir)) for path in paths]
