"""What each cloud calls the hardware that lm.planning.topology names, and how many hosts it has.

TPU VMs: docs.cloud.google.com/tpu/docs (the pages v4, v5e, v5p, v6e, tpu7x and runtimes). GKE: labels and chips a
machine by docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus and .../concepts/gpus, beside
github.com/AI-Hypercomputer/xpk, system_characteristics.py. SkyPilot: docs.skypilot.co/en/latest/reference/tpu.html.
All read as stored copies in November 2026.
"""

import math
from dataclasses import dataclass

from lm.errors import UsageError
from lm.planning.topology import GPU_NODE, SHAPES, Topology

TPU_HOST = 4
"""Chips of a TPU host, where a slice has several."""
ONE_HOST = 8
"""Chips of the largest slice of v5e and v6e that is one host."""


@dataclass(frozen=True)
class TpuNames:
    accelerator_type: str
    """gcloud's, before the number of a slice."""
    runtime: str
    """Its runtime version, which is the VM's image."""
    gke: str
    """GKE's label cloud.google.com/gke-tpu-accelerator."""


# gcloud's names of tpu7x are those of public projects that use it; the page about it was not at hand.
TPUS = {
    "v4": TpuNames("v4", "tpu-ubuntu2204-base", "tpu-v4-podslice"),
    "v5e": TpuNames("v5litepod", "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice"),
    "v5p": TpuNames("v5p", "v2-alpha-tpuv5", "tpu-v5p-slice"),
    "v6e": TpuNames("v6e", "v2-alpha-tpuv6e", "tpu-v6e-slice"),
    "tpu7x": TpuNames("tpu7x", "v2-alpha-tpu7-ubuntu2404", "tpu7x"),
}
GKE_GPUS = {"h100": "nvidia-h100-80gb", "h200": "nvidia-h200-141gb", "b200": "nvidia-b200"}
"""GKE's label cloud.google.com/gke-accelerator. The a3-megagpu machines have nvidia-h100-mega-80gb."""


def is_tpu(topology: Topology) -> bool:
    return bool(topology.chip.torus)


def chips_per_host(topology: Topology) -> int:
    """Chips or GPUs that one host has of a slice, or of all."""
    if not is_tpu(topology):
        return topology.shape[-1]
    of_slice = math.prod(topology.shape)
    return of_slice if topology.chip.torus == 2 and of_slice <= ONE_HOST else min(of_slice, TPU_HOST)


def hosts_per_slice(topology: Topology) -> int:
    """Hosts of a TPU slice; of GPUs, all nodes."""
    return math.prod(topology.shape) // chips_per_host(topology)


def hosts(topology: Topology) -> int:
    return topology.slices * hosts_per_slice(topology)


def slice_shape(topology: Topology) -> str:
    """2x4x4 of v5p:4x4x2 too: GKE's label gke-tpu-topology has each shape in one order alone, that of its tables."""
    known = SHAPES[topology.chip.torus].values()
    return "x".join(str(size) for shape in known if sorted(shape) == sorted(topology.shape) for size in shape)


def accelerator_type(topology: Topology) -> str:
    """gcloud's name of one slice: v5p-64 for 32 chips, since it counts their cores. Raises UsageError for GPUs."""
    if not is_tpu(topology):
        raise UsageError(
            f"{topology.name} are GPUs, but TPU VMs have TPUs. Choose one such as v6e:2x4 or v5p:4x4x2; for GPUs there "
            "are launch.cloud.gke, launch.cloud.slurm and launch.cloud.skypilot."
        )
    chip = topology.chip
    return f"{TPUS[chip.name].accelerator_type}-{math.prod(topology.shape) * chip.named_by}"


def sky_accelerator(topology: Topology) -> str:
    """SkyPilot's name for the accelerators of one of its nodes: tpu-v5p-64, H100:8. Raises UsageError for several
    slices, which it cannot join, and for tpu7x, which it did not know in version 0.14.1."""
    if not is_tpu(topology):
        return f"{topology.chip.name.upper()}:{min(topology.chips, GPU_NODE)}"
    if topology.slices > 1 or topology.chip.name == "tpu7x":
        raise UsageError(
            f"SkyPilot has no {topology.name}: it knows single slices of v4, v5e, v5p and v6e. Use launch.cloud.tpu_vm "
            "or launch.cloud.gke."
        )
    return f"tpu-{accelerator_type(topology)}"
