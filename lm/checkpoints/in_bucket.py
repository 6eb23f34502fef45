"""The checkpoints and logs of a run whose folder stands for one in a bucket: pushed when they are whole, the manifest
last; fetched when a run goes on, or is asked, on another machine."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from lm.checkpoints.manifest import MANIFEST, PARTS, DamageError, steps_in, verify
from lm.run_paths import TRAINING_LOGS, RunPaths
from lm.storage import Mirror, Place, mirror_of

FOLDER = RunPaths.checkpoints
LOGS = tuple(log for log in TRAINING_LOGS if log != RunPaths.damaged_checkpoints)
"""What is pushed and fetched of them: what was set aside as damaged stays where it was."""


def steps_there(mirror: Mirror) -> dict[int, list[str]]:
    """{step: names of all objects in the folder of its checkpoint, whole or not}, rising."""
    found: dict[int, list[str]] = {}
    for name in mirror.there:
        folder, _, rest = name.partition("/")
        step, _, _ = rest.partition("/")
        if folder == FOLDER and step.isdecimal():
            found.setdefault(int(step), []).append(name)
    return dict(sorted(found.items()))


def manifest_of(step: int) -> str:
    return f"{FOLDER}/{step}/{MANIFEST}"


def push_training(run: Path, logs: Iterable[str] = LOGS) -> None:
    """Makes the bucket hold what the run folder holds of its training: logs; every checkpoint, its manifest last; and
    those no longer that training has taken away here. Nothing where the folder stands for none.

    Raises InputError where that cannot be done; then the checkpoints there are as whole as they were.
    """
    mirror = mirror_of(run)
    if mirror is None:
        return
    mirror.push(mirror.here(logs))
    steps = steps_in(run / FOLDER)
    for step in steps:
        if mirror.stat(manifest_of(step)):
            mirror.push(name for name in files_of(run, step) if name != manifest_of(step))
            mirror.push([manifest_of(step)])
    for step, names in steps_there(mirror).items():
        if step not in steps:
            written = listed_there(mirror, step, names)
            mirror.delete([manifest_of(step)])  # first: half of it must not be taken for whole
            mirror.delete(name for name in names if name in written)


def files_of(run: Path, step: int) -> list[str]:
    """The files that the manifest lists, and itself; of one that was fetched for its manifest alone, that."""
    return [manifest_of(step), *(listed_in(run / manifest_of(step), step) or ())]


def listed_there(mirror: Mirror, step: int, names: list[str]) -> set[str]:
    """What training wrote of it: by the manifest; where there is none, or it is damaged, by the names of its parts."""
    listed = listed_in(mirror.url / manifest_of(step), step)
    return {name for name in names if name.split("/")[2] in PARTS} if listed is None else {*listed}


def listed_in(manifest: Place, step: int) -> list[str] | None:
    """The files of a checkpoint by its manifest; None where there is none, or it is damaged. Raises StorageError."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return [f"{FOLDER}/{step}/{name}" for name in listed]
    return None


def fetch_step(mirror: Mirror, step: int) -> list[str]:
    """The names of those that were not here."""
    manifest = mirror.fetch([manifest_of(step)])
    return manifest + mirror.fetch(files_of(mirror.folder, step))


def fetch_to_go_on(run: Path) -> None:
    """Brings what training goes on from: its logs, the newest checkpoint that is what was written, and of the older
    ones the manifests, by which it is known which of them stay. Nothing where the folder stands for none, or has it."""
    mirror = mirror_of(run)
    if mirror is None:
        return
    mirror.fetch(mirror.matching(LOGS))
    whole = [step for step in steps_there(mirror) if manifest_of(step) in mirror.there]
    found = False
    for step in reversed(whole):
        if found:
            mirror.fetch([manifest_of(step)])
        elif not fetch_step(mirror, step):  # it was here, and will be verified
            found = True
        else:
            with contextlib.suppress(DamageError):
                verify(run / FOLDER / str(step))
                found = True


def fetch_to_ask(run: Path, step: int | None = None) -> None:
    """Brings the checkpoint of `step`, or the newest. Nothing where the folder stands for none. Raises InputError where
    it cannot be read."""
    mirror = mirror_of(run)
    if mirror is None:
        return
    whole = [one for one in steps_there(mirror) if manifest_of(one) in mirror.there]
    for one in whole:
        if one == step or (step is None and one == whole[-1]):
            fetch_step(mirror, one)
        elif step is not None:  # to name those that there are
            mirror.fetch([manifest_of(one)])
