"""Run the whole pipeline: pages -> texts -> documents -> tokenizer -> shards -> train -> evaluate -> sample -> report.

Skips stages that are done. If it is interrupted, run the same command to resume.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from configs.experiment import Experiment
from launch import (
    evaluate,
    extract_texts,
    fetch_pages,
    preflight,
    prepare_documents,
    report,
    sample,
    train,
    train_tokenizer,
    write_shards,
)
from launch.stages.command import run_command
from launch.stages.stage import run_stage, stages_before
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import shown_place
from lm.terminal import duration

SCRIPTS = (
    fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards, train, evaluate, sample, report,
)  # fmt: skip
STAGES = [script.STAGE.name for script in SCRIPTS]


@dataclass(frozen=True)
class Options:
    until: str = "report"
    """Last stage to run: pages, texts, documents, tokenizer, shards, train, evaluate, sample or report."""


def headline(script: ModuleType) -> str:
    """First paragraph of a script's docstring, on one line."""
    return " ".join((script.__doc__ or "").partition("\n\n")[0].split())


def run(experiment: Experiment, workdir: Path, source: Path | None = None, options: Options = Options()) -> None:
    import time

    if options.until not in STAGES:
        raise UsageError(f"--until is {options.until!r}; choose one of {', '.join(STAGES)}.")
    stages_before(fetch_pages.STAGE, experiment)  # refuses a finetuned run before the checks below
    wanted = SCRIPTS[: STAGES.index(options.until) + 1]
    if train in wanted:
        experiment.engine.refuse_detached("launch.pretrain")
    preflight.check(experiment, workdir, training=train in wanted, sampling=sample in wanted)
    start, made = time.perf_counter(), 0
    for number, script in enumerate(wanted, 1):
        stage = script.STAGE
        print(f"[{number}/{len(wanted)}] {stage.name}: {headline(script)}", flush=True)
        if run_stage(stage, experiment, workdir, source):
            made += 1
        else:
            print("      up to date", flush=True)
        tokenizer = RunPaths(workdir).tokenizer
        if script is train_tokenizer and train in wanted and tokenizer.is_dir():  # in a bucket, training downloads it
            preflight.check_prompts(experiment, tokenizer)
    done = f"Done in {duration(time.perf_counter() - start)}" if made else "Everything is up to date"
    print(f"{done}. Open {RunPaths(workdir).report_page if report in wanted else shown_place(workdir)}")


if __name__ == "__main__":
    run_command("launch.pretrain", run, options=Options)
