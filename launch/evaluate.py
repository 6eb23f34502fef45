"""Bits per byte on the held-out documents, beside gzip, xz and zstd: the model as a zip file of its corpus.

    python -m launch.evaluate runs/demo --text notes.txt

With --text or --step the figures are printed alone, and the run stays as it is.
"""

from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from launch import train, train_tokenizer, write_shards
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from launch.stages.trained import evaluate, evaluate_text
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import write_json


@dataclass(frozen=True)
class Options:
    text: str | None = None
    """Print the figures of this file's text, as one document, and leave the run as it is."""
    step: int | None = None
    """Print those of the model at this step, of which there must be a checkpoint, and leave the run as it is."""


def on_the_side(experiment: Experiment, workdir: Path, options: Options) -> bool:
    """What the options ask for; False where they ask for nothing."""
    if options.text is not None and not options.text.strip():
        raise UsageError(f"--text is {options.text!r}, which names no file. Give the path of a text file.")
    if options.text:
        evaluate_text(experiment, workdir, Path(options.text), options.step)
    elif options.step is not None:
        evaluate(experiment, workdir, options.step)
    return bool(options.text) or options.step is not None


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    figures = evaluate(experiment, workdir)
    if out != workdir:  # of several processes, that of process 0
        write_json(RunPaths(out).evaluation, figures)


STAGE = Stage(
    name="evaluate",
    script="launch.evaluate",
    after=(train_tokenizer.STAGE, write_shards.STAGE, train.STAGE),
    settings=lambda experiment: {"evaluate": experiment.evaluate},
    make=make,
    outputs=(RunPaths.evaluation,),
    multi_process=True,
)

if __name__ == "__main__":
    run_stage_command(STAGE, "evaluate", options=Options, on_the_side=on_the_side)
