"""XLA's compilers for hardware that is not present: libtpu for TPUs, JAX's CUDA packages for NVIDIA GPUs."""

import fcntl
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lm.errors import InputError, UsageError
from lm.planner.topology import Chip, Topology

if TYPE_CHECKING:
    import jax

LIBRARY = "libtpu.so"
FETCHED = Path(__file__).parents[2] / ".tools" / "libtpu" / "libtpu" / LIBRARY
"""Download location of `make libtpu`: outside of the environment, where JAX would look for TPUs at every start."""
LOCK = Path(tempfile.gettempdir()) / "gristmill-libtpu.lock"


def find_libtpu() -> Path:
    """Return the path of libtpu.so: TPU_LIBRARY_PATH, the one of `make libtpu`, or a package. Raises UsageError."""
    if given := os.environ.get("TPU_LIBRARY_PATH"):
        if not Path(given).is_file():
            raise UsageError(
                f"TPU_LIBRARY_PATH is {given}, which is not a file. Unset it, or give the path of {LIBRARY}."
            )
        return Path(given)
    if FETCHED.is_file():
        return FETCHED
    spec = importlib.util.find_spec("libtpu")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / LIBRARY).is_file():
            return Path(folder) / LIBRARY
    raise UsageError(
        "Compiling for TPUs needs libtpu. Download it with `make libtpu` (200 MB), or set TPU_LIBRARY_PATH to the "
        f"path of {LIBRARY}."
    )


TURN: list[IO] = []
"""The lock for libtpu if this process has taken it; it is held until the process ends."""


def wait_for_turn(say: Callable[[str], None], lock: Path = LOCK) -> None:
    """Take the machine-wide lock for libtpu, and hold it until this process ends, because two processes at once make
    libtpu fail. `say` reports it if another process has the lock. Raises InputError if the lock's file cannot be
    opened."""
    if TURN:
        return
    try:
        handle = lock.open("a")
    except OSError as error:
        raise InputError(f"{lock} cannot be opened: {error.strerror}. Remove that file, or set TMPDIR.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another process that compiles for TPUs, because libtpu allows one at a time")
        fcntl.flock(handle, fcntl.LOCK_EX)
    TURN.append(handle)


def prepare(library: Path, say: Callable[[str], None] = print) -> None:
    """Make JAX compile with the libtpu at `library` for TPUs that are not present, and use the CPU for everything else.
    Call before JAX starts. Waits for other processes that use libtpu."""
    wait_for_turn(say)
    os.environ["TPU_LIBRARY_PATH"] = str(library)
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Do not query a cloud metadata server about this machine, and avoid libtpu's warnings about missing answers.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0", "TPU_MIN_LOG_LEVEL": "3",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # next to a run that uses this machine's TPUs; wait_for_turn is enough
    }  # fmt: skip


def topology_devices(topology: Topology) -> "list[jax.Device]":
    """Return JAX devices of a TPU topology, which need not be present. Raises UsageError if libtpu does not know it."""
    from jax.experimental import topologies

    shape = "x".join(map(str, topology.shape))
    options = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{topology.chip.libtpu}:{shape}", **options)
    except Exception as error:
        reason = str(error).splitlines()[0]
        if "Failed to open" in reason:
            raise UsageError(
                f"libtpu cannot be loaded: {reason}. Unset TPU_LIBRARY_PATH and run `make libtpu`."
            ) from error
        raise UsageError(f"libtpu knows no {topology.name}: {reason}. Choose another shape.") from error
    return list(found.devices)


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
    """Return whether JAX's CUDA packages are installed (make setup ACCELERATOR=cuda12 or cuda13)."""
    try:
        return any(importlib.util.find_spec(name) is not None for name in PLUGINS)
    except ModuleNotFoundError:  # no plugins of any kind
        return False


def prepare_cuda() -> None:
    """Make JAX load its CUDA packages without a GPU driver, and run programs on the CPU. Call before JAX starts."""
    os.environ["JAX_PLATFORMS"] = "cpu,cuda"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it would query the driver's version
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hide the error that there is no GPU


def target_config(chip: Chip) -> str:
    """Return XLA's description of a GPU, a GpuTargetConfigProto in text format."""
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
    """Return JAX devices for nodes of NVIDIA GPUs, which need not be present."""
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
