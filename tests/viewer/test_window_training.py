"""Training pages of the window: the current log, also while it grows; every step by the Python API; a second run for
comparison."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from configs.experiment.run_folder import RunFolder
from lm.checksums import checksums
from lm.errors import InputError
from lm.fields import with_values
from lm.serving.answers import to_json
from lm.serving.fields import ApiError
from lm.storage import write_json
from lm.training.loop import train
from tests.corpus import tiny_experiment, write_tokens
from tests.train_runs import rows
from tests.viewer.inspected import ask
from viewer.window import training
from viewer.window.inspections import record
from viewer.window.training import MOST_LINES, CurveLog
from viewer.window.window_run import WindowRun

TRAIN = {"steps": 4, "checkpoint_every": 2, "checkpoints_kept": 1, "validate_every": 2, "snapshot_steps": (0, 1)}
EXPERIMENT = with_values(tiny_experiment(), {"model.layers": 1} | {f"train.{name}": TRAIN[name] for name in TRAIN})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("window") / "run")
    write_tokens(run.root, EXPERIMENT)
    train(EXPERIMENT.model, EXPERIMENT.train, run.root)
    write_json(run.config_json, dataclasses.asdict(EXPERIMENT))
    return run


@pytest.fixture(scope="module")
def run(folder) -> WindowRun:
    loaded = folder.load()
    return WindowRun(loaded.experiment, folder.root, loaded, "run")


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_log_is_followed_while_it_grows_and_reread_after_a_restart(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = CurveLog(path)
    assert log.read() == {"train": {"step": []}, "validation": {"step": []}, "starts": [], "every": 1, "last": -1}
    path.write_text(lines({"step": 0, "run": {"steps": 9}}, {"step": 1, "loss": 3.0}) + '{"step": 2, "lo')
    assert log.read()["train"] == {"step": [1], "loss": [3.0]}
    with path.open("a") as file:
        file.write('ss": 2.5}\n' + lines({"step": 2, "validation_loss": 2.0}) + "no line\n[]\n" + '{"step": "x"}\n')
    found = log.read(after=1)
    assert found["train"] == {"step": [2], "loss": [2.5]}
    assert found["validation"] == {"step": [2], "validation_loss": [2.0]} and found["last"] == 2
    with path.open("a") as file:  # of reinforcement learning
        file.write(lines({"step": 3, "loss": -0.1, "reward": 0.5}, {"step": 3, "validation_pass_at_1": 0.25}))
    found = log.read(after=2)
    assert found["train"] == {"step": [3], "reward": [0.5]}
    assert found["validation"] == {"step": [3], "validation_pass_at_1": [0.25]}
    assert log.damaged == [f"{path}, line {n}, is not a line of metrics, and is skipped." for n in (5, 6, 7)]
    path.unlink()  # as a run that resumes from step 1 writes it
    path.write_text(
        lines({"step": 0, "run": {"steps": 9}}, {"step": 1, "loss": 3.0}, {"step": 1, "run": {"steps": 9}})
        + '{"step": 2, "loss": NaN, "mfu": 0.5}\n'
    )
    found = log.read()
    assert log.damaged == []
    assert found["train"] == {"step": [1, 2], "loss": [3.0, None], "mfu": [None, 0.5]}
    assert [one["step"] for one in found["starts"]] == [0, 1] and found["validation"] == {"step": []}


HUGE = "1" + 400 * "0"


DAMAGED = (
    "[" * 100_000, f'{{"step": 1, "loss": {HUGE}}}', f'{{"step": {HUGE}, "loss": 1}}',
    '{"step": 1, "run": {"steps": NaN, "device_kind": {"a": 1e999}}}', "\xff",
)  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_of_metrics_breaks_no_curve(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines({"step": 2, "loss": 3.0}) + line + "\n" + lines({"step": 3, "loss": 2.5}), "latin-1")
    answer = json.loads(to_json(CurveLog(path).read()))
    assert answer["train"]["loss"][-2:] == [3.0, 2.5] and answer["last"] == 3


@pytest.mark.parametrize("time", ["NaN", "1e999", pytest.param(HUGE, id="huge"), "[]", '"now"'])
def test_a_damaged_heartbeat_is_ignored(tmp_path, time):
    folder = RunFolder(tmp_path)
    folder.heartbeat().write_text(f'{{"time": {time}, "step": NaN, "state": "training"}}')
    assert training.state_of(folder)["state"] == ""


def test_a_long_log_is_thinned_to_a_bound_with_its_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*({"step": step, "loss": 1.0} for step in range(1, 2 * MOST_LINES + 2))))
    found = CurveLog(path).read()
    assert (found["every"], found["train"]["step"][-1], len(found["train"]["step"])) == (3, 6001, 2001)


def test_curves_and_samples_equal_the_runs_with_its_current_state(run, folder):
    found = ask(run, "curves")
    logged = [row for row in rows(folder.root) if "loss" in row]
    assert found["train"]["step"] == [row["step"] for row in logged]
    assert found["train"]["loss"] == [row["loss"] for row in logged]
    assert found["checkpoints"] == run.steps() == [0, 1, 4]
    assert (found["state"], found["at"], found["steps"]) == ("done", 4, 4)
    taken = json.loads(folder.sample(4).read_text())
    shown = ask(run, "samples")["during"][-1]
    assert (shown["step"], shown["prompt"] + shown["text"]) == (4, taken["text"])
    heart = json.loads(folder.heartbeat().read_text())
    folder.heartbeat().write_text(json.dumps(heart | {"state": "training", "time": heart["time"] - 9999}))
    assert ask(run, "curves")["state"] == "silent"
    folder.heartbeat().unlink()
    assert ask(run, "curves")["state"] == ""


def test_a_changed_log_is_reported_with_its_line(run, folder):
    assert ask(run, "curves")["damaged"] == ask(run, "samples")["damaged"] == []
    written = checksums(folder.root, ("metrics.jsonl", "samples/step-*.json"))
    folder.stages.mkdir(exist_ok=True)
    folder.marker("train").write_text(json.dumps({"checksums": written}))
    assert ask(run, "curves")["damaged"] == ask(run, "samples")["damaged"] == []
    for path, name in ((folder.metrics, "curves"), (folder.sample(4), "samples")):
        before = path.read_bytes()
        path.write_bytes(before.replace(b": ", b":  ", 1))
        (told,) = ask(run, name)["damaged"]
        assert f"{path}, line " in told
        path.write_bytes(before)
    folder.marker("train").unlink()


@pytest.mark.slow
def test_every_step_generates_with_its_own_parameters_and_a_seed_reproduces_the_text(run, folder):
    asked = {"text": "The miller", "tokens": 8, "temperature": 1.0}
    texts = {step: ask(run, "write", step=step, **asked) for step in run.steps()}
    assert texts[4] == ask(run, "write", **asked)
    assert texts[0]["text"] != texts[4]["text"]
    loaded = folder.load(step=0)
    other = WindowRun(loaded.experiment, folder.root, loaded, "first")
    assert ask(other, "write", **asked) == texts[0]
    long = ask(run, "write", text="The miller carried a sack of grain. " * 99, tokens=99)
    assert 0 < long["tokens"] <= EXPERIMENT.model.context_length // 2
    for wrong in (
        {"step": 2},
        {"tokens": 0},
        {"temperature": -1},
        {"seed": 2**32},
        {"run": "other"},
        {"text": "x" * 20_001},
    ):
        with pytest.raises(ApiError):
            ask(run, "write", **(asked | wrong))


def test_another_run_is_compared_under_its_own_name(folder, tmp_path):
    other = RunFolder(Path(shutil.copytree(folder.root, tmp_path / "run")))
    shutil.rmtree(other.checkpoints)
    loaded = folder.load()
    run = WindowRun(loaded.experiment, folder.root, loaded, "run")
    run.load_others([str(other.root), str(other.tokenizer)])
    assert [(one["name"], one["step"]) for one in ask(run, "runs")["runs"]] == [("run", 4), ("run (2)", 1)]
    assert ask(run, "model", run="run (2)")["steps"] == [0, 1]
    assert ask(run, "curves", run="run (2)")["name"] == "run (2)"
    text = {"text": "The miller"}
    assert ask(run, "score", run="run (2)", **text) == ask(run, "score", step=1, **text)
    with pytest.raises(ApiError, match="it must be a run that is served here: run, run \\(2\\)"):
        ask(run, "score", run="third", **text)


def test_a_compared_run_that_claims_other_layers_is_rejected_before_tracing(folder, tmp_path, monkeypatch):
    other = RunFolder(Path(shutil.copytree(folder.root, tmp_path / "run")))
    write_json(other.config_json, dataclasses.asdict(with_values(EXPERIMENT, {"model.layers": 20_000})))
    loaded = folder.load()
    run = WindowRun(loaded.experiment, folder.root, loaded, "run")
    monkeypatch.setattr(run, "lacks_room", lambda *given: pytest.fail("traced"))
    with pytest.raises(InputError, match=r"it has 1 layers, but model\.layers = 20,000"):
        run.load_others([str(other.root)])


@pytest.mark.slow
def test_an_exported_page_has_curves_samples_and_every_steps_answers(run):
    held = record(run)
    prompt = EXPERIMENT.sample.prompts[0]
    for step in (0, 1, 4):
        for name in ("score", "next", "write"):
            assert f'{name}{{"step":{step},"text":"{prompt}"}}' in held
    assert {"curves{}", "samples{}", "runs{}"} <= held.keys()
