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


@pytest.fixture
def files(pytestconfig) -> set[str]:
    """The files of all collected slow tests, and those with stored seconds."""
    stored = json.loads(parts.DURATIONS.read_text())
    assert not [file for kind in stored.values() for file in kind if not (REPOSITORY / file).is_file()]
    return {file_of(item) for item in pytestconfig.stash[EVERY_SLOW_TEST]} | {*stored["slow"]}


@pytest.mark.parametrize("count", [1, 2, COUNT, 500])
def test_parts_are_disjoint_and_together_all_slow_tests(files, count):
    taken = [file for number in range(1, count + 1) for file in parts.chosen_files(files, f"{number}/{count}", 0)]
    assert len(taken) == len(files) and {*taken} == files


def test_parts_of_ci_differ_by_at_most_a_fifth(files):
    assert f"PARTS={COUNT}\n" in (REPOSITORY / ".ci/run").read_text()
    seconds = parts.stored_seconds("slow")
    totals = [sum(map(seconds, part)) for part in parts.split_files(files, COUNT, seconds)]
    assert max(totals) <= 1.2 * min(totals)


def test_a_file_without_stored_seconds_counts_as_the_median(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "DURATIONS", tmp_path / "durations.json")
    monkeypatch.setattr(parts, "REPOSITORY", tmp_path)
    (tmp_path / "a.py").touch()
    parts.DURATIONS.write_text(json.dumps({"fast": {}, "slow": {"a.py": 1, "b.py": 5, "c.py": 40}}))
    assert [parts.stored_seconds("slow")(file) for file in ("a.py", "new.py")] == [1, 5]
    parts.store_seconds({"fast": {"a.py": 2.04}, "slow": {"a.py": 3.0, "gone.py": 1.0}})
    assert json.loads(parts.DURATIONS.read_text()) == {"fast": {"a.py": 2.0}, "slow": {"a.py": 3.0}}


@pytest.fixture
def repository(tmp_path):
    """A repository whose commits change a.py and b.py, then c.py and a.py."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for number, names in enumerate(("ab", "ca")):
        for name in names:
            (tmp_path / f"{name}.py").write_text(f"{number}")
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "change"], check=True)
    return tmp_path


def test_changed_files_are_the_latest_first(repository, tmp_path_factory):
    assert parts.changed_files(1, repository) == ["a.py", "c.py"]
    assert parts.changed_files(20, repository) == ["a.py", "c.py", "b.py"]
    assert parts.changed_files(20, tmp_path_factory.mktemp("no-repository")) == []


def test_changed_files_come_on_top_up_to_the_limit(monkeypatch):
    seconds, changed = {"a.py": 500.0, "b.py": 450.0, "c.py": 200.0, "d.py": 150.0}, ["no_test.py", *"bacd"]
    monkeypatch.setattr(parts, "stored_seconds", lambda kind: seconds.__getitem__)
    monkeypatch.setattr(parts, "changed_files", lambda commits: [f"{one[0]}.py" for one in changed[:commits]])
    for commits, more in {0: [], 1: [], 9: ["b.py", "d.py"]}.items():  # 450 + 200 s would exceed 600 s
        assert parts.chosen_files(seconds, "1/3", commits) == ["a.py", *more]


@pytest.mark.parametrize("part", ["0/8", "9/8", "1", "/", "a/8", "-1/8", "1/8/2"])
def test_a_wrong_part_is_refused(part):
    with pytest.raises(ValueError, match=rf"PART is '{part}'. Give K/N with K from 1 to N: make slow PART=1/8"):
        parts.parse_part(part)


@pytest.mark.slow
def test_make_slow_collects_the_files_of_a_part():
    """Without PART all of them."""
    outer = {"PART", "CHANGED", "OPTIONS", "WORKERS"}  # make exports those of its own command line
    environment = {name: os.environ[name] for name in os.environ.keys() - outer if not name.startswith("MAKE")}

    def collected(*words: str) -> set[str]:
        command = ["make", "slow", "WORKERS=0", "OPTIONS=--collect-only -qq tests/data_prep", *words]
        return {*subprocess.check_output(command, cwd=REPOSITORY, env=environment, text=True).splitlines()}

    every, *found = [collected(), collected("PART=1/2"), collected("PART=2/2")]
    assert found[0] & found[1] <= {""} and found[0] | found[1] == every


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
    for name in (".ci", "bin"):
        (repository / name).mkdir()
    shutil.copy(REPOSITORY / ".ci/run", repository / ".ci")
    for name, text in {"make": MAKE, "chromium": "#!/bin/sh", "slurmctld": "#!/bin/sh"}.items():
        (repository / "bin" / name).write_text(text)
        (repository / "bin" / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{repository / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(repository / ".ci/run")], capture_output=True, text=True, env=environment)
    head = subprocess.check_output(["git", "-C", str(repository), "rev-parse", "HEAD"], text=True)
    part = f"PART={int(head[:8], 16) % COUNT + 1}/{COUNT}"
    ran = [line.removeprefix("ran ") for line in done.stdout.splitlines() if line.startswith("ran ")]
    assert "lint" in ran and ran[-3:] == ["demo", "test", f"slow {part} CHANGED=20"]
    assert f"to run the same: make slow {part} CHANGED=20" in done.stdout
    assert (done.returncode, done.stderr) == (2, "")
    *_, tests, slow, slowest, second, failure = done.stdout.splitlines()
    assert tests.endswith("make test: failed with exit code 2") and slow.endswith(f"make slow {part} CHANGED=20")
    assert [slowest, second] == [f"slowest: {n:6.1f} s tests/test_size.py ({k})" for n, k in ((3, "slow"), (1, "test"))]
    assert failure == "FAILED tests/test_size.py::test_larger - assert 1 > 1"
