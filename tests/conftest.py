"""Strict JAX for every test: eight CPU devices, no silent rank promotion, warnings as errors (pyproject.toml)."""

import contextlib
import os
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
    """Forget the compiled programs of each file of tests: a process would hold gigabytes of them at the end."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()


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


LONGEST = (
    "tests/lm/training/test_step.py", "tests/lm/training/test_loop.py", "tests/test_end_to_end.py",
    "tests/window/test_window.py", "tests/window/test_tokens_predict.py", "tests/window/test_inside.py",
    "tests/window/test_scripts.py",
    "tests/launch/test_trained.py", "tests/lm/resilience/test_preemption.py", "tests/lm/tokenizer/test_published.py",
    "tests/lm/planner/test_plan.py", "tests/launch/cloud/test_files.py",
    "tests/lm/training/test_restore_or_init.py", "tests/test_linear_time.py", "tests/lm/model/test_transformer.py",
    "tests/lm/model/test_attention.py", "tests/lm/checkpoints/test_layer_forms.py", "tests/test_command_line.py",
    "tests/test_numbers.py", "tests/test_docs.py", "tests/lm/tokenizer/test_fast.py",
    "tests/lm/tokenizer/test_kinds.py", "tests/lm/formats/test_every_field.py", "tests/lm/formats/test_hugging_face.py",
    "tests/launch/test_own_text.py", "tests/launch/test_release.py", "tests/launch/test_hostile_models.py",
    "tests/lm/checkpoints/test_addresses.py",
    "tests/lm/training/test_anomaly_guard.py", "tests/lm/training/test_switches.py", "tests/launch/test_shakespeare.py",
    "tests/launch/test_supervision.py", "tests/lm/resilience/test_processes.py", "tests/lm/evaluation/test_meshes.py",
    "tests/lm/inference/test_engine.py", "tests/data_prep/select/test_run.py", "tests/launch/test_stage.py",
    "tests/data_prep/engine/test_executors.py",
    "tests/data_prep/dedup/test_clusters.py", "tests/data_prep/quality/test_outside_filter.py",
    "tests/lm/test_meshes.py", "tests/launch/test_report.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files first: pytest-xdist assigns whole files to its processes in this order, and a long one at
    the end would leave the others idle."""
    place = {path: number for number, path in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONGEST)))
