"""Names of the hardware of lm.planner.topology in each cloud, and numbers of hosts.

From docs.cloud.google.com/tpu/docs (queued-resources: tpu7x is on GKE only) and /kubernetes-engine/docs/concepts, xpk's
system_characteristics.py, docs.skypilot.co/en/latest/reference/tpu.html (0.14.1): stored copies of November 2026.
"""

import math
from typing import NamedTuple

from lm.errors import UsageError
from lm.planner.topology import Topology


class Names(NamedTuple):
    """Names of one kind of chip in each launch.cloud script; "" if the cloud does not offer the chip. In a name such as
    "v5p-{}", {} stands for a number: the size of a TPU slice (v5p-64 has 64 cores, 32 chips), or the GPUs of a node."""

    gke: str  # label gke-tpu-accelerator or gke-accelerator
    skypilot: str
    tpu_vm: str = ""  # gcloud's accelerator type
    runtime: str = ""  # gcloud's runtime version, the image of TPU VMs
    slurm: str = ""


NAMES = {
    "v4": Names("tpu-v4-podslice", "tpu-v4-{}", "v4-{}", "tpu-ubuntu2204-base"),
    "v5e": Names("tpu-v5-lite-podslice", "tpu-v5litepod-{}", "v5litepod-{}", "v2-alpha-tpuv5-lite"),
    "v5p": Names("tpu-v5p-slice", "tpu-v5p-{}", "v5p-{}", "v2-alpha-tpuv5"),
    "v6e": Names("tpu-v6e-slice", "tpu-v6e-{}", "v6e-{}", "v2-alpha-tpuv6e"),
    "tpu7x": Names("tpu7x", ""),
    "h100": Names("nvidia-h100-80gb", "H100:{}", slurm="{}"),  # on a3-megagpu machines nvidia-h100-mega-80gb
    "h200": Names("nvidia-h200-141gb", "H200:{}", slurm="{}"),
    "b200": Names("nvidia-b200", "B200:{}", slurm="{}"),
    "a100": Names("nvidia-a100-80gb", "A100-80GB:{}", slurm="{}"),
    "l40s": Names("", "L40S:{}", slurm="{}"),
}


def accelerator(topology: Topology, cloud: str) -> str:
    """Return what the launch.cloud script `cloud` calls a TPU slice or a GPU node, such as "v5p-64" or "H100:8". Raises
    UsageError if that cloud does not offer it, and for several slices on SkyPilot."""
    offered = [chip for chip, names in NAMES.items() if getattr(names, cloud)]
    if topology.chip.name not in offered or (cloud == "skypilot" and topology.slices > 1):
        raise UsageError(
            f"The topology is {topology.name}, but launch.cloud.{cloud} has {', '.join(offered)}"
            f"{' (one slice)' * (cloud == 'skypilot')}. Choose one of these with --topology, or another script of "
            "launch.cloud (gke, skypilot, slurm, tpu_vm)."
        )
    number = math.prod(topology.shape) * topology.chip.named_by if topology.chip.torus else topology.shape[-1]
    return getattr(NAMES[topology.chip.name], cloud).format(number)


def hosts_of(topology: Topology) -> tuple[int, int]:
    """Return (number of hosts, chips per host). The hosts are those of one TPU slice, or of all GPUs. A TPU host has 4
    chips, but a v5e or v6e slice of at most 8 chips is one host."""
    chips = math.prod(topology.shape)
    of_host = min(chips, 4 if topology.chip.torus == 3 or (topology.chip.torus == 2 and chips > 8) else 8)
    return chips // of_host, of_host
