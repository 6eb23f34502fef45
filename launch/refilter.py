"""Preview other filter thresholds, using the measures from the stage "texts". documents/ is not changed.

    python -m launch.refilter CONFIG.py --workdir RUN --documents.fineweb.max-short-lines 0.8

Prints how many documents each rule would drop, next to how many it dropped in the run, and writes
RUN/refilter/index.html. It does not extract pages again or deduplicate. To adopt the thresholds, run
launch.prepare_documents with the same options; it tells you what to delete first.
"""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.by_language import refuse_other_stop_words, with_thresholds
from data_prep.engine.progress import ProgressLine
from data_prep.funnel.report import FUNNEL, read_counts, write_funnel
from data_prep.select.refilter import changes, comparison, count_again
from data_prep.sources.inputs import read_records
from launch import extract_texts, prepare_documents
from launch.run_folder import bucket, outputs
from launch.stages.command import run_command
from launch.stages.stage import check_outputs, read_marker
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import remove_empty_folders, write_atomically

NAME = RunPaths.refilter


def run(experiment: Experiment, workdir: Path, source: Path | None = None) -> None:
    from viewer.funnel import preview_html

    if source is not None:
        raise UsageError(f"--from {source}: launch.refilter runs no stage. Give the run as --workdir.")
    check_outputs(extract_texts.STAGE, experiment, workdir)  # pages/ may have been deleted
    refuse_other_stop_words(experiment.documents, read_marker(extract_texts.STAGE, workdir))
    bucket.fetch(workdir, (RunPaths.funnel,), (RunPaths.texts, RunPaths.report))
    paths, config = RunPaths(workdir), with_thresholds(experiment.documents)
    folder, out = paths.texts, paths.refilter
    outputs.make_room(NAME, workdir, (NAME,))
    with ProgressLine("refilter") as progress:
        now = count_again(folder, config, paths.parts / NAME, progress, experiment.engine)
    remove_empty_folders(paths.parts)
    out.mkdir(exist_ok=True)
    records = read_records(folder)
    write_funnel(out / FUNNEL, now.counts, now.files, records, now.config)
    before = read_counts(workdir / FUNNEL) if (workdir / FUNNEL).is_file() else None
    changed = changes(before, now.config) if before else None
    write_atomically(out / "index.html", preview_html(out / FUNNEL, folder, config, workdir.resolve().name, changed))
    outputs.write_record(NAME, workdir, outputs.files_in(workdir, (NAME,)))
    bucket.push(workdir, (NAME,))
    print(comparison(before, changed or [], now.counts, config))
    print(f"refilter: see {workdir / NAME / 'index.html'}", flush=True)


if __name__ == "__main__":
    run_command("launch.refilter", run, prepare_documents.READS)
