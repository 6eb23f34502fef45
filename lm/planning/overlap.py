"""Estimate how much of a compiled program's communication overlaps with computation, from its schedule (HLO).

Instructions of a scheduled program run in the order of its text. A collective begins at its start instruction and must
be complete at its done instruction. Model: one link per device sends the started collectives one after another, at its
rated speed, while the matrix products between start and done run at the chip's peak FLOP rate. A collective overlaps if
it is complete before its done instruction is reached. Hand-written kernels and memory traffic count as no time, which
underestimates the overlap. Between GPU nodes NVLink's rate is assumed, which overestimates it for groups with few GPUs
of each node. XLA's own flag `is_sync` is ignored.
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
class Overlap:
    """A device's communication in a step, and how much of it overlaps with computation."""

    bytes: float
    """Bytes sent, by the ring algorithms (Collective.wire_bytes)."""
    overlapped_bytes: float
    """Bytes of the collectives that overlap completely."""
    exposed_seconds: float
    """Time that computation waits for communication, at the links' rated speed."""

    @property
    def share(self) -> float:
        return self.overlapped_bytes / self.bytes if self.bytes else 1.0


def overlap_of(text: str, devices: int, chip: Chip, kinds: tuple[str, ...] = COLLECTIVES) -> Overlap:
    """Return the overlap of the collectives of these kinds within a slice, in a program for `devices` devices."""
    schedule = Schedule(text, devices, chip)
    total = overlapped = exposed = 0.0
    for one, left in schedule.collectives():
        if one.kind in kinds:
            total += one.wire_bytes
            overlapped += one.wire_bytes if left <= 0 else 0.0
            exposed += one.times * max(left, 0.0)
    return Overlap(total, overlapped, exposed)


class Schedule:
    """A scheduled program, and the time that its instructions take."""

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

    def collectives(self) -> Iterator[tuple[Collective, float]]:
        """Yield every collective with the seconds that remain of it at its done instruction."""
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
            yield from under_way.values()  # done in another computation

    def transfer_seconds(self, one: Collective) -> float:
        return one.wire_bytes / one.times * self.chip.devices / self.chip.link_rate

    def role(self, name: str, instruction: Instruction) -> tuple[Collective | None, str]:
        """Return (collective that the instruction runs or starts, "start", "done" or, for a synchronous one, "")."""
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
        """Possible names of the start instruction: the operands, and, on TPUs, the done instruction's own name with
        start instead of done."""
        return [*operands(done.rest), done.name.replace("-done", "-start")]

    def count_flops(self, name: str, instruction: Instruction) -> float:
        """FLOPs of an instruction; for a loop, of all its iterations together."""
        if instruction.operation in ("fusion", "call", "while", "conditional"):
            inner = [sum(self.flops(one, part) for part in self.found.get(one, [])) for one in called(instruction)]
            if instruction.operation == "while":
                return turns(instruction, self.found, self.found[name]) * sum(inner)
            return min(inner, default=0.0) if instruction.operation == "conditional" else sum(inner)
        sums = summed_elements(instruction, [self.types[name].get(one, "") for one in operands(instruction.rest)])
        return 2.0 * math.prod(dimensions(instruction.type)) * sums if sums else 0.0


def operands(rest: str) -> list[str]:
    """Names of the operands in `rest`, the text after an operation, where they come first."""
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
    """Size of the contracted dimensions of a matrix product; 0 for any other instruction."""
    if instruction.operation == "convolution":  # TPUs compile matrix products to convolutions
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
