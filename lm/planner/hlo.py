"""Communication between devices in a compiled program, parsed from its text (HLO): the compiler's own counts ignore
loops.

The text is a list of computations, each a list of instructions. A computation runs as often as the instructions that
call it, and the body of a loop once per iteration.
"""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lm.planner.topology import Chip

BYTES = {"pred": 1, "token": 0, "s4": 0.5, "u4": 0.5, "bf16": 2}
SHAPE = re.compile(r"\b(pred|token|bf16|[sufc]\d+(?:e\d\w*)?)\[([\d,<=]*)\]")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"(?:branch_computations|called_computations|calls)=\{([^}]*)\}")
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BETWEEN_SLICES = "send"
"""Operation that libtpu compiles a collective between slices to: collectives within slices, and sends through the
hosts."""
KERNEL = re.compile(r'custom_call_target="(?:tpu_custom_call|__cudnn\$\w+|__triton\$?\w*)"')


@dataclass(frozen=True)
class Collective:
    """A collective operation of a compiled program, such as an all-gather."""

    kind: str
    """One of COLLECTIVES, or BETWEEN_SLICES."""
    bytes: int
    """Bytes of a device's result per execution; for a reduce-scatter, of its input."""
    group: int
    """Number of participating devices."""
    times: int
    """Executions per step."""
    type: str
    """Type of the result, such as bf16[512,1024]; the largest, if several arrays are combined."""
    source: str
    """JAX's name of the operation that it comes from."""

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends for the collective per step with a ring algorithm, the optimum for each kind."""
        share = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0, BETWEEN_SLICES: 1.0}.get(self.kind, share)
        return self.times * self.bytes * factor


@dataclass(frozen=True)
class Instruction:
    name: str
    type: str
    operation: str
    rest: str
    """Operands and attributes."""


def byte_count(types: str) -> int:
    """Return the size in bytes of an HLO type, such as "bf16[512,1024]"; for a tuple, the sum."""
    of = lambda name: BYTES.get(name) or int(re.sub(r"^[a-z]+|e.*", "", name) or 0) / 8
    return math.ceil(sum(of(name) * math.prod(dimensions(dims)) for name, dims in SHAPE.findall(types)))


def dimensions(dims: str) -> list[int]:
    """Parse the dimensions of an HLO type, such as "512,1024"."""
    return [int(one.lstrip("<=")) for one in dims.split(",") if one]


def computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Parse the HLO text of a program into ({computation: its instructions}, name of the entry computation)."""
    found: dict[str, list[Instruction]] = {}
    entry, current = "", []
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            if match := INSTRUCTION.match(line):
                current.append(Instruction(*match.groups()))
        elif match := COMPUTATION.match(line):
            current = found[match[2]] = []
            entry = match[2] if match[1] else entry
    return found, entry


def called(instruction: Instruction) -> list[str]:
    names = CALLED.findall(instruction.rest)
    for group in BRANCHES.findall(instruction.rest):
        names += re.findall(r"%?([\w.\-]+)", group)
    return names


NO_BOUND = 2**31 - 1
"""Initial value of a minimum over integers; in a loop's condition it does not bound the loop."""


def trip_count(instruction: Instruction, found: dict[str, list[Instruction]], siblings: list[Instruction]) -> int:
    """Return the number of iterations of a loop, 1 if unknown: the compiler's annotation, or the bound in its condition
    minus the counter's initial value if that is among the surrounding instructions `siblings`. (JAX's loops over
    layers, micro-batches and loss chunks count up by one.) `found` are all computations."""
    if noted := re.search(r'known_trip_count"?[:=]\s*\{\s*"?n"?\s*[:=]\s*"?(\d+)', instruction.rest):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", instruction.rest)
    inside = [*found.get(condition[1], [])] if condition else []
    for one in inside:  # grows during the iteration
        inside += [part for name in called(one) if one.operation == "fusion" for part in found.get(name, [])]
    bounds = [value for one in inside if (value := integer(one)) is not None and value < NO_BOUND]
    return max(max(bounds, default=1) - first_count(instruction, siblings), 1)


def integer(instruction: Instruction) -> int | None:
    """Return the value of a constant integer instruction; None for other instructions."""
    value = re.match(r"(\d+)\)", instruction.rest) if instruction.type.startswith(("s32[]", "u32[]")) else None
    return int(value[1]) if value and instruction.operation == "constant" else None


def first_count(loop: Instruction, siblings: list[Instruction]) -> int:
    """Return the initial value of a loop's counter if it is a constant, else 0."""
    place = re.search(r'known_induction_variable":\{"tuple_index":"(\d+)"', loop.rest)
    named = {one.name: one for one in siblings}
    given = named.get(re.findall(r"%([\w.\-]+)", loop.rest)[0]) if place and named else None
    if place is None or given is None or given.operation != "tuple":
        return 0
    first = named.get(re.findall(r"%([\w.\-]+)", given.rest)[int(place[1])])
    while first is not None and first.operation in ("copy", "bitcast"):
        first = named.get(re.findall(r"%([\w.\-]+)", first.rest)[0])
    return (integer(first) or 0) if first is not None else 0


def runs(found: dict[str, list[Instruction]], entry: str) -> dict[str, int]:
    """Return {computation: number of runs per step}; `found` and `entry` are the result of `computations`."""
    callers: dict[str, list[tuple[str, int]]] = {name: [] for name in found}
    for name, instructions in found.items():
        for instruction in instructions:
            factor = trip_count(instruction, found, instructions) if instruction.operation == "while" else 1
            for one in called(instruction):
                if one in callers:
                    callers[one].append((name, factor))

    @functools.cache
    def count(name: str) -> int:
        return 1 if name == entry else sum(factor * count(caller) for caller, factor in callers[name])

    return {name: count(name) for name in found}


def group_size(rest: str, devices: int) -> int:
    """Return the number of devices in a collective, from the replica groups in `rest`; `devices` if it has none."""
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(match[2])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    return devices


def collectives(text: str, devices: int) -> list[Collective]:
    """Return the collectives in the HLO text of a program for `devices` devices, largest wire_bytes first.

    On TPUs, several fusions can start, continue and end one collective, which counts once.
    """
    found, entry = computations(text)
    times, seen = runs(found, entry), set()
    fused = {name for inside in found.values() for one in inside if one.operation == "fusion" for name in called(one)}
    made = []
    for name, instruction in sorted(
        ((name, one) for name, inside in found.items() for one in inside), key=lambda pair: pair[0] in fused
    ):
        kind, key = instruction.operation.removesuffix("-start"), identity(instruction)
        is_send = kind == BETWEEN_SLICES and "is_host_transfer=true" in instruction.rest
        if not (kind in COLLECTIVES or is_send) or times[name] == 0 or (name in fused and key in seen):
            continue
        seen |= {key} - {None}
        made.append(collective_of(name, instruction, times[name], devices))
    return sorted(made, key=lambda one: -one.wire_bytes)


def collective_of(name: str, instruction: Instruction, times: int, devices: int) -> Collective:
    """Return the collective of an instruction, in the computation `name` that runs `times` times per step."""
    kind = instruction.operation.removesuffix("-start")
    group = group_size(instruction.rest, devices)
    source = re.search(r'op_name="([^"]*)"', instruction.rest)
    arrays = results(instruction, kind)
    size = sum(map(byte_count, arrays))
    if kind == "all-reduce" and "all-reduce-scatter" in name:
        kind = "reduce-scatter"  # on TPUs: a fusion that keeps only the device's part of the sum
    elif kind == "reduce-scatter":
        size *= group
    largest = max(arrays, key=byte_count, default="")
    return Collective(kind, size, group, times, largest, source[1] if source else "")


def identity(instruction: Instruction) -> tuple[str, ...] | None:
    """Return a key that is equal for all fusions that XLA split one collective into; None if the instruction has no
    channel id. The channel id alone does not identify it: all collectives of a JAX shard_map have the same one."""
    if not (channel := re.search(r"channel_id=\d+", instruction.rest)):
        return None
    who = re.search(r"(?:replica_groups|source_target_pairs)=.*?(?=, \w|$)", instruction.rest)
    origin = re.search(r"metadata=\{[^}]*\}", instruction.rest)
    return tuple(one[0] if one else "" for one in (channel, who, origin))


def results(instruction: Instruction, kind: str) -> list[str]:
    """Return the HLO types of a collective's results. A start instruction also returns its operands, first."""
    arrays = [f"{name}[{dims}]" for name, dims in SHAPE.findall(instruction.type)]
    if kind == BETWEEN_SLICES:
        return arrays[:1]
    if instruction.operation.endswith("-start"):
        if kind == "collective-permute":
            return arrays[1:2]
        if kind in ("all-gather", "reduce-scatter", "all-to-all"):
            return arrays[len(arrays) // 2 :]
    return arrays


def kernels(text: str) -> list[str]:
    """Return the sorted names of hand-written kernels in a program's HLO text, such as "splash_mha_fwd"."""
    names = (match[1] for line in text.splitlines() if KERNEL.search(line) and (match := INSTRUCTION.match(line)))
    return sorted({re.sub(r"[.\d]+$", "", name) for name in names})


ASYNC_CALLS = ("async-start", "call-start")
"""Instructions that start a computation next to the following ones, the second on a TPU's SparseCore."""
TPU_START, TPU_DONE = '"AsyncCollectiveStart"', '"AsyncCollectiveDone"'


@dataclass(frozen=True)
class Overlap:
    """A device's communication per step, and how much of it overlaps with computation."""

    bytes: float
    """Bytes sent, by the ring algorithms (Collective.wire_bytes)."""
    overlapped_bytes: float
    """Bytes of the collectives that overlap completely."""
    exposed_seconds: float
    """Time that computation waits for communication, at the links' rated speed."""

    @property
    def share(self) -> float:
        return self.overlapped_bytes / self.bytes if self.bytes else 1.0


def overlap_of(text: str, devices: int, chip: Chip) -> Overlap:
    """Return how much communication within a slice overlaps with computation, from the HLO text of a program."""
    total = overlapped = exposed = 0.0
    for one, left in Schedule(text, devices, chip).collectives():
        total += one.wire_bytes
        overlapped += one.wire_bytes if left <= 0 else 0.0
        exposed += one.times * max(left, 0.0)
    return Overlap(total, overlapped, exposed)


class Schedule:
    """The instructions of a compiled program in the order in which a device runs them, with estimates of their time."""

    def __init__(self, text: str, devices: int, chip: Chip):
        self.found, entry = computations(text)
        self.times = runs(self.found, entry)
        self.devices, self.chip = devices, chip
        self.types = {name: {one.name: one.type for one in inside} for name, inside in self.found.items()}
        fusions = [one for inside in self.found.values() for one in inside if one.operation in ("fusion", *ASYNC_CALLS)]
        self.fused = {name for one in fusions for name in called(one)}
        self.flops = functools.cache(self.count_flops)

    def collectives(self) -> Iterator[tuple[Collective, float]]:
        """Yield (collective, seconds of its transfer that do not overlap with computation)."""
        for name, inside in self.found.items():
            if not self.times.get(name) or name in self.fused:
                continue
            under_way: dict[str, tuple[Collective, float]] = {}
            for instruction in inside:
                one, role = self.role(name, instruction)
                if role == "done":
                    # Its start is an operand or, on TPUs, has the same name with start instead of done.
                    starts = [*operands(instruction.rest), instruction.name.replace("-done", "-start")]
                    begun = next((key for key in starts if key in under_way), None)
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
        """Return (collective that an instruction runs or starts, else None; "start", "done", or "" if it does not start
        or end one)."""
        operation = instruction.operation
        if operation.endswith("-done"):
            return None, "done"
        if operation.removesuffix("-start") in COLLECTIVES:
            one = collective_of(name, instruction, self.times[name], self.devices)
            return one, "start" if operation.endswith("-start") else ""
        if operation not in ("fusion", *ASYNC_CALLS):
            return None, ""
        for inner in called(instruction):
            parts = self.found.get(inner, [])
            if any(TPU_DONE in one.rest for one in parts):
                return None, "done"
            starts = operation in ASYNC_CALLS or any(TPU_START in one.rest for one in parts)
            for one in parts:
                if one.operation in COLLECTIVES and (starts or "all-reduce-scatter" in inner):
                    made = collective_of(inner, one, self.times[name], self.devices)
                    return made, "start" if starts else ""
        return None, ""

    def count_flops(self, name: str, instruction: Instruction) -> float:
        """Return the FLOPs of the matrix products in an instruction of the computation `name`; for a loop, of all
        iterations."""
        if instruction.operation in ("fusion", "call", "while", "conditional"):
            inner = [sum(self.flops(one, part) for part in self.found.get(one, [])) for one in called(instruction)]
            if instruction.operation == "while":
                return trip_count(instruction, self.found, self.found[name]) * sum(inner)
            return min(inner, default=0.0) if instruction.operation == "conditional" else sum(inner)
        shape_of = lambda type: dimensions(found[2]) if (found := SHAPE.search(type)) else []
        shapes = [shape_of(self.types[name].get(one, "")) for one in operands(instruction.rest)]
        sums = summed_elements(instruction, shapes)
        return 2.0 * math.prod(shape_of(instruction.type)) * sums if sums else 0.0


def operands(rest: str) -> list[str]:
    """Return the names of an instruction's operands. `rest` is its text after "operation("."""
    depth, end = 1, len(rest)
    for place, letter in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            end = place
            break
    return re.findall(r"%([\w.\-]+)", rest[:end])


def summed_elements(instruction: Instruction, shapes: list[list[int]]) -> int:
    """Return the size of a matrix product's contracted dimensions, given its operands' shapes ([] if unknown); else
    0."""
    if instruction.operation == "convolution":  # TPUs compile matrix products to convolutions
        labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.rest)
        return shapes[1][labels[1].index("i")] if labels and any(shapes[1:2]) else 0
    if instruction.operation == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
    elif instruction.operation == "custom-call" and "__cublas$" in instruction.rest:
        axes = re.search(r'lhs_contracting_dimensions":\[([\d,"]*)\]', instruction.rest)
    else:
        return 0
    return math.prod(shapes[0][int(one)] for one in re.findall(r"\d+", axes[1])) if axes and shapes[0] else 0
