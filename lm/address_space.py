"""Check the address-space limit (`ulimit -v`), below which libraries hang, abort or print stacks instead of raising an
error."""

import resource

from lm.errors import UsageError

NEEDED_GIB = {"JAX": 1.5, "training": 6}
"""Measured on Linux x86_64: JAX maps 1.3 GiB when it starts. Training under 3 GiB hung in threads that could not
start."""
JAX, TRAINING = NEEDED_GIB


def check_address_space(user: str) -> None:
    """Raise UsageError if `ulimit -v` is below what `user`, a key of NEEDED_GIB such as "training", needs."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < NEEDED_GIB[user] * 2**30:
        raise UsageError(
            f"The address space of this process is limited to {limit / 2**30:.1f} GiB (ulimit -v), but {user} maps "
            f"{NEEDED_GIB[user]} GiB, most of which is never used. Raise the limit (ulimit -v unlimited); to bound "
            "memory itself, use a cgroup, as systemd-run -p MemoryMax=4G does."
        )
