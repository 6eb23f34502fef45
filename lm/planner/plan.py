"""Plan: the requirements of training a config on named hardware, as figures and as text."""

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lm.config import ModelConfig, TrainConfig
from lm.devices import Devices, Target, training_mesh_sizes
from lm.errors import UsageError
from lm.model.attention.choice import attention_spec_of, choose, explain
from lm.planner.compile import STEP, Compiled, OutOfMemory
from lm.planner.hlo import BETWEEN_SLICES, Collective
from lm.planner.topology import Topology
from lm.training.memory import of_device, training_bytes

Compile = Callable[[ModelConfig, TrainConfig], Compiled | OutOfMemory]
HOURS, DAY = 24, 86_400
STEPS = range(2**62)


@dataclass(frozen=True)
class Floors:
    """Lower bounds on the time of a step in seconds, one for each resource alone."""

    arithmetic: float
    """All FLOPs at the chips' peak rate, including those that remat repeats."""
    memory: float
    """Reading and writing parameters and optimizer state once."""
    network: float
    """All communication at the rated link speed, without contention."""
    model: float
    """Only the model's FLOPs, which MFU counts."""
    exposed: float = 0.0
    """Part of `network` that does not overlap with computation in the compiled schedule (lm/planner/hlo.py)."""

    @property
    def step(self) -> float:
        """Lower bound on the time of a step: the largest of arithmetic, memory and network."""
        return max(self.arithmetic, self.memory, self.network)

    @property
    def mfu_bound(self) -> float:
        """Upper bound on the model FLOPs utilization (arXiv:2204.02311, appendix B), in a step of `step` seconds."""
        return self.model / self.step

    @property
    def exposed_share(self) -> float:
        """Exposed communication as a fraction of `step`: the measure of a layout's XLA options."""
        return self.exposed / self.step

    @property
    def scheduled_mfu_bound(self) -> float:
        """Upper bound on the model FLOPs utilization if exposed communication overlaps with nothing."""
        return self.model / max(self.step, max(self.arithmetic, self.memory) + self.exposed)

    @property
    def limit(self) -> str:
        """Name of the resource with the largest bound: "arithmetic", "memory" or "network"."""
        return max(("arithmetic", "memory", "network"), key=lambda name: getattr(self, name))


def floors(
    topology: Topology,
    flops: int,
    state_bytes: int,
    moved: Sequence[Collective],
    recomputed: int = 0,
    exposed: float = 0.0,
) -> Floors:
    """Return lower bounds on the time of a step. `flops` and `recomputed` are the model's FLOPs and those that remat
    repeats, on all chips together. Each device reads and writes `state_bytes` of parameters and moments, and runs the
    collectives `moved`; those between slices have the speed of the hosts' network. `exposed`: the seconds of
    communication that do not overlap with computation."""
    chip = topology.chip
    rate = lambda one: chip.network_rate if one.kind == BETWEEN_SLICES else chip.link_rate
    return Floors(
        arithmetic=(flops + recomputed) / (topology.chips * chip.flops),
        memory=2 * state_bytes * chip.devices / chip.memory_rate,
        network=sum(one.wire_bytes * chip.devices / rate(one) for one in moved),
        model=flops / (topology.chips * chip.flops),
        exposed=exposed,
    )


def flops_in(topology: Topology, days: float, mfu: float) -> float:
    """Return the model FLOPs that all chips compute in `days` days at this model FLOPs utilization (0 to 1)."""
    return topology.chips * topology.chip.flops * mfu * DAY * days


COMPUTE_OPTIMAL = 20
"""Tokens per parameter with the lowest loss for a given number of FLOPs, approximately (arXiv:2203.15556)."""


@dataclass(frozen=True)
class Plan:
    """Requirements of training a config on a topology. Bytes are per device: the compiler's, or a lower bound."""

    topology: Topology
    mesh: dict[str, int]
    """{axis: number of devices}."""
    parameters: int
    """Number of parameters."""
    tokens_per_step: int
    """Tokens of the largest batch."""
    flops_per_token: int
    """Model FLOPs with the context of the largest batch, counted from the config (lm/model/cost.py)."""
    attention: str
    """Attention implementation: splash, cudnn or xla."""
    remarks: tuple[str, ...]
    """Notes, such as why XLA attention is used."""
    compiled: Compiled | None
    """The compiler's figures; None if no program fits, or none was compiled."""
    needed_bytes: int | None
    """Peak memory of the compiled program, else a lower bound if one is known."""
    needed_for: str
    """Phase with the highest memory need: "a step", "validation", "a sample" or "resuming" (lm/planner/compile.py)."""
    fits: bool | None
    """Whether the run fits into a device's memory; None if only a lower bound is known, and it is within that
    memory."""
    floors: Floors | None
    """Lower bounds on the time of a step; None if there is no program to count communication in."""
    tokens: float
    """Training tokens, as requested, or as many as train.steps or the requested days have."""
    steps: int
    """Steps that training on `tokens` takes, rounded up."""
    mfu: float
    """Assumed MFU, given by the user."""
    days: float
    """Time to train on `tokens` at `mfu`."""
    dollars: float | None
    """Cost of the run; None if no price is known."""

    def as_json(self) -> dict[str, Any]:
        """Return the plan as the JSON object that --json prints."""
        program, plain = self.compiled, ("mesh", "fits", "attention", "parameters", "tokens_per_step", "tokens")
        named = {name: getattr(self, name) for name in (*plain, "steps", "mfu", "days", "dollars")}
        for part, names in (
            (program, ("argument_bytes", "temporary_bytes", "peak_bytes", "compile_seconds")),
            (self.floors, ("limit", "mfu_bound", "exposed_share", "scheduled_mfu_bound")),
        ):
            named |= {name: getattr(part, name) if part else None for name in names}
        return named | {
            "topology": self.topology.name, "chips": self.topology.chips, "remarks": list(self.remarks),
            "flops_per_step": self.flops_per_token * self.tokens_per_step,
            "chip_bytes": self.topology.chip.memory, "device_bytes": self.topology.device_memory,
            "also_held_bytes": dict(program.also_held) if program else {},
            "least_bytes": None if program else self.needed_bytes,
            "kernels": list(program.kernels) if program else [],
            "collectives": {kind: size for kind, (size, _) in program.exchanged().items()} if program else {},
            "largest_collectives": [dataclasses.asdict(one) for one in (program.collectives[:5] if program else ())],
            "floors_seconds": dataclasses.asdict(self.floors) if self.floors else None,
            "overlapped_share": program.overlap.share if program else None,
        }  # fmt: skip


def make_plan(
    model: ModelConfig,
    train: TrainConfig,
    topology: Topology,
    compiler: Compile | None = None,
    *,
    mfu: float = 0.4,
    tokens: float | None = None,
    days: float | None = None,
    dollars_per_chip_hour: float | None = None,
) -> Plan:
    """Plan training of `model` on `topology`: on `tokens` tokens, or on as many as `days` days allow, or, if neither is
    given, for train.steps. `mfu` is the model FLOPs utilization to assume.

    `compiler` compiles the step for the topology, after all other checks. Without it, memory is a lower bound, and
    communication is not counted. Raises UsageError if mesh, batch or model cannot be divided over the devices.
    """
    if not 0.01 <= mfu <= 1:
        raise UsageError(f"--mfu is {mfu}; it must be from 0.01 to 1, as in --mfu 0.45.")
    if tokens is not None and not 1 <= tokens < 1e18:
        raise UsageError(f"--tokens is {tokens}; it must be a number from 1 up, as in --tokens 15e12.")
    if days is not None and not 0.01 <= days <= 10_000:
        raise UsageError(f"--days is {days}; it must be from 0.01 to 10,000, as in --days 7.")
    if days is not None and tokens is not None:
        raise UsageError(f"--tokens {tokens} and --days {days} are given, but one follows from the other. Give one.")
    shown = as_devices(topology)
    target = shown.target
    mesh = training_mesh_sizes(train, model, shown)
    stages = train.stages(model.context_length)
    stage = stages.largest(train.steps)
    spec = attention_spec_of(stage.model(model), mesh["context"])
    attention = choose(model.attention, target, spec)
    remarks = [explain(model.attention, target, spec)] if attention == "xla" and model.attention == "auto" else []
    if len(reached := stages.between(0, train.steps)) > 1:
        remarks += [f"from step {one.first_step:,} on: {one.describe()}" for one in reached]
        remarks.append("memory and the step are those of the largest batch, days those of all stages")
    found, needed_for = compiler(model, train) if compiler else None, STEP
    from lm.model.cost import count_parameters, flops_before, flops_per_token, recomputed_flops_per_token  # imports JAX

    tokens_per_step = stage.tokens
    per_token, bound = flops_per_token(stage.model(model)), None
    again = recomputed_flops_per_token(stage.model(model), train.remat_policy) * tokens_per_step
    if isinstance(found, Compiled):
        held = {STEP: found.peak_bytes, **found.also_held}
        needed_for = max(held, key=held.__getitem__)
        needed = held[needed_for]
        fits = needed <= topology.device_memory
        exposed = found.overlap.exposed_seconds
        bound = floors(topology, per_token * tokens_per_step, found.argument_bytes, found.collectives, again, exposed)
    elif isinstance(found, OutOfMemory):
        needed, fits, needed_for = found.needed_bytes, False, found.what
    else:
        needed = least_bytes(model, train, mesh)
        fits = None if needed <= topology.device_memory else False
        needs = "takes JAX's CUDA packages (make setup ACCELERATOR=cuda12)"
        if target.platform == "rocm":
            needs = "takes an AMD GPU"
        remarks.append(
            f"no program was compiled, which {needs}: communication is not counted, and memory is a calculated lower "
            "bound"
        )
    of_run = stages.tokens_before(train.steps)
    per_token_of_run = flops_before(model, stages)(train.steps) / of_run
    before = stages.tokens_before
    if days is not None:  # whole steps
        steps = max(1, bisect.bisect_right(STEPS, flops_in(topology, days, mfu) / per_token_of_run, key=before) - 1)
        tokens = before(steps)
    tokens = float(of_run if tokens is None else tokens)
    time = per_token_of_run * tokens / flops_in(topology, 1, mfu)
    price = None if dollars_per_chip_hour is None else time * HOURS * topology.chips * dollars_per_chip_hour
    return Plan(
        topology, mesh, count_parameters(model), tokens_per_step, per_token, attention, tuple(remarks),
        found if isinstance(found, Compiled) else None, needed, needed_for, fits, bound, tokens,
        bisect.bisect_left(STEPS, tokens, key=before), mfu, time, price,
    )  # fmt: skip


def as_devices(topology: Topology) -> Devices:
    """Return the devices that JAX would find on the topology."""
    chip = topology.chip
    target = Target("tpu" if chip.torus else "cuda" if any(chip.capability) else "rocm", chip.capability)
    return Devices(topology.devices, topology.name, target, topology.slices)


def least_bytes(model: ModelConfig, train: TrainConfig, mesh: dict[str, int]) -> int:
    """Return a lower bound on a device's bytes in training: its part of the state, and the saved inputs of blocks."""
    return sum(of_device(training_bytes(model, train), train, math.prod(mesh.values())).values())
