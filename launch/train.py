"""Train the model on the run's shards. If interrupted, run the same command to resume from the last checkpoint."""

import shlex
import time
from pathlib import Path

from configs.experiment import Experiment
from launch import preflight, train_tokenizer, write_shards
from launch.stages.agreement import agree_on
from launch.stages.command import run_stage_command
from launch.stages.processes import load_training
from launch.stages.stage import Stage
from lm.address_space import TRAINING, check_address_space
from lm.checkpoints import manifest as checkpoint_files
from lm.checkpoints.manifest import DamageError, folders_of, lengths, read_manifest, steps_in
from lm.data.mixture import mixture_manifests
from lm.errors import UsageError
from lm.fields import code_names
from lm.resilience.goodput import read_attempts
from lm.run_paths import TRAINING_LOGS, RunPaths
from lm.storage import shown_place
from lm.trusted_code import code_hashes


def make(experiment: Experiment, run: Path) -> None:
    began = time.time()
    check_address_space(TRAINING)
    train = load_training(run, began, experiment.train.join_timeout, experiment.train.start_seconds)
    agree_on(experiment, run)
    preflight.check_prompts(experiment, RunPaths(run).tokenizer)  # also the prompts of the sample stage
    train(experiment.model, experiment.train, run)


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return {name: SHA-256} of inputs outside of the run folder: the user's own modules, shards of other runs (by
    their manifests), and the checkpoint that training starts from."""
    model, optimizer = experiment.model, experiment.train.optimizer
    own = code_names(model, "model.") | code_names(optimizer, "train.optimizer.")
    found = mixture_manifests(experiment.train) | code_hashes(own)
    if experiment.train.start.checkpoint:
        folder = experiment.train.start.folder()
        found[f"SHA-256 of the files of {folder}"] = checkpoint_files.files_sha256(folder)
    return found


def newest(workdir: Path) -> tuple[str, ...]:
    """Return (path of the newest checkpoint,), the only one that finished training requires; () if there is none."""
    return tuple(f"{RunPaths.checkpoints}/{step}" for step in steps_in(folders_of(RunPaths(workdir))[0])[-1:])


def holds_work(workdir: Path) -> bool:
    """Whether an unfinished training has a checkpoint to resume from, or has resumed from a checkpoint before."""
    return bool(newest(workdir)) or any(one.first_step for one in read_attempts(workdir))


def can_continue(old: dict, new: dict, workdir: Path) -> bool:
    """Whether training with the settings `old` can continue with `new`: only train.steps and train.patience differ.
    Raises UsageError if train.steps is below the steps already done."""
    steps = new["train"]["steps"]
    if old | {"train": old["train"] | {"steps": steps, "patience": new["train"]["patience"]}} != new:
        return False
    done = max(steps_in(folders_of(RunPaths(workdir))[0]), default=0)
    if steps < done:
        place = shown_place(workdir)
        other = "--workdir OTHER" + (f" --from {shlex.quote(str(workdir))}" if place == workdir else "")
        raise UsageError(
            f"train.steps = {steps}, but {place} already has {done} steps. Nothing was changed. To train further, "
            f"give more than {done}; to start again, use another folder: {other}"
        )
    return True


def continued_from(workdir: Path, settings: dict) -> list[dict[str, int]]:
    """Return the earlier values of train.steps of this run, from its newest checkpoint: [{"steps": value, "at": step of
    the checkpoint at which the value was changed}]. `settings` are the current settings."""
    for checkpoint in newest(workdir):
        try:
            about = read_manifest(shown_place(workdir / checkpoint))["about"]
        except DamageError:  # reported when its arrays are read
            return []
        return lengths(about, settings["train"]["steps"])["continued_from"]
    return []


STAGE = Stage(
    name="train",
    script="launch.train",
    after=(train_tokenizer.STAGE, write_shards.STAGE),
    settings=lambda experiment: {"model": experiment.model, "train": experiment.train},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.checkpoints, RunPaths.snapshots),
    optional=(RunPaths.snapshots,),
    required_outputs=newest,
    grows=True,
    holds_work=holds_work,
    can_continue=can_continue,
    continued_from=continued_from,
    multi_process=True,
    by_products=TRAINING_LOGS,
    checked=(RunPaths.metrics, RunPaths.goodput, RunPaths.skipped_steps, f"{RunPaths.samples}/step-*.json"),
)

if __name__ == "__main__":
    run_stage_command(STAGE, "model", "train")
