"""Write the report of the run: report/index.html, one page that works offline, and summary.json."""

import json
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from launch import evaluate, extract_texts, fetch_pages, prepare_documents, sample, train, train_tokenizer, write_shards
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.run_paths import RunPaths
from lm.storage import write_atomically


def make(experiment: Experiment, workdir: Path) -> None:
    from viewer.page import window_html
    from viewer.run_folder import read_run, summarize
    from viewer.window.inspections import record
    from viewer.window.window_run import WindowRun

    paths = RunPaths(workdir)
    stages = experiment.train.stages(experiment.model.context_length)
    run = read_run(workdir, experiment.documents, stages.windows_before)
    for damage in run.damage:
        print(f"report: {damage} The report says so.", flush=True)
    window = WindowRun(experiment, workdir, RunFolder(workdir).load(experiment=experiment), run.name)
    write_atomically(paths.report_page, window_html(record(window)))
    write_atomically(paths.summary, json.dumps(summarize(run), indent=1, allow_nan=False) + "\n")


STAGE = Stage(
    name="report",
    script="launch.report",
    after=tuple(one.STAGE for one in (
        fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards, train, evaluate, sample
    )),
    settings=lambda experiment: {},
    make=make,
    outputs=(RunPaths.report, RunPaths.summary),
)  # fmt: skip

if __name__ == "__main__":
    run_stage_command(STAGE)
