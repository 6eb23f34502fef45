"""Where JAX keeps compiled programs, so that a process that starts again compiles nothing. No jax here."""

import hashlib
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

from lm.storage import user_cache

MOST_BYTES = 10 * 2**30
"""What was used longest ago is removed beyond."""
LEAST_SECONDS = "0.1"
"""Programs that compile in less are not kept."""


def keep_compiled_programs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets JAX's variables for a cache in ~/.cache/gristmill/compiled. To be called before JAX is imported.

    Where JAX_COMPILATION_CACHE_DIR is set, be it to nothing (no cache then), it stays as it is.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    # Programs for a CPU run on one with the same instructions alone, and a home folder may be many machines'.
    environment["JAX_COMPILATION_CACHE_DIR"] = str(user_cache(environment) / "compiled" / cpu_kind())
    environment.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MOST_BYTES))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", LEAST_SECONDS)


def cpu_kind() -> str:
    """The CPU's architecture and a hash of what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:12]}"
