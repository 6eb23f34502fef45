"""Trains the model on the run's shards; interrupted, the same command goes on from the last checkpoint."""

from pathlib import Path

from configs.experiment import Experiment
from launch import train_tokenizer, write_shards
from launch.command import run_stage_command
from launch.stage import Stage


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    from lm.train import train

    train(experiment.model, experiment.train, out)


STAGE = Stage(
    name="train",
    script="launch.train",
    after=(train_tokenizer.STAGE, write_shards.STAGE),
    settings=lambda experiment: {"model": experiment.model, "train": experiment.train},
    make=make,
    outputs=("checkpoints",),
    in_place=True,
    by_products=("metrics.jsonl", "tensorboard", "samples"),
)

if __name__ == "__main__":
    run_stage_command(STAGE)
