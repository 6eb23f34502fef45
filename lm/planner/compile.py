"""Compile the training step of a config for a topology: the program that a run there executes."""

import dataclasses
import functools
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lm.config import ModelConfig, TrainConfig
from lm.planner.compilers import cuda_devices, find_libtpu, has_cuda, prepare, prepare_cuda, topology_devices
from lm.planner.hlo import Collective, Overlap, collectives, kernels, overlap_of
from lm.planner.topology import Chip, Topology

if TYPE_CHECKING:
    import jax


STEP, VALIDATION, SAMPLE, RESUME = "a step", "validation", "a sample", "resuming"
"""Phases of a run that need memory."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler reports about a training step, per device."""

    argument_bytes: int
    """State and batch; the new state replaces the old one in place."""
    temporary_bytes: int
    """Values that live only within a step, such as activations and gradients."""
    peak_bytes: int
    """Peak memory, which must fit into the device's."""
    collectives: tuple[Collective, ...]
    overlap: Overlap
    """How much of the communication overlaps with computation."""
    kernels: tuple[str, ...]
    """Names of hand-written kernels in the program."""
    compile_seconds: float
    """Time to compile everything that was compiled."""
    also_held: Mapping[str, int] = MappingProxyType({})
    """{other phase of the run: its peak memory in bytes, including the state}."""

    def exchanged(self) -> dict[str, tuple[int, int]]:
        """Return {kind of collective: (bytes, number of executions)}, per step."""
        found: dict[str, tuple[int, int]] = {}
        for one in sorted(self.collectives, key=lambda one: one.kind):
            size, count = found.get(one.kind, (0, 0))
            found[one.kind] = size + one.bytes * one.times, count + one.times
        return found


@dataclass(frozen=True)
class OutOfMemory:
    """Result of compiling a program that does not fit into a device's memory."""

    needed_bytes: int | None
    """Temporary memory that a device would need, if the compiler reports it."""
    what: str = STEP
    """Phase that needs this memory: a step, or a key of Compiled.also_held."""


def compile_for(
    model: ModelConfig, train: TrainConfig, devices: "Sequence[jax.Device]", chip: Chip
) -> Compiled | OutOfMemory:
    """Compile the programs of a run for `devices`, all of the kind `chip`, and return what the compiler reports: the
    training step with the largest batch, on the mesh of train.mesh, and then the programs for validation, for a sample,
    and for resuming. Raises UsageError if the mesh does not fit the devices, or the batch does not fit the mesh."""
    import jax

    from lm.checkpoints.reading import bytes_on_each
    from lm.checkpoints.replicas import PIECE_BYTES, REPLICAS
    from lm.evaluation.held_out import compile_row_losses
    from lm.inference.devices import mesh_for_rows
    from lm.inference.engine import MOST_ALTERNATIVES
    from lm.inference.generate import DECODE_STEPS
    from lm.inference.steps import Shape, lower_decode
    from lm.parallel import batch_sharding, traced_on, training_mesh
    from lm.training.aot_compile import compile_ahead, example_batch
    from lm.training.optimizer import make_optimizer
    from lm.training.state import abstract_state
    from lm.training.step import compile_step

    mesh, stage = training_mesh(train, model, list(devices)), train.stages(model.context_length).largest(train.steps)
    optimizer = make_optimizer(train.optimizer, train.steps)
    choices = train.spikes, train.mesh.zero1, train.ema_decay > 0, train.lora
    state = abstract_state(model, optimizer, mesh, *choices)
    batch, step = example_batch(*stage.shape), compile_step(optimizer, state, mesh, train.of_stage(stage))
    also, what = {}, STEP
    try:
        program, cost = compile_ahead(step, state, batch, mesh, stage.model(model), train.xla_options)
        compiled: Any = program
        memory, text = compiled.memory_analysis(), compiled.as_text()
        made = Compiled(
            memory.argument_size_in_bytes, memory.temp_size_in_bytes, peak_bytes(memory),
            tuple(collectives(text, len(devices))), overlap_of(text, len(devices), chip), tuple(kernels(text)),
            cost.compile_seconds,
        )  # fmt: skip
        # Moments stay in memory meanwhile, and with adapters the frozen parameters, next to the merged ones.
        waiting = made.argument_bytes - (0 if train.lora.rank else bytes_on_each(model, mesh))
        start = time.perf_counter()
        if train.validate_every:
            what = VALIDATION
            rows, cut = example_batch(stage.shape[0] // stage.micro_batches, stage.context_length), batch_sharding(mesh)
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cut), rows)
            losses: Any = compile_row_losses()
            validation = traced_on(mesh, losses.lower)(state.model, like).compile()
            also[what] = waiting + peak_bytes(validation.memory_analysis())
        if train.sample_every:
            what, tokens = SAMPLE, train.sample_tokens
            shape = Shape(model, 1, tokens, model.vocab_size, MOST_ALTERNATIVES, min(DECODE_STEPS, tokens))
            sampling = lower_decode(state.model, shape, mesh_for_rows(mesh, 1)).compile()
            also[what] = waiting + peak_bytes(sampling.memory_analysis())
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return dataclasses.replace(out_of_memory(str(error)), what=what)
    also[RESUME] = made.argument_bytes + (2 * PIECE_BYTES if mesh.shape[REPLICAS] > 1 else 0)
    seconds = made.compile_seconds + time.perf_counter() - start
    return dataclasses.replace(made, also_held=also, compile_seconds=seconds)


def peak_bytes(memory: Any) -> int:
    """Return the peak memory of a program in bytes, arguments included, from its memory analysis. XLA for CPUs does not
    report a peak; the sum of arguments and temporaries is returned then."""
    least = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return getattr(memory, "peak_memory_in_bytes", 0) or least


class Compiler:
    """Compiles training steps for one topology, with progress on stderr. The first call loads the compiler and, for
    TPUs, waits for other processes that use it. JAX must not have started before."""

    def __init__(self, topology: Topology):
        self.topology = topology

    @functools.cached_property
    def devices(self) -> "list[jax.Device]":
        if self.topology.chip.torus:
            prepare(find_libtpu(), say)
            return topology_devices(self.topology)
        prepare_cuda()
        return cuda_devices(self.topology)

    def __call__(self, model: ModelConfig, train: TrainConfig) -> Compiled | OutOfMemory:
        devices, hint = self.devices, ""
        if not model.scan_layers and model.layers >= MANY_LAYERS:
            hint = f": each of the {model.layers} layers by itself; with --model.scan-layers True, only one"
        say(f"compiling the step for {self.topology.name}, which takes seconds to minutes{hint}")
        return compile_for(model, train, devices, self.topology.chip)


def compiler_for(topology: Topology) -> Compiler | None:
    """Return a compiler for the topology; None for AMD GPUs, and for NVIDIA GPUs without JAX's CUDA packages."""
    compiles = topology.chip.torus or (any(topology.chip.capability) and has_cuda())
    return Compiler(topology) if compiles else None


def say(text: str) -> None:
    print(f"plan: {text}", file=sys.stderr, flush=True)


MANY_LAYERS = 16
"""From this number of layers, compiling each layer separately takes long."""


SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NEEDED = (
    r"memory required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM",
    r"Used ([\d.]+)([KMGT]?)B? of [\d.]+[KMGT]?B? hbm",
)
"""libtpu's messages about the memory that a program would need."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that a program does not fit into the device's memory."""
    return "RESOURCE_EXHAUSTED" in str(error) or "hbm" in str(error).lower()


def out_of_memory(text: str) -> OutOfMemory:
    """Parse a compiler's message about a program that does not fit. If no size is in the text, needed_bytes is None."""
    for pattern in NEEDED:
        if needed := re.search(pattern, text):
            return OutOfMemory(int(float(needed[1]) * SIZES[needed[2]]))
    return OutOfMemory(None)
