"""Launch scripts as users start them, each in a fork of one process that has already imported them (0.5 to 2 s).

A command has its own arguments, environment, working folder and standard streams. Variables that are read while Python
starts and JAX is imported (PYTHON*, except PYTHONPATH, and JAX_*) are those of the tests. To change one, to send a
signal or to close a stream, start a process.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from tests.run_files import HANG_SECONDS, QUICK, REPOSITORY

IMPORTED = (
    "jax", "orbax.checkpoint", "tokenizers", "pyarrow.parquet", "configs.demo", "launch.pretrain",
    "lm.formats.gguf.reading", "lm.formats.hugging_face.reading",
    "lm.tokenizer.hugging_face.library",
)  # fmt: skip


class Ended(NamedTuple):
    """A finished command, with its CPU time and peak memory."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    megabytes: float


def run_command(
    script: str, *words: object, cwd: Path = REPOSITORY, environment: Mapping[str, str] | None = None,
    stdin: bytes = b"", most_bytes: int | None = None,
) -> Ended:  # fmt: skip
    """Run `python -m script words`, by default in the environment of the tests, on one device, with at most
    `most_bytes` of address space."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [f"{folder}/{name}" for name in ("stdin", "stdout", "stderr")]
        Path(streams[0]).write_bytes(stdin)
        environment = dict(os.environ | QUICK if environment is None else environment)
        request = [[script, *map(str, words)], str(cwd), environment, streams, most_bytes]
        server = start_server()
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code, seconds, megabytes = json.loads(server.stdout.readline())
        out, errors = (Path(path).read_text() for path in streams[1:])
    return Ended(code, out, errors, seconds, megabytes)


def call(script: str, *words: object) -> int:
    """Run a script in this process, as `python -m` does; return its exit code."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [script, *map(str, words)])
        patched.delitem(sys.modules, script, raising=False)
        try:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


@functools.cache
def start_server() -> subprocess.Popen[str]:
    """The server process that forks: one for each test process, started by its first command."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.commands"], cwd=REPOSITORY, env=os.environ | QUICK, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(server.communicate)
    return server


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for request in requests:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of forks, but only its import has run
            child = os.fork()
        if not child:
            requests.close()
            replies.close()
            end_as_python_does(functools.partial(run_here, *json.loads(request)))
        _, status, used = os.wait4(child, 0)
        found = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        replies.write(json.dumps(found) + "\n")
        replies.flush()


def run_here(
    argv: list[str], cwd: str, environment: dict[str, str], streams: list[str], most_bytes: int | None
) -> None:
    """Run the command in this process, a fork. SIGALRM ends a hanging command."""
    signal.alarm(HANG_SECONDS)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = argv
    sys.modules.pop(argv[0], None)
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


def end_as_python_does(function: Callable[[], None]) -> NoReturn:
    """End this process as Python does after `function`, but without freeing memory, which would take 0.15 s."""
    code: object = 0
    try:
        function()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
