"""Turn texts into clean documents: quality filters, deduplication, personal data."""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.by_language import thresholds_identity, with_thresholds
from data_prep.decontamination.examples import set_digests
from data_prep.dedup_index.format import identities
from data_prep.engine.progress import ProgressLine
from data_prep.funnel.report import language_lines
from data_prep.prepare import prepare_documents
from launch import extract_texts
from launch.stages.command import run_stage_command
from launch.stages.stage import Stage
from lm.errors import print_untrusted
from lm.run_paths import RunPaths


def make(experiment: Experiment, run: Path) -> None:
    paths = RunPaths(run)
    with ProgressLine("documents") as progress:
        config = with_thresholds(experiment.documents)
        outcome = prepare_documents(paths.texts, config, run, progress, experiment.engine)
    print("\n".join([outcome.table(), *language_lines(paths.funnel, experiment.documents)]))
    if outcome.explained:
        print_untrusted(outcome.explained)
    replaced = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in outcome.replaced.items() if number)
    print(f"documents: {outcome.clean_text_bytes / 1e6:.1f} MB of text; replaced: {replaced or 'nothing'}", flush=True)


def external_inputs(experiment: Experiment) -> dict[str, object]:
    """Return {name: hash} of inputs outside of the run folder: deduplication indices of earlier runs, thresholds by
    language, evaluation sets."""
    sets = documents.decontamination.sets if "decontamination" in (documents := experiment.documents).steps else ()
    found = {"dedup_index": identities(documents), "evaluation sets": set_digests(sets)}
    return {name: value for name, value in (found | thresholds_identity(documents)).items() if value}


NAMES = """steps language by_language filters url_dedup minhash dedup_index across_dumps
personal_data line_dedup substring_dedup decontamination"""
READS = [*(f"documents.{name}" for name in NAMES.split()), "engine"]
STAGE = Stage(
    name="documents",
    script="launch.prepare_documents",
    after=(extract_texts.STAGE,),
    settings=lambda experiment: {"documents": experiment.documents},
    make=make,
    direct=True,
    intermediate=(RunPaths.parts,),
    outputs=(RunPaths.dropped, RunPaths.documents, RunPaths.funnel, RunPaths.dedup_index),
    optional=(RunPaths.dedup_index,),
    external_inputs=external_inputs,
    libraries=("python", "numpy", "phonenumbers", "pyarrow", "python-stdnum", "regex", "scipy"),
)

if __name__ == "__main__":
    run_stage_command(STAGE, *READS)
