"""State of training in a run folder: the newest checkpoint, and whether a run can continue with other train.steps."""

import shlex
from pathlib import Path

from lm.checkpoints.manifest import DamageError, folders_of, lengths, read_manifest, steps_in
from lm.errors import UsageError
from lm.resilience.goodput import read_attempts
from lm.run_paths import RunPaths
from lm.storage import shown_place


def newest(workdir: Path) -> tuple[str, ...]:
    """The newest checkpoint. Finished training requires only this one; users may delete older ones."""
    return tuple(f"{RunPaths.checkpoints}/{step}" for step in steps_in(folders_of(RunPaths(workdir))[0])[-1:])


def holds_work(workdir: Path) -> bool:
    """Whether there is a checkpoint, or an earlier attempt resumed from one."""
    return bool(newest(workdir)) or any(one.first_step for one in read_attempts(workdir))


def goes_on(old: dict, new: dict, workdir: Path) -> bool:
    """Whether `new` differs from `old` only in train.steps. Raises UsageError if it has fewer steps than are done."""
    steps = new["train"]["steps"]
    if old | {"train": old["train"] | {"steps": steps}} != new:
        return False
    done = max(steps_in(folders_of(RunPaths(workdir))[0]), default=0)
    if steps < done:
        place = shown_place(workdir)
        other = "--workdir OTHER" + (f" --from {shlex.quote(str(workdir))}" if place == workdir else "")
        raise UsageError(
            f"train.steps = {steps}, but {done} steps are made already in {place}. Nothing was changed. Give {done} "
            f"or more to train on; or train anew in another folder: {other}"
        )
    return True


def continued_from(workdir: Path, settings: dict) -> list[dict[str, int]]:
    """Earlier values of train.steps of this run (lm.checkpoints.manifest.lengths)."""
    for checkpoint in newest(workdir):
        try:
            about = read_manifest(shown_place(workdir / checkpoint))["about"]
        except DamageError:  # whoever reads its arrays says so
            return []
        return lengths(about, settings["train"]["steps"])["continued_from"]
    return []
