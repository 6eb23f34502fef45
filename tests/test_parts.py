"""Parts of the slow tests: disjoint, together complete, of about equal duration; the tests of changed files come on
top. CI runs one part and names whatever failed at the end."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import parts
from tests.conftest import EVERY_SLOW_TEST, file_of
from tests.run_files import REPOSITORY

COUNT = 8
"""Number of parts in .ci/run."""


def slow_files(config: pytest.Config) -> set[str]:
    """The files of all collected slow tests, and those with stored seconds."""
    stored = json.loads(parts.DURATIONS.read_text())["slow"]
    return {file_of(item) for item in config.stash[EVERY_SLOW_TEST]} | {*stored}


@pytest.mark.parametrize("count", [1, 2, COUNT, 500])
def test_parts_are_disjoint_and_together_all_slow_tests(pytestconfig, count):
    files = slow_files(pytestconfig)
    taken = [file for number in range(1, count + 1) for file in parts.chosen_files(files, f"{number}/{count}", 0)]
    assert len(taken) == len(files) and {*taken} == files


def test_parts_of_ci_differ_by_at_most_a_fifth(pytestconfig):
    assert f"PARTS={COUNT}\n" in (REPOSITORY / ".ci/run").read_text()
    seconds = parts.stored_seconds("slow")
    totals = [sum(map(seconds, part)) for part in parts.split_files(slow_files(pytestconfig), COUNT, seconds)]
    assert max(totals) <= 1.2 * min(totals)


def test_every_file_with_stored_seconds_exists():
    stored = json.loads(parts.DURATIONS.read_text())
    assert [*stored] == ["fast", "slow"]
    assert not [file for files in stored.values() for file in files if not (REPOSITORY / file).is_file()]


def test_a_file_without_stored_seconds_counts_as_the_median(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "DURATIONS", tmp_path / "durations.json")
    parts.DURATIONS.write_text(json.dumps({"fast": {}, "slow": {"a.py": 1, "b.py": 5, "c.py": 40}}))
    assert [parts.stored_seconds("slow")(file) for file in ("a.py", "new.py")] == [1, 5]
    monkeypatch.setattr(parts, "REPOSITORY", tmp_path)
    (tmp_path / "a.py").touch()
    parts.store_seconds({"fast": {"a.py": 2.04}, "slow": {"a.py": 3.0, "gone.py": 1.0}})
    assert json.loads(parts.DURATIONS.read_text()) == {"fast": {"a.py": 2.0}, "slow": {"a.py": 3.0}}


@pytest.fixture
def repository(tmp_path):
    """A repository whose commits change a.py, then b.py and c.py, then d.py, e.py and a.py."""

    def git(*words: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    for number, names in enumerate(("a", "bc", "dea")):
        for name in names:
            (tmp_path / f"{name}.py").write_text(f"{number}")
        git("add", "--all")
        git("commit", "--message", "change")
    return tmp_path


def test_changed_files_are_the_latest_first(repository, tmp_path_factory):
    assert parts.changed_files(1, repository) == ["a.py", "d.py", "e.py"]
    assert parts.changed_files(20, repository) == ["a.py", "d.py", "e.py", "b.py", "c.py"]
    assert parts.changed_files(20, tmp_path_factory.mktemp("no-repository")) == []


def test_changed_files_come_on_top_up_to_the_limit(monkeypatch):
    seconds = {"a.py": 500.0, "b.py": 450.0, "c.py": 200.0, "d.py": 150.0}
    monkeypatch.setattr(parts, "stored_seconds", lambda kind: seconds.__getitem__)
    monkeypatch.setattr(
        parts, "changed_files", lambda commits: ["no_test.py", "b.py", "a.py", "c.py", "d.py"][:commits]
    )
    assert parts.chosen_files(seconds, "1/3", 0) == ["a.py"]
    assert parts.chosen_files(seconds, "1/3", 9) == ["a.py", "b.py", "d.py"]  # 450 + 200 s would exceed 600 s
    assert parts.chosen_files(seconds, "1/3", 1) == ["a.py"]


@pytest.mark.parametrize("part", ["0/8", "9/8", "1", "/", "a/8", "-1/8", "1/8/2"])
def test_a_wrong_part_is_refused(part):
    with pytest.raises(ValueError, match=rf"PART is '{part}'. Give K/N with K from 1 to N: make slow PART=1/8"):
        parts.parse_part(part)


@pytest.mark.slow
def test_make_slow_collects_the_files_of_a_part():
    """Without PART all of them."""

    def collected(*words: str) -> dict[str, int]:
        command = ["make", "slow", "WORKERS=0", "OPTIONS=--collect-only -qq tests/data_prep", *words]
        environment = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        lines = [line.rsplit(": ", 1) for line in done.stdout.splitlines() if line.startswith("tests/")]
        return {file: int(number) for file, number in lines}

    every = collected()
    found = [collected(f"PART={number}/2") for number in (1, 2)]
    assert found[0].keys().isdisjoint(found[1].keys()) and found[0] | found[1] == every


MAKE = (
    f"#!{sys.executable}"
    + """
import sys
print("ran", *sys.argv[1:])
if sys.argv[1] in ("test", "slow"):
    print(f"slowest: {len(sys.argv[1:]):6.1f} s tests/test_size.py ({sys.argv[1]})")
if sys.argv[1] == "test":
    print("FAILED tests/test_size.py::test_larger - assert 1 > 1")
    sys.exit(2)
"""
)


def test_ci_runs_every_step_and_names_the_failures_last(repository):
    (repository / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci/run", repository / ".ci")
    (repository / "bin").mkdir()
    for name, text in {"make": MAKE, "chromium": "#!/bin/sh", "slurmctld": "#!/bin/sh"}.items():
        (repository / "bin" / name).write_text(text)
        (repository / "bin" / name).chmod(0o755)
    path = f"{repository / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(repository / ".ci/run")], capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    head = subprocess.check_output(["git", "-C", str(repository), "rev-parse", "HEAD"], text=True)
    part = f"PART={int(head[:8], 16) % COUNT + 1}/{COUNT}"
    ran = [line.removeprefix("ran ") for line in done.stdout.splitlines() if line.startswith("ran ")]
    assert ran[-4:] == ["lint", "demo", "test", f"slow {part} CHANGED=20"]
    assert f"to run the same: make slow {part} CHANGED=20" in done.stdout
    assert (done.returncode, done.stderr) == (2, "")
    *_, tests, slow, slowest, second, failure = done.stdout.splitlines()
    assert tests.endswith("make test: failed with exit code 2") and slow.endswith(f"make slow {part} CHANGED=20")
    assert [slowest, second] == [f"slowest: {n:6.1f} s tests/test_size.py ({k})" for n, k in ((3, "slow"), (1, "test"))]
    assert failure == "FAILED tests/test_size.py::test_larger - assert 1 > 1"
