"""Write the report of the run: report/index.html, one page that works offline, and summary.json."""

import json
from pathlib import Path

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from launch import evaluate, extract_texts, fetch_pages, prepare_documents, sample, train, train_tokenizer, write_shards
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.address_space import CHARTS, check_address_space
from lm.run_paths import RunPaths
from lm.storage import write_atomically

NOTE = (
    "Every page went through the filters in order, and the first that objected dropped it, by name. This page shows "
    "what each rule measured and where its line was drawn, with documents on either side of it to judge it by."
)


def make(experiment: Experiment, workdir: Path) -> None:
    from viewer.report import funnel_page
    from viewer.report.followed import read_followed
    from viewer.report.listed import thresholds_in_order
    from viewer.report.model_view import view_page
    from viewer.report.page import render
    from viewer.run_folder import read_run, summarize
    from viewer.tokenizer.page import render_run
    from viewer.window.inspections import record
    from viewer.window.page import window_html
    from viewer.window.window_run import WindowRun

    check_address_space(CHARTS)
    paths = RunPaths(workdir)
    stages = experiment.train.stages(experiment.model.context_length)
    run = read_run(workdir, experiment.documents, stages.windows_before)
    for damage in run.damage:
        print(f"report: {damage} The report says so.", flush=True)
    followed = read_followed(workdir, experiment, run.tokenizer, thresholds_in_order(run.funnel))
    loaded = RunFolder(workdir).load(experiment=experiment)
    view = view_page(loaded, followed.ids)
    window = WindowRun(experiment, workdir, loaded, run.name)
    write_atomically(paths.report_page, render(run, followed, view))
    write_atomically(paths.report_funnel, funnel_page.render(run.funnel, run.name, NOTE, back="index.html"))
    write_atomically(paths.report_tokenizer, render_run(run, paths.documents, back="index.html"))
    write_atomically(paths.report_window, window_html(record(window), back="index.html"))
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
