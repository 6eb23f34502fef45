"""Strict JAX for every test: eight CPU devices, no silent rank promotion, warnings as errors (pyproject.toml)."""

import collections
import contextlib
import ctypes
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import zstandard

from lm import trusted_code
from lm.compilation_cache import cpu_kind
from tests import parts
from tests.made_once import made_once
from tests.run_files import QUICK

FLAGS = os.environ.get("XLA_FLAGS", ""), QUICK["XLA_FLAGS"], "--xla_force_host_platform_device_count=8"
os.environ |= QUICK | {"XLA_FLAGS": " ".join(FLAGS)}
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
# A shell ignores Ctrl-C for background jobs, and every process that a test starts would inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiled programs are cached for all processes and later runs in .pytest_cache/compiled; each run works on links to
# them in its own folder. JAX does not write programs atomically: an incomplete one of a killed process is not kept for
# later runs.
COMPILED = "JAX_COMPILATION_CACHE_DIR"
KEPT = Path(__file__).parents[1] / ".pytest_cache/compiled" / cpu_kind()
MADE_HERE = None
if COMPILED not in os.environ:
    KEPT.mkdir(parents=True, exist_ok=True)
    MADE_HERE = Path(tempfile.mkdtemp(prefix=".run-", dir=KEPT))
    for path in KEPT.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another run of tests has removed it
            if time.time() - path.stat().st_mtime > 7 * 24 * 3600:  # of changed code, or of a killed run
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path.is_file():
                (MADE_HERE / path.name).hardlink_to(path)
    os.environ[COMPILED] = str(MADE_HERE)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def keep_compiled_programs(run: Path) -> None:
    """Move the complete programs that this run of tests has compiled to KEPT, and remove its folder."""
    for program in run.glob("*-cache"):
        with contextlib.suppress(zstandard.ZstdError, FileNotFoundError):
            zstandard.ZstdDecompressor().decompress(program.read_bytes())
            program.replace(KEPT / program.name)
    shutil.rmtree(run, ignore_errors=True)


# Keep the trusted code of tests out of the user's state folder.
STATE = tempfile.mkdtemp(prefix="gristmill-state-")
os.environ["XDG_STATE_HOME"] = STATE


@pytest.fixture
def other_disk(tmp_path) -> Iterator[Path]:
    """A folder on another file system."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev or not os.access(shared, os.W_OK):
        pytest.skip("no second file system (/dev/shm) here")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def assistant(tmp_path_factory) -> Path:
    """The run folder of a tiny finetuned model, next to its base and its conversations (tests/assistant_run.py).

    All test processes share it.
    """
    from tests.assistant_run import finetune

    return made_once(tmp_path_factory, "shared-assistant", finetune)


@pytest.fixture(autouse=True)
def trusts_nothing_of_other_tests():
    """Keep code trusted by a command in this process from other tests."""
    yield
    os.environ.pop(trusted_code.VARIABLE, None)
    trusted_code.TRUSTED.clear()


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """Forget the compiled programs of each file of tests and return their memory to the system: a process would hold
    gigabytes of them at the end."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps small freed blocks
        trim(0)


def pytest_unconfigure() -> None:
    shutil.rmtree(STATE, ignore_errors=True)
    if MADE_HERE:
        keep_compiled_programs(MADE_HERE)


# The same examples on every run, and no time limit: results must depend on neither luck nor load.
hypothesis.settings.register_profile(
    "gristmill",
    max_examples=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("gristmill")


def pytest_make_parametrize_id(val: object, argname: str) -> None:
    """Reject test names made of bytes: compressed data contains its time, so every process would have another name.

    A few bytes that are written out in the test are allowed.
    """
    if isinstance(val, bytes) and len(val) > 16 and not val.isascii():
        raise ValueError(f"{argname} = {val[:16]!r}...: name this case by hand, with pytest.param(..., id=...)")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gristmill")
    group.addoption("--part", metavar="K/N", help="run whole test files of one of N parts of about equal duration")
    group.addoption("--changed", type=int, default=0, metavar="N", help="with --part: also files of the last N commits")
    group.addoption("--store-durations", action="store_true", help=f"update {parts.DURATIONS.name} with this run")


EVERY_SLOW_TEST = pytest.StashKey[list[pytest.Item]]()
"""All collected slow tests, including those that the options deselect."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark later rows of tests as slow (fast_rows), take the files of a part, and sort the longest first: pytest-xdist
    assigns whole files to its processes in this order, and a long one at the end would leave the others idle."""
    rows: collections.Counter[str] = collections.Counter()
    for item in items:
        if (mark := item.get_closest_marker("fast_rows")) and not item.get_closest_marker("slow"):
            rows[test := item.nodeid.partition("[")[0]] += 1
            if rows[test] > (mark.args or (1,))[0]:
                item.add_marker("slow")
    slow = config.stash[EVERY_SLOW_TEST] = [item for item in items if item.get_closest_marker("slow")]
    if part := config.getoption("part"):
        try:
            files = parts.chosen_files(map(file_of, slow), part, config.getoption("changed"))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        config.hook.pytest_deselected(items=[item for item in items if file_of(item) not in files])
        items[:] = [item for item in items if file_of(item) in files]
    seconds = parts.stored_seconds("slow" if config.getoption("markexpr") == "slow" else "fast")
    items.sort(key=lambda item: -seconds(file_of(item)))


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


SECONDS: dict[str, dict[str, float]] = {"fast": {}, "slow": {}}
"""Seconds of the files of tests in this run, with set-up."""
PEAKS: list[int] = []
"""Peak memory of the test processes in MB."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seconds = SECONDS["slow" if "slow" in report.keywords else "fast"]
    file = report.nodeid.partition("::")[0]
    seconds[file] = seconds.get(file, 0.0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    if output := getattr(session.config, "workeroutput", None):
        output["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    PEAKS.append(getattr(node, "workeroutput", {}).get("peak", 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the slowest files just before the failures, which pytest prints last."""
    if config.getoption("store_durations"):
        parts.store_seconds(SECONDS)
    rows = sorted(((seconds, file, kind) for kind in SECONDS for file, seconds in SECONDS[kind].items()), reverse=True)
    for seconds, file, kind in rows[:5]:
        terminalreporter.write_line(f"slowest: {seconds:6.1f} s {file} ({kind} tests)")
    if PEAKS:
        terminalreporter.write_line(f"memory of the largest test process: {max(PEAKS):,} MB")
