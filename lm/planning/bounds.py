"""How fast a step can be at best, and what a run costs: floors of its time that no program goes below, each from one
limit of the hardware. Not a forecast: that takes a utilisation which others have measured, and which the user states.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lm.planning.program import BETWEEN_SLICES, Collective
from lm.planning.topology import Topology

DAY = 86_400


@dataclass(frozen=True)
class Floors:
    """Seconds that a step takes at least, by each limit alone."""

    arithmetic: float
    """All FLOP at the chips' peak rate, also those that remat does again."""
    memory: float
    """Parameters and optimizer state read and written once."""
    network: float
    """All exchanges at the rated speed of the links, where nothing else is in their way."""
    model: float
    """The model's FLOP alone, which MFU counts."""
    exposed: float = 0.0
    """Of `network`, what the compiled schedule has no arithmetic beside (lm/planning/overlap.py)."""

    @property
    def step(self) -> float:
        """No step is faster than its largest floor."""
        return max(self.arithmetic, self.memory, self.network)

    @property
    def mfu_bound(self) -> float:
        """The model FLOPs utilisation (arXiv:2204.02311, appendix B) of a step that takes `step` seconds."""
        return self.model / self.step

    @property
    def scheduled_step(self) -> float:
        """The same where nothing goes on beside the exposed exchanges."""
        return max(self.step, max(self.arithmetic, self.memory) + self.exposed)

    @property
    def scheduled_mfu_bound(self) -> float:
        return self.model / self.scheduled_step

    @property
    def limit(self) -> str:
        """Which floor is the largest."""
        return max(("arithmetic", "memory", "network"), key=lambda name: getattr(self, name))


def floors(
    topology: Topology,
    flops: int,
    state_bytes: int,
    moved: Sequence[Collective],
    recomputed: int = 0,
    exposed: float = 0.0,
) -> Floors:
    """Of a step of `flops` of the model on all chips together, and `recomputed` ones, in which a device reads and
    writes `state_bytes` of parameters and moments, and makes the exchanges `moved`, of whose seconds `exposed` ones
    have no arithmetic beside them. Those between slices go at the speed of the hosts' network."""
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
    """Days that training on so many tokens takes at that MFU."""
    return flops_per_token * tokens / flops_in(topology, 1, mfu)


def flops_in(topology: Topology, days: float, mfu: float) -> float:
    """FLOP of the model that so many days at that MFU make, on all chips together."""
    return topology.chips * topology.chip.flops * mfu * DAY * days


COMPUTE_OPTIMAL = 20
"""Tokens a parameter for which a given number of FLOP ends at the lowest loss, about (arXiv:2203.15556)."""


def optimal_parameters(flops: float) -> float:
    """Parameters of the compute-optimal model, at 6 FLOP a parameter and token."""
    return (flops / (6 * COMPUTE_OPTIMAL)) ** 0.5
