"""Turns web pages into clean documents: read, filter, extract, detect the language, judge the quality, deduplicate."""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.prepare import prepare_documents
from data_prep.progress import ProgressLine
from data_prep.sources import warc_files, warc_names
from launch import fetch_pages
from launch.command import run_stage_command
from launch.stage import Stage


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    with ProgressLine("documents") as progress:
        outcome = prepare_documents(
            warc_files(workdir),
            warc_names(workdir),
            experiment.documents,
            partial=out / "parts",
            documents_dir=out / "documents",
            dropped_dir=out / "dropped",
            workers=experiment.documents.workers,
            on_progress=progress,
        )
    print(outcome.table())
    if outcome.damaged:
        print(f"documents: {outcome.damaged} damaged places in the WARC files were passed over")
    print(
        f"documents: {outcome.clean_text_bytes / 1e6:.1f} MB of text, "
        f"{outcome.emails_replaced:,} e-mail addresses replaced",
        flush=True,
    )


STAGE = Stage(
    name="documents",
    script="launch.prepare_documents",
    after=(fetch_pages.STAGE,),
    settings=lambda experiment: {"documents": experiment.documents},
    make=make,
    outputs=("dropped", "documents"),
)

if __name__ == "__main__":
    run_stage_command(STAGE)
