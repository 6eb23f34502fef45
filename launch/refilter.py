"""Redraws the funnel under other thresholds, from what the stage "texts" measured; documents/ stays as it is.

    python -m launch.refilter CONFIG.py --workdir RUN --documents.fineweb.max-short-lines 0.8

Prints what each rule would drop beside what it dropped in the run, and writes RUN/refilter/index.html. Pages are not
read again, and duplicates are not looked for. To adopt the thresholds, run launch.prepare_documents with the same
options: it says what has to be deleted first.
"""

from pathlib import Path

from configs.experiment import Experiment
from data_prep.inputs import read_records
from data_prep.progress import ProgressLine
from data_prep.refilter import changes, comparison, count_again
from data_prep.report import FUNNEL, read_counts, read_funnel, write_funnel
from launch import extract_texts, prepare_documents
from launch.command import run_command
from launch.stage import read_stamp, refuse_other, settings_of
from lm.errors import InputError
from lm.files import write_atomically


def run(experiment: Experiment, workdir: Path) -> None:
    from launch.report_page.funnel_page import REDRAWN, render

    check_texts(experiment, workdir)
    config, out, folder = experiment.documents, workdir / "refilter", workdir / "texts"
    texts = sorted(folder.glob("*.parquet"))
    with ProgressLine("refilter") as progress:
        now = count_again(texts, config, workdir / ".partial/refilter", on_progress=progress)
    out.mkdir(exist_ok=True)
    records = read_records(folder)
    write_funnel(out / FUNNEL, now.counts, now.domains, texts, records, config, out, now.min_quality)
    funnel = read_funnel(out / FUNNEL, folder, config.personal_data)
    before = read_counts(workdir / FUNNEL) if (workdir / FUNNEL).is_file() else None
    changed = changes(before, config, now) if before else None
    back = "../report/index.html" if (workdir / "report/index.html").is_file() else ""
    write_atomically(out / "index.html", render(funnel, workdir.resolve().name, REDRAWN, back, changed))
    print(comparison(before, changed or [], now.counts))
    print(f"refilter: see {out / 'index.html'}", flush=True)


def check_texts(experiment: Experiment, workdir: Path) -> None:
    """Raises InputError or UsageError unless texts/ is there, and was measured as `experiment` asks for; the pages that
    it came from may be gone."""
    stage = extract_texts.STAGE
    stamp = read_stamp(stage, workdir)
    if stamp is None:
        raise InputError(
            f"{workdir} holds no finished texts/. Give the folder of a run with --workdir; or first run: "
            f"python -m {stage.script} CONFIG.py --workdir {workdir}"
        )
    measured = {name: value for name, value in stamp["settings"].items() if not name.startswith("<")}
    if measured != settings_of(stage, experiment):
        refuse_other(stage, measured, settings_of(stage, experiment), workdir)


if __name__ == "__main__":
    run_command("launch.refilter", (__doc__ or "").strip(), run, prepare_documents.READS)
