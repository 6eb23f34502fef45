"""Train the rungs of a ladder of models: each is a run folder in the experiment's, trained by launch.train in a process
of its own, so a failing one does not affect the others."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import experiment_json
from launch.stages.stage import Stage, check_outputs, read_marker, take_before
from launch.stages.supervision import Supervisor
from lm.checksums import log_damage
from lm.errors import InputError, Stopped, UsageError
from lm.run_paths import RunPaths
from lm.scaling.ladder import Rung
from lm.scaling.study import Measured, short
from lm.storage import local_copy_of, write_atomically

ATTEMPTS = 2
"""A rung has failed after this many crashes at one step."""


def refuse_bucket(workdir: Path) -> None:
    """Raise UsageError for a run folder in a bucket: a ladder's runs would stay on this machine."""
    if copy := local_copy_of(workdir):
        raise UsageError(
            f"--workdir {copy.url} is in a bucket, but a ladder is trained in a folder of this machine. Give one, "
            "such as --workdir runs/ladder."
        )


def train_rungs(
    training: Stage, shards: Stage, experiment: Experiment, ladder: Sequence[Rung], workdir: Path
) -> tuple[list[Measured], list[tuple[Rung, str]]]:
    """Train all rungs; return (rungs with their losses, failed rungs and why). Trained rungs are not trained again.

    Raises Stopped if the process is asked to end: the current rung has saved, or will be trained again.
    """
    measured, failed = [], []
    for number, rung in enumerate(ladder, 1):
        say = f"[{number}/{len(ladder)}] {rung.name}: {short(rung.parameters)} parameters, {short(rung.tokens)} tokens"
        print(say, flush=True)
        folder = RunPaths(workdir).scaling / rung.name
        asked = dataclasses.replace(experiment, model=rung.model, train=rung.train)
        try:
            made = train_rung(training, shards, asked, folder, workdir)
            measured.append(Measured(rung, loss_of(folder, rung.train.steps)))
        except InputError as error:
            failed.append((rung, str(error)))
            print(f"      failed: {error}", flush=True)
        else:
            done = "" if made else ", trained before"
            print(f"      loss {measured[-1].loss:.4f} nats a token{done}", flush=True)
    return measured, failed


def train_rung(training: Stage, shards: Stage, experiment: Experiment, folder: Path, workdir: Path) -> bool:
    """Train one rung; return False if it was trained before. Raises InputError if training failed, UsageError if the
    folder is another rung's, Stopped if asked to end."""
    take_before(training, experiment, folder, workdir)
    here, there = read_marker(shards, folder), read_marker(shards, workdir)
    if here and there and here["key"] != there["key"]:
        raise UsageError(
            f"{folder} was trained on other {', '.join(shards.outputs)} ({here['key'][:12]}) than {workdir} holds now "
            f"({there['key'][:12]}). Move {folder} away, and it is trained anew."
        )
    if read_marker(training, folder):
        check_outputs(training, experiment, folder)
        return False
    paths = RunPaths(folder)
    write_atomically(paths.config_json, experiment_json(experiment))
    command = [sys.executable, "-m", training.script, str(folder)]
    supervisor = Supervisor(command, paths.heartbeat(), paths.supervisor(), same_step=ATTEMPTS)
    code = supervisor.run()
    if supervisor.asked is not None:
        raise Stopped("asked to end; the same command goes on from here.", 128 + supervisor.asked)
    if code:
        raise InputError(f"{training.script} ended with code {code}, as it says above ({folder}).")
    return True


def loss_of(folder: Path, step: int) -> float:
    """Loss on held-out text after the last step. Raises InputError if the run has none."""
    from viewer.training_data import read_curves

    if damaged := log_damage(folder, (RunPaths.metrics,)):
        raise InputError(f"{damaged[0]} Or move {folder} away, and it is trained from scratch.")
    losses = {line["step"]: line["validation_loss"] for line in read_curves(RunPaths(folder).metrics).validation}
    loss = losses.get(step)
    if not isinstance(loss, float) or not math.isfinite(loss):
        raise InputError(
            f"{RunPaths(folder).metrics} has {loss} as the validation loss of step {step}, and that is no number. Move "
            f"{folder} away, and it is trained anew."
        )
    return loss
