"""The training step of a config, compiled for a topology: the very program that a run there executes."""

import contextlib
import dataclasses
import functools
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lm.config import ModelConfig, TrainConfig
from lm.errors import UsageError
from lm.planner.cuda import cuda_devices, has_cuda, prepare_cuda
from lm.planner.libtpu import find_libtpu, prepare
from lm.planning.overlap import Overlap, overlap_of
from lm.planning.program import Collective, collectives, kernels
from lm.planning.topology import Chip, Topology

if TYPE_CHECKING:
    import jax


STEP, VALIDATION, SAMPLE, RESUME = "a step", "validation", "a sample", "resuming"
"""What a run holds memory for."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of the step, of one device."""

    argument_bytes: int
    """The state and the batch; the new state takes the place of the old."""
    temporary_bytes: int
    peak_bytes: int
    """The most at any moment: what must fit into the memory of a device."""
    collectives: tuple[Collective, ...]
    overlap: Overlap
    """How much of the communication overlaps with computation."""
    kernels: tuple[str, ...]
    """Names of hand-written kernels in the program."""
    compile_seconds: float
    also_held: Mapping[str, int] = MappingProxyType({})
    """{what the run does besides steps: the most bytes at any moment, the state included}."""

    def exchanged(self) -> dict[str, tuple[int, int]]:
        """{kind of exchange: (bytes, how many) in a step}."""
        found: dict[str, tuple[int, int]] = {}
        for one in sorted(self.collectives, key=lambda one: one.kind):
            size, count = found.get(one.kind, (0, 0))
            found[one.kind] = size + one.bytes * one.times, count + one.times
        return found


@dataclass(frozen=True)
class OutOfMemory:
    """The compiler found no program that fits."""

    needed_bytes: int | None
    """What a device would need of temporary values, where the compiler says so."""
    what: str = STEP
    """What needs it: a step, or a name of Compiled.also_held."""


def topology_devices(topology: Topology) -> "list[jax.Device]":
    """The devices of a TPU topology, which need not be there. Raises UsageError where libtpu knows none such."""
    from jax.experimental import topologies

    shape = "x".join(map(str, topology.shape))
    options = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{topology.chip.libtpu}:{shape}", **options)
    except Exception as error:
        said = str(error).splitlines()[0]
        if "Failed to open" in said:
            raise UsageError(
                f"libtpu cannot be loaded: {said}. Unset TPU_LIBRARY_PATH and run `make libtpu`."
            ) from error
        raise UsageError(f"libtpu knows no {topology.name}: {said}. Choose another shape.") from error
    return list(found.devices)


def compile_for(
    model: ModelConfig, train: TrainConfig, devices: "Sequence[jax.Device]", chip: Chip
) -> Compiled | OutOfMemory:
    """The step of the largest stage, on train.mesh over `devices`, which are of the kind `chip`, and what the run does
    besides: validation of a batch, the decoding of a sample, and resuming from a checkpoint. Raises UsageError where
    the mesh does not fit the devices, or the batch the mesh."""
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
    state = abstract_state(model, optimizer, mesh, train.spikes, train.mesh.zero1)
    batch, step = example_batch(*stage.shape), compile_step(optimizer, state, mesh, train.of_stage(stage))
    also, what = {}, STEP
    try:
        program, cost = compile_ahead(step, state, batch, mesh, stage.model(model), train.xla_options)
        made = read(program, len(devices), chip, cost.compile_seconds)
        waiting, start = (
            made.argument_bytes - bytes_on_each(model, mesh),
            time.perf_counter(),
        )  # moments, which wait in memory
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
    """The most at any moment, arguments included, by a program's memory analysis; XLA for CPUs does not tell it."""
    least = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return getattr(memory, "peak_memory_in_bytes", 0) or least


def read(program: Any, devices: int, chip: Chip, seconds: float) -> Compiled:
    memory, text = program.memory_analysis(), program.as_text()
    arguments = memory.argument_size_in_bytes
    temporary = memory.temp_size_in_bytes
    made = tuple(collectives(text, devices))
    overlap, peak = overlap_of(text, devices, chip), peak_bytes(memory)
    return Compiled(arguments, temporary, peak, made, overlap, tuple(kernels(text)), seconds)


class Compiler:
    """Compiles steps for one topology, and says on stderr what it is at. It finds the compiler, and waits for its turn
    at that of TPUs, at the first step: until then nothing is started. JAX must not have started before."""

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
        devices = self.devices
        say(f"compiling the step for {self.topology.name}, which takes seconds to minutes")
        with progress(model, say):
            return compile_for(model, train, devices, self.topology.chip)


def compiler_for(topology: Topology) -> Compiler | None:
    """None if there is no compiler: for NVIDIA's GPUs without JAX's CUDA packages, and for AMD's."""
    compiles = topology.chip.torus or (any(topology.chip.capability) and has_cuda())
    return Compiler(topology) if compiles else None


def say(text: str) -> None:
    print(f"plan: {text}", file=sys.stderr, flush=True)


SAID_EVERY = 30.0
"""Seconds between words of a compilation that goes on."""
MANY_LAYERS = 16
"""From which on a program for each layer takes long to compile."""


@contextlib.contextmanager
def progress(model: ModelConfig, say: Callable[[str], None], every: float = SAID_EVERY) -> Generator[None]:
    """Says from time to time that the compiler is at work, which does not tell how far it is, and what would shorten
    it."""
    start, done = time.monotonic(), threading.Event()
    hint = ""
    if not model.scan_layers and model.layers >= MANY_LAYERS:
        hint = f"; each of the {model.layers} layers is compiled by itself: with --model.scan-layers True, one is"

    def report() -> None:
        while not done.wait(every):
            say(f"still compiling, {time.monotonic() - start:.0f} s so far{hint}")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NEEDED = (
    r"memory required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM",
    r"Used ([\d.]+)([KMGT]?)B? of [\d.]+[KMGT]?B? hbm",
)
"""How libtpu says what a program would need."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a compiler refused a program since it does not fit."""
    return "RESOURCE_EXHAUSTED" in str(error) or "hbm" in str(error).lower()


def out_of_memory(text: str) -> OutOfMemory:
    """What libtpu tells of a program that does not fit."""
    for pattern in NEEDED:
        if needed := re.search(pattern, text):
            return OutOfMemory(int(float(needed[1]) * SIZES[needed[2]]))
    return OutOfMemory(None)
