"""In a stage of units, changed inputs only affect their own units, and outputs of a run are never lost."""

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.experiment import Experiment
from data_prep.config import EngineConfig
from data_prep.select import duplicates
from data_prep.warc import write_pages
from launch import extract_texts, fetch_pages, prepare_documents
from launch.run_folder import markers as notes
from launch.run_folder import user_inputs
from launch.stages.stage import Stage, run_stage
from lm.errors import InputError, UsageError
from tests.corpus import tiny_experiment, web_pages
from tests.data_prep.loopback_crawl import LoopbackCrawl, serving
from tests.launch.run_folder import NO_OUTPUTS

STAGES = (fetch_pages.STAGE, extract_texts.STAGE)


@pytest.fixture
def warcs(tmp_path) -> list[Path]:
    pages, paths = web_pages(12), []
    for number in range(4):
        paths.append(tmp_path / f"warc/{number}.warc.gz")
        write_pages(paths[-1], pages[3 * number : 3 * number + 3])
    return paths


def experiment_of(warcs: list[Path], **engine) -> Experiment:
    tiny = tiny_experiment()
    pages = dataclasses.replace(tiny.pages, warc=tuple(map(str, warcs)))
    return dataclasses.replace(tiny, pages=pages, engine=EngineConfig(**engine))


def make(warcs: list[Path], workdir: Path, **engine) -> None:
    for stage in STAGES:
        run_stage(stage, experiment_of(warcs, **engine), workdir)


def texts(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((workdir / "texts").iterdir())}


def markers(workdir: Path) -> dict[str, str]:
    """Contents of the files, without seconds and other values of one build."""
    return {path.stem: path.read_text() for path in sorted((workdir / "units/texts").glob("*.json"))}


def interrupted(stage: Stage) -> Stage:
    """The stage, interrupted after all outputs are written."""

    def make(experiment: Experiment, run: Path) -> None:
        stage.make(experiment, run)
        raise KeyboardInterrupt

    return dataclasses.replace(stage, make=make)


def damage(warcs: list[Path]) -> bytes:
    """Make the third file unreadable at its old size; return the old bytes."""
    whole = warcs[2].read_bytes()
    warcs[2].write_bytes(b"<html>".ljust(len(whole)))
    return whole


def test_added_and_removed_inputs_only_affect_their_units(warcs, tmp_path):
    make(warcs[:3], tmp_path / "run")
    before = markers(tmp_path / "run")
    assert set(before) == {"0", "1", "2"}
    make(warcs[1:], tmp_path / "run")
    after = markers(tmp_path / "run")
    assert set(after) == {"1", "2", "3"} and {name: after[name] for name in "12"} == {n: before[n] for n in "12"}
    make(warcs[1:], tmp_path / "fresh")
    assert texts(tmp_path / "run") == texts(tmp_path / "fresh")
    write_pages(warcs[2], web_pages(15)[12:])  # another file under the same name
    make(warcs[1:], tmp_path / "run")
    assert markers(tmp_path / "run")["1"] == before["1"] and markers(tmp_path / "run")["2"] != before["2"]
    assert not list((tmp_path / "run").glob("replaced-*")) and not list(tmp_path.glob("run/stages/*.begun"))


def test_files_of_no_unit_are_moved_aside_and_outputs_of_earlier_units_deleted(warcs, tmp_path):
    """The process is killed between the outputs of a unit and its marker, and its input is deleted: no stage may read
    these outputs."""

    def killed(experiment: Experiment, run: Path) -> None:
        extract_texts.make(experiment, run)
        (run / "units/texts/0.json").unlink()
        raise KeyboardInterrupt

    run_stage(fetch_pages.STAGE, experiment_of(warcs[:3]), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_stage(dataclasses.replace(extract_texts.STAGE, make=killed), experiment_of(warcs[:3]), tmp_path)
    make(warcs[1:], tmp_path)
    assert set(texts(tmp_path)) == {"1.parquet", "2.parquet", "3.parquet", "records.json"}
    assert (tmp_path / "replaced-1/texts/0.parquet").is_file()
    make(warcs[2:], tmp_path)
    assert set(texts(tmp_path)) == {"2.parquet", "3.parquet", "records.json"} and not (tmp_path / "replaced-2").exists()


def write_table(path: Path, words: str) -> None:
    path.write_text("".join(json.dumps({"text": f"{words} in line {row}"}) + "\n" for row in range(3)))


@pytest.fixture
def tables(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for path in paths:
        write_table(path, "the same size")
    return paths


def of_tables(tables: Sequence[object]) -> Experiment:
    tiny = tiny_experiment()
    return dataclasses.replace(tiny, pages=dataclasses.replace(tiny.pages, warc=(), tables=tuple(map(str, tables))))


def made_of_tables(tables: Sequence[object], workdir: Path, **engine) -> list[bool]:
    experiment = dataclasses.replace(of_tables(tables), engine=EngineConfig(**engine))
    return [run_stage(stage, experiment, workdir) for stage in STAGES]


def test_a_replaced_input_of_the_same_size_is_rebuilt_and_a_copy_is_not(tables, tmp_path):
    run = tmp_path / "run"
    assert made_of_tables(tables, run) == [True, True]
    before = markers(run)
    for path in tables:  # a copy has other times
        os.utime(path, ns=(1, 1))
    copied = shutil.copytree(run, tmp_path / "copied")
    assert made_of_tables(tables, run) == made_of_tables(tables, copied) == [False, False]
    for number, words in enumerate(("THE SAME SIZE", "the_same_size")):  # replaced, and replaced again
        write_table(tables[1], words)
        os.utime(tables[0], ns=(number, number))
        assert made_of_tables(tables, run) == [True, True]
        assert words in pq.read_table(run / "texts/1.parquet")["text"][0].as_py()
        assert {name: markers(run)[name] for name in "02"} == {name: before[name] for name in "02"}
        assert made_of_tables(tables, run) == [False, False]
    made_of_tables(tables, tmp_path / "fresh")
    assert texts(run) == texts(tmp_path / "fresh")
    assert [run_stage(stage, of_tables(tables), tmp_path / "taken", run) for stage in STAGES] == [True, True]
    assert markers(tmp_path / "taken") == markers(run) and made_of_tables(tables, tmp_path / "taken") == [False, False]


def test_a_second_dump_with_the_same_file_names_keeps_the_units_of_the_first(tmp_path):
    for dump, words in (("b", "one dump"), ("a", "the same number of letters")):
        for number in range(2):
            (tmp_path / dump).mkdir(exist_ok=True)
            write_table(tmp_path / dump / f"000_0000{number}.jsonl", f"{words} {number}")
    first, second = (f"{tmp_path / dump}/*.jsonl" for dump in "ba")
    made_of_tables([first], tmp_path / "run")
    before = markers(tmp_path / "run")
    assert set(before) == {"000_00000", "000_00001"}
    assert made_of_tables([first, second], tmp_path / "run") == [True, True]
    after = markers(tmp_path / "run")
    assert len(after) == 4 and {name: after[name] for name in before} == before
    made_of_tables([first, second], tmp_path / "fresh")
    assert texts(tmp_path / "run") == texts(tmp_path / "fresh")
    rows = [row for path in (tmp_path / "run/texts").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows) == 12
    made_of_tables([first], tmp_path / "run")
    assert markers(tmp_path / "run") == before


def test_a_replaced_input_is_reported_after_the_markers_are_deleted(tables, tmp_path):
    """As the message advises that rejects it if other stages were built from it."""
    made_of_tables(tables, tmp_path)
    texts = json.loads((tmp_path / "stages/texts.json").read_text())
    follower = NO_OUTPUTS | {"settings": {"<texts>": texts["key"]}}
    (tmp_path / "stages/documents.json").write_text(json.dumps(follower))
    write_table(tables[1], "THE SAME SIZE")
    with pytest.raises(UsageError, match=r"(?s)1\.jsonl: \d+ there, \[\d+, '[0-9a-f]{64}'\] asked for.*rm "):
        made_of_tables(tables, tmp_path)
    for path in (tmp_path / "stages").glob("*.json"):
        path.unlink()
    assert made_of_tables(tables, tmp_path) == [True, True]
    assert "SAME" in pq.read_table(tmp_path / "texts/1.parquet")["text"][0].as_py()


def test_an_input_repaired_in_its_size_is_tried_automatically(warcs, tmp_path):
    run_stage(fetch_pages.STAGE, experiment_of(warcs), tmp_path)
    whole = damage(warcs)
    make(warcs, tmp_path, max_failed=0.3)
    before = markers(tmp_path)
    warcs[2].write_bytes(whole)
    make(warcs, tmp_path)
    assert set(markers(tmp_path)) == {*before, "2"} and not list(tmp_path.glob("quarantine/texts/*"))


def test_a_replaced_file_of_a_web_server_is_detected_by_its_etag(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    lines = {f"{name}.jsonl": json.dumps({"text": "the same size"}).encode() for name in "ab"}
    with serving(LoopbackCrawl(lines)) as web:
        urls = [f"{web.url}{name}" for name in lines]
        again = lambda: made_of_tables(urls, tmp_path)
        assert again() == [True, True] and again() == [False, False]
        before = markers(tmp_path)
        web.files["b.jsonl"] = lines["b.jsonl"].upper().replace(b"TEXT", b"text")
        assert again() == [True, True] and again() == [False, False]
        assert [markers(tmp_path)[name] == before[name] for name in "ab"] == [True, False]
        marker = json.loads((tmp_path / "stages/pages.json").read_text())["external_inputs"]
        assert marker[user_inputs.SIZES][urls[0]] is None
        among_many = {user_inputs.SIZES: dict.fromkeys(urls), user_inputs.SEEN: {}}  # when no server is asked
        assert user_inputs.recognised(tmp_path, among_many)[0] == marker


def test_a_replaced_input_is_noticed_after_pages_was_interrupted(tables, tmp_path):
    def killed(*arguments) -> None:
        raise KeyboardInterrupt

    made_of_tables(tables, tmp_path)
    write_table(tables[1], "THE SAME SIZE")
    with pytest.raises(KeyboardInterrupt):
        run_stage(dataclasses.replace(fetch_pages.STAGE, make=killed), of_tables(tables), tmp_path)
    assert made_of_tables(tables, tmp_path) == [True, True]
    assert "THE SAME" in pq.read_table(tmp_path / "texts/1.parquet")["text"][0].as_py()


def test_an_input_may_be_added_after_pages_was_interrupted(warcs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted(fetch_pages.STAGE), experiment_of(warcs[:3]), tmp_path)
    make(warcs, tmp_path)
    assert set(markers(tmp_path)) == {"0", "1", "2", "3"}


def test_a_strangers_unit_marker_deletes_nothing_outside_the_outputs(warcs, tmp_path):
    make(warcs[:2], tmp_path)
    theirs = {tmp_path / name: f"the user's {name}" for name in ("notes.txt", "checkpoints/10/x", "config.json")}
    for path, text in theirs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    outputs = {str(path.relative_to(tmp_path)): [1, ""] for path in theirs}
    for name in ("evil", "0"):
        marker = json.loads((tmp_path / "units/texts/1.json").read_text())
        (tmp_path / f"units/texts/{name}.json").write_text(json.dumps(marker | {"outputs": outputs, "identity": "x"}))
    (tmp_path / "units/texts/manifest").unlink()
    (tmp_path / "stages/texts.json").unlink()
    run_stage(extract_texts.STAGE, experiment_of(warcs[:2]), tmp_path)
    assert set(markers(tmp_path)) == {"0", "1"}
    assert {path: path.read_text() for path in theirs if path.name != "config.json"} == {
        path: text for path, text in theirs.items() if path.name != "config.json"
    }
    assert (tmp_path / "config.json").is_file()


def test_an_interrupted_stage_rebuilds_replaced_inputs(tables, tmp_path):
    run_stage(fetch_pages.STAGE, of_tables(tables), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted(extract_texts.STAGE), of_tables(tables), tmp_path)
    before = markers(tmp_path)
    write_table(tables[1], "THE SAME SIZE")
    assert made_of_tables(tables, tmp_path) == [True, True]
    assert [markers(tmp_path)[name] == before[name] for name in "012"] == [True, False, True]


def test_added_inputs_are_rejected_after_later_stages(warcs, tmp_path):
    make(warcs[:3], tmp_path)
    marker = json.loads((tmp_path / "stages/texts.json").read_text())
    follower = NO_OUTPUTS | {"settings": {"<texts>": marker["key"]}}
    (tmp_path / "stages/documents.json").write_text(json.dumps(follower))
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    with pytest.raises(UsageError, match=r"(?s)pages of another experiment.*3\.warc\.gz.*documents\.json"):
        make(warcs, tmp_path)
    assert before == {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}


def test_other_settings_are_rejected_and_their_units_kept(warcs, tmp_path):
    make(warcs[:2], tmp_path)
    experiment = experiment_of(warcs[:2])
    other = dataclasses.replace(experiment, documents=dataclasses.replace(experiment.documents, dump="other"))
    with pytest.raises(UsageError, match="dump"):
        run_stage(extract_texts.STAGE, other, tmp_path)
    assert set(markers(tmp_path)) == {"0", "1"}


def test_an_interrupted_stage_resumes_with_other_inputs(warcs, tmp_path):
    stage: Stage = interrupted(extract_texts.STAGE)
    run_stage(fetch_pages.STAGE, experiment_of(warcs[:3]), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, experiment_of(warcs[:3]), tmp_path)
    before = markers(tmp_path)
    make(warcs[1:], tmp_path)
    assert {name: markers(tmp_path)[name] for name in "12"} == {name: before[name] for name in "12"}
    assert set(texts(tmp_path)) == {"1.parquet", "2.parquet", "3.parquet", "records.json"}


def test_unfinished_documents_resume_with_other_inputs(warcs, tmp_path, monkeypatch):
    def made(stage: Stage, warcs: list[Path], workdir: Path) -> None:
        make(warcs, workdir)
        experiment = experiment_of(warcs)
        steps = dataclasses.replace(experiment.documents, steps=("exact_dedup",))
        run_stage(stage, dataclasses.replace(experiment, documents=steps), workdir)

    keys: list[str] = []
    real = duplicates.write_keys
    noting = lambda file, space, **rest: keys.append(file.name) or real(file, space, **rest)
    monkeypatch.setattr(duplicates, "write_keys", noting)
    stage: Stage = interrupted(prepare_documents.STAGE)
    for some in (warcs[:3], warcs[1:], warcs[:3]):
        with pytest.raises(KeyboardInterrupt):
            made(stage, some, tmp_path / "run")
    made(prepare_documents.STAGE, warcs[:3], tmp_path / "run")
    assert sorted(keys[:3]) == ["0", "1", "2"] and keys[3:] == ["3", "0"]
    made(prepare_documents.STAGE, warcs[:3], tmp_path / "fresh")
    contents = lambda run: {path.name: path.read_bytes() for path in (tmp_path / run / "documents").iterdir()}
    assert contents("run") == contents("fresh") and len(contents("run")) == 3


def test_a_changed_library_is_named_and_deletes_nothing(warcs, tmp_path, monkeypatch, capsys):
    run_stage(fetch_pages.STAGE, experiment_of(warcs), tmp_path)
    whole = damage(warcs)
    with pytest.raises(InputError, match="1 of 4 units failed"):
        make(warcs, tmp_path)
    before = markers(tmp_path)
    monkeypatch.setattr(notes, "installed", lambda library: f"{library} of tomorrow")
    warcs[2].write_bytes(whole)
    make(warcs, tmp_path, retry_failed=True)
    assert {name: markers(tmp_path)[name] for name in before} == before and set(before) == {"0", "1", "3"}
    assert "regex of tomorrow" in capsys.readouterr().out


def test_a_stage_may_finish_without_a_unit_and_include_it_later(warcs, tmp_path):
    run_stage(fetch_pages.STAGE, experiment_of(warcs), tmp_path)
    whole = damage(warcs)
    make(warcs, tmp_path, max_failed=0.3)
    assert set(markers(tmp_path)) == {"0", "1", "3"} and (tmp_path / "quarantine/texts/2.json").is_file()
    before, key = markers(tmp_path), json.loads((tmp_path / "stages/texts.json").read_text())["key"]
    make(warcs, tmp_path)  # up to date
    assert json.loads((tmp_path / "stages/texts.json").read_text())["key"] == key
    warcs[2].write_bytes(whole)
    make(warcs, tmp_path, retry_failed=True)
    assert {name: markers(tmp_path)[name] for name in before} == before and "2" in markers(tmp_path)
    assert not list(tmp_path.glob("quarantine/texts/*"))
    assert json.loads((tmp_path / "stages/texts.json").read_text())["key"] != key


def test_outputs_without_a_unit_are_rebuilt_with_it_unless_a_model_was_trained_on_them(warcs, tmp_path):
    def made(**engine) -> list[bool]:
        experiment = experiment_of(warcs, max_failed=0.3, **engine)
        experiment = dataclasses.replace(experiment, documents=dataclasses.replace(experiment.documents, steps=()))
        return [run_stage(stage, experiment, tmp_path) for stage in (*STAGES, prepare_documents.STAGE)]

    run_stage(fetch_pages.STAGE, experiment_of(warcs), tmp_path)
    whole = damage(warcs)
    assert made() == [False, True, True] and made() == [False, False, False]
    (tmp_path / "stages/train.begun").write_text("{}")
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))}
    with pytest.raises(UsageError, match="has already trained on texts without the failed units"):
        made(retry_failed=True)
    assert before == {path: path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))}
    (tmp_path / "stages/train.begun").unlink()
    assert made(retry_failed=True) == [False, True, False]  # it fails again
    times = {path: path.stat().st_mtime_ns for path in warcs}
    warcs[2].write_bytes(whole)
    os.utime(warcs[2], ns=(times[warcs[2]], times[warcs[2]]))  # as if the cause was not the file
    assert made(retry_failed=True) == [False, True, True] and made() == [False, False, False]
    assert sorted(path.stem for path in (tmp_path / "documents").iterdir()) == ["0", "1", "2", "3"]
