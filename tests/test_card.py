"""tests.bench.card: its dry run on the CPU, with only the packages of a bare machine with the prepared wheels."""

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from tests.bench.card import DRY_PARTS, GOLDEN, MOST_BYTES, PARTS, WHEELS, Runner, in_json
from tests.run_files import HANG_SECONDS, REPOSITORY

WITH_JAX = {"jax", "jaxlib", "libtpu", "ml-dtypes", "numpy", "opt-einsum", "scipy"}
OURS = {"configs", "data_prep", "launch", "lm", "tests", "viewer"}
SITE = """
import atexit, importlib.machinery, os, sys
class Admitted(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {refused!r} else super().find_spec(name, path, target)
def note():
    with open({folder!r} + "/" + str(os.getpid()), "w") as file:
        file.write("\\n".join({{name.partition(".")[0] for name in sys.modules}}))
sys.meta_path[:] = [Admitted if one is importlib.machinery.PathFinder else one for one in sys.meta_path]
atexit.register(note)
"""


class Ran(NamedTuple):
    code: int
    rows: list[dict]
    stderr: str

    def of(self, part: str) -> list[dict]:
        return [row for row in self.rows if row["part"] == part]


def run(*options: object, **variables: str) -> Ran:
    command = [sys.executable, "-m", "tests.bench.card", *map(str, options)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | variables
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    return Ran(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)


def distributions() -> dict[str, set[str]]:
    """{top-level module: normalized names of the distributions that contain it}."""
    normalized = lambda names: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    return {module: normalized(names) for module, names in importlib.metadata.packages_distributions().items()}


class Dry(NamedTuple):
    ran: Ran
    imported: set[str]
    """Distributions imported by all processes."""


@pytest.fixture(scope="module")
def dry(tmp_path_factory) -> Dry:
    """The dry run. Its wheel contains a sitecustomize that only allows WHEELS and the dependencies of JAX."""
    folder = tmp_path_factory.mktemp("card")
    of_module, admitted = distributions(), {*WHEELS} | WITH_JAX
    refused = sorted({module for module, names in of_module.items() if not names & admitted} - OURS)
    (folder / "modules").mkdir()
    with zipfile.ZipFile(folder / "site-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sitecustomize.py", SITE.format(refused=refused, folder=str(folder / "modules")))
    ran = run("--dry-run", "--minutes", HANG_SECONDS, "--wheels", folder)
    modules = {name for file in (folder / "modules").iterdir() for name in file.read_text("utf-8").splitlines()}
    imported = {name for module in modules for name in of_module.get(module, ()) if name in admitted}
    return Dry(ran, imported)


def documented_fields() -> dict[str, set[str]]:
    """{part: fields of its lines}, from the table in docs/accelerators.md."""
    page = (REPOSITORY / "docs/accelerators.md").read_text()
    rows = re.findall(r"^\| `([a-z]+)` \| (.+?) \| .+ \|$", page, re.MULTILINE)
    return {part: set(re.findall(r"`(\w+)`", fields)) for part, fields in rows}


@pytest.mark.slow
@pytest.mark.parametrize("part", DRY_PARTS, ids=lambda part: part.function)
def test_each_part_prints_lines_with_the_documented_fields(dry, part):
    fields, rows = documented_fields()[part.function], dry.ran.of(part.name)
    assert rows, dry.ran
    for row in rows:
        assert row.get("ok", True), row
        assert fields - {"mfu"} <= {*row} | {"cpu_matmul_share"}, fields - {*row}
        assert {*row} - {"bench", "part", "ok", "seconds", "machine", "cpu_matmul_share"} <= fields, row
        assert {"device_kind", "devices", "jax", "jaxlib", "runtime", "driver", "commit"} <= {*row["machine"]}


@pytest.mark.slow
def test_the_dry_run_says_that_it_succeeded_and_imports_only_the_wheels_and_dependencies_of_jax(dry):
    assert dry.ran.code == 0, dry.ran
    end = dry.ran.rows[-1]
    assert (end["part"], end["skipped"], end["failed"]) == ("end", [], [])
    assert {part.function for part in PARTS} == {part.function for part in DRY_PARTS}
    assert {row["compute_dtype"] for row in dry.ran.of("golden")} == {"float32", "bfloat16"}
    assert dry.imported - WITH_JAX == {*WHEELS}


@pytest.mark.slow
def test_a_wrong_value_and_an_error_in_a_part_are_failures_and_the_other_parts_run(tmp_path):
    golden = json.loads(GOLDEN.read_text())
    golden["values"]["float32"]["loss"][-1] *= 1.01
    del golden["values"]["bfloat16"]
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    ran = run("--dry-run", "--only", "golden", "generate", "--golden", tmp_path / "golden.json")
    wrong, raised = ran.of("golden")
    assert not wrong["ok"] and 0.009 < wrong["greatest_difference"]["loss"] < 0.011
    assert not raised["ok"] and raised["error"] == "KeyError: 'bfloat16'"
    assert [row.get("error") for row in ran.of("generate")] == [None]
    assert ran.code == 1 and ran.rows[-1]["failed"] == ["golden"]


ROW = '{"x": NaN}'


@pytest.mark.parametrize(
    ("program", "budget", "said", "failed", "skipped"),
    [
        (f"echo '{ROW}'; printf '{{\"half'", 600, "is no JSON", True, False),
        (f"echo '{ROW}'; kill -9 $$", 600, "signal SIGKILL", True, False),
        (f"echo '{ROW}'; sleep 600", 500, "ended after 500 s, with the budget", False, True),
        (f"echo '{ROW}'; sleep 600", 599, "did not end within 599 s", True, False),  # it was expected to take 180
    ],
)
def test_a_crashed_part_does_not_stop_the_others(monkeypatch, tmp_path, program, budget, said, failed, skipped):
    """The part is a shell program. If it sleeps, its timer ends after the first row."""
    part = tmp_path / "part"
    part.write_text(f"#!/bin/sh\n{program}\n")
    part.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(part))
    runner = Runner(argparse.Namespace(dry_run=True, minutes=10, golden=GOLDEN), None)
    timer, timers = threading.Timer, []
    monkeypatch.setattr(threading, "Timer", lambda *given: timers.append(given) or timer(*given))
    rows = runner.rows("one", budget, 180)
    found = [next(rows)]
    ((seconds, end),) = timers
    assert seconds == budget
    if "sleep" in program:
        end()
    found += rows
    assert np.isnan(found[0]["x"]) and in_json(found[0]) == found[0] | {"x": "nan"}
    assert said in str(found[1:]) and all("seconds" in row for row in found)
    assert any("error" in row for row in found) == failed and (runner.skipped == ["one"]) == skipped


def test_a_terminated_command_ends_its_part(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.card", "--dry-run", "--only", "golden"], cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children: list[psutil.Process] = []
    while not children and process.poll() is None:
        children = psutil.Process(process.pid).children()
    process.terminate()
    process.communicate()
    psutil.wait_procs(children)
    assert process.returncode == 143


def test_the_command_itself_needs_no_package():
    command = [sys.executable, "-S", "-m", "tests.bench.card", "--only", "nothing"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and "no part nothing; there are attention, golden, " in done.stderr


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("words", "variables", "code", "said"),
    [
        (["--dry-run", "--minutes", 0], {}, 0, json.dumps([part.name for part in DRY_PARTS])),
        (["--minutes", 0], {"JAX_PLATFORMS": "cpu"}, 2, "--dry-run"),
        (["--minutes", 0], {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_no_such_flag"}, 1, "ended with exit code 1"),
        (["--dry-run", "--wheels", "no"], {}, 2, "no holds no wheel"),
        (["--dry-run", "--wheels", "."], {}, 2, "a.whl is damaged"),
    ],
)
def test_skipped_parts_and_what_prevents_a_run_are_named(tmp_path, monkeypatch, words, variables, code, said):
    (tmp_path / "a.whl").write_bytes(b"no archive")
    paths = {"no": tmp_path / "no", ".": tmp_path}
    ran = run(*(paths.get(word, word) for word in words), **variables)
    assert ran.code == code and said in json.dumps(ran.rows) + ran.stderr, ran


PIP = """
import pathlib, re, sys
option = lambda name: pathlib.Path(sys.argv[sys.argv.index(name) + 1])
for line in re.sub(r"\\\\\\n", " ", option("--requirement").read_text()).splitlines():
    name, version, *hashes = re.split("==| +", line.strip())
    assert hashes and all(one.startswith("--hash=sha256:") for one in hashes), line
    with open(option("--dest") / f"{name}-{version}-py3-none-any.whl", "wb") as file:
        file.truncate(SIZES.get(name, 1000))
"""


@pytest.mark.parametrize("tensorstore", [20_000_000, MOST_BYTES])
def test_wheels_come_from_the_lock_and_more_than_the_limit_is_rejected(tmp_path, tensorstore):
    """A program that writes files of given sizes replaces pip: tests have no network."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__main__.py").write_text(f"SIZES = {{'tensorstore': {tensorstore}}}\n{PIP}")
    ran = run("--prepare", tmp_path / "wheels", PYTHONPATH=str(tmp_path))
    (row,) = ran.rows
    assert row["wheels"] == len(WHEELS) and row["bytes"] == tensorstore + 1000 * (len(WHEELS) - 1)
    assert ran.code == (tensorstore >= MOST_BYTES)
    assert ("the largest is tensorstore-" in ran.stderr) == (tensorstore >= MOST_BYTES)
    again = run("--prepare", tmp_path / "wheels", PYTHONPATH=str(tmp_path))
    assert again.code == 1 and "Give an empty folder" in again.stderr
