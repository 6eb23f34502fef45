"""Accelerators that a plan can be made for, by their names in clouds. Does not import JAX.

v5e:4x4      a TPU slice by its shape          2xv6e:16x16   two slices, joined by the data-center network
v5p-512      by its name, which counts cores   h100:32       GPUs, eight to a node
"""

import difflib
import math
import re
from dataclasses import dataclass

from lm.errors import UsageError, shown
from lm.gpu_memory import GPU_MEMORY
from lm.metrics.hardware import GPUS

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Specifications of a chip, from its manufacturer."""

    name: str
    """Name in a topology."""
    flops: float
    """FLOP/s of dense bfloat16 matrix products."""
    memory: int
    """Bytes of device memory: of a TPU, what a program can use; of a GPU, all of it."""
    memory_rate: float
    """Bytes/s between the chip and its memory."""
    link_rate: float
    """Bytes/s to its neighbors, over all links, one way: ICI of TPUs; NVLink, Infinity Fabric or PCIe of GPUs."""
    network_rate: float
    """Bytes/s beyond its slice or node: its share of the host's network."""
    torus: int = 0
    """Dimensions of the torus that slices are part of; 0 for GPUs."""
    named_by: int = 1
    """Units per chip in names such as v5p-512: 2 if the number there counts cores, 1 if it counts chips."""
    devices: int = 1
    """JAX devices per chip: 2 if each core is a device."""
    libtpu: str = ""
    """libtpu's name of the chip."""
    most: int = 6144
    """Chips of the largest slice."""
    capability: tuple[int, int] = (0, 0)
    """CUDA compute capability of NVIDIA's GPUs (developer.nvidia.com/cuda-gpus)."""


GPU_NODE = 8
"""GPUs per node."""

# TPUs: docs.cloud.google.com/tpu/docs, the pages v4, v5e, v5p, v6e and tpu7x, read in November 2026. "Bidirectional ICI
# bandwidth" there counts both directions; this table has half of it. The data-center network is 50 Gbit/s per chip for
# v5p, 2 x 100 for the 8 chips of a v5e host, and 100 per chip for v6e and tpu7x. The page of v4 has neither: six links
# of 50 GB/s (arXiv:2304.01433), and the network of v5p, which is a guess. Memory of v5e, v5p and v6e is what libtpu
# 0.0.52 allows a program ("Used ... of ... hbm"); for the others, the page's figure.
# GPUs: NVIDIA's data sheets of H100, H200, DGX B200, A100 80GB (SXM) and L40S, and AMD's of Instinct MI300X, which has
# seven links of 64 GB/s one way. An L40S is linked only by PCIe 4.0 x16. The network is one port of 400 Gbit/s per GPU,
# as in NVIDIA's DGX and in Azure's ND MI300X v5; 200 for the A100, as in the DGX A100; 50 for the L40S, as in Amazon's
# g6e.48xlarge.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * GIB, 1200e9, 300e9, 6.25e9, 3, named_by=2, libtpu="v4", most=4096),
        Chip("v5e", 197e12, int(15.75 * GIB), 819e9, 200e9, 3.125e9, 2, libtpu="v5e"),
        Chip("v5p", 459e12, int(95.74 * GIB), 2765e9, 600e9, 6.25e9, 3, named_by=2, libtpu="v5p"),
        Chip("v6e", 918e12, int(31.25 * GIB), 1638e9, 400e9, 12.5e9, 2, libtpu="v6e"),
        Chip("tpu7x", 2307e12, 192 * GIB, 7380e9, 600e9, 12.5e9, 3, named_by=2, devices=2, libtpu="tpu7x"),
        Chip("h100", GPUS["H100"], 80 * 10**9, 3350e9, 450e9, 50e9, capability=(9, 0)),
        Chip("h200", GPUS["H200"], 141 * 10**9, 4800e9, 450e9, 50e9, capability=(9, 0)),
        Chip("b200", GPUS["B200"], 180 * 10**9, 8000e9, 900e9, 50e9, capability=(10, 0)),
        Chip("a100", GPUS["A100"], 80 * 10**9, 2039e9, 300e9, 25e9, capability=(8, 0)),
        Chip("l40s", GPUS["L40S"], 48 * 10**9, 864e9, 32e9, 6.25e9, capability=(8, 9)),
        Chip("mi300x", GPUS["MI300X"], 192 * 10**9, 5300e9, 448e9, 50e9),
    )
}
ALIASES = {"trillium": "v6e", "ironwood": "tpu7x", "v7x": "tpu7x", "v5litepod": "v5e"}
SLICES = {
    2: "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16",
    3: "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16 16x16x24",
}
"""{dimensions of the torus: shapes of the available slices} (the same pages)."""
SHAPES = {
    torus: {math.prod(shape): shape for shape in (tuple(map(int, one.split("x"))) for one in shapes.split())}
    for torus, shapes in SLICES.items()
}
"""{dimensions of the torus: {number of chips: shape of the slice}}."""


@dataclass(frozen=True)
class Topology:
    """Accelerators of one kind and their arrangement: slices of TPUs, or nodes of GPUs."""

    chip: Chip
    shape: tuple[int, ...]
    """Shape of a TPU slice; for GPUs, (nodes, GPUs per node)."""
    slices: int = 1

    @property
    def name(self) -> str:
        """Name such as "2xv6e:16x16" or "h100:32", which `topology_of` parses."""
        if not self.chip.torus:
            return f"{self.chip.name}:{self.chips}"
        slices = f"{self.slices}x" if self.slices > 1 else ""
        return f"{slices}{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return self.chips * self.chip.devices

    @property
    def device_memory(self) -> int:
        """Bytes of memory that a program can use on one JAX device. `Chip.memory` of a TPU is already that; of a GPU,
        training allocates the fraction GPU_MEMORY."""
        return int(self.chip.memory // self.chip.devices * (1 if self.chip.torus else GPU_MEMORY))


NAME = r"(?:([1-9]\d{0,4}) ?x ?)?([a-z][a-z0-9]{0,19}?)(?:[:-](\d{1,6}(?:x\d{1,3}){0,3}))?"
"""Matches the name of a topology: number of slices, chip, and shape or number."""


def topology_of(name: str) -> Topology:
    """Parse a topology's name, such as "v5e:4x4", "v5p-512", "2xv6e-256" or "h100:8". Raises UsageError if there is no
    such topology."""
    match = re.fullmatch(NAME, name.strip().lower())
    slices, kind, size = match.groups() if match else (None, "", None)
    chip = CHIPS.get(ALIASES.get(kind, kind))
    if match is None or chip is None:
        near = difflib.get_close_matches(kind, [*CHIPS, *ALIASES], 1)
        raise UsageError(
            f"There is no topology {shown(name)}. {f'Did you mean {near[0]}? ' if near else ''}Give a chip "
            f"({', '.join(CHIPS)}; {', '.join(f'{alias} is {of}' for alias, of in ALIASES.items())}) with the shape of "
            "a slice, its name, or a number of GPUs: v5e:4x4, v5p-512, 2xv6e-256, h100:8."
        )
    times, has_shape = int(slices or 1), size is not None and "x" in size
    known = {count: shape for count, shape in SHAPES.get(chip.torus, {}).items() if count <= chip.most}
    if chip.torus and size and has_shape:
        shape = tuple(map(int, size.split("x")))
        if sorted(shape) not in map(sorted, known.values()):
            some = ", ".join("x".join(map(str, one)) for one in known.values())
            raise UsageError(f"The topology {shown(name)} has a shape that {chip.name} lacks. Choose one of {some}.")
        return Topology(chip, shape, times)
    if has_shape:
        raise UsageError(f"The topology {shown(name)} has a shape; for GPUs, give a number: {chip.name}:16.")
    if chip.torus:
        count = int(size or 0)
        if count % chip.named_by or count // chip.named_by not in known:
            counts = ", ".join(f"{chip.name}-{chips * chip.named_by}" for chips in known)
            counted = f" (the number counts cores, {chip.named_by} to a chip)" if chip.named_by > 1 else ""
            raise UsageError(f"There is no slice {shown(name)}{counted}. There are {counts}; or give a shape.")
        return Topology(chip, known[count // chip.named_by], times)
    count = times * int(size or 1)
    if count < 1 or (count > GPU_NODE and count % GPU_NODE):
        raise UsageError(
            f"The topology {shown(name)} asks for {count:,} GPUs. Give 1 to {GPU_NODE}, or a multiple of {GPU_NODE}: "
            f"{chip.name}:32."
        )
    return Topology(chip, (max(1, count // GPU_NODE), min(count, GPU_NODE)))
