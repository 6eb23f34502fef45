"""Train the model on the run's shards. If interrupted, run the same command to resume from the last checkpoint."""

import time
from pathlib import Path

from configs.experiment import Experiment
from launch import preflight, train_tokenizer, write_shards
from launch.run_folder import training
from launch.stages.agreement import agree_on
from launch.stages.command import run_stage_command
from launch.stages.processes import load_training
from launch.stages.stage import Stage
from lm.address_space import TRAINING, check_address_space
from lm.checkpoints import manifest as checkpoint_files
from lm.data.mixture import mixture_manifests
from lm.fields import code_names
from lm.run_paths import TRAINING_LOGS, RunPaths
from lm.trusted_code import code_hashes


def make(experiment: Experiment, run: Path) -> None:
    began = time.time()
    check_address_space(TRAINING)
    train = load_training(run, began, experiment.train.join_timeout)
    agree_on(experiment, run)
    preflight.check_prompts(experiment, RunPaths(run).tokenizer)  # also the prompts of the sample stage
    train(experiment.model, experiment.train, run, began)


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Hashes of the external inputs: the user's own modules that determine the result, manifests of shards and of a
    checkpoint of other runs."""
    model, optimizer = experiment.model, experiment.train.optimizer
    own = code_names(model, "model.") | code_names(optimizer, "train.optimizer.")
    found = mixture_manifests(experiment.train) | code_hashes(own)
    if experiment.train.start.checkpoint:
        folder = experiment.train.start.folder()
        found[f"SHA-256 of the files of {folder}"] = checkpoint_files.files_sha256(folder)
    return found


STAGE = Stage(
    name="train",
    script="launch.train",
    after=(train_tokenizer.STAGE, write_shards.STAGE),
    settings=lambda experiment: {"model": experiment.model, "train": experiment.train},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.checkpoints, RunPaths.snapshots),
    optional=(RunPaths.snapshots,),
    required_outputs=training.newest,
    grows=True,
    holds_work=training.holds_work,
    goes_on=training.goes_on,
    continued_from=training.continued_from,
    multi_process=True,
    by_products=TRAINING_LOGS,
    checked=(RunPaths.metrics, RunPaths.goodput, RunPaths.skipped_steps, f"{RunPaths.samples}/step-*.json"),
)

if __name__ == "__main__":
    run_stage_command(STAGE, "model", "train")
