"""Run the whole pipeline: pages -> texts -> documents -> tokenizer -> shards -> train -> evaluate -> sample -> report.

Skips stages that are done. If it is interrupted, run the same command to resume.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from configs.experiment import Experiment
from launch import fetch_pages, preflight, report, sample, train, train_tokenizer
from launch.stages.command import run_command
from launch.stages.stage import Stage, run_stage, stages_before
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import shown_place
from lm.terminal import duration

STAGES = (*report.STAGE.after, report.STAGE)
NAMES = [stage.name for stage in STAGES]


@dataclass(frozen=True)
class Options:
    until: str = "report"
    """Last stage to run: pages, texts, documents, tokenizer, shards, train, evaluate, sample or report."""


def headline(stage: Stage) -> str:
    """First paragraph of the docstring of a stage's script, on one line."""
    return " ".join((sys.modules[stage.script].__doc__ or "").partition("\n\n")[0].split())


def run(experiment: Experiment, workdir: Path, source: Path | None = None, options: Options = Options()) -> None:
    import time

    if options.until not in NAMES:
        raise UsageError(f"--until is {options.until!r}; choose one of {', '.join(NAMES)}.")
    stages_before(fetch_pages.STAGE, experiment)  # refuses a finetuned run before the checks below
    wanted = STAGES[: NAMES.index(options.until) + 1]
    if train.STAGE in wanted:
        experiment.engine.refuse_detached("launch.pretrain")
    preflight.check(experiment, workdir, training=train.STAGE in wanted, sampling=sample.STAGE in wanted)
    start, made = time.perf_counter(), 0
    for number, stage in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {stage.name}: {headline(stage)}", flush=True)
        if run_stage(stage, experiment, workdir, source):
            made += 1
        else:
            print("      up to date", flush=True)
        tokenizer = RunPaths(workdir).tokenizer
        if (
            stage is train_tokenizer.STAGE and train.STAGE in wanted and tokenizer.is_dir()
        ):  # in a bucket, training downloads it
            preflight.check_prompts(experiment, tokenizer)
    done = f"Done in {duration(time.perf_counter() - start)}" if made else "Everything is up to date"
    print(f"{done}. Open {RunPaths(workdir).report_page if report.STAGE in wanted else shown_place(workdir)}")


if __name__ == "__main__":
    run_command("launch.pretrain", (__doc__ or "").strip(), run, options=Options)
