"""libtpu, the compiler for TPUs, on a machine without a TPU: find it, and use it in one process at a time."""

import fcntl
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from lm.errors import InputError, UsageError

LIBRARY = "libtpu.so"
FETCHED = Path(__file__).parents[2] / ".tools" / "libtpu" / "libtpu" / LIBRARY
"""Download location of `make libtpu`: outside of the environment, where JAX would look for TPUs at every start."""
LOCK = Path(tempfile.gettempdir()) / "gristmill-libtpu.lock"


def find_libtpu() -> Path:
    """Return the path of the library: TPU_LIBRARY_PATH, the download of `make libtpu`, or an installed package. Raises
    UsageError."""
    if given := os.environ.get("TPU_LIBRARY_PATH"):
        if not Path(given).is_file():
            raise UsageError(f"TPU_LIBRARY_PATH is {given}, which is no file. Unset it, or give the path of {LIBRARY}.")
        return Path(given)
    if FETCHED.is_file():
        return FETCHED
    spec = importlib.util.find_spec("libtpu")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / LIBRARY).is_file():
            return Path(folder) / LIBRARY
    raise UsageError(
        "To compile for a TPU that is not here, libtpu is needed. Fetch it with `make libtpu` (some 200 MB), or name "
        f"the path of {LIBRARY} in TPU_LIBRARY_PATH."
    )


TURN: list[IO] = []
"""This process's lock, which it keeps until it ends, as long as it has libtpu loaded."""


def wait_for_turn(say: Callable[[str], None], lock: Path = LOCK) -> None:
    """Wait, with a message, for other processes that compile for TPUs on this machine: two at once make libtpu fail.
    Then hold the lock until this process ends."""
    if TURN:
        return
    try:
        handle = lock.open("a")
    except OSError as error:
        raise InputError(f"{lock} cannot be opened: {error.strerror}. Remove it, or set TMPDIR.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another process compiles for TPUs here, and libtpu takes one at a time: waiting for it to end")
        fcntl.flock(handle, fcntl.LOCK_EX)
    TURN.append(handle)


def prepare(library: Path, say: Callable[[str], None] = print) -> None:
    """Make JAX use the library for TPUs that are not present, and the CPU for everything else. Call before JAX starts.
    Waits, with a message, for other processes that use libtpu."""
    wait_for_turn(say)
    os.environ["TPU_LIBRARY_PATH"] = str(library)
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Do not query a cloud metadata server about this machine, and avoid libtpu's warnings about missing answers.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0", "TPU_MIN_LOG_LEVEL": "3",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # next to a run that uses this machine's TPUs; wait_for_turn is enough
    }  # fmt: skip
