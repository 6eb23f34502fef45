"""Compile the training step ahead of time, so that its cost and memory are known before the first batch."""

import hashlib
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lm.config import ModelConfig
from lm.data.batches import Batch, host_batch
from lm.devices import target_of
from lm.errors import UsageError
from lm.metrics.writers import Row
from lm.model.cost import flops_per_token
from lm.parallel import batch_sharding
from lm.resilience.multihost import agree
from lm.terminal import quantity
from lm.training.state import TrainState
from lm.training.step import Metrics

WORTH_MEASURING = 10**11
"""FLOP of a training run above which its duration on a CPU is forecast; the forecast costs some discarded steps."""

REFUSED = re.compile("No such compile option: '(\\w+)'|While setting option (\\w+)|disable it with (\\w+)=")
"""XLA's error messages for a rejected compile option."""

Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class StepCost:
    """FLOP, memory and compile time of one training step."""

    flops: int
    """FLOP on all devices together, counted from the config (lm/model/cost.py), not by the compiler."""
    compile_seconds: float
    """Time to compile it, or to read it from the cache."""
    state_bytes: int | None
    """Bytes per device: its shard of the state, and the batch; the new state reuses the memory of the old one. None if
    the compiler does not report it."""
    temporary_bytes: int | None
    """Bytes per device of values that live only within a step, such as activations and gradients. None if the compiler
    does not report it."""

    def __str__(self) -> str:
        held = ""
        if self.state_bytes is not None and self.temporary_bytes is not None:
            total = quantity(self.state_bytes + self.temporary_bytes, "B")
            state, temporary = quantity(self.state_bytes, "B"), quantity(self.temporary_bytes, "B")
            held = f"a device holds {total}: {state} of state, {temporary} of temporary values; "
        return f"a step is {quantity(self.flops, 'FLOP')}; {held}compiled in {self.compile_seconds:.1f} s"

    def row(self) -> Row:
        """Return the costs that are known, as metrics for metrics.jsonl."""
        named = {
            "step_flops": self.flops,
            "step_state_bytes": self.state_bytes,
            "step_temporary_bytes": self.temporary_bytes,
            "compile_seconds": self.compile_seconds,
        }
        return {name: value for name, value in named.items() if value is not None}


def example_batch(batch_size: int, context_length: int) -> Batch:
    """Return a batch of ones for compiling and timing a step: broadcast views of one element, almost without memory."""
    ones = lambda dtype: np.broadcast_to(np.ones((), dtype), (batch_size, context_length))
    return host_batch(*(ones(np.int32) for _ in range(3)), ones(np.float32))


def compile_ahead(
    step: Any, state: TrainState, like: Any, mesh: Mesh, model: ModelConfig, xla_options: Sequence[str] = (),
    tokens: int | None = None,
) -> tuple[Step, StepCost]:  # fmt: skip
    """Compile the jitted training step for the abstract `state` and batches like `like`, of `tokens` tokens (None: as
    many as its first array has), with train.xla_options.

    Return (compiled step, which rejects other shapes instead of recompiling; its cost). Raises UsageError if processes
    have lowered different programs, or if XLA rejects an option.
    """
    flops = flops_per_token(model) * (like[0].size if tokens is None else tokens)
    start = time.perf_counter()
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh))
    lowered = step.lower(state, jax.tree.map(shape, like))
    agree_on_program("training step", lowered)
    options = compiler_options(xla_options, target_of(mesh.devices.flat[0]).platform)
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        refused = REFUSED.search(str(error))
        if refused is None:
            raise
        name = next(filter(None, refused.groups()))
        raise UsageError(
            f"train.xla_options has {name}, which this XLA does not accept: {error}. Remove or change it; "
            "names and values differ between versions of jaxlib and libtpu."
        ) from error
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()  # per device; None if the backend does not report it
    if memory is None:
        return compiled, StepCost(flops, seconds, None, None)
    state_bytes = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return compiled, StepCost(flops, seconds, state_bytes, memory.temp_size_in_bytes)


def agree_on_program(name: str, lowered: Any) -> None:
    """Raise UsageError in all processes unless all have lowered the same program. `lowered` is a jax.stages.Lowered."""
    if jax.process_count() > 1:
        agree({f"SHA-256 of the lowered {name}": hashlib.sha256(lowered.as_text().encode()).hexdigest()})


def options_of(xla_options: Sequence[str], platform: str) -> list[str]:
    """Return the options in train.xla_options that are for devices of `platform`, such as "tpu" (lm.devices.Target)."""
    return [one for one in xla_options if platform == ("cuda" if one.startswith("xla_gpu_") else "tpu")]


def compiler_options(xla_options: Sequence[str], platform: str) -> dict[str, str | bool | int] | None:
    """Return train.xla_options for `platform` as JAX's `compiler_options`, {name: value}; None if there are none."""
    own = [one.split("=", 1) for one in options_of(xla_options, platform)]
    if platform == "tpu":  # takes only strings; XLA for GPUs wants typed values
        return dict(own) or None
    typed = lambda text: text == "true" if text in ("true", "false") else int(text) if text.isdecimal() else text
    return {name: typed(value) for name, value in own} or None


def worth_measuring(flops: int, platform: str) -> bool:
    """Return whether to forecast a run's duration: only on a CPU, in one process, and if it is above about a second."""
    return platform == "cpu" and jax.process_count() == 1 and flops >= WORTH_MEASURING


def measure_step_seconds(step: Step, make_state: Callable[[], TrainState], batch: Any, repeats: int = 3) -> float:
    """Return the median duration in seconds of `repeats` steps after a warm-up step. They run on a temporary state from
    `make_state`; call this before the run's own state exists, since memory is needed for only one."""
    state, seconds = make_state(), []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
