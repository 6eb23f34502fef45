"""Evaluate bits per byte on the held-out documents, compared with gzip, xz and zstd, and benchmark tasks.

    python -m launch.evaluate runs/demo --text notes.txt 'more.parquet'
    python -m launch.evaluate runs/demo --tasks hellaswag piqa --task-data hf://

With one of the options below, results are only printed, and the run is not changed.
"""

from pathlib import Path

from configs.experiment import Experiment
from launch.stages.benchmarks import Options, on_the_side
from launch.stages.command import run_stage_command
from launch.stages.processes import process_index
from launch.stages.stage import Stage
from launch.stages.trained import evaluate
from lm.evaluation.evaluators import task_files
from lm.fields import code_names
from lm.run_paths import RunPaths
from lm.storage import file_sha256, write_json
from lm.trusted_code import code_hashes


def make(experiment: Experiment, run: Path) -> None:
    figures = evaluate(experiment, run)
    if process_index() == 0:
        write_json(RunPaths(run).evaluation, figures)


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return {name: SHA-256} of the tasks' data files, and of the user's own modules that affect the results."""
    config = experiment.evaluate
    own = code_names(experiment.model, "model.") | code_names(config, "evaluate.")
    return code_hashes(own) | {
        f"SHA-256 of {path}": file_sha256(path)
        for path in task_files(config.evaluators, config.tasks, "evaluate.tasks.data")
    }


STAGE = Stage(
    name="evaluate",
    script="launch.evaluate",
    after=("launch.train_tokenizer:STAGE", "launch.write_shards:STAGE", "launch.train:STAGE"),
    after_finetuning=("launch.finetune:CONVERSATIONS", "launch.finetune:TRAIN"),
    settings=lambda experiment: {"evaluate": experiment.evaluate},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.evaluation,),
    checked=(RunPaths.evaluation,),
    multi_process=True,
)

if __name__ == "__main__":
    run_stage_command(STAGE, "evaluate", options=Options, on_the_side=on_the_side)
