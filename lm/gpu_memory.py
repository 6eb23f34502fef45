"""The fraction of a GPU's memory that JAX allocates: the same in plans, training and benchmarks. Imports no package."""

import os
from collections.abc import MutableMapping

GPU_MEMORY = 0.92
"""Fraction of a GPU's memory for arrays; the rest is for CUDA, cuDNN and NCCL. JAX's default, 0.75, is too little for
the layout of llama3_405b on h100:1024."""
VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""JAX's variable for this fraction, and its deprecated name. JAX rejects both together."""


def set_gpu_memory(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make JAX allocate GPU_MEMORY of a GPU's memory, unless the user has set a fraction. Call it before JAX starts."""
    if not any(environment.get(name) for name in VARIABLES):
        environment[VARIABLES[0]] = str(GPU_MEMORY)


def gpu_memory_note(environment: MutableMapping[str, str] = os.environ) -> str:
    """Return a line that says which fraction of a GPU's memory JAX allocates; "" if the environment does not set it."""
    for name in VARIABLES:
        if value := environment.get(name):
            if value == str(GPU_MEMORY):
                return f"JAX allocates {100 * GPU_MEMORY:g} % of a GPU's memory ({name})"
            return f"{name} is {value}, but plans assume {GPU_MEMORY:g} of a GPU's memory. To have as much, unset it."
    return ""
