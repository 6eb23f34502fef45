"""Limits, names, streams and options with which a command can never work are reported in one line, before any work."""

import dataclasses
import os
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch import preflight, pretrain, train_tokenizer, write_shards
from launch.release.out_folder import MARK, partial_folder, whole_folder
from launch.run_folder.checks import refuse_no_run
from lm import address_space
from lm.address_space import NEEDED_GIB, check_address_space
from lm.errors import UsageError
from lm.fields import with_values
from lm.run_paths import RunPaths
from lm.storage import write_atomically, write_json
from tests.corpus import tiny_experiment, write_tokens
from tests.run_files import REPOSITORY
from tests.server_process import quick_environment, write_served_run


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("refusals") / "run"
    write_tokens(folder, tiny_experiment())
    write_json(folder / "config.json", dataclasses.asdict(tiny_experiment()))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("refusals") / "run"
    folder.mkdir()
    write_served_run(folder)
    return folder


def command(*words: str, before: str = "", after: str = "") -> subprocess.CompletedProcess:
    """Run a script by a shell, with shell commands `before` it and redirections `after` it."""
    line = f"{before} exec {shlex.join([sys.executable, '-m', *words])} {after}"
    return subprocess.run(["bash", "-c", line], cwd=REPOSITORY, env=quick_environment(), capture_output=True, text=True)


def limited(gib: float, *words: str) -> subprocess.CompletedProcess:
    return command(*words, before=f"ulimit -v {int(gib * 2**20)};")


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("tokenizer.split_pattern", "(a+", r"tokenizer\.split_pattern is '\(a\+'"),
        ("tokenizer.split_pattern", "(a+)+$", r"tokenizer\.split_pattern is"),
        ("tokenizer.load", "gpt3", "gpt3"),
        ("model.attention", "cudnn", r"model\.attention = cudnn cannot run here: it needs the platform cuda"),
        ("train.evaluators", ("os.system",), r"train\.evaluators is os\.system, code that you have not run"),
        ("train.evaluators", ("os.nothing",), r"train\.evaluators is os\.nothing, code that you have not run"),
        ("train.evaluators", ("no_such_module.A",), r"train\.evaluators is no_such_module\.A: No module"),
    ],
)
def test_impossible_settings_are_rejected_before_the_first_stage(name, value, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        pretrain.run(with_values(tiny_experiment(), {name: value}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_finished_stages_are_not_checked_again(tmp_path):
    """Data of a machine with GPUs can be inspected on a laptop."""
    impossible = with_values(tiny_experiment(), {"tokenizer.load": "gpt3"})
    with pytest.raises(UsageError):
        preflight.check(impossible, tmp_path)
    for script in (train_tokenizer, write_shards):
        write_atomically(RunPaths(tmp_path).marker(script.STAGE.name), "{}")
    preflight.check(impossible, tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"sample.prompts": ("", "many words " * 50)},
            r"sample\.prompts with sample\.tokens = 24: The prompt 'many words",
        ),
        (
            {"train.sample_prompt": "many words " * 50, "train.sample_every": 1},
            r"train\.sample_prompt with train\.sample_tokens = 24: The prompt",
        ),
    ],
)
def test_prompts_are_checked_once_the_tokenizer_is_known(untrained, values, said):
    preflight.check_prompts(tiny_experiment(), untrained / "tokenizer")
    with pytest.raises(UsageError, match=said):
        preflight.check_prompts(with_values(tiny_experiment(), values), untrained / "tokenizer")


@pytest.mark.parametrize("user", NEEDED_GIB)
def test_a_limit_of_address_space_is_rejected_with_both_values(user, monkeypatch):
    limit = int(NEEDED_GIB[user] * 2**30) - 1
    monkeypatch.setattr(address_space.resource, "getrlimit", lambda which: (limit, resource.RLIM_INFINITY))
    with pytest.raises(UsageError, match=rf"limited to {limit / 2**30:.1f} GiB .*maps {NEEDED_GIB[user]} GiB"):
        check_address_space(user)
    monkeypatch.setattr(address_space.resource, "getrlimit", lambda which: (limit + 1, resource.RLIM_INFINITY))
    check_address_space(user)


@pytest.mark.parametrize("gib", [1, 0.5])
def test_a_sample_under_a_limit_of_address_space_prints_one_line(untrained, gib):
    done = limited(gib, "launch.sample", str(untrained), "--prompt", "a")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "ulimit -v unlimited" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("gib", [3, 1])
def test_training_under_a_limit_of_address_space_prints_one_line(untrained, gib):
    """Under 3 GiB it once hung for more than 300 s."""
    done = limited(gib, "launch.train", str(untrained), "--train.steps", "9")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_a_closed_stdout_is_no_error(run):
    done = command("launch.sample", str(run), "--prompt", "a", "--sample.temperatures", "0", after=">&-")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["a[1]", "a*", "what?"])
def test_a_run_folder_whose_name_is_a_pattern_is_rejected(name, tmp_path):
    with pytest.raises(UsageError, match=r"which Orbax reads as a pattern.*Give a path without \*, \? and \["):
        refuse_no_run(tmp_path / name)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts the folder read-only, which needs root")
def test_a_run_on_a_read_only_disk_is_evaluated(run, tmp_path):
    """On a text and on the run's own figures; nothing is written."""
    (tmp_path / "run").mkdir()
    subprocess.run(["mount", "--bind", str(run), str(tmp_path / "run")], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(tmp_path / "run")], check=True)
        done = command("launch.evaluate", str(tmp_path / "run"), "--text", str(REPOSITORY / "LICENSE"))
        assert done.returncode == 0 and "bits" in done.stdout, done.stderr
    finally:
        subprocess.run(["umount", str(tmp_path / "run")], check=True)


def test_leftovers_of_a_killed_export_or_import_are_deleted_by_the_next_one(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from launch.release.out_folder import partial_folder\n"
        "with partial_folder(Path(sys.argv[1])) as folder: print(1, flush=True); time.sleep(999)"
    )
    target = tmp_path / "out"
    killed = subprocess.Popen([sys.executable, "-c", code, str(target)], cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert killed.stdout is not None and killed.stdout.readline() == b"1\n"
    (left,) = tmp_path.iterdir()
    with partial_folder(target):
        assert left.is_dir()  # its process is alive
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    (tmp_path / ".out.partial-mine").mkdir()  # of the user: it has no mark
    with whole_folder(target) as folder:
        assert not left.exists() or left == folder
        (folder / "whole").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial-mine", "out"]
    assert [path.name for path in target.iterdir()] == ["whole"] and not (target / MARK).exists()
