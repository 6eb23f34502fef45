"""`launch.refilter` for users: its output, the files that it writes, and its errors."""

import dataclasses
import json
from pathlib import Path

import pytest

from configs.experiment import Experiment, load_config
from data_prep.config import DocumentsConfig
from data_prep.funnel.report import FUNNEL
from data_prep.prepare import prepare_documents
from data_prep.quality.fineweb import FineWebFilter
from data_prep.quality.gopher import GopherQualityFilter
from launch import extract_texts, refilter
from launch.run_folder.outputs import files_in
from launch.stages.stage import settings_of
from lm.errors import InputError, UsageError
from lm.fields import with_values
from tests.commands import run_command
from tests.data_prep.measured import CONFIG, real_rows, write_records, write_texts
from tests.launch.run_folder import NO_OUTPUTS, REPOSITORY, recorded_in, write_json

EXPERIMENT = dataclasses.replace(
    load_config(REPOSITORY / "configs/demo.py"),
    documents=dataclasses.replace(CONFIG, steps=("gopher_quality", "exact_dedup")),
)


def with_documents(**changes) -> Experiment:
    return with_values(EXPERIMENT, {f"documents.{name}": value for name, value in changes.items()})


def write_run(workdir: Path, documents: DocumentsConfig = EXPERIMENT.documents) -> Path:
    """A run without its pages: texts/ with their marker, and the funnel."""
    rows = real_rows(documents)
    for name, mine in (("a", rows[:30]), ("b", [*rows[30:], *(row | {"id": f"{row['id']}-copy"} for row in rows[:9])])):
        write_texts(workdir / f"texts/{name}.parquet", mine)
    write_records(workdir / "texts", len(rows) + 9 + 50, not_html=50)
    experiment = dataclasses.replace(EXPERIMENT, documents=documents)
    settings = settings_of(extract_texts.STAGE, experiment) | {"<pages>": "a key"}
    marker = NO_OUTPUTS | {"settings": settings, "seconds": 1.0, "files": files_in(workdir, ("texts",))}
    write_json(workdir / "stages/texts.json", marker)
    out = workdir / "out"
    prepare_documents(workdir / "texts", documents, out)
    (out / FUNNEL).rename(workdir / FUNNEL)
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "mill")


def looser() -> Experiment:
    return with_documents(gopher_quality=dataclasses.replace(CONFIG.get(GopherQualityFilter), min_words=20))


def test_it_reports_changes_and_writes_the_page(run: Path, capsys):
    others = lambda: {
        path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "refilter" not in str(path)
    }
    before = others()
    refilter.run(looser(), run)
    told = capsys.readouterr().out
    assert "refilter: counting, " in told and " documents, 2 of 2 files, " in told
    assert "documents.gopher_quality.min_words: 50 in the run, now 20  (gopher_short_document)" in told
    assert str(run / "refilter/index.html") in told
    page = recorded_in(run / "refilter/index.html")
    counts, funnel = json.loads((run / "refilter" / FUNNEL).read_text())["counts"], page["funnel{}"]
    assert (funnel["pages"], funnel["kept"]) == (counts["rows"], counts["kept"][0])
    assert funnel["preview"] and "now 20" in funnel["changes"][0] and page["model{}"] == {"name": "mill"}
    assert others() == before  # nothing else of the run is changed


def test_as_a_command(tmp_path: Path):
    """With the demo's own settings, except for a threshold."""
    documents = load_config(REPOSITORY / "configs/demo.py").documents
    run = write_run(tmp_path / "run", documents)
    command = ["launch.refilter", "configs/demo.py", "--workdir", str(run)]
    done = run_command(*command, "--documents.gopher-quality.min-words", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert "now 20  (gopher_short_document)" in done.stdout
    done = run_command(*command, "--documents.gopher-quality.stop-words", "the", "and")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "stop_words" in done.stderr


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        ("gopher_quality.stop_words", with_documents(gopher_quality=dataclasses.replace(
            CONFIG.get(GopherQualityFilter), stop_words=("the", "and")))),
        ("fineweb.short_line_length", with_documents(fineweb=dataclasses.replace(
            CONFIG.get(FineWebFilter), short_line_length=40))),
        ("c4 lines are dropped", with_documents(steps=("gopher_quality", "c4"))),
        ("dump", with_documents(dump="another")),
    ],
)  # fmt: skip
def test_settings_that_determine_the_measures_are_rejected(run: Path, name: str, experiment: Experiment):
    with pytest.raises(UsageError) as caught:
        refilter.run(experiment, run)
    told = str(caught.value)
    assert "has texts" in told and f"{name}: " in told and "asked for" in told and "rm " in told
    assert "pages" not in told  # they are not read


def test_a_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(InputError, match=r"has no finished texts/.*--workdir.*launch\.extract_texts"):
        refilter.run(EXPERIMENT, tmp_path)
    assert not list(tmp_path.iterdir())


def test_incomplete_texts(tmp_path: Path):
    run = write_run(tmp_path / "run")
    (run / "texts/a.parquet").unlink()
    with pytest.raises(InputError, match="has no finished texts/"):
        refilter.run(EXPERIMENT, run)


def test_before_the_documents_were_prepared(tmp_path: Path, capsys):
    run = write_run(tmp_path / "run")
    (run / FUNNEL).unlink()
    refilter.run(looser(), run)
    assert "in the run" not in capsys.readouterr().out


def test_thresholds_that_keep_nothing_have_a_page(run: Path, capsys):
    nothing = with_documents(gopher_quality=dataclasses.replace(CONFIG.get(GopherQualityFilter), min_words=90_000))
    refilter.run(nothing, run)
    passed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("pass all rules"))
    assert passed.split()[4] == "0"
    assert recorded_in(run / "refilter/index.html")["funnel{}"]["kept"] == 0
