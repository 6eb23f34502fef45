"""Samples from the trained model: every prompt at every temperature.

    python -m launch.sample runs/demo --prompt "The miller" "A farmer" --sample.temperatures 0 0.8

With --prompt or --step the texts are printed alone, and the run stays as it is.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated

import tyro

from configs.experiment import Experiment
from launch import train, train_tokenizer
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from launch.stages.trained import sample
from lm.run_paths import RunPaths
from lm.storage import write_json


@dataclasses.dataclass(frozen=True)
class Options:
    prompt: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Print what continues these texts, and leave the run as it is."""
    step: int | None = None
    """Print what the model wrote at this step, of which there must be a checkpoint, and leave the run as it is."""


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """What the options ask for; False where they ask for nothing."""
    if not options.prompt and options.step is None:
        return False
    prompts = tuple(itertools.chain.from_iterable(options.prompt)) or experiment.sample.prompts
    asked = dataclasses.replace(experiment, sample=dataclasses.replace(experiment.sample, prompts=prompts))
    sample(asked, workdir, options.step)
    return True


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    rows = sample(experiment, workdir)
    if out != workdir:
        write_json(RunPaths(out).final_samples, {"samples": rows})


STAGE = Stage(
    name="sample",
    script="launch.sample",
    after=(train_tokenizer.STAGE, train.STAGE),
    settings=lambda experiment: {"sample": experiment.sample},
    make=make,
    outputs=(RunPaths.final_samples,),
    multi_process=True,
)

if __name__ == "__main__":
    run_stage_command(STAGE, "sample", options=Options, on_the_side=on_the_side)
