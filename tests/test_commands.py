"""A command in a fork of the tests' server behaves like a separate process."""

import os
import subprocess
import sys

import pytest

from tests.commands import run_command

PROGRAM = """
import atexit, os, sys
import neighbour
atexit.register(print, "at exit")
print(__name__, sys.argv[1:], os.getcwd(), os.environ["GIVEN"], neighbour.VALUE, sys.stdin.read())
print("to standard error", file=sys.stderr)
if sys.argv[1] == "raise":
    raise ValueError("none")
sys.exit({"code": 7, "text": "why it ended", "none": None}[sys.argv[1]])
"""


@pytest.mark.parametrize("how", ["code", "text", "none", "raise"])
def test_a_fork_ends_like_a_process(tmp_path, how):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/neighbour.py").write_text("VALUE = 5")
    environment = os.environ | {"GIVEN": how, "PYTHONPATH": str(tmp_path / "beside")}
    command = [sys.executable, "-m", "program", how, "a b"]
    process = subprocess.run(command, cwd=tmp_path, env=environment, input=b"given", capture_output=True)
    fork = run_command("program", how, "a b", cwd=tmp_path, environment=environment, stdin=b"given")
    assert (fork.returncode, fork.stdout) == (process.returncode, process.stdout.decode())
    assert fork.stderr.splitlines()[0] == "to standard error"
    assert fork.stderr.splitlines()[-1] == process.stderr.decode().splitlines()[-1]


def test_limits_only_apply_to_the_command(tmp_path):
    (tmp_path / "program.py").write_text("held = bytearray(10**9)\nprint(len(held))")
    assert "MemoryError" in run_command("program", cwd=tmp_path, most_bytes=2 * 10**9 // 4).stderr
    assert run_command("program", cwd=tmp_path).stdout == "1000000000\n"
