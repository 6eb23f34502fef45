"""Fit loss = E + A/N^a + B/D^b to a ladder of small models, and recommend parameters N and tokens D for a FLOP budget.

    python -m launch.scaling configs/demo.py --budget 1e15 --rungs 7e4 1.1e5 1.6e5 2.5e5 --tokens 1.5e5 3e5 6e5

Each rung is a run folder in scaling/ of the run folder, and is trained once. docs/scaling.md explains the method and
its limits.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import experiment_json
from launch import extract_texts, fetch_pages, prepare_documents, train, train_tokenizer, write_shards
from launch.run_folder.checks import refuse_inputs_in_outputs
from launch.stages.command import locked, run_command
from launch.stages.stage import Stage, check_outputs, read_marker, run_stage, take_before
from launch.supervise import Supervisor
from lm.checksums import log_damage
from lm.data.records import read_manifest
from lm.errors import InputError, Stopped, UsageError, print_untrusted
from lm.own_process import in_own_process
from lm.run_paths import RunPaths
from lm.scaling.ladder import LadderConfig as Options
from lm.scaling.ladder import Rung, measured_on, refuse_repetition, windows_in
from lm.scaling.study import Measured, short
from lm.storage import local_copy_of, write_atomically, write_json
from lm.training.memory import check_training_memory

DATA = (fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards)


def scale(experiment: Experiment, workdir: Path, asked: Options) -> bool:
    """Run the data stages, train the models of the ladder that are not trained yet, fit the scaling law and write it.
    Returns True, which tells `run_command` that the work is done. Raises InputError if the training of a model
    failed."""
    from lm.scaling.ladder import make_ladder
    from lm.scaling.study import study, study_text
    from viewer.page import key_of, window_html

    if copy := local_copy_of(workdir):  # the ladder's run folders would stay on this machine
        raise UsageError(
            f"--workdir {copy.url} is in a bucket, but a ladder needs a local folder. Give one, such as --workdir "
            "runs/ladder."
        )
    experiment.engine.refuse_detached("launch.scaling")
    asked.check(experiment.train)
    ladder = in_own_process(make_ladder, experiment.model, experiment.train, asked)
    in_own_process(check_training_memory, ladder[-1].model, ladder[-1].train)
    refuse_inputs_in_outputs(experiment, workdir)
    paths = RunPaths(workdir)
    with locked(workdir):
        for script in DATA:
            run_stage(script.STAGE, experiment, workdir)
    splits = read_manifest(paths.tokens).splits
    refuse_repetition(ladder, splits["train"].tokens, asked.epochs)
    windows = windows_in(splits["val"], experiment.model.context_length)
    ladder = [measured_on(rung, windows) for rung in ladder]
    measured, failed = train_rungs(train.STAGE, write_shards.STAGE, experiment, ladder, workdir)
    made = study(measured, failed, asked.budget, splits["train"].tokens)
    write_json(paths.scaling_json, made.as_json())
    answers = {key_of("model", {}): {"name": workdir.resolve().name}, key_of("scaling", {}): made.as_json()}
    write_atomically(paths.scaling_page, window_html(answers, pages=("scaling",)))
    print(f"\n{study_text(made)}\nSee {paths.scaling_page}, and {paths.scaling_json}", flush=True)
    if failed:
        raise InputError(f"{len(failed)} of {len(ladder)} rungs failed; run the same command to try them again.")
    return True


ATTEMPTS = 2
"""A rung has failed after this many crashes at one step."""


def train_rungs(
    training: Stage, shards: Stage, experiment: Experiment, ladder: Sequence[Rung], workdir: Path
) -> tuple[list[Measured], list[tuple[Rung, str]]]:
    """Train the models of the ladder (rungs); return (rungs with their losses, [(failed rung, why)]). Trained rungs are
    not trained again. Raises Stopped on a stop signal; the same command then continues."""
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
            print_untrusted(f"      failed: {error}")
        else:
            done = "" if made else ", trained before"
            print(f"      loss {measured[-1].loss:.4f} nats a token{done}", flush=True)
    return measured, failed


def train_rung(training: Stage, shards: Stage, experiment: Experiment, folder: Path, workdir: Path) -> bool:
    """Train one rung in `folder` on the data of the run in `workdir`; return False if it was trained before. Raises
    InputError if training failed, UsageError if `folder` has another rung or other data, Stopped on a stop signal."""
    take_before(training, experiment, folder, workdir)
    here, there = read_marker(shards, folder), read_marker(shards, workdir)
    if here and there and here["key"] != there["key"]:
        raise UsageError(
            f"{folder} was trained on other {', '.join(shards.outputs)} ({here['key'][:12]}) than {workdir} has now "
            f"({there['key'][:12]}). Move {folder} away to train it again."
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
        raise Stopped("stopped; run the same command to continue.", 128 + supervisor.asked)
    if code:
        raise InputError(f"{training.script} ended with code {code}; see above ({folder}).")
    return True


def loss_of(folder: Path, step: int) -> float:
    """Validation loss after step `step`, in nats per token. Raises InputError if there is none, or it is not finite."""
    from viewer.training_data import read_curves

    if damaged := log_damage(folder, (RunPaths.metrics,)):
        raise InputError(f"{damaged[0]} Or move {folder} away to train it from scratch.")
    losses = {line["step"]: line["validation_loss"] for line in read_curves(RunPaths(folder).metrics).validation}
    loss = losses.get(step)
    if not isinstance(loss, float) or not math.isfinite(loss):
        raise InputError(
            f"{RunPaths(folder).metrics} has {loss} as the validation loss of step {step}. Move {folder} away to "
            "train it again."
        )
    return loss


if __name__ == "__main__":
    run_command("launch.scaling", None, ("model", "train"), options=Options, on_the_side=scale)
