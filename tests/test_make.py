"""The Makefile's environments: a lock for each accelerator, and .venv made anew where another is asked for."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ACCELERATORS = ("tpu", "cuda12", "cuda13")
# Stands for uv, which would download: it writes its words down, and makes a .venv with a Python that does nothing.
UV = f"""#!{sys.executable}
import json, sys
from pathlib import Path
with open("calls", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "venv":
    Path(".venv/bin").mkdir(parents=True)
    Path(".venv/bin/python").write_text("#!/bin/sh\\n")
    Path(".venv/bin/python").chmod(0o755)
if Path("fail").exists() and sys.argv[1:3] == ["pip", "sync"]:
    sys.exit(1)
"""


def pins(name: str) -> dict[str, str]:
    """{package: version} of a lock."""
    found = re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / name).read_text(encoding="utf-8"), re.MULTILINE)
    return dict(found)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Runs make in a copy; gives (exit code, what it said, the locks that an environment was made of or [])."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for lock in REPOSITORY.glob("requirements*.lock"):
        (tmp_path / lock.name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(UV)
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    monkeypatch.delenv("ACCELERATOR", raising=False)

    def make(*words: str) -> tuple[int, str, list[str]]:
        (tmp_path / "calls").write_text("")
        done = subprocess.run(["make", "--no-print-directory", *words], cwd=tmp_path, capture_output=True, text=True)
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        synced = [call for call in calls if call[:2] == ["pip", "sync"]]
        assert all("--require-hashes" in call for call in synced)
        locks = [word for call in synced for word in call if word.endswith(".lock")]
        return done.returncode, done.stdout + done.stderr, locks

    return make


def test_without_a_word_the_environment_is_that_of_cpus_and_is_kept(make):
    assert make("setup")[::2] == (0, ["requirements.lock"])
    assert make("lint")[::2] == (0, [])


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_an_accelerator_is_kept_until_another_is_asked_for(make, accelerator):
    with_it = ["requirements.lock", f"requirements-{accelerator}.lock"]
    assert make("setup")[::2] == (0, ["requirements.lock"])
    assert make("setup", f"ACCELERATOR={accelerator}")[::2] == (0, with_it)
    assert make("test")[::2] == (0, [])  # in the same environment
    assert make("setup", "ACCELERATOR=cpu")[::2] == (0, ["requirements.lock"])


def test_another_lock_makes_the_environment_of_its_accelerator_anew(make, tmp_path):
    make("setup", "ACCELERATOR=tpu")
    later = (tmp_path / ".venv/ready-tpu").stat().st_mtime + 5
    os.utime(tmp_path / "requirements-cuda12.lock", (later, later))
    assert make("setup")[2] == []
    os.utime(tmp_path / "requirements-tpu.lock", (later, later))
    assert make("lint")[2] == ["requirements.lock", "requirements-tpu.lock"]


def test_an_environment_that_could_not_be_made_is_made_again(make, tmp_path):
    (tmp_path / "fail").touch()
    assert make("setup", "ACCELERATOR=tpu")[0] == 2
    (tmp_path / "fail").unlink()
    assert make("setup", "ACCELERATOR=tpu")[::2] == (0, ["requirements.lock", "requirements-tpu.lock"])


@pytest.mark.parametrize("wrong", ["gpu", "cpu tpu", "", "cuda%", "TPU"])
def test_a_wrong_accelerator_is_refused_with_those_there_are(make, tmp_path, wrong):
    code, said, locks = make("setup", f"ACCELERATOR={wrong}")
    assert code == 2 and locks == [] and not (tmp_path / ".venv").exists()
    assert f'ACCELERATOR is "{wrong}". Choose one of: cpu tpu cuda12 cuda13' in said


def test_what_comes_on_top_is_of_the_same_jax_and_is_not_there_already():
    base = pins("requirements.lock")
    for accelerator in ACCELERATORS:
        added = pins(f"requirements-{accelerator}.lock")
        assert added and not set(added) & set(base)
        assert {version for name, version in added.items() if name.startswith("jax")} <= {base["jax"]}
    assert list(pins("requirements-tpu.lock")) == ["libtpu"]


def test_locks_have_a_hash_for_every_package_and_no_address_of_an_index():
    for lock in REPOSITORY.glob("requirements*.lock"):
        entries = re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip())
        for entry in entries:
            assert re.match(r"[\w.\[\]-]+==\S+", entry) and "--hash=sha256:" in entry, f"{lock.name}: {entry[:80]}"
            assert "://" not in entry and "index-url" not in entry


def test_every_accelerator_has_an_extra_and_a_lock():
    said = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^ACCELERATORS := cpu (.+)$", said, re.MULTILINE)
    assert tuple(listed.split()) == ACCELERATORS
    for accelerator in ACCELERATORS:
        assert f'{accelerator} = ["jax[{accelerator}]"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
