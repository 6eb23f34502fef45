"""Run folders in a bucket. Inputs of a stage are downloaded before it runs, its outputs are uploaded afterwards, the
marker last (lm/storage/local_copy.py). Stages with `direct` set read and write the bucket without copies, and so does
training for checkpoints and shards. For a run folder on a disk, these functions do nothing."""

import contextlib
import glob
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from configs.experiment.run_folder import RunFolder
from launch.run_folder.checks import LOGS, MARKS, PASSED_OVER
from launch.run_folder.markers import read_note
from launch.run_folder.outputs import NOT_OURS, read_record
from lm.errors import InputError, UsageError, print_untrusted
from lm.run_paths import HEARTBEATS, SUPERVISORS, RunPaths
from lm.storage import LocalCopy, local_copy_of, local_folder, objects, size_of, unused
from lm.storage.local_copy import LEASE
from lm.terminal import listed

BOOKS = (RunPaths.config_json, RunPaths.stages)
AT_ADDRESS = (RunPaths.checkpoints, RunPaths.snapshots, RunPaths.damaged_checkpoints)
"""Folders that every process reads and writes directly in the bucket."""
GROWING = (
    RunPaths.metrics, RunPaths.skipped_steps, RunPaths.goodput, RunPaths.samples, HEARTBEATS, SUPERVISORS,
    RunPaths.hangs, f"{RunPaths.wandb}/run_id",
)  # fmt: skip
"""Logs that are also uploaded during training; the others are uploaded with each checkpoint."""


@contextlib.contextmanager
def held(workdir: Path, index: int = 0) -> Generator[None]:
    """Hold the lease (a lock) of a run in a bucket until the block ends, so that no other machine writes to the run.
    First downloads the config and the markers. `index` is the number of this process: processes other than 0 only
    download. Raises UsageError if the address has objects but no run, InputError if another machine holds the lease."""
    copy = local_copy_of(workdir)
    if copy is None:
        yield
        return
    if index:
        copy.clear((RunPaths.hangs, RunPaths.profile))  # which are never uploaded
        copy.fetch((), BOOKS)
        yield
        return
    refuse_no_run_there(copy)
    print(f"run folder: {copy.url}; local files in {workdir}", flush=True)
    with copy.held(GROWING, joined=(SUPERVISORS,)):  # a supervisor writes before its command is here
        copy.fetch((), BOOKS)
        try:
            yield
        except BaseException:
            with contextlib.suppress(InputError):  # the original error takes precedence
                copy.push(copy.here(GROWING))
            raise
        copy.push(copy.here(GROWING))


def process_folder(workdir: Path, index: int) -> Path:
    """Return the local folder of process `index`. For a run in a bucket, each process has its own, and only that of
    process 0 is uploaded; for a run on a disk, it is `workdir`."""
    copy = local_copy_of(workdir) if index else None
    return local_folder(copy.url, f"process-{index}") if copy else workdir


def to_read(workdir: Path) -> Path:
    """Return a folder to read the run from: a separate local copy of a run in a bucket, otherwise `workdir`."""
    if (copy := local_copy_of(workdir)) is None:
        return workdir
    return RunFolder.to_read(copy.url).root


def refuse_no_run_there(copy: LocalCopy) -> None:
    """Raise UsageError if the run's address in the bucket has objects but no run. An address with a lease (a lock)
    counts as a run: a process may have been killed before it wrote anything else."""
    if copy.matching(MARKS) or (copy.url / LEASE).is_file():
        return
    tops = dict.fromkeys(name.split("/")[0] for name in copy.there)
    others = [top for top in tops if top not in PASSED_OVER and not any(PurePosixPath(top).match(log) for log in LOGS)]
    if others:
        raise UsageError(
            f"--workdir {copy.url} is not empty ({listed(others)}), and is not a run folder. Nothing was "
            "changed. Give an address without objects."
        )


def size_in(workdir: Path, name: str) -> int | None:
    """Return the size in bytes of a file of the run, on the disk or in the bucket; None if it does not exist."""
    copy = local_copy_of(workdir)
    return copy.size(name) if copy else size_of(workdir / name)


def fetch(workdir: Path, names: Iterable[str], patterns: Iterable[str] = ()) -> None:
    """Download files of the run by name, and what matches a shell pattern, but no checkpoints or snapshots."""
    if copy := local_copy_of(workdir):
        copied = lambda one: one.split("/")[0] not in AT_ADDRESS
        copy.fetch(filter(copied, names), filter(copied, patterns))


def fetch_inputs(
    workdir: Path, markers: Iterable[Mapping[str, Any]], patterns: Iterable[str], at_address: Iterable[str] = ()
) -> None:
    """Download the inputs of a stage: files that the `markers` of earlier stages list, and logs that match `patterns`.
    Skips the folders `at_address`, such as tokens, which the stage reads in the bucket."""
    left_out = {*at_address}
    fetch(workdir, [name for one in markers for name in one["files"] if name.split("/")[0] not in left_out], patterns)


def announce(name: str, workdir: Path) -> None:
    """Record in the bucket that stage `name` has begun, so that another machine can resume the stage: upload
    stages/<name>.begun and config.json, and delete the stage's old marker."""
    if copy := local_copy_of(workdir):
        copy.push(names_of(workdir, RunPaths(workdir).config_json, RunPaths(workdir).begun(name)))
        copy.delete(names_of(workdir, RunPaths(workdir).marker(name)))


def there(copy: LocalCopy, outputs: Iterable[str]) -> dict[str, int]:
    """List the bucket, and return {name: size in bytes} of the stage's `outputs` in it."""
    copy.listed = None
    return {name: copy.there[name].size for name in copy.matching(map(glob.escape, outputs))}


def set_aside(workdir: Path, stage: str, outputs: Iterable[str]) -> None:
    """Move to `replaced-<n>/`, in the bucket, each object of `outputs` that `stage` did not write."""
    if copy := local_copy_of(workdir):
        move_aside(copy, stage, there(copy, outputs))


def move_aside(copy: LocalCopy, stage: str, names: Iterable[str]) -> None:
    """Move to `replaced-<n>/`, in the bucket, each object in `names` that `stage` did not write; print their names."""
    if not (found := sorted({*names} - written_there(copy, stage))):
        return
    copy.may_write()
    aside = unused(copy.url / RunPaths.replaced)
    for name in found:
        objects.rename(f"{copy.url}/{name}", f"{aside}/{name}")
    copy.listed = None
    print_untrusted(f"{copy.url}: {listed(found)} {NOT_OURS}. Moved to {aside}")


def delete_joins(workdir: Path) -> None:
    """Delete the completion markers of joins, the steps of deduplication that are named by a hash of their inputs. Call
    this before parts/, the folder of their outputs, is deleted."""
    from data_prep.engine.tasks import DIGEST
    from data_prep.engine.units import delete_all

    if copy := local_copy_of(workdir):
        copy.delete(
            [name for name in copy.there if name.startswith(f"{RunPaths.units}/") and DIGEST.search(name.split("/")[1])]
        )
        return
    for folder in RunPaths(workdir).units.glob("*"):
        if DIGEST.search(folder.name):
            delete_all(folder)


def publish(name: str, workdir: Path, by_products: Iterable[str], made_here: bool = True) -> None:
    """Upload a finished stage to the bucket: its outputs if they are on this disk (`made_here`), files that match the
    patterns `by_products`, and its marker last. Deletes outputs of its previous version, but no files of the user."""
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
    """Names of the files that stage `name` wrote, as recorded in the bucket."""
    (record,) = names_of(copy.folder, RunPaths(copy.folder).written(name))
    return {*read_record(copy.url / record)} if record in copy.there else set()


def push(workdir: Path, patterns: Iterable[str]) -> None:
    """Upload files of the run that match these shell patterns."""
    if copy := local_copy_of(workdir):
        copy.push(copy.here(patterns))


def names_of(workdir: Path, *paths: Path) -> list[str]:
    return [str(path.relative_to(workdir)) for path in paths]
