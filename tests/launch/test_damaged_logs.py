"""Every reader of a damaged log reports it with file and line, and never skips it silently."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.experiment import Experiment
from launch import evaluate, sample, train
from launch.stages.stage import read_marker, run_stage
from lm.checksums import BLOCKS, checksums, damage, log_damage
from lm.errors import InputError
from lm.metrics.writers import JsonLines
from lm.resilience.goodput import Goodput
from tests.launch.run_folder import NO_OUTPUTS, write_json, write_run
from tests.launch.test_report import CONFIG, DROPPED, FINAL, KEPT, METRICS, PACKAGE, SAMPLES, report_of
from tests.launch.toy_stages import TRAIN, interrupted, with_shards
from viewer.run_folder import read_run, summarize

STAGES = (train.STAGE, evaluate.STAGE, sample.STAGE)
KINDS = (
    "metrics.jsonl", "goodput.json", "skipped_steps.jsonl", "samples/step-00000025.json", "samples/final.json",
    "evaluation.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    write_run(run, KEPT, DROPPED, [PACKAGE], metrics=METRICS, samples=SAMPLES, final=FINAL)
    for name in (*KINDS[3:], "goodput.json"):  # as they are written: with line breaks
        value = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(value, indent=1) + "\n")
    (run / "skipped_steps.jsonl").write_text("".join(json.dumps({"step": n, "loss": 9.5}) + "\n" for n in (3, 17)))
    for stage in STAGES:
        files = {name: (run / name).stat().st_size for name in stage.outputs if (run / name).is_file()}
        write_json(
            run / f"stages/{stage.name}.json",
            NO_OUTPUTS | {"seconds": 1.0, "files": files, "checksums": checksums(run, stage.checked)},
        )
    return run


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def at(data: bytes, generator: random.Random, size: int = 1) -> int:
    return generator.randrange(max(1, len(data) - size + 1))


def flipped(data: bytes, generator: random.Random) -> bytes:
    place = at(data, generator)
    return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]


def doubled(data: bytes, generator: random.Random) -> bytes:
    place = at(data, generator, 50)
    return data[: place + 50] + data[place:]


def cut_after_a_line(data: bytes, generator: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: generator.randrange(1, len(lines))])


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped, doubled, cut_after_a_line, lambda data, generator: data[: max(1, at(data, generator))],
    lambda data, generator: b"", lambda data, generator: data[:9] + bytes(len(data[9:73])) + data[73:],
)  # fmt: skip


def first_line_that_differs(one: bytes, other: bytes) -> int:
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:same].count(b"\n") + 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_names_every_damaged_log_and_its_line(run, kind):
    """Unreadable files are rejected; other damage is reported on the page, in summary.json and by the script."""
    tried = 0
    assert log_damage(run) == [] and summarize(read_run(run, CONFIG))["damaged_logs"] == []
    data = (run / kind).read_bytes()
    for make in DAMAGES:
        for seed in range(3):
            spoilt = make(data, random.Random(seed))
            assert spoilt != data
            (run / kind).write_bytes(spoilt)
            line = first_line_that_differs(data, spoilt)
            told = log_damage(run)
            assert len(told) == 1 and f"{run}/{kind}, line {line}: not what was written" in told[0], told
            try:
                found = read_run(run, CONFIG)
            except InputError as error:
                assert f"{run}/{kind}" in str(error)
            else:
                assert found.damage == (told[0].removeprefix(f"{run}/"),)
                assert summarize(found)["damaged_logs"] == [*found.damage]
            tried += 1
    assert tried == 18
    (run / kind).write_bytes(data.replace(b"5", b"6").replace(b"8", b"9"))  # readable, but wrong
    (warning,) = report_of(run)["damage"]
    assert f"{kind}, line " in warning and str(run) not in warning
    (run / kind).unlink()
    assert f"{run}/{kind}, of {len(data):,} bytes, cannot be read: No such file" in log_damage(run)[0]


@pytest.mark.parametrize("stage", (evaluate.STAGE, sample.STAGE), ids=lambda stage: stage.name)
def test_a_damaged_output_is_rebuilt_and_reported(run, stage, capsys):
    assert read_marker(stage, run) is not None
    (kind,) = stage.outputs
    data = (run / kind).read_bytes()
    (run / kind).write_bytes(data.replace(b"0", b"7", 1))  # of the same size
    assert read_marker(stage, run) is None and read_marker(stage, run) is None
    out = capsys.readouterr().out
    assert out.count(f"{stage.name}: {run}/{kind}, line ") == 1 and f"python -m {stage.script} {run}" in out


def test_every_command_that_needs_training_names_its_damaged_logs(run, capsys):
    (run / "metrics.jsonl").write_bytes(b"")
    assert read_marker(train.STAGE, run) is not None  # the model is intact
    assert f"train: {run}/metrics.jsonl, line 1: not what was written (0 bytes, but " in capsys.readouterr().out


def test_a_marker_with_damaged_checksums_is_named(run):
    path = run / "stages/train.json"
    marker = json.loads(path.read_text())
    (run / "metrics.jsonl").write_text("{}\n")
    for wrong in (5, [], {}, {"bytes": 1}, {"bytes": 1, "sha256": "", "lines": 0, "crc32": []}, {"crc32": None}):
        path.write_text(json.dumps(marker | {"checksums": {"metrics.jsonl": wrong}}))
        (told,) = log_damage(run)
        assert f"{path}: the checksums of metrics.jsonl are damaged" in told
    path.write_text(json.dumps(marker | {"checksums": {"../x": {}}}))
    with pytest.raises(InputError, match=r"train\.json names the file '\.\./x'"):
        log_damage(run)


def test_a_long_log_has_few_checksums_and_its_damage_is_localized(tmp_path):
    lines = [f'{{"step": {n}}}\n'.encode() for n in range(1, 10_001)]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))
    written = checksums(tmp_path, ("*.jsonl",))
    assert len(written["metrics.jsonl"]["crc32"]) <= BLOCKS
    lines[7_000] = b'{"step": 70010}\n'
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))
    (told,) = damage(tmp_path, written, "a marker")
    first, last = (int(word.replace(",", "")) for word in told.partition("lines ")[2].partition(":")[0].split(" to "))
    assert first <= 7_001 <= last and last - first < 40


def test_a_line_damaged_before_there_is_a_marker_is_named_but_a_truncated_last_line_is_not(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": \x92}\n\0\0\0\n{"step": 2}\n["step"]\n{"step": 3}\n{"st')
    JsonLines(path, 2).close()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(" is damaged")[0] for line in told] == [f"train: {path}, line {n}," for n in (2, 3, 5)]
    path.write_bytes(b'{"step": 1}\n{"st')
    JsonLines(path, 2).close()
    assert capsys.readouterr().out == "" and path.read_bytes() == b'{"step": 1}\n'


def test_damaged_goodput_of_an_earlier_attempt_is_reported(tmp_path, capsys):
    Goodput(tmp_path).close()
    assert capsys.readouterr().out == ""
    (tmp_path / "goodput.json").write_bytes(b"\0" * 64)
    Goodput(tmp_path).close()
    assert f"{tmp_path}/goodput.json is damaged" in capsys.readouterr().out


def test_damage_found_by_a_longer_training_is_reported_and_remembered(tmp_path, capsys):
    def make(experiment: Experiment, run: Path) -> None:
        TRAIN.make(experiment, run)
        with (run / "log").open("a") as log:
            log.write(f"step {experiment.shards.train_shards}\n")

    stage = dataclasses.replace(TRAIN, make=make, checked=("log",), can_continue=lambda old, new, workdir: True)
    for steps in (1, 2):
        run_stage(stage, with_shards(steps), tmp_path)
    assert log_damage(tmp_path) == [] and "damaged" not in capsys.readouterr().out
    (tmp_path / "log").write_text("step 1\nstep 8\n")
    said = f"{tmp_path}/log, line 2: not what was written."
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted(stage, after=lambda *given: None), with_shards(3), tmp_path)
    assert f"train: {said}" in capsys.readouterr().out
    run_stage(stage, with_shards(3), tmp_path)
    assert (tmp_path / "log").read_text() == "step 1\nstep 8\nstep 3\n"
    (told,) = log_damage(tmp_path)
    assert told.startswith(said)


def test_every_log_of_the_report_has_checksums(whole):
    """The other files that it reads are checked by their markers, manifests and formats."""
    kept = {name for stage in STAGES for name in checksums(whole, stage.checked)}
    assert {*KINDS, "samples/step-00000050.json"} == kept
