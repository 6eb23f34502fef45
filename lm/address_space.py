"""Check the address-space limit (`ulimit -v`), below which libraries hang, abort or print stacks instead of raising an
error."""

import resource
import sys

from lm.errors import UsageError

NEEDED_GIB = {"JAX": 2.5, "training": 6}
"""Measured on Linux x86_64 with 2 cores: JAX maps 1.3 GiB when it starts; sampling under 1.8 GiB crashed without a
message. Training under 3 GiB hung in threads that could not start."""
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


class BeforeJax:
    """Finder for sys.meta_path that finds nothing: it calls `check_address_space` before JAX's library is imported."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "jaxlib":
            check_address_space(JAX)


def check_before_jax() -> None:
    """Raise UsageError, whenever this process imports JAX, if the limit of address space is too low for it."""
    if BeforeJax not in sys.meta_path:
        sys.meta_path.insert(0, BeforeJax)
