"""Array jobs of the data stages: what they leave is what one process leaves, on a disk and in a bucket, with a rank
killed on the way."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.experiment import Experiment
from data_prep.config import EngineConfig
from data_prep.engine import Step, Unit, Workspace, run_step
from data_prep.engine.array import renewing
from data_prep.warc import write_pages
from launch import data, extract_texts, fetch_pages, prepare_documents
from launch.stages.array import KEPT_BESIDE, ended_by_sigterm, run_stages
from launch.stages.handed_on import Present, delete_handed_on
from launch.stages.stage import Stage, run_stage
from lm.errors import UsageError
from lm.storage import Url
from tests.corpus import tiny_experiment, web_pages
from tests.object_store import QUICK, serving, variables
from tests.run_files import HANG_SECONDS

REPOSITORY = Path(__file__).parents[2]
STAGES = (fetch_pages.STAGE, extract_texts.STAGE)
SMALL = (
    "--documents.steps", "gopher_quality", "exact_dedup", "--tokenizer.vocab-size", "400",
    "--shards.validation-fraction", "0.2",
)  # fmt: skip


def write_warcs(folder: Path, files: int, pages: int) -> list[Path]:
    every = web_pages(files * pages)
    paths = [folder / f"{number}.warc.gz" for number in range(files)]
    for number, path in enumerate(paths):
        write_pages(path, every[number * pages : (number + 1) * pages])
    return paths


def experiment_of(warcs: list[Path], **engine) -> Experiment:
    tiny = tiny_experiment()
    pages = dataclasses.replace(tiny.pages, warc=tuple(map(str, warcs)))
    return dataclasses.replace(tiny, pages=pages, engine=EngineConfig(**engine))


def test_stages_that_an_array_job_made_are_up_to_date_for_any_script(tmp_path, capsys):
    warcs = write_warcs(tmp_path / "warc", 4, 3)
    run, array = tmp_path / "run", {"runner": "array", "rank": 0, "world": 1}
    run_stages(STAGES, experiment_of(warcs[:3], **array), run)
    assert [run_stage(stage, experiment_of(warcs[:3]), run) for stage in STAGES] == [False, False]
    for stage in STAGES:
        run_stage(stage, experiment_of(warcs[:3]), tmp_path / "alone")
    assert digests(run, "texts") == digests(tmp_path / "alone", "texts")
    before = {path.stem: path.read_text() for path in (run / "units/texts").iterdir()}
    run_stages(STAGES, experiment_of(warcs[1:], **array), run)  # one comes, one goes
    after = {path.stem: path.read_text() for path in (run / "units/texts").iterdir()}
    assert {name: after[name] for name in "12"} == {name: before[name] for name in "12"} and set(after) == {*"123"}
    assert [run_stage(stage, experiment_of(warcs[1:]), run) for stage in STAGES] == [False, False]
    assert set(digests(run, "texts")) == {"texts/1.parquet", "texts/2.parquet", "texts/3.parquet", "texts/records.json"}
    (run / "stages/documents.json").write_text("{}")
    with pytest.raises(UsageError, match=r"(?s)pages is of another experiment.*0\.warc\.gz"):
        run_stages(STAGES, experiment_of(warcs, **array), run)
    with pytest.raises(UsageError, match=r"python -m launch\.data"):
        run_stage(STAGES[0], experiment_of(warcs, **array), run)


def test_an_array_job_makes_an_input_again_that_was_replaced_by_one_of_its_size(tmp_path):
    tables = [tmp_path / f"{number}.jsonl" for number in range(2)]
    for path in tables:
        path.write_text('{"text": "as it was"}\n')
    tiny = tiny_experiment()
    pages = dataclasses.replace(tiny.pages, warc=(), tables=tuple(map(str, tables)))
    experiment = dataclasses.replace(tiny, pages=pages, engine=EngineConfig(runner="array", rank=0, world=1))
    run_stages(STAGES, experiment, tmp_path / "run")
    before = {path.stem: path.read_text() for path in (tmp_path / "run/units/texts").iterdir()}
    for path in tables:
        os.utime(path, ns=(1, 1))
    tables[1].write_text('{"text": "AS IT WAS"}\n')
    run_stages(STAGES, experiment, tmp_path / "run")
    after = {path.stem: path.read_text() for path in (tmp_path / "run/units/texts").iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["1"]
    assert pq.read_table(tmp_path / "run/texts/1.parquet")["text"].to_pylist() == ["AS IT WAS"]
    alone = dataclasses.replace(experiment, engine=EngineConfig())
    assert [run_stage(stage, alone, tmp_path / "run") for stage in STAGES] == [False, False]


def test_sigterm_ends_the_process_as_an_error_does_so_that_nothing_stays_on_its_disk():
    before, unwound = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(SystemExit, match="143"), ended_by_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(HANG_SECONDS)
        finally:
            unwound.append(True)
    assert unwound and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_stage_without_a_unit_is_made_with_it_where_that_is_asked_for(tmp_path):
    warcs = write_warcs(tmp_path / "warc", 3, 2)
    whole = warcs[1].read_bytes()
    array = {"runner": "array", "rank": 0, "world": 1, "max_failed": 0.4}
    run_stages(STAGES, experiment_of(warcs, **array), tmp_path / "run")
    expected = digests(tmp_path / "run", "texts")
    run_stages(STAGES[:1], experiment_of(warcs, **array), tmp_path / "again")
    warcs[1].write_bytes(b"<html>".ljust(len(whole)))
    run_stages(STAGES, experiment_of(warcs, **array), tmp_path / "again")
    assert set(digests(tmp_path / "again", "texts")) == set(expected) - {"texts/1.parquet"}
    warcs[1].write_bytes(whole)
    for _ in range(2):
        run_stages(STAGES, experiment_of(warcs, **array, retry_failed=True, job="1"), tmp_path / "again")
        assert digests(tmp_path / "again", "texts") == expected
    assert run_stage(STAGES[1], experiment_of(warcs), tmp_path / "again") is False


def test_what_units_hand_on_is_deleted_once_nobody_can_read_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_LEASE_SECONDS", "0.3")
    stage, parts = prepare_documents.STAGE, tmp_path / "parts/keys"
    step = Step("keys", (Unit("a", "1", 1, None),), write_part, light=True)
    make = lambda: run_step(step, EngineConfig(runner="array", rank=0, world=1), tmp_path)
    first, second = (Present(tmp_path, rank, 2) for rank in range(2))
    make()
    for one in (first, second):
        one.write()
    first.passed.append("documents")
    with renewing(second):
        delete_handed_on([stage], tmp_path, first)
        delete_handed_on([stage], tmp_path, first, wait=True)  # the second lives
        assert (parts / "a").is_file()
    delete_handed_on([stage], tmp_path, first)
    assert (parts / "a").is_file()
    delete_handed_on([stage], tmp_path, first, wait=True)  # it was killed
    assert not parts.parent.exists()
    make()  # what is gone is made again
    assert (parts / "a").is_file()
    second.ended = True
    second.write()
    delete_handed_on([stage], tmp_path, first)
    assert not parts.parent.exists() and (tmp_path / "units/keys/a.json").is_file()


def write_part(unit: Unit, space: Workspace) -> None:
    space.output(f"parts/keys/{unit.name}").write_bytes(b"key")


def damage(path: Path) -> bytes:
    """Takes from a Parquet file the begin of its URLs; what it was."""
    whole, index = path.read_bytes(), pq.read_metadata(path)
    column = index.row_group(0).column(index.schema.names.index("url"))
    begin = column.dictionary_page_offset or column.data_page_offset
    path.write_bytes(whole[:begin] + bytes(40) + whole[begin + 40 :])
    return whole


@pytest.mark.slow
def test_what_a_stage_is_finished_without_is_in_its_key_and_made_where_that_is_asked_for(tmp_path):
    """Of documents and shards as of texts; what was made from it follows, and is what is made without a failure."""
    tiny = tiny_experiment()
    pages = dataclasses.replace(tiny.pages, warc=tuple(map(str, write_warcs(tmp_path / "warc", 3, 6))))
    steps = dataclasses.replace(tiny.documents, steps=("exact_dedup",))
    shards = dataclasses.replace(tiny.shards, validation_fraction=0.2)
    experiment = dataclasses.replace(tiny, pages=pages, documents=steps, shards=shards)

    def keys(where: Path) -> dict[str, str]:
        return {one.name: json.loads((where / f"stages/{one.name}.json").read_text())["key"] for one in every}

    def made(stages: list[Stage], **engine) -> None:
        """By an array job of one, and by the scripts alone."""
        array = EngineConfig(runner="array", rank=0, world=1, max_failed=0.4, job=name, **engine)
        run_stages(stages, dataclasses.replace(experiment, engine=array), run)
        for stage in stages:
            run_stage(stage, dataclasses.replace(experiment, engine=EngineConfig(max_failed=0.4, **engine)), alone)

    every = [*data.STAGES.values()]
    for name, inputs, units in (("documents", "texts", ["keys/1"]), ("shards", "documents", ["encode/1", "keys/1"])):
        run, alone = tmp_path / f"{name}-run", tmp_path / f"{name}-alone"
        made(every[: [one.name for one in every].index(name)])
        whole = {where: damage(where / inputs / "1.parquet") for where in (run, alone)}
        made(every)
        marker = json.loads((run / f"stages/{name}.json").read_text())
        assert marker["continued_from"] == [{"without": units}] and keys(run) == keys(alone)
        for where in (run, alone):
            (where / inputs / "1.parquet").write_bytes(whole[where])
        before = keys(run)
        made(every)
        assert keys(run) == before  # not unasked
        for _ in range(2):
            made(every, retry_failed=True)
            assert keys(run) == keys(alone) and keys(run)[name] != before[name]
            assert keys(run)["shards"] != before["shards"]
            assert not list(run.rglob("parts"))
            for folder in ("documents", "tokens"):
                assert digests(run, folder) == digests(alone, folder)
                assert {"documents/1.parquet", "tokens/manifest.json"} & digests(run, folder).keys()


def digests(run: Path | Url, *folders: str) -> dict[str, str]:
    names = (
        list(run.files())
        if isinstance(run, Url)
        else [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    )
    wanted = sorted(name for name in names if name.split("/")[0] in folders and not KEPT_BESIDE & {*name.split("/")})
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in wanted}


def start(rank: int, home: Path, workdir: object, warcs: object, *more: str, lease: str = "3") -> subprocess.Popen:
    """A rank with a working folder and caches of its own."""
    home.mkdir(parents=True)
    names = {"XDG_CACHE_HOME": "cache", "TMPDIR": ".", "HOME": "."}
    environment = os.environ | {name: str(home / path) for name, path in names.items()}
    environment |= {"GRISTMILL_LEASE_SECONDS": lease, "PYTHONPATH": str(REPOSITORY)}
    options = ["--workdir", str(workdir), "--pages.warc", str(warcs), "--engine.rank", str(rank), *SMALL, *more]
    command = [sys.executable, "-m", "launch.data", str(REPOSITORY / "configs/demo.py"), *options]
    return subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_three_ranks_over_a_bucket_make_what_one_process_makes_on_a_disk(tmp_path):
    write_warcs(tmp_path / "warc", 9, 20)
    made = ("texts", "documents", "dropped", "tokenizer", "tokens", "funnel.json")
    alone = start(0, tmp_path / "alone", tmp_path / "run", tmp_path / "warc", "--engine.world", "1")
    said, _ = alone.communicate(timeout=HANG_SECONDS)
    assert alone.returncode == 0, said
    with serving() as store, variables(store.environment() | QUICK):
        store.bucket("bucket")
        run, ranks = Url("s3://bucket/run"), []
        try:
            for rank in range(3):
                ranks.append(start(rank, tmp_path / str(rank), run, tmp_path / "warc", "--engine.world", "3"))
            deadline = time.monotonic() + HANG_SECONDS
            while not (run / "units/texts").files() and time.monotonic() < deadline:
                time.sleep(0.1)
            ranks[1].send_signal(signal.SIGKILL)
            ended = [rank.communicate(timeout=HANG_SECONDS)[0] for rank in ranks]
            assert (ranks[0].returncode, ranks[2].returncode) == (0, 0), ended
        finally:
            for rank in ranks:
                rank.kill()
        assert digests(run, *made) == digests(tmp_path / "run", *made)
        assert not [name for name in run.files() if "parts" in name.split("/")]
        for name in data.STAGES:
            there = json.loads((run / f"stages/{name}.json").read_text())
            assert there["key"] == json.loads((tmp_path / f"run/stages/{name}.json").read_text())["key"]
            assert (
                there["files"].keys() == json.loads((tmp_path / f"run/stages/{name}.json").read_text())["files"].keys()
            )
