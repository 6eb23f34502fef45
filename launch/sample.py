"""Sample from the trained model: each prompt at each temperature.

    python -m launch.sample runs/demo --prompt "The miller" "A farmer" --temperature 0.8 --top-p 0.9
    python -m launch.sample runs/demo --interactive

With any of the options below, texts are only printed, and the run is not changed.
"""

import dataclasses
import itertools
import sys
from pathlib import Path

from configs.experiment import Experiment
from launch.stages.command import run_stage_command
from launch.stages.processes import process_index
from launch.stages.sampling import Options, continue_prompts, converse
from launch.stages.stage import Stage
from launch.stages.trained import sample
from lm.fields import code_names
from lm.run_paths import RunPaths
from lm.storage import write_json
from lm.trusted_code import code_hashes


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """Generate and print texts as the options request; return False if none is set."""
    if options == Options():
        return False
    prompts = tuple(itertools.chain.from_iterable(options.prompt))
    if options.interactive or not (prompts or options.step is not None or not sys.stdin.isatty()):
        converse(experiment, workdir, options)
        return True
    if prompts and options.max_tokens is None:
        experiment = experiment.with_sections(sample=dataclasses.replace(experiment.sample, prompts=prompts))
    continue_prompts(experiment, workdir, options, prompts or experiment.sample.prompts)
    return True


def make(experiment: Experiment, run: Path) -> None:
    rows = sample(experiment, run)
    if process_index() == 0:
        write_json(RunPaths(run).final_samples, {"samples": rows})


STAGE = Stage(
    name="sample",
    script="launch.sample",
    after=("launch.train_tokenizer:STAGE", "launch.train:STAGE"),
    after_finetuning=("launch.finetune:CONVERSATIONS", "launch.finetune:TRAIN"),
    settings=lambda experiment: {"sample": experiment.sample},
    external_inputs=lambda experiment: code_hashes(code_names(experiment.model, "model.")),
    make=make,
    outputs=(RunPaths.final_samples,),
    checked=(RunPaths.final_samples,),
    multi_process=True,
)

if __name__ == "__main__":
    run_stage_command(STAGE, "sample", options=Options, on_the_side=on_the_side)
