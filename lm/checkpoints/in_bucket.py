"""The checkpoints, snapshots and logs of a run whose folder stands for one in a bucket: pushed when they are whole, the
manifest last; fetched when a run goes on, or is asked, on another machine."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from lm.checkpoints.manifest import MANIFEST, PARTS, DamageError, steps_in, verify
from lm.run_paths import TRAINING_LOGS, RunPaths
from lm.storage import Mirror, Place, mirror_of, relative_name

CHECKPOINTS, SNAPSHOTS = RunPaths.checkpoints, RunPaths.snapshots
LOGS = tuple(log for log in TRAINING_LOGS if log != RunPaths.damaged_checkpoints)
"""What is pushed and fetched of them: what was set aside as damaged stays where it was."""


def steps_there(mirror: Mirror, kind: str = CHECKPOINTS) -> dict[int, list[str]]:
    """{step: names of all objects in the folder of its checkpoint, or snapshot, whole or not}, rising."""
    found: dict[int, list[str]] = {}
    for name in mirror.there:
        folder, _, rest = name.partition("/")
        step, _, _ = rest.partition("/")
        if folder == kind and step.isascii() and step.isdecimal():
            found.setdefault(int(step), []).append(name)
    return dict(sorted(found.items()))


def whole_there(mirror: Mirror, kind: str = CHECKPOINTS) -> list[int]:
    """The steps of those that have their manifest in the bucket, rising."""
    return [step for step in steps_there(mirror, kind) if manifest_of(kind, step) in mirror.there]


def manifest_of(kind: str, step: int) -> str:
    return f"{kind}/{step}/{MANIFEST}"


def steps_to_ask(run: RunPaths) -> list[int]:
    """The steps of all checkpoints and snapshots of a run, rising: those here, or in the bucket that it stands for."""
    mirror = mirror_of(run.root)
    if mirror is not None:
        return sorted({step for kind in (CHECKPOINTS, SNAPSHOTS) for step in whole_there(mirror, kind)})
    return sorted({*steps_in(run.checkpoints), *steps_in(run.snapshots)})


def push_training(run: Path, logs: Iterable[str] = LOGS) -> None:
    """Makes the bucket hold what the run folder holds of its training: logs; every checkpoint and snapshot, its
    manifest last; and those no longer that training has taken away here. Nothing where the folder stands for none.

    Raises InputError where that cannot be done; then the checkpoints there are as whole as they were.
    """
    mirror = mirror_of(run)
    if mirror is None:
        return
    mirror.push(mirror.here(logs))
    for kind in (SNAPSHOTS, CHECKPOINTS):
        steps = steps_in(run / kind)
        for step in steps:
            manifest = manifest_of(kind, step)
            if mirror.stat(manifest):
                mirror.push(name for name in files_of(run, kind, step) if name != manifest)
                mirror.push([manifest])
        for step, names in steps_there(mirror, kind).items():
            if step not in steps:
                written = listed_there(mirror, kind, step, names)
                mirror.delete([manifest_of(kind, step)])  # first: half of it must not be taken for whole
                mirror.delete(name for name in names if name in written)


def files_of(run: Path, kind: str, step: int) -> list[str]:
    """The files that the manifest lists, and itself; of one that was fetched for its manifest alone, that."""
    manifest = manifest_of(kind, step)
    return [manifest, *(listed_in(run / manifest, kind, step) or ())]


def listed_there(mirror: Mirror, kind: str, step: int, names: list[str]) -> set[str]:
    """What training wrote of it: by the manifest; where there is none, or it is damaged, by the names of its parts."""
    listed = listed_in(mirror.url / manifest_of(kind, step), kind, step)
    return {name for name in names if name.split("/")[2] in PARTS} if listed is None else {*listed}


def listed_in(manifest: Place, kind: str, step: int) -> list[str] | None:
    """The files of a checkpoint by its manifest; None where there is none, or it is damaged. Raises StorageError,
    and InputError for a file outside of the checkpoint."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return [f"{kind}/{step}/{relative_name(name, manifest)}" for name in listed]
    return None


def fetch_step(mirror: Mirror, kind: str, step: int) -> list[str]:
    """The names of those that were not here."""
    manifest = mirror.fetch([manifest_of(kind, step)])
    return manifest + mirror.fetch(files_of(mirror.folder, kind, step))


def fetch_to_go_on(run: Path) -> None:
    """Brings what training goes on from: its logs, the newest checkpoint that is what was written, and snapshots from
    its step on; of the others the manifests, by which it is known which of them stay. Nothing where the folder stands
    for none, or has it."""
    mirror = mirror_of(run)
    if mirror is None:
        return
    mirror.fetch(mirror.matching(LOGS))
    found = -1
    for step in reversed(whole_there(mirror)):
        if found >= 0:
            mirror.fetch([manifest_of(CHECKPOINTS, step)])
        elif not fetch_step(mirror, CHECKPOINTS, step):  # it was here, and will be verified
            found = step
        else:
            with contextlib.suppress(DamageError):
                verify(run / CHECKPOINTS / str(step))
                found = step
    for step in whole_there(mirror, SNAPSHOTS):
        if step >= found:
            fetch_step(mirror, SNAPSHOTS, step)
        else:
            mirror.fetch([manifest_of(SNAPSHOTS, step)])


def fetch_to_ask(run: Path, step: int | None = None) -> None:
    """Brings the checkpoint of `step`, or else its snapshot; without a step the newest. Nothing where the folder stands
    for none. Raises InputError where it cannot be read."""
    mirror = mirror_of(run)
    if mirror is None:
        return
    whole = [(kind, one) for kind in (CHECKPOINTS, SNAPSHOTS) for one in reversed(whole_there(mirror, kind))]
    wanted = next((pair for pair in whole if step in (None, pair[1])), None)
    for kind, one in whole:
        if (kind, one) == wanted:
            fetch_step(mirror, kind, one)
        elif step is not None:  # to name those that there are
            mirror.fetch([manifest_of(kind, one)])
