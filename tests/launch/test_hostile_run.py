"""In a run folder from a stranger, no link or name can delete, empty, move or overwrite a file outside of it."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.experiment.run_folder import RunFolder
from data_prep.dedup_index.format import FORMAT as INDEX_FORMAT
from data_prep.dedup_index.format import HEADER, open_index
from data_prep.engine import attempts, units
from data_prep.funnel.report import FUNNEL, read_counts
from data_prep.sources.manifest import manifest_files
from launch.run_folder import outputs
from launch.run_folder.checks import NAMES
from launch.run_folder.markers import read_note
from launch.run_folder.reuse import check_source
from launch.stages.command import locked
from launch.stages.stage import run_stage
from launch.supervise import Supervisor
from lm.checkpoints.manifest import DamageError, read_manifest, render
from lm.checksums import log_damage
from lm.corpus_index import format as corpus_index
from lm.data import records
from lm.errors import InputError, UsageError
from lm.evaluation.tasks.hub import hub_files
from lm.evaluation.tasks.sources import SOURCES
from lm.formats.safetensors import read_folder
from lm.metrics.writers import run_id_in
from lm.resilience.goodput import Goodput
from lm.storage import Appended, Url, fetched, inside, relative_name, write_atomically
from lm.storage.local_copy import LocalCopy, fetch_listed
from lm.storage.objects import Object
from tests.commands import run_command
from tests.launch.toy_stages import EXPERIMENT, REPORT, TEXT, files_of, run, with_shards
from tests.loopback_hub import LoopbackHub, serving
from tests.run_files import REPOSITORY


@pytest.fixture
def victim(tmp_path) -> Path:
    """A user's folder with six files, one of them in a subfolder."""
    folder = tmp_path / "victim"
    (folder / "deep").mkdir(parents=True)
    for name in ("thesis.tex", "photo.jpg", "0.txt", "index.html", "keys", "deep/old.txt"):
        (folder / name).write_text(f"the user's {name}")
    return folder


@pytest.fixture
def finished(tmp_path) -> Path:
    run(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "name", ["parts", "scratch", "text", "text/deep", "counts.json", "units", "units/joined-0123456789ab", "stages"]
)
@pytest.mark.parametrize("direct", [True, False])
def test_a_stage_deletes_and_moves_nothing_through_a_link(tmp_path, victim, name, direct):
    workdir = tmp_path / "run"
    (workdir / name).parent.mkdir(parents=True)
    (workdir / name).symlink_to(victim)
    before = files_of(victim)
    makes = contextlib.nullcontext() if name in {"text/deep", "units", "units/joined-0123456789ab", "stages"} else None
    with makes or pytest.raises(UsageError, match=f"{name} is a link to"):
        run_stage(dataclasses.replace(TEXT, direct=direct, intermediate=("parts",)), EXPERIMENT, workdir)
    after = files_of(victim)
    assert {path: after.get(path) for path in before} == before and len(before) == 6


LINKS = [
    *sorted(NAMES), "heartbeat.json", "heartbeat-3.json", "heartbeat.json.probe", "supervisor.jsonl",
    "parts/keys/0.pairs", "scratch/texts", "stages/text.begun", "pages/0.warc.gz.part",
    "units/texts/0.json", "stages/report.json", "stages/train.begun", "stages/workers", "report/index.html",
    "report/deep", "documents/deep/0.parquet", "units/texts", "quarantine/texts", "tokens/parts",
    "samples/step-00000001.json", "samples/final.json", "checkpoints/10", "checkpoints/.partial", "snapshots/7",
    "tensorboard/x", "hangs/1",
    "lm_eval/step-00000010.json", "scaling/a/metrics.jsonl", "wandb/run_id",
]  # fmt: skip
"""Where a link is put into a finished run folder."""


@pytest.mark.parametrize("leads", ["folder", "file", "nothing"])
def test_a_link_at_an_output_path_is_rejected_by_name_and_not_written_through(victim, finished, leads):
    target = {"folder": victim, "file": victim / "keys", "nothing": victim / "new"}[leads]
    before, tried = files_of(victim), 0
    for name in LINKS:
        workdir = finished.parent / f"stranger-{tried}"
        shutil.copytree(finished, workdir)
        path = workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        for marker in workdir.glob("stages/*.json") if "stages" not in name else ():
            marker.unlink()
        said = rf"{re.escape(str(path))} is a link to"
        with pytest.raises(InputError, match=said), locked(workdir):
            run(workdir, with_shards(3))
        with pytest.raises(InputError, match="is not a run" if name == "stages" else said):
            check_source(workdir, finished)
        assert path.is_symlink() and files_of(victim) == before, name
        shutil.rmtree(workdir)
        tried += 1
    assert tried == len(LINKS) > 60


def test_links_under_other_names_and_within_the_run_folder_are_kept(victim, finished):
    (finished / "notes").symlink_to(victim)
    (finished / "wandb").mkdir()
    (finished / "wandb/latest-run").symlink_to("run-1")
    with locked(finished):
        assert run(finished) == [False, False]
    assert len(files_of(victim)) == 6


@pytest.mark.parametrize("make_link", [os.symlink, os.link])
def test_no_file_is_written_through_a_link_at_its_own_or_its_temporary_name(tmp_path, victim, make_link):
    partial = tmp_path / "config.json.partial"
    make_link(victim / "keys", partial)
    make_link(victim / "keys", tmp_path / "heartbeat.json")
    before = files_of(victim)
    write_atomically(tmp_path / "config.json", "{}")
    goodput = Goodput(tmp_path)
    goodput.begin(0)
    goodput.beat(1)
    goodput.close()
    assert files_of(victim) == before and (tmp_path / "config.json").read_text() == "{}" and not partial.exists()
    assert json.loads((tmp_path / "heartbeat.json").read_text())["step"] == 1


def test_a_file_with_a_second_hard_link_is_not_modified(tmp_path, victim, finished):
    """A backup by `cp -al` has such links, too, and must not change."""
    (finished / "hangs").mkdir()
    (finished / "pages").mkdir()
    logs = (".lock", "metrics.jsonl", "supervisor.jsonl", "heartbeat.json.probe", "hangs/step-00000001.txt",
            "pages/0.warc.gz.part")  # fmt: skip
    for name in logs:
        (finished / name).unlink(missing_ok=True)
        os.link(victim / "keys", finished / name)
    before = files_of(victim)
    supervisor = Supervisor([], finished / "heartbeat.json", finished / "supervisor.jsonl")
    supervisor.record("start", 0, None, "")
    assert supervisor.beats_can_be_seen()
    with locked(finished):
        for name in logs[1:]:
            with (finished / name).open("a") as file:
                file.write("more")
        with pytest.raises(InputError, match="is working"), locked(finished):
            pass
    os.link(victim / "keys", finished / "new")
    appended = Appended(finished / "new")
    appended.append(b"more")
    appended.close()
    assert files_of(victim) == before
    assert {(finished / name).read_text() for name in ("metrics.jsonl", "new")} == {"the user's keysmore"}


def test_a_pipe_at_the_path_of_a_file_is_rejected_without_waiting(finished):
    for name in ("config.json", "metrics.jsonl", ".lock", "stages/text.json", "stages/text.begun"):
        path = finished / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        with pytest.raises(UsageError, match=rf"{re.escape(str(path))} is a pipe, socket or device"), locked(finished):
            pass
        if name == "config.json":
            with pytest.raises(InputError, match=r"config\.json is a pipe"):
                RunFolder(finished).saved()
        path.unlink()


def test_a_marker_that_lists_user_files_deletes_none_of_them(victim, finished):
    """The marker and the link both come from the stranger."""
    for stage, output in ((TEXT, "text"), (REPORT, "report")):
        shutil.rmtree(finished / output)
        (finished / output).symlink_to(victim)
        files = {f"{output}/{name.relative_to(victim)}": name.stat().st_size for name in victim.rglob("*.*")}
        (finished / f"stages/{stage.name}.files").write_text(json.dumps(files))
        (finished / f"stages/{stage.name}.json").unlink()
    before = files_of(victim)
    with pytest.raises(UsageError, match="text is a link to"):
        run(finished)
    assert files_of(victim) == before


def test_the_commands_reject_such_a_folder_in_one_line(tmp_path, victim, finished):
    """The lock was once written through a link, too."""
    (finished / "config.json").write_text(json.dumps(dataclasses.asdict(EXPERIMENT)))
    (finished / ".lock").symlink_to(victim / "keys")
    before = files_of(victim)
    for script in ("launch.report", "launch.pretrain", "launch.supervise"):
        words = [script, "tests/configs.py", "--workdir", str(finished)]
        command = [*words[:1], "launch.pretrain", *words[1:]] if script == "launch.supervise" else words
        done = run_command(*command)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert re.fullmatch(rf"{script}: {finished}/\.lock is a link to .*\n", done.stderr), done.stderr
    assert files_of(victim) == before


NAMES_THAT_LEAD_OUT = (
    "/etc/x", "../x", "..", ".", "", "a/../../x", "a/..", "a//x", "a/", "a\0x", "C:\\x", "C:/x", "..\\x", "\\\\host\\x",
)  # fmt: skip


MARKER = {"key": "", "settings": {}, "external_inputs": {}, "replaces": [], "continued_from": [], "seconds": 1.0}
SHARDS = {"tokenizer_fingerprint": "", "vocab_size": 1, "record_length": 1, "token_dtype": "uint16", "documents": []}
SPLIT = {"documents": 1, "tokens": 1, "text_bytes": 1, "records": 1, "shards": []}
INDEX = {"format": INDEX_FORMAT, "name": "a", "key_bytes": 8, "settings": {}, "keys": {}, "texts": []}
SOURCE = next(iter(SOURCES.values()))
TASK = f"gristmill/tasks/{SOURCE.repository}/{SOURCE.subset or 'all'}/{SOURCE.split}/files.json"


def unit_marker(name: str) -> dict:
    return dataclasses.asdict(units.Marker("", {}, {name: (1, "")}, 1.0, "host"))


def shards(name: str) -> dict:
    shard = dataclasses.asdict(records.Shard(name, 1, 1, "", 1, 1, 1))
    return SHARDS | {"splits": {"train": SPLIT | {"shards": [shard]}}}


def indexed_corpus(name: str) -> str:
    part = corpus_index.Part(name, "train", 1, 1, {}, {}, 0)
    return corpus_index.Header(corpus_index.FORMAT, "", 1, "", (part,), ()).to_json()


def fetch_from(run: Path, name: str) -> object:
    copy = LocalCopy(run / "copy", Url("hf://datasets/owner/name"))
    copy.listed = {name: Object(1, "e")}
    return copy.fetch([name])


READERS: dict[str, tuple[str, Callable[[str], Any], Callable[[Path, str], object]]] = {
    "record": ("stages/text.files", lambda name: {name: 1},
               lambda run, _: outputs.read_record(run / "stages/text.files")),
    "stage marker": ("stages/text.json", lambda name: MARKER | {"files": {name: 1}},
                     lambda run, _: read_note(run / "stages/text.json")),
    "unit marker": ("unit.json", unit_marker, lambda run, _: units.read_marker(run / "unit.json")),
    "unit manifest": ("units/step/manifest", lambda name: {"unit": unit_marker(name)},
                      lambda run, _: attempts.read_manifest("step", run)),
    "deleted unit": ("", str, lambda run, name: units.delete_files(run, [name])),
    "checkpoint": ("manifest.json", lambda name: render({"step": 1}, {name: {"bytes": 1, "sha256": ""}}),
                   lambda run, _: read_manifest(run)),
    "shards": ("manifest.json", shards, lambda run, _: records.read_manifest(run)),
    "tables of documents": ("manifest.json", lambda name: SHARDS | {"splits": {"train": SPLIT}, "documents": [
        {"file": name, "rows": 1, "bytes": 1, "sha256": ""}]}, lambda run, _: records.read_manifest(run)),
    "pages": ("pages/manifest.json", lambda name: {"files": [
        {"path": name, "name": "a", "kind": "warc", "bytes": 1, "pages": 1}]}, lambda run, _: manifest_files(run)),
    "indexed corpus": (corpus_index.INDEX, indexed_corpus, lambda run, _: corpus_index.read_header(run, run)),
    "dedup index": (HEADER, lambda name: INDEX | {"keys": {"exact": [[name, 0, 1]]}},
                    lambda run, _: open_index(str(run))),
    "texts of a dedup index": (HEADER, lambda name: INDEX | {"texts": [name]}, lambda run, _: open_index(str(run))),
    "task files": (TASK, lambda name: [name], lambda run, _: hub_files(SOURCE, {"XDG_CACHE_HOME": str(run)})),
    "safetensors": ("model.safetensors.index.json", lambda name: {"weight_map": {"a": name}},
                    lambda run, _: read_folder(run)),
    "listing": ("", str, fetch_from),
    "fetched listing": ("", str, lambda run, name: fetch_listed(
        Url("hf://datasets/owner/name"), {name: Object(1, "e")})),
    "checked logs": ("stages/train.json", lambda name: {"checksums": {name: {}}}, lambda run, _: log_damage(run)),
    "funnel": (FUNNEL, lambda name: {
        "thresholds": [], "records": {"seen": 1, "skipped": {}}, "counts": {}, "languages_kept": [],
        "files": {"0": name}}, lambda run, _: read_counts(run / FUNNEL)),
}  # fmt: skip
"""{kind of file that names others: (its path, its contents with a name, its reader of (folder, name))}. All other names
of files are constants, or come from listing the folder itself."""


def read_with(kind: str, folder: Path, name: str) -> object:
    """Write a file of that kind with that name, and read it."""
    path, contents, read = READERS[kind]
    if path:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        written = contents(name)
        (folder / path).write_text(written if isinstance(written, str) else json.dumps(written))
    return read(folder, name)


@pytest.mark.parametrize("kind", READERS)
def test_a_name_that_leads_out_of_its_folder_is_rejected_in_every_kind_of_file(tmp_path, victim, kind):
    (folder := tmp_path / "run").mkdir()
    (tmp_path / "x").write_text("the user's")
    theirs = lambda: files_of(victim) | {"x": (tmp_path / "x").read_text()}
    before = theirs()
    for name in NAMES_THAT_LEAD_OUT:
        if kind == "pages" and name.startswith("/"):
            continue  # the user's input file, which is only read
        with pytest.raises((InputError, DamageError)) as refusal:
            read_with(kind, folder, name)
        assert repr(name) in str(refusal.value), (name, str(refusal.value))
    assert theirs() == before


@pytest.mark.parametrize("kind", [kind for kind in READERS if READERS[kind][0] and kind != "task files"])
def test_invalid_json_and_wrong_types_are_rejected_or_skipped_without_a_traceback(tmp_path, kind):
    """The first of these once ended in a RecursionError, from the nesting limit of json.loads."""
    path, contents, read = READERS[kind]
    good, file = contents("a"), tmp_path / path
    good = json.loads(good) if isinstance(good, str) else good
    file.parent.mkdir(parents=True, exist_ok=True)
    values = (None, "x", -1, [1], {"a": 1}, 10**30)
    changed = [json.dumps(good | {name: one}) for name in good for one in values]
    for text in ("[" * 200_000, '{"a":' * 100_000, "", "[]", "5", "null", '"x"', "NaN", "9" * 5000, *changed):
        file.write_text(text)
        with contextlib.suppress(InputError, DamageError):
            read(tmp_path, "a")


WRITERS = ("deleted unit", "pages", "task files", "listing")
"""The kinds whose names are joined immediately; others are read by a run that has checked its links."""


@pytest.mark.parametrize("kind", WRITERS)
def test_a_name_that_leads_through_a_link_out_of_the_folder_is_rejected(tmp_path, victim, kind):
    folder = tmp_path / "run"
    for base in (folder, folder / "copy", (folder / TASK).parent):
        (base / "a").mkdir(parents=True)
        (base / "a/link").symlink_to(victim)
        (base / "link").symlink_to(victim / "keys")
    before = files_of(victim)
    for name in ("a/link/keys", "a/link/new", "link"):
        with pytest.raises(InputError, match=rf"names the file '{name}', which leads through a link to {victim}"):
            read_with(kind, folder, name)
    assert files_of(victim) == before


def test_a_hub_listing_writes_nothing_outside_the_cache(tmp_path, monkeypatch):
    """A server or its mirror chooses the names."""
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "a/b/c/cache"))
    files = {"data/good.txt": b"good", "data/../../../../evil.txt": b"evil", "data/../../../../../../evil.txt": b"evil"}
    with serving(LoopbackHub(files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(InputError, match=r"has an object '\.\./.*evil\.txt', which no file can be named"):
            fetched(Url("hf://datasets/owner/name/data"))
    assert {path.name for path in tmp_path.rglob("*.txt")} <= {"good.txt"}


def test_a_run_id_that_is_a_path_is_rejected(tmp_path):
    assert run_id_in(tmp_path / "wandb/run_id") == run_id_in(tmp_path / "wandb/run_id")
    for name in ("../x", "/etc/x", "a/b", "a b", "..", ""):
        (tmp_path / "wandb/run_id").write_text(name)
        with pytest.raises(InputError, match="which is not a run"):
            run_id_in(tmp_path / "wandb/run_id")


def test_plain_names_are_joined(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tokens").symlink_to(tmp_path / "disk")
    for name in ("a", "tokens/a.b", "tokens/.hidden/c", "a..b/c", "ä ö", "x" * 200):
        assert relative_name(name, "a file") == name
        assert inside(tmp_path / "run", name, "a file") == tmp_path / "run" / name
    assert inside(Url("s3://bucket/run"), "a/b", "a file") == Url("s3://bucket/run/a/b")
    for name in (None, 5, ["a"], b"a"):
        with pytest.raises(InputError, match="is not a plain relative path"):
            relative_name(name, "a file")


MODULES_WITH_NAMES = (
    "data_prep/dedup_index/format.py", "data_prep/engine/attempts.py", "data_prep/engine/units.py",
    "data_prep/funnel/report.py",
    "data_prep/sources/manifest.py", "launch/run_folder/markers.py", "launch/run_folder/outputs.py",
    "lm/checkpoints/manifest.py", "lm/checksums.py", "lm/corpus_index/build.py",
    "lm/corpus_index/format.py", "lm/data/records.py", "lm/evaluation/tasks/hub.py", "lm/formats/safetensors.py",
    "lm/storage/local_copy.py",
)  # fmt: skip
"""Modules that read file names from JSON: each has a kind in READERS."""
MODULES_WITHOUT = (
    "configs/experiment/__init__.py", "configs/experiment/run_folder.py", "configs/packages/page_formats.py",
    "data_prep/decontamination/index.py", "data_prep/dedup/clusters.py", "data_prep/engine/slurm.py",
    "data_prep/extract/trees.py", "data_prep/measure/run.py",
    "data_prep/quality/embedding.py", "data_prep/select/duplicates.py",
    "data_prep/select/apply_filters.py", "data_prep/select/keys.py", "data_prep/sources/inputs.py",
    "data_prep/sources/json_rows.py", "data_prep/sources/sizes.py", "data_prep/sources/tfds.py",
    "data_prep/url_filter/lists.py", "launch/run_folder/bucket.py", "launch/run_folder/user_inputs.py",
    "launch/lm_eval.py", "launch/release/model_card.py", "launch/release/out_folder.py", "launch/reinforce.py",
    "launch/stages/agreement.py", "launch/stages/command.py", "launch/stages/meeting.py", "launch/stages/processes.py",
    "launch/stages/stage.py",
    "lm/bounded.py", "lm/chat/harness.py", "lm/chat/messages.py", "lm/chat/reply.py", "lm/corpus_index/lookups.py",
    "lm/data/verify_shards.py",
    "lm/evaluation/harness.py", "lm/formats/byte_level.py",
    "lm/formats/hugging_face/config.py", "lm/formats/hugging_face/reading.py",
    "lm/formats/hugging_face/tokenizer_files.py", "lm/metrics/writers.py", "lm/resilience/goodput.py",
    "lm/resilience/multihost.py", "lm/resilience/stragglers.py", "lm/serving/fields.py",
    "lm/storage/example_rows.py", "lm/storage/lease.py",
    "lm/tokenizer/characters.py",
    "lm/tokenizer/files.py", "lm/tokenizer/hugging_face/library.py", "lm/tokenizer/hugging_face/reading.py",
    "lm/tokenizer/published.py", "lm/training/hooks.py", "lm/trusted_code.py", "viewer/training_data.py",
    "viewer/window/training.py", "viewer/window/inspections.py",
)  # fmt: skip
"""Modules that read other JSON, whose values are never joined to a folder."""


def test_every_module_that_reads_json_is_classified():
    found = set()
    for room in ("configs", "data_prep", "launch", "lm", "viewer"):
        for path in (REPOSITORY / room).rglob("*.py"):
            if re.search(r"json\.loads?\(|\b(parse_json|read_json_object)\(", path.read_text()):
                found.add(path.relative_to(REPOSITORY).as_posix())
    unknown = found - {*MODULES_WITH_NAMES, *MODULES_WITHOUT}
    assert not unknown, (
        f"{', '.join(sorted(unknown))}: if names of files are read there, join them by lm.storage.inside, and add a "
        "kind to READERS; then name the module in one of the two lists"
    )
