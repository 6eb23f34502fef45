"""How much of what a compiled program exchanges goes on behind arithmetic, read from its schedule (HLO).

Instructions of a scheduled program run in the order of its text. An exchange begins at its start and is waited for at
its done; between them one link sends what has begun, one exchange after the other, while the arithmetic between them
takes at least its FLOP at the chip's peak rate. An exchange is hidden if it has been sent by then, at the rated speed
of the links. Arithmetic of hand-written kernels and all that reads memory count as nothing, which makes the share
smaller than it is. GPUs of several nodes are taken to exchange at NVLink's speed, which makes it too large for groups
that have few GPUs of a node. XLA's own mark `is_sync` is not believed.
"""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lm.planning.program import (
    COLLECTIVES,
    SHAPE,
    Collective,
    Instruction,
    called,
    collective_of,
    computations,
    runs,
    turns,
)
from lm.planning.topology import Chip

TPU_START, TPU_DONE = '"AsyncCollectiveStart"', '"AsyncCollectiveDone"'


@dataclass(frozen=True)
class Exchanged:
    """What a device sends in a step."""

    bytes: float
    """By the ring algorithms (Collective.wire_bytes)."""
    hidden_bytes: float
    """Of the exchanges that end behind arithmetic."""
    exposed_seconds: float
    """That arithmetic waits for the others, at the rated speed of the links."""

    @property
    def share(self) -> float:
        return self.hidden_bytes / self.bytes if self.bytes else 1.0


def exchanged(text: str, devices: int, chip: Chip, kinds: tuple[str, ...] = COLLECTIVES) -> Exchanged:
    """What a program for `devices` exchanges, of these kinds, within a slice."""
    schedule = Schedule(text, devices, chip)
    total = hidden = exposed = 0.0
    for one, left in schedule.exchanges():
        if one.kind in kinds:
            total += one.wire_bytes
            hidden += one.wire_bytes if left <= 0 else 0.0
            exposed += one.times * max(left, 0.0)
    return Exchanged(total, hidden, exposed)


class Schedule:
    """A scheduled program, and what its instructions take."""

    def __init__(self, text: str, devices: int, chip: Chip):
        self.found, entry = computations(text)
        self.times = runs(self.found, entry)
        self.devices, self.chip = devices, chip
        self.types = {name: {one.name: one.type for one in inside} for name, inside in self.found.items()}
        fusions = [
            one for inside in self.found.values() for one in inside if one.operation in ("fusion", "async-start")
        ]
        self.fused = {name for one in fusions for name in called(one)}
        self.flops = functools.cache(self.count_flops)

    def exchanges(self) -> Iterator[tuple[Collective, float]]:
        """(exchange, seconds that are left of it where it is waited for) of all."""
        for name, inside in self.found.items():
            if not self.times.get(name) or name in self.fused:
                continue
            under_way: dict[str, tuple[Collective, float]] = {}
            for instruction in inside:
                one, role = self.role(name, instruction)
                if role == "done":
                    begun = next((key for key in self.begun_by(instruction) if key in under_way), None)
                    if begun is not None:
                        yield under_way.pop(begun)
                elif role == "start" and one is not None:
                    under_way[instruction.name] = one, self.transfer_seconds(one)
                elif one is not None:
                    yield one, self.transfer_seconds(one)
                seconds = self.flops(name, instruction) * self.chip.devices / self.chip.flops
                for key, (sent, left) in under_way.items():
                    used = min(seconds, left)
                    under_way[key], seconds = (sent, left - used), seconds - used
            yield from under_way.values()  # what another computation waits for

    def transfer_seconds(self, one: Collective) -> float:
        return one.wire_bytes / one.times * self.chip.devices / self.chip.link_rate

    def role(self, name: str, instruction: Instruction) -> tuple[Collective | None, str]:
        """(the exchange that the instruction makes or starts, "start", "done" or "")."""
        operation = instruction.operation
        if operation.endswith("-done"):
            return None, "done"
        if operation.removesuffix("-start") in COLLECTIVES:
            one = collective_of(name, instruction, self.times[name], self.devices)
            return one, "start" if operation.endswith("-start") else ""
        if operation not in ("fusion", "async-start"):
            return None, ""
        for inner in called(instruction):
            parts = self.found.get(inner, [])
            if any(TPU_DONE in one.rest for one in parts):
                return None, "done"
            starts = operation == "async-start" or any(TPU_START in one.rest for one in parts)
            for one in parts:
                if one.operation in COLLECTIVES and (starts or "all-reduce-scatter" in inner):
                    made = collective_of(inner, one, self.times[name], self.devices)
                    return made, "start" if starts else ""
        return None, ""

    def begun_by(self, done: Instruction) -> list[str]:
        """Names that the start of what is waited for may have: an operand's, or, on TPUs, its own with start for
        done."""
        return [*operands(done.rest), done.name.replace("-done", "-start")]

    def count_flops(self, name: str, instruction: Instruction) -> float:
        """Of an instruction, all turns of a loop together."""
        if instruction.operation in ("fusion", "call", "while", "conditional"):
            inner = [sum(self.flops(one, part) for part in self.found.get(one, [])) for one in called(instruction)]
            if instruction.operation == "while":
                return turns(instruction, self.found, self.found[name]) * sum(inner)
            return min(inner, default=0.0) if instruction.operation == "conditional" else sum(inner)
        sums = summed_elements(instruction, [self.types[name].get(one, "") for one in operands(instruction.rest)])
        return 2.0 * math.prod(dimensions(instruction.type)) * sums if sums else 0.0


def operands(rest: str) -> list[str]:
    """Names of the operands, which come first in what follows an operation."""
    depth, end = 1, len(rest)
    for place, letter in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            end = place
            break
    return re.findall(r"%([\w.\-]+)", rest[:end])


def dimensions(types: str) -> list[int]:
    found = SHAPE.search(types)
    return [int(one.lstrip("<=")) for one in found[2].split(",") if one] if found else []


def summed_elements(instruction: Instruction, types: list[str]) -> int:
    """Over how many products each element of a result is a sum; 0 of what is no product of matrices."""
    if instruction.operation == "convolution":  # what TPUs make of products of matrices
        labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.rest)
        return dimensions(types[1])[labels[1].index("i")] if labels and any(types[1:2]) else 0
    if instruction.operation == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
    elif instruction.operation == "custom-call" and "__cublas$" in instruction.rest:
        axes = re.search(r'lhs_contracting_dimensions":\[([\d,"]*)\]', instruction.rest)
    else:
        return 0
    left = dimensions(types[0])
    return math.prod(left[int(one)] for one in re.findall(r"\d+", axes[1])) if axes and left else 0
