"""Programs of a model can compute and read files, and nothing else."""

import os
import platform
import socket
import sys
from pathlib import Path

import pytest

from lm.evaluation import programs
from lm.evaluation.programs import build_predictions, build_predictions_instruct, pass_at_k, passes

SOURCE = Path(programs.__file__).read_text()
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in programs.ARCHITECTURES, reason="needs seccomp"
)


@pytest.mark.parametrize(
    "program",
    [
        "assert sum(range(4)) == 6",
        "import collections, copy, datetime, functools, hashlib, heapq, itertools, json, math, random, re, typing\n"
        "assert hashlib.md5(b'').hexdigest()[:2] == 'd4' and random.random() < 1 and datetime.datetime.now().year",
        "import numpy\nassert numpy.ones((99, 99)).dot(numpy.ones((99, 99))).sum() == 99**3",
        "print('x' * 10**6)\ntry:\n    input()\nexcept EOFError:\n    pass",
        "import time\ntime.sleep(0.01)",
    ],
)
def test_harmless_programs_run(program):
    assert passes(program)


@pytest.mark.parametrize(
    "program",
    ["assert False", "x = (", "raise SystemExit", "exit()", "import os\nos._exit(0)", "\0", "def f(): f()\nf()"],
)
def test_a_program_passes_only_if_it_runs_to_its_end(program):
    assert not passes(program)


@pytest.fixture
def changed(monkeypatch, tmp_path):
    """Replace text of the module that the processes run."""

    def change(*pairs: tuple[str, str]) -> None:
        text = SOURCE
        for before, after in pairs:
            assert before in text
            text = text.replace(before, after)
        (tmp_path / "changed.py").write_text(text)
        monkeypatch.setattr(programs, "__file__", str(tmp_path / "changed.py"))

    return change


@pytest.mark.fast_rows
@pytest.mark.parametrize("program", ["for _ in range(10**9): pass", "for _ in range(40_000): print('x' * 10**6)"])
def test_cpu_time_is_limited(program, changed):
    """Without the limit the program would end well."""
    changed(("\nSECONDS = 3", "\nSECONDS = 1"), ("WALL_SECONDS = 15", "WALL_SECONDS = 600"))
    assert not passes(program)


@pytest.mark.parametrize("before", ["", "import signal\ntry: signal.alarm(0)\nexcept OSError: pass\n"])
def test_waiting_is_limited(before, changed):
    changed(("WALL_SECONDS = 15", "WALL_SECONDS = 1"))
    assert not passes(f"{before}import time\ntime.sleep(99)")  # would end well


def test_memory_is_limited():
    assert passes("try:\n    bytearray(2**30)\nexcept MemoryError:\n    pass\nelse:\n    assert False")
    assert not passes("x = []\nwhile True: x.append('a' * 10**6)")


@pytest.mark.parametrize(
    "forbidden",
    [
        "os.fork()", "os.kill(os.getppid(), 0)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "open(folder + '/new', 'w')", "open(folder + '/old', 'a')", "os.open(folder + '/old', os.O_TRUNC)",
        "open(folder + '/old', 'r+')", "os.open(folder + '/new', os.O_CREAT)",
        "os.remove(folder + '/old')", "os.rename(folder + '/old', folder + '/new')", "os.mkdir(folder + '/new')",
        "os.truncate(folder + '/old', 0)", "os.chmod(folder + '/old', 0)", "os.symlink('/', folder + '/new')",
        "os.utime(folder + '/old', (0, 0))", "os.memfd_create('x')", "os.execv('/bin/sh', ['sh'])",
        "socket.create_connection(('127.0.0.1', port), 1)", "socket.socketpair()", "socket.socket()",
        "os.unshare(os.CLONE_NEWUSER)",
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))", "_posixsubprocess and subprocess.run(['/bin/true'])",
        "[one for one in [threading.Thread(target=print)] if one.start()]",
    ],
)  # fmt: skip
def test_other_system_calls_are_refused(forbidden, tmp_path):
    (tmp_path / "old").write_text("old")
    before = (tmp_path / "old").stat()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        head = (
            "import os, resource, signal, socket, subprocess, threading, _posixsubprocess\n"
            f"folder, port = {str(tmp_path)!r}, {listener.getsockname()[1]}\n"
        )
        refused = (
            f"try:\n    {forbidden}\nexcept (OSError, RuntimeError, ValueError):\n    pass\nelse:\n    assert False"
        )
        assert passes(head + refused) and not passes(head + forbidden)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert [one.name for one in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_text() == "old"
    after = (tmp_path / "old").stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has other numbers that a process can use")
def test_system_calls_of_another_architecture_are_refused():
    getpid = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfound = libc.syscall({number})\n"
    assert passes(getpid.format(number=39) + "assert found > 0")
    assert passes(getpid.format(number=0x40000000 + 39) + "assert (found, ctypes.get_errno()) == (-1, 1)")
    as_i386 = (  # mov eax, 39; int 0x80; ret: 39 is mkdir, and getpid on x86_64
        "import ctypes, mmap\nmemory = mmap.mmap(-1, 4096, prot=7)\nmemory.write(bytes.fromhex('b827000000cd80c3'))\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(memory))\n"
        "assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() == -1"
    )
    assert passes(as_i386)


def test_the_environment_is_not_inherited(monkeypatch):
    monkeypatch.setenv("GRISTMILL_SECRET", "secret")
    assert passes("import os\nassert 'GRISTMILL_SECRET' not in os.environ")
    assert passes("assert b'GRISTMILL_SECRET' not in open('/proc/self/environ', 'rb').read()")


def test_open_files_are_not_inherited(tmp_path):
    with (tmp_path / "old").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert passes(
            f"import os\ntry:\n    os.write({file.fileno()}, b'x')\nexcept OSError:\n    pass\nelse:\n    assert 0"
        )
    assert not (tmp_path / "old").read_text()


def test_nothing_runs_where_calls_cannot_be_restricted(changed, tmp_path):
    changed(('"x86_64":', '"vax":'), ('"aarch64":', '"pdp":'))
    assert not passes(f"open({str(tmp_path / 'new')!r}, 'w')") and not passes("")
    assert not (tmp_path / "new").exists()


def test_pass_at_k_is_the_share_of_draws_with_a_program_that_passes():
    programs_of = [["x = 1", "x = 2", "x = 1", "y"], ["x = 2"] * 4]
    found = pass_at_k(["assert x == 1", "assert x == 1"], programs_of, [1, 2, 3])
    assert found == pytest.approx({"pass@1": 0.25, "pass@2": (1 - 1 / 6) / 2, "pass@3": 0.5})


def test_predictions_begin_with_the_problem():
    answers, docs = [["    return 1\n```\nDone", "    return 2"]], [{"prompt": "def f():\n"}]
    assert build_predictions(answers, docs) == [["def f():\n    return 1\n```\nDone", "def f():\n    return 2"]]
    assert build_predictions_instruct(answers, docs) == [["def f():\n    return 1\n", "def f():\n    return 2"]]
