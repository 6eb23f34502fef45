"""Lower bounds on the time of a training step, each from one limit of the hardware, and the time and FLOPs of a run at
a given MFU. The bounds are not a forecast: no program is faster, but the MFU of a real run must be measured or
assumed."""

from collections.abc import Sequence
from dataclasses import dataclass

from lm.planning.program import BETWEEN_SLICES, Collective
from lm.planning.topology import Topology

DAY = 86_400


@dataclass(frozen=True)
class Floors:
    """Lower bounds on the seconds of a step, from each limit by itself."""

    arithmetic: float
    """All FLOPs at the chips' peak rate, including those that remat repeats."""
    memory: float
    """Reading and writing parameters and optimizer state once."""
    network: float
    """All communication at the rated link speed, without contention."""
    model: float
    """Only the model's FLOPs, which MFU counts."""
    exposed: float = 0.0
    """Part of `network` that does not overlap with computation in the compiled schedule (lm/planning/overlap.py)."""

    @property
    def step(self) -> float:
        """Largest of the bounds."""
        return max(self.arithmetic, self.memory, self.network)

    @property
    def mfu_bound(self) -> float:
        """Model FLOPs utilization (arXiv:2204.02311, appendix B) of a step that takes `step` seconds."""
        return self.model / self.step

    @property
    def scheduled_step(self) -> float:
        """Like `step`, if nothing overlaps with the exposed communication."""
        return max(self.step, max(self.arithmetic, self.memory) + self.exposed)

    @property
    def scheduled_mfu_bound(self) -> float:
        return self.model / self.scheduled_step

    @property
    def limit(self) -> str:
        """Name of the largest bound."""
        return max(("arithmetic", "memory", "network"), key=lambda name: getattr(self, name))


def floors(
    topology: Topology,
    flops: int,
    state_bytes: int,
    moved: Sequence[Collective],
    recomputed: int = 0,
    exposed: float = 0.0,
) -> Floors:
    """Compute the bounds of a step with `flops` model FLOPs and `recomputed` repeated ones on all chips together. Each
    device reads and writes `state_bytes` of parameters and moments, and runs the collectives `moved`, of which
    `exposed` seconds do not overlap with computation. Collectives between slices run at the speed of the hosts'
    network."""
    chip = topology.chip
    rate = lambda one: chip.network_rate if one.kind == BETWEEN_SLICES else chip.link_rate
    return Floors(
        arithmetic=(flops + recomputed) / (topology.chips * chip.flops),
        memory=2 * state_bytes * chip.devices / chip.memory_rate,
        network=sum(one.wire_bytes * chip.devices / rate(one) for one in moved),
        model=flops / (topology.chips * chip.flops),
        exposed=exposed,
    )


def days(topology: Topology, flops_per_token: float, tokens: float, mfu: float) -> float:
    """Days of training on `tokens` tokens at this MFU."""
    return flops_per_token * tokens / flops_in(topology, 1, mfu)


def flops_in(topology: Topology, days: float, mfu: float) -> float:
    """Model FLOPs that all chips together compute in `days` days at this MFU."""
    return topology.chips * topology.chip.flops * mfu * DAY * days


COMPUTE_OPTIMAL = 20
"""Tokens per parameter with the lowest loss for a given number of FLOPs, approximately (arXiv:2203.15556)."""


def optimal_parameters(flops: float) -> float:
    """Parameters of the compute-optimal model, at 6 FLOPs per parameter and token."""
    return (flops / (6 * COMPUTE_OPTIMAL)) ** 0.5
