"""The main job: pages -> texts -> documents -> tokenizer -> shards -> training -> evaluation -> samples -> report.

Runs every stage in order and skips what is done; ended at any moment, the same command goes on.
"""

from pathlib import Path

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
from launch.stages.stage import run_stage
from lm.run_paths import RunPaths
from lm.terminal import duration

SCRIPTS = (
    fetch_pages,
    extract_texts,
    prepare_documents,
    train_tokenizer,
    write_shards,
    train,
    evaluate,
    sample,
    report,
)


def run(experiment: Experiment, workdir: Path, source: Path | None = None) -> None:
    import time

    preflight.check(experiment, workdir)
    start, made = time.perf_counter(), 0
    for number, script in enumerate(SCRIPTS, 1):
        stage = script.STAGE
        print(f"[{number}/{len(SCRIPTS)}] {stage.name}: {(script.__doc__ or '').strip().splitlines()[0]}", flush=True)
        if run_stage(stage, experiment, workdir, source):
            made += 1
        else:
            print("      up to date", flush=True)
    if made:
        print(f"Done in {duration(time.perf_counter() - start)}. Open {RunPaths(workdir).report_page}")
    else:
        print(f"All is up to date. Open {RunPaths(workdir).report_page}")


if __name__ == "__main__":
    run_command("launch.pretrain", (__doc__ or "").strip(), run)
