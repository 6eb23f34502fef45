"""Compiled programs are reused by later processes; user settings of JAX's cache are respected."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm.compilation_cache import VARIABLE, cpu_kind, keep_compiled_programs, use_bucket_cache
from lm.errors import UsageError
from lm.storage import Url
from tests.object_store import HOPELESS, QUICK, serving, variables

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from pathlib import Path
from launch.stages.processes import load_training
load_training(Path(sys.argv[1]), time.time(), 1.0, 0)
import jax, jax.numpy as jnp
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: jnp.sin(x @ x) + 1)(jnp.ones((8, 8))).block_until_ready()
print(events.count("/jax/compilation_cache/cache_hits"), events.count("/jax/compilation_cache/cache_misses"))
"""


@pytest.mark.slow
def test_a_training_process_reuses_programs_of_the_previous_one(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    run = lambda: subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    (hits, misses), (again, none) = (map(int, run().stdout.split()) for _ in range(2))
    assert (hits, none) == (0, 0)
    assert again == misses > 0
    assert list((tmp_path / "gristmill/compiled" / cpu_kind()).iterdir())


def test_cache_settings_of_the_user_are_kept():
    for given in ("/elsewhere", ""):
        environment = {"JAX_COMPILATION_CACHE_DIR": given, "HOME": "/home/a"}
        keep_compiled_programs(environment)
        assert environment == {"JAX_COMPILATION_CACHE_DIR": given, "HOME": "/home/a"}
    environment = {"HOME": "/home/a", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "7"}
    keep_compiled_programs(environment)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == f"/home/a/.cache/gristmill/compiled/{cpu_kind()}"
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_new_host_reuses_compiled_programs_from_a_bucket(tmp_path, scheme):
    """Hosts share only the bucket; if it does not answer, programs are compiled again."""
    with serving() as store, variables(store.environment() | QUICK):
        store.bucket("cache")
        address = f"{scheme}://cache/runs/a.compiled"

        def run(host: str, **more: str) -> tuple[int, int]:
            (home := tmp_path / host).mkdir()
            environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), VARIABLE: address}
            environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | more
            command = [sys.executable, "-c", PROGRAM, str(home)]
            done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
            assert not (home / "gristmill/compiled").exists()
            hits, misses = map(int, done.stdout.split())
            return hits, misses

        hits, misses = run("first")
        assert hits == 0 and len(Url(address).files()) == misses > 0
        assert run("second") == (misses, 0)
        store.fail(lambda request: "503")
        assert run("third", **HOPELESS)[0] == 0


def test_an_unsupported_address_is_rejected_with_the_remedy(monkeypatch):
    monkeypatch.setenv(VARIABLE, "hf://datasets/a/b")
    with pytest.raises(UsageError, match="is hf://datasets/a/b; it must be a folder, an s3:// or"):
        use_bucket_cache()
