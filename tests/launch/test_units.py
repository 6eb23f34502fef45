"""In a stage of units, changed inputs only affect their own units, and outputs of a run are never lost."""

import dataclasses
import json
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.experiment import Experiment
from data_prep.config import EngineConfig
from data_prep.warc import write_pages
from launch import extract_texts, fetch_pages, prepare_documents
from launch.run_folder import markers as notes
from launch.run_folder import user_inputs
from launch.stages.stage import Stage
from lm.errors import InputError, UsageError
from lm.fields import with_values
from lm.storage import Place, Url, write_atomically
from tests.corpus import tiny_experiment, web_pages
from tests.data_prep.loopback_crawl import LoopbackCrawl, serving
from tests.launch.run_folder import NO_OUTPUTS
from tests.launch.toy_stages import files_of, interrupted, run
from tests.object_store import serving as serving_store
from tests.object_store import variables

STAGES = (fetch_pages.STAGE, extract_texts.STAGE)


@pytest.fixture
def warcs(tmp_path) -> list[Path]:
    pages, paths = web_pages(12), []
    for number in range(4):
        paths.append(tmp_path / f"warc/{number}.warc.gz")
        write_pages(paths[-1], pages[3 * number : 3 * number + 3])
    return paths


@pytest.fixture(scope="module")
def store() -> Generator[None]:
    with serving_store() as server, variables(server.environment()):
        server.bucket("corpus")
        yield


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.slow)])
def place(request, tmp_path) -> Place:
    if request.param == "disk":
        return tmp_path / "run"
    request.getfixturevalue("store")
    return Url(f"s3://corpus/{tmp_path.name}/run")


def experiment_of(inputs: Sequence[object], steps: tuple[str, ...] = (), **engine) -> Experiment:
    names = tuple(map(str, inputs))
    pages = {"pages.warc": names} if names[0].endswith("gz") else {"pages.warc": (), "pages.tables": names}
    return with_values(tiny_experiment(), {**pages, "documents.steps": steps, "engine": EngineConfig(**engine)})


def make(inputs: Sequence[object], place: Place, stages: Sequence[Stage] = STAGES, **options) -> list[bool]:
    """Which stages a command made; in a bucket, on the machine of this number of inputs."""
    machine = None if isinstance(place, Path) else Path(str(inputs[0])).parent / f"machine-{len(inputs)}"
    return run(place, experiment_of(inputs, **options), stages=stages, machine=machine)


def begin(stage: Stage, inputs: Sequence[object], place: Place, **options) -> None:
    """Kill the stage after its outputs were written."""
    with pytest.raises(KeyboardInterrupt):
        make(inputs, place, (interrupted(stage),), **options)


def texts(place: Place, folder: str = "texts/") -> dict[str, bytes | str]:
    return {name.removeprefix(folder): data for name, data in files_of(place).items() if name.startswith(folder)}


def markers(place: Place) -> dict[str, bytes | str]:
    """Contents of the files, without seconds and other values of one build."""
    found = texts(place, "units/texts/")
    return {name.removesuffix(".json"): found[name] for name in found if name != "manifest"}


def follow(workdir: Path) -> None:
    """Record that documents were made of the texts."""
    texts = json.loads((workdir / "stages/texts.json").read_text())
    marker = NO_OUTPUTS | {"settings": {"<texts>": texts["key"]}}
    (workdir / "stages/documents.json").write_text(json.dumps(marker))


def damage(warcs: list[Path]) -> bytes:
    """Make the third file unreadable at its old size; return the old bytes."""
    whole = warcs[2].read_bytes()
    warcs[2].write_bytes(b"<html>".ljust(len(whole)))
    return whole


def test_added_and_removed_inputs_only_affect_their_units(warcs, tmp_path, place):
    make(warcs[:3], place)
    before = markers(place)
    assert set(before) == {"0", "1", "2"}
    make(warcs[1:], place)
    after = markers(place)
    assert set(after) == {"1", "2", "3"} and {name: after[name] for name in "12"} == {n: before[n] for n in "12"}
    make(warcs[1:], tmp_path / "fresh")
    assert texts(place) == texts(tmp_path / "fresh")
    write_pages(warcs[2], web_pages(15)[12:])  # another file under the same name
    make(warcs[1:], place)
    assert markers(place)["1"] == before["1"] and markers(place)["2"] != before["2"]
    assert not [name for name in files_of(place) if name.startswith("replaced-") or name.endswith(".begun")]


def test_files_of_no_unit_are_moved_aside_and_outputs_of_earlier_units_deleted(warcs, place):
    """The process is killed between the outputs of a unit and its marker, and its input is deleted: no stage may read
    these outputs."""

    def without_a_marker(experiment: Experiment, run: Place) -> None:
        extract_texts.STAGE.make(experiment, run)
        (run / "units/texts/0.json").unlink()

    make(warcs[:3], place, STAGES[:1])
    begin(dataclasses.replace(extract_texts.STAGE, make=without_a_marker), warcs[:3], place)
    make(warcs[1:], place)
    assert set(texts(place)) == {"1.parquet", "2.parquet", "3.parquet", "records.json"}
    assert "replaced-1/texts/0.parquet" in files_of(place)
    make(warcs[2:], place)
    assert set(texts(place)) == {"2.parquet", "3.parquet", "records.json"}
    assert not texts(place, "replaced-2")


def write_table(path: Path, words: str) -> None:
    path.write_text("".join(json.dumps({"text": f"{words} in line {row}"}) + "\n" for row in range(3)))


@pytest.fixture
def tables(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{number}.jsonl" for number in range(4)]
    for path in paths:
        write_table(path, "the same size")
    return paths


def test_a_replaced_input_of_the_same_size_is_rebuilt_and_a_copy_is_not(tables, tmp_path, place):
    assert make(tables, place) == [True, True]
    before = markers(place)
    for path in tables:  # a copy has other times
        os.utime(path, ns=(1, 1))
    assert make(tables, place) == [False, False]
    for number, words in enumerate(("THE SAME SIZE", "the_same_size")):  # replaced, and replaced again
        write_table(tables[1], words)
        os.utime(tables[0], ns=(number, number))
        assert make(tables, place) == [True, True]
        with (place / "texts/1.parquet").open("rb") as file:
            assert words in pq.read_table(file)["text"][0].as_py()
        assert [name for name in before if markers(place)[name] != before[name]] == ["1"]
        assert make(tables, place) == [False, False]
    make(tables, tmp_path / "fresh")
    assert texts(place) == texts(tmp_path / "fresh")
    if isinstance(place, Path):
        assert make(tables, shutil.copytree(place, tmp_path / "copied")) == [False, False]
        assert run(tmp_path / "taken", experiment_of(tables), place, STAGES) == [True, True]
        assert markers(tmp_path / "taken") == markers(place) and make(tables, tmp_path / "taken") == [False, False]


@pytest.mark.parametrize("change", ["replaced", "added and removed"])
@pytest.mark.parametrize("killed", ["pages", "texts", "pages, made before"])
def test_a_killed_stage_resumes_with_other_inputs_and_keeps_the_other_units(tables, tmp_path, killed, change):
    workdir, stage = tmp_path / "run", STAGES[killed == "texts"]
    later, kept = (tables[:3], "02") if change == "replaced" else (tables[1:], "12")
    replace = lambda: write_table(tables[1], "THE SAME SIZE") if change == "replaced" else None
    if killed == "pages, made before":
        make(tables[:3], workdir)
        replace()
        begin(dataclasses.replace(stage, make=lambda *given: None), later, workdir)
    else:
        make(tables[:3], workdir, STAGES[: killed == "texts"])
        begin(stage, tables[:3], workdir)
        replace()
    before = markers(workdir)
    assert make(later, workdir) == [True, True]
    make(later, tmp_path / "fresh")
    assert texts(workdir) == texts(tmp_path / "fresh")
    assert not before or [before[name] == markers(workdir)[name] for name in kept] == [True, True]


def test_a_second_dump_with_the_same_file_names_keeps_the_units_of_the_first(tmp_path):
    for dump, words in (("b", "one dump"), ("a", "the same number of letters")):
        for number in range(2):
            (tmp_path / dump).mkdir(exist_ok=True)
            write_table(tmp_path / dump / f"000_0000{number}.jsonl", f"{words} {number}")
    first, second = (f"{tmp_path / dump}/*.jsonl" for dump in "ba")
    make([first], tmp_path / "run")
    before = markers(tmp_path / "run")
    assert set(before) == {"000_00000", "000_00001"}
    assert make([first, second], tmp_path / "run") == [True, True]
    after = markers(tmp_path / "run")
    assert len(after) == 4 and {name: after[name] for name in before} == before
    make([first, second], tmp_path / "fresh")
    assert texts(tmp_path / "run") == texts(tmp_path / "fresh")
    rows = [row for path in (tmp_path / "run/texts").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows) == 12
    make([first], tmp_path / "run")
    assert markers(tmp_path / "run") == before


def test_a_replaced_input_is_reported_after_the_markers_are_deleted(tables, tmp_path):
    """As the message advises that rejects it if other stages were built from it."""
    make(tables, tmp_path)
    follow(tmp_path)
    write_table(tables[1], "THE SAME SIZE")
    with pytest.raises(UsageError, match=r"(?s)1\.jsonl: \d+ there, \[\d+, '[0-9a-f]{64}'\] asked for.*rm "):
        make(tables, tmp_path)
    for path in (tmp_path / "stages").glob("*.json"):
        path.unlink()
    assert make(tables, tmp_path) == [True, True]
    assert "SAME" in pq.read_table(tmp_path / "texts/1.parquet")["text"][0].as_py()


def test_an_input_repaired_in_its_size_is_tried_automatically(warcs, tmp_path):
    make(warcs, tmp_path, STAGES[:1])
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
        again = lambda: make(urls, tmp_path)
        assert again() == [True, True] and again() == [False, False]
        before = markers(tmp_path)
        web.files["b.jsonl"] = lines["b.jsonl"].upper().replace(b"TEXT", b"text")
        assert again() == [True, True] and again() == [False, False]
        assert [markers(tmp_path)[name] == before[name] for name in "ab"] == [True, False]
        marker = json.loads((tmp_path / "stages/pages.json").read_text())["external_inputs"]
        assert marker[user_inputs.SIZES][urls[0]] is None
        among_many = {user_inputs.SIZES: dict.fromkeys(urls), user_inputs.SEEN: {}}  # when no server is asked
        assert user_inputs.recognised(tmp_path, among_many)[0] == marker


def test_a_strangers_unit_marker_deletes_nothing_outside_the_outputs(warcs, tmp_path):
    make(warcs[:2], tmp_path)
    theirs = {name: f"the user's {name}" for name in ("notes.txt", "checkpoints/10/x")}
    for name, text in theirs.items():
        write_atomically(tmp_path / name, text)
    outputs = {name: [1, ""] for name in (*theirs, "config.json")}
    for name in ("evil", "0"):
        marker = json.loads((tmp_path / "units/texts/1.json").read_text())
        (tmp_path / f"units/texts/{name}.json").write_text(json.dumps(marker | {"outputs": outputs, "identity": "x"}))
    (tmp_path / "units/texts/manifest").unlink()
    (tmp_path / "stages/texts.json").unlink()
    make(warcs[:2], tmp_path)
    assert set(markers(tmp_path)) == {"0", "1"} and (tmp_path / "config.json").is_file()
    assert {name: (tmp_path / name).read_text() for name in theirs} == theirs


def test_added_inputs_are_rejected_after_later_stages(warcs, tmp_path):
    make(warcs[:3], tmp_path)
    follow(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match=r"(?s)pages of another experiment.*3\.warc\.gz.*documents\.json"):
        make(warcs, tmp_path)
    assert before == files_of(tmp_path)


def test_a_changed_library_is_named_and_deletes_nothing(warcs, tmp_path, monkeypatch, capsys):
    make(warcs, tmp_path, STAGES[:1])
    whole = damage(warcs)
    with pytest.raises(InputError, match="1 of 4 units failed"):
        make(warcs, tmp_path)
    before = markers(tmp_path)
    monkeypatch.setattr(notes, "installed", lambda library: f"{library} of tomorrow")
    warcs[2].write_bytes(whole)
    make(warcs, tmp_path, retry_failed=True)
    assert {name: markers(tmp_path)[name] for name in before} == before and set(before) == {"0", "1", "3"}
    assert "regex of tomorrow" in capsys.readouterr().out


def test_outputs_without_a_unit_are_rebuilt_with_it_unless_a_model_was_trained_on_them(warcs, place):
    def made(**engine) -> list[bool]:
        return make(warcs, place, (*STAGES, prepare_documents.STAGE), max_failed=0.3, **engine)

    record = lambda: json.loads((place / "stages/texts.json").read_text())
    make(warcs, place, STAGES[:1])
    whole = damage(warcs)
    assert made() == [False, True, True] and made() == [False, False, False]
    units, without = markers(place), record()
    assert set(units) == {"0", "1", "3"} and without["continued_from"] == [{"without": ["texts/2"]}]
    assert [*texts(place, "quarantine/texts/")] == ["2.json"]
    write_atomically(place / "stages/train.begun", "{}")
    before = files_of(place)
    with pytest.raises(UsageError, match="has already trained on texts without the failed units"):
        made(retry_failed=True)
    assert before == files_of(place)
    (place / "stages/train.begun").unlink()
    assert made(retry_failed=True) == [False, True, False] and record()["key"] == without["key"]  # it fails again
    times = {path: path.stat().st_mtime_ns for path in warcs}
    warcs[2].write_bytes(whole)
    os.utime(warcs[2], ns=(times[warcs[2]], times[warcs[2]]))  # as if the cause was not the file
    assert made(retry_failed=True) == [False, True, True] and made() == [False, False, False]
    assert markers(place).items() > units.items() and record()["key"] != without["key"]
    assert set(texts(place, "documents/")) == {"0.parquet", "1.parquet", "2.parquet", "3.parquet"}
    assert not texts(place, "quarantine/texts/")
