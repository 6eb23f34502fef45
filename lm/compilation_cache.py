"""Cache of compiled programs, so that a restarted process need not compile again.

A compiled program is code: anyone who can write to a cache can run code in every process that reads it. So no cache is
in a run folder, which may come from a stranger, and no config names one. The default is the user's own cache folder;
the environment can name another, as the files of launch.cloud do. Only `use_bucket_cache` imports JAX.
"""

import hashlib
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from lm.errors import UsageError
from lm.storage import Url, is_url, user_cache, write_atomically

VARIABLE = "JAX_COMPILATION_CACHE_DIR"

MOST_BYTES = 10 * 2**30
"""Maximum size of the cache; the least recently used programs are removed."""
LEAST_SECONDS = "0.1"
"""Minimum compile time in seconds of a program that is cached."""


def keep_compiled_programs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set JAX's environment variables so that it caches compiled programs in ~/.cache/gristmill/compiled. Call it
    before JAX is imported. Does nothing if JAX_COMPILATION_CACHE_DIR is set, even to "" (no cache)."""
    if VARIABLE in environment:
        return
    # A CPU program runs only on a CPU with the same instructions, and machines can share a home folder.
    environment[VARIABLE] = str(user_cache(environment) / "compiled" / cpu_kind())
    environment.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MOST_BYTES))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", LEAST_SECONDS)


def use_bucket_cache() -> None:
    """If JAX_COMPILATION_CACHE_DIR is an s3:// or gs:// address, make JAX read and write it through lm.storage instead
    of gcsfs or s3fs. Call it before JAX compiles. Raises UsageError for other kinds of addresses.

    If there are several processes, JAX lets only process 0 write. If the address cannot be reached, JAX warns and
    compiles.
    """
    address = os.environ.get(VARIABLE, "")
    if not is_url(address):
        return
    folder = Url(address)
    if folder.scheme not in ("s3", "gs"):
        raise UsageError(f"{VARIABLE} is {address}; it must be a folder, an s3:// or a gs:// address.")
    from jax._src import compilation_cache  # JAX has no public way to give it a store
    from jax._src.compilation_cache_interface import CacheInterface

    class BucketCache(CacheInterface):
        _path: Any = folder

        def get(self, key: str) -> bytes | None:
            try:
                return (folder / key).read_bytes()
            except FileNotFoundError:
                return None

        def put(self, key: str, value: bytes) -> None:
            write_atomically(folder / key, value)

    compilation_cache.get_file_cache = lambda path: (BucketCache(), path)  # ty: ignore[invalid-assignment]


def cpu_kind() -> str:
    """Return the architecture of the CPU and a hash of its features, such as "x86_64-3f2a9c01d4e5"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:12]}"
