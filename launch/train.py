"""Trains the model on the run's shards; interrupted, the same command goes on from the last checkpoint."""

from pathlib import Path

from configs.experiment import Experiment
from launch import train_tokenizer, write_shards
from launch.command import run_stage_command
from launch.stage import Stage
from lm.mixture import manifest_sha256
from lm.records import MANIFEST


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    from lm.train import train

    train(experiment.model, experiment.train, out)


def facts(experiment: Experiment) -> dict[str, object]:
    """What stands in files outside of the run folder: the shards of other runs, by their manifests."""
    tokens = [Path(source.tokens) for source in experiment.train.mixture]
    return {f"SHA-256 of {folder / MANIFEST}": manifest_sha256(folder) for folder in tokens}


STAGE = Stage(
    name="train",
    script="launch.train",
    after=(train_tokenizer.STAGE, write_shards.STAGE),
    settings=lambda experiment: {"model": experiment.model, "train": experiment.train},
    facts=facts,
    make=make,
    outputs=("checkpoints",),
    in_place=True,
    by_products=("metrics.jsonl", "tensorboard", "samples", "wandb", "profile"),
)

if __name__ == "__main__":
    run_stage_command(STAGE)
