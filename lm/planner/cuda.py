"""XLA's compiler for NVIDIA GPUs that are not present: needs only JAX's CUDA packages, no driver and no GPU."""

import importlib.util
import os
from typing import TYPE_CHECKING

from lm.planning.topology import Chip, Topology

if TYPE_CHECKING:
    import jax

PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
CORES = {
    "a100": (108, 41_943_040), "l40s": (142, 100_663_296), "h100": (132, 52_428_800), "h200": (132, 52_428_800),
    "b200": (148, 132_644_864),
}  # fmt: skip
"""{chip: (streaming multiprocessors, bytes of L2 cache)}, from openxla/xla (xla/backends/gpu/target_config); for the
L40S, from NVIDIA's whitepaper on the Ada architecture."""
HOPPER = (2048, 233_472, 232_448, 128, 1.98)
LIMITS = {
    (8, 0): (2048, 167_936, 166_912, 64, 1.41), (8, 9): (1536, 102_400, 101_376, 128, 2.52), (9, 0): HOPPER,
    (10, 0): HOPPER,
}  # fmt: skip
"""{CUDA compute capability: (threads and bytes of shared memory per multiprocessor, bytes of it available to a block,
float32 units, GHz)}, from the CUDA C++ Programming Guide (table of technical specifications); clocks are NVIDIA's boost
clocks."""


def has_cuda() -> bool:
    """Whether JAX's CUDA packages are installed (make setup ACCELERATOR=cuda12 or cuda13)."""
    try:
        return any(importlib.util.find_spec(name) is not None for name in PLUGINS)
    except ModuleNotFoundError:  # no plugins of any kind
        return False


def prepare_cuda() -> None:
    """Let JAX load its CUDA packages without a driver, and run programs on the CPU. Call before JAX starts."""
    os.environ["JAX_PLATFORMS"] = "cpu,cuda"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it would query the driver's version
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hide the error that there is no GPU


def target_config(chip: Chip) -> str:
    """XLA's description of a GPU, a GpuTargetConfigProto in text format."""
    cores, cache = CORES[chip.name]
    threads, shared, of_block, units, clock = LIMITS[chip.capability]
    major, minor = chip.capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {threads}
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} shared_memory_per_block_optin: {of_block}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: {cores} fpus_per_core: {units} clock_rate_ghz: {clock} l2_cache_size: {cache}
  memory_bandwidth: {int(chip.memory_rate)} device_memory_size: {chip.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "NVIDIA {chip.name.upper()}, cuda {major}.{minor}"
"""


def cuda_devices(topology: Topology) -> "list[jax.Device]":
    """Devices of GPU nodes, which need not be present."""
    from jax._src.cudnn import fused_attention_stablehlo as fused_attention
    from jax.experimental import topologies

    # While tracing cuDNN's attention, JAX queries the capability of this process's GPU, which may not exist.
    able = lambda least: topology.chip.capability >= tuple(map(int, least.split(".")))
    fused_attention.check_compute_capability = able  # ty: ignore[invalid-assignment]
    nodes, of_node = topology.shape
    found = topologies.get_topology_desc(
        topology_name="", platform="cuda", topology=f"1x{nodes}x{of_node}", target_config=target_config(topology.chip)
    )
    return list(found.devices)
