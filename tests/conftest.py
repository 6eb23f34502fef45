"""Strict JAX for every test: eight CPU devices, no silent rank promotion, warnings as errors (pyproject.toml)."""

import contextlib
import os
from collections.abc import Generator

import hypothesis
import pytest

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")

# The same examples on every run, and no time limit: the outcome may depend on neither luck nor load.
hypothesis.settings.register_profile(
    "gristmill", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("gristmill")


def pytest_make_parametrize_id(val: object, argname: str) -> None:
    """Refuses names made of bytes: compressed ones hold the second they were made in, so every process names another.

    A few bytes that are written out in the test may stay.
    """
    if isinstance(val, bytes) and len(val) > 16 and not val.isascii():
        raise ValueError(f"{argname} = {val[:16]!r}...: name this case by hand, with pytest.param(..., id=...)")


@pytest.fixture
def compiled_fast() -> Generator[None]:
    """What is compiled here runs once, on a few numbers: most of its time would go into making it fast."""
    with in_haste():
        yield


@pytest.fixture(scope="module")
def module_compiled_fast() -> Generator[None]:
    """`compiled_fast` for a whole module, what its fixtures compile included: the same bits need the same program."""
    with in_haste():
        yield


@contextlib.contextmanager
def in_haste() -> Generator[None]:
    import jax  # behind the settings above

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
