"""Every error for users shortens what a library says, and calls no file damaged if this process has run out of memory,
threads or open files."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from data_prep.engine import units
from data_prep.sources.tfds import library_errors
from launch.release import documents
from launch.stages.command import handle_cli_errors
from lm.chat import messages, sandbox
from lm.checkpoints.errors import readable_errors
from lm.errors import InputError, UsageError, shortage
from lm.inference import requests
from lm.storage import http, objects
from tests.run_files import REPOSITORY

MODULES = (units, documents, messages, sandbox, requests, http, objects)
"""Modules that define errors for users."""
LONG = "x y\n" * 25_000
FORMS: dict[str, Callable[[BaseException], str]] = {
    "str": str, "repr": repr, "one line": lambda error: " ".join(str(error).split()),
}  # fmt: skip
"""How a message embeds a library's error."""


def classes() -> list[type[InputError]]:
    found = [InputError]
    for one in found:
        found += one.__subclasses__()
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError, OSError])
def test_the_text_of_a_library_is_shortened_in_every_error(kind, form):
    assert len(classes()) >= 10 and len(MODULES) == 7
    for one in classes():
        reason = ("other",) if issubclass(one, messages.MessageError) else ()
        with pytest.raises(one) as raised:
            try:
                raise kind(LONG)
            except kind as error:
                raise one(*reason, f"a.json cannot be read: {FORMS[form](error)}. Download it again.") from error
        said = str(raised.value)
        assert len(said) < 500 and "a.json cannot" in said and "characters)" in said and "Download it again." in said


def test_other_texts_are_not_changed():
    with pytest.raises(InputError) as raised:
        try:
            raise UsageError(LONG)
        except UsageError as error:
            raise InputError(f"{error} again") from error
    assert str(raised.value) == f"{LONG} again"


SHORT = (
    RuntimeError("can't start new thread"), OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a"),
    ImportError("libjax_common.so: failed to map segment from shared object"), OSError(errno.ENOMEM, "no", "a"),
)  # fmt: skip


def checkpoint_read(error: BaseException) -> None:
    with readable_errors("checkpoints/10", "read", "Use another checkpoint."):
        raise RuntimeError("wrapped") from error


def dataset_read(error: BaseException) -> None:
    with library_errors("mnist"):
        raise error


@pytest.mark.parametrize("reader", [checkpoint_read, dataset_read])
@pytest.mark.parametrize("error", SHORT, ids=str)
def test_a_shortage_is_no_damage(reader, error):
    with pytest.raises(InputError) as raised:
        reader(error)
    said = str(raised.value)
    assert said.startswith("This process has no ") and "(ulimit -v)" in said and "Raise them" in said
    assert "another checkpoint" not in said and "Prepare it again" not in said and "Download" not in said


def test_a_shortage_is_one_line_of_a_command():
    program = (
        "import contextlib, resource; from launch.stages.command import handle_cli_errors\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))\n"
        f"for error in ({', '.join(map(repr, SHORT))}, MemoryError()):\n"
        "    with contextlib.suppress(SystemExit), handle_cli_errors('launch.x'): raise error"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == len(SHORT) + 1, done.stderr
    assert all("launch.x: This process has no" in one and f"{2**33:,} bytes of address" in one for one in lines)


def test_an_event_loop_that_a_failed_write_closed_is_not_printed():
    """On a full disk, TensorStore reports the end of the other writes to it, when no code can catch the error."""
    program = (
        "from lm.checkpoints.errors import readable_errors\n"
        "class Late:\n"
        "    def __init__(self, text): self.text = text\n"
        "    def __del__(self): raise RuntimeError(self.text)\n"
        "with readable_errors('a', 'written', ''): Late('Event loop is closed')\n"
        "Late('Event loop is closed')\n"
        "Late('another')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert "Event loop" not in done.stderr and done.stderr.count("RuntimeError: another") == 1, done.stderr


def test_other_errors_are_no_shortage():
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    for error in (None, MemoryError(), RuntimeError("no"), BlockingIOError(errno.EAGAIN, "no"), OSError("no")):
        assert shortage(error) == ""
        if error is not None:
            with pytest.raises(type(error)), handle_cli_errors("launch.x"):
                raise error
