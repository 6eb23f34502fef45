"""A run folder in a bucket, worked on in a copy of it on this machine (lm/storage/mirror.py): what a stage reads is
fetched before it, and what it has made is pushed after it, its marker last. Stages that are `direct` do both at the
address itself, and so does training with its checkpoints and shards. Nothing here does anything where the run folder
is on a disk."""

import contextlib
import glob
import json
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from configs.experiment.run_folder import RunFolder
from data_prep.engine.tasks import DIGEST
from data_prep.engine.units import UNITS, delete_all
from launch.folder.guard import LOGS, MARKS, PASSED_OVER
from launch.folder.markers import read_note
from launch.folder.written import NOT_OURS
from lm.errors import InputError, UsageError
from lm.run_paths import HEARTBEATS, SUPERVISORS, RunPaths
from lm.storage import Mirror, copy_of, mirror_of, objects, size_of, unused
from lm.storage.mirror import LEASE

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
    mirror = mirror_of(workdir)
    if mirror is None:
        yield
        return
    refuse_no_run_there(mirror)
    print(f"run folder: {mirror.url}; what has to be on this disk for it is in {workdir}", flush=True)
    with mirror.held(GROWING, joined=(SUPERVISORS,)):  # a supervisor writes before its command is here
        mirror.fetch((), BOOKS)
        try:
            yield
        except BaseException:
            with contextlib.suppress(InputError):  # there is something else to be told
                mirror.push(mirror.here(GROWING))
            raise
        mirror.push(mirror.here(GROWING))


def process_copy(workdir: Path) -> Path:
    """The folder in which a process other than 0 works: a local copy that is never uploaded, if the run is in a bucket;
    else `workdir`. Nothing is read."""
    return copy_of(mirror.url, "processes") if (mirror := mirror_of(workdir)) else workdir


def for_process(workdir: Path) -> Path:
    """`process_copy`, with the config and the markers."""
    if copy := mirror_of(folder := process_copy(workdir)):
        copy.agree(sole=True)
        copy.fetch((), BOOKS)
    return folder


def to_read(workdir: Path) -> Path:
    """The folder by which the run is read without a change to it: in a bucket, a copy for that purpose."""
    if (mirror := mirror_of(workdir)) is None:
        return workdir
    return RunFolder.to_read(mirror.url).root


def refuse_no_run_there(mirror: Mirror) -> None:
    """Raises UsageError where other things than a run's lie below the address. Where a lease was taken, a run has
    begun, though a kill may have come before its first marker."""
    if mirror.matching(MARKS) or (mirror.url / LEASE).is_file():
        return
    tops = dict.fromkeys(name.split("/")[0] for name in mirror.there)
    others = [top for top in tops if top not in PASSED_OVER and not any(PurePosixPath(top).match(log) for log in LOGS)]
    if others:
        more = f" and {len(others) - 3} more" if others[3:] else ""
        raise UsageError(
            f"--workdir {mirror.url} is not empty ({', '.join(others[:3])}{more}), and is not the folder of a run. "
            "Nothing was changed. Give an address below which nothing is."
        )


def size_in(workdir: Path, name: str) -> int | None:
    """Bytes of a file of the run, be it here or in the bucket alone; None where there is none."""
    mirror = mirror_of(workdir)
    return mirror.size(name) if mirror else size_of(workdir / name)


def fetch(workdir: Path, names: Iterable[str], patterns: Iterable[str] = ()) -> None:
    """Brings files of these names, and all that are one of the shell patterns or lie in a folder that is one."""
    if mirror := mirror_of(workdir):
        copied = lambda one: one.split("/")[0] not in AT_ADDRESS
        mirror.fetch(filter(copied, names), filter(copied, patterns))


def fetch_inputs(
    workdir: Path, markers: Iterable[Mapping[str, Any]], patterns: Iterable[str], at_address: Iterable[str] = ()
) -> None:
    """Brings what finished stages have made, by their markers, and their logs, by the patterns; but nothing of the
    outputs that this stage reads `at_address`."""
    left_out = {*at_address}
    fetch(workdir, [name for one in markers for name in one["files"] if name.split("/")[0] not in left_out], patterns)


def announce(name: str, workdir: Path) -> None:
    """Upload `.begun` and delete the marker before the first output, so that another machine can resume."""
    if mirror := mirror_of(workdir):
        mirror.push(names_of(workdir, RunPaths(workdir).config_json, RunPaths(workdir).begun(name)))
        mirror.delete(names_of(workdir, RunPaths(workdir).marker(name)))


def there(mirror: Mirror, outputs: Iterable[str]) -> dict[str, int]:
    """{name: bytes} of the files of a stage's outputs at the address, as listed now."""
    mirror.listed = None
    return {name: mirror.there[name].size for name in mirror.matching(map(glob.escape, outputs))}


def set_aside(workdir: Path, stage: str, outputs: Iterable[str]) -> None:
    """Move what training has written to the address, in these outputs, to `replaced-<n>/` there."""
    if mirror := mirror_of(workdir):
        move_aside(mirror, stage, there(mirror, outputs))


def move_aside(mirror: Mirror, stage: str, names: Iterable[str]) -> None:
    """Move objects that the stage did not write to `replaced-<n>/` at the address, and print their names."""
    if not (found := sorted({*names} - written_there(mirror, stage))):
        return
    mirror.may_write()
    aside = unused(mirror.url / RunPaths.replaced)
    for name in found:
        for part in mirror.objects_of(name):
            objects.rename(f"{mirror.url}/{part}", f"{aside}/{part}")
    mirror.listed = None
    shown = ", ".join(found[:3]) + (", …" if found[3:] else "")
    print(f"{mirror.url}: what is there as {shown} {NOT_OURS}. Moved to {aside}", flush=True)


def delete_joins(workdir: Path) -> None:
    """Delete the markers of joins, steps with a digest in their name: what they made is intermediate, too."""
    if mirror := mirror_of(workdir):
        mirror.delete(
            [name for name in mirror.there if name.startswith(f"{UNITS}/") and DIGEST.search(name.split("/")[1])]
        )
        return
    for folder in RunPaths(workdir).units.glob("*"):
        if DIGEST.search(folder.name):
            delete_all(folder)


def publish(name: str, workdir: Path, by_products: Iterable[str], made_here: bool = True) -> None:
    """Push what the finished stage of that name has made, unless it is there: its files if they were `made_here`, its
    logs, and its marker last. Files of the previous version are deleted. Files that no run wrote stay."""
    mirror, paths = mirror_of(workdir), RunPaths(workdir)
    (marker_name,) = names_of(workdir, paths.marker(name))
    if mirror is None or mirror.unchanged(marker_name):
        return
    marker = read_note(paths.marker(name), "files")
    assert marker is not None
    mirror.delete([marker_name])
    before = written_there(mirror, name)
    mirror.push(marker["files"] if made_here else ())
    mirror.delete(before - {*marker["files"]})
    seen = [paths.seen(name)] if paths.seen(name).is_file() else []
    mirror.push([*mirror.here(by_products), *names_of(workdir, paths.config_json, paths.written(name), *seen)])
    mirror.push([marker_name])
    mirror.delete(names_of(workdir, paths.begun(name)))


def is_published(name: str, workdir: Path) -> bool:
    """Return False if a kill came between writing the marker of this stage in the working copy and uploading it. True
    for a run on a disk."""
    mirror, paths = mirror_of(workdir), RunPaths(workdir)
    marker, begun = names_of(workdir, paths.marker(name), paths.begun(name))
    return mirror is None or marker in mirror.there or begun not in mirror.there


def written_there(mirror: Mirror, name: str) -> set[str]:
    """The files that the stage wrote when it was last published."""
    (record,) = names_of(mirror.folder, RunPaths(mirror.folder).written(name))
    if record not in mirror.there:
        return set()
    with contextlib.suppress(ValueError):
        found = json.loads((mirror.url / record).read_text())
        return {*found} if isinstance(found, dict) else set()
    return set()


def push(workdir: Path, patterns: Iterable[str]) -> None:
    """Pushes files that belong to no stage."""
    if mirror := mirror_of(workdir):
        mirror.push(mirror.here(patterns))


def names_of(workdir: Path, *paths: Path) -> list[str]:
    return [str(path.relative_to(workdir)) for path in paths]
