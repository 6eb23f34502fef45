"""Layouts: hardware and parallelism of each model, one row per model and kind of hardware.

A config names its default row, whose fields are copied to the experiment; `--train.layout v6e:8x8` selects another, and
explicit options (`--train.micro-batches 8`) override it. docs/scale.md has the compiler's figures for every row; none
has been run on real accelerators. Does not import JAX.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from lm.config import MeshConfig, ModelConfig, TrainConfig
from lm.config.remat import RematName, Tensor
from lm.errors import UsageError, shown
from lm.planner.topology import Topology, topology_of


@dataclass(frozen=True)
class Layout:
    """A row of the table LAYOUTS: hardware, parallelism and memory settings for training one model. Learning rate and
    batch size come from the experiment and are the same on all hardware."""

    model: str
    """Name of the config in configs/, such as llama3_8b."""
    topology: str
    """Hardware as for launch.plan --topology, such as v5p:4x4x2 or h100:8."""
    mesh: MeshConfig
    micro_batches: int
    """Number of parts of a batch (train.micro_batches)."""
    remat: RematName
    mfu: float
    """Model FLOPs utilization for estimates of training time: assumed from published figures, not measured here."""
    scan_layers: bool = True
    remat_keep: tuple[Tensor, ...] = ()
    remat_offload: tuple[Tensor, ...] = ()
    loss_chunks: int = 8
    """Number of chunks of the sequence in the loss (train.loss_chunks)."""
    xla_options: tuple[str, ...] = ()
    """XLA options to compile the step with (train.xla_options), in plans and in training."""
    no_xla_options: str = ""
    """Why a TPU row has no xla_options."""

    @property
    def name(self) -> str:
        """Value of train.layout for this row, such as "llama3_8b/v5p:4x4x2"."""
        return f"{self.model}/{self.topology}"

    def of(self, model: ModelConfig, train: TrainConfig) -> tuple[ModelConfig, TrainConfig]:
        """Return copies of both configs with the values of this row."""
        fields = ("mesh", "micro_batches", "remat", "remat_keep", "remat_offload", "loss_chunks", "xla_options")
        own = {name: getattr(self, name) for name in fields}
        model = dataclasses.replace(model, scan_layers=self.scan_layers)
        return model, dataclasses.replace(train, layout=self.name, **own)


def fsdp(devices: int, **others: Any) -> MeshConfig:
    return MeshConfig(fsdp=devices, **others)


ONE_COPY = MeshConfig()
"""Every device has the whole model (data parallelism)."""

GPU_OVERLAP = (
    "xla_gpu_enable_latency_hiding_scheduler=true",
    "xla_gpu_experimental_parallel_collective_overlap_limit=4",
    "xla_gpu_pipeline_all_gather=COLLECTIVE_PIPELINING_MODE_ON",
    "xla_gpu_pipeline_reduce_scatter=COLLECTIVE_PIPELINING_MODE_ON",
    "xla_gpu_enable_while_loop_double_buffering=false",
)
"""Overlap the all-gather of a layer's weights, and the reduce-scatter of its gradients, with the layer before or after
it. From NVIDIA's flags for language models (JAX-Toolbox, docs/GPU_performance.md)."""

V5E_OVERLAP = (
    "xla_tpu_enable_async_collective_fusion=true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter=true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps=true",
    "xla_tpu_overlap_compute_collective_tc=true",
    "xla_enable_async_all_gather=true",
    "xla_enable_async_reduce_scatter_fusion=true",
    "xla_tpu_scoped_vmem_limit_kib=20480",
)
"""Overlap gathers and scatters with matrix products, by MaxText's flags (AI-Hypercomputer/maxtext, benchmarks/
xla_flags_library.py, CF_FOR_ALL_GATHER) and those for scatters, which need more than the 16 MiB of vector memory that
libtpu allows by default. libtpu 0.0.50.1 refuses this fusion on chips other than v5e."""
SPARSECORE_OVERLAP = (
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather=false",
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce=false",
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter=false",
    "xla_tpu_enable_sparse_core_collective_offload_all_gather=true",
    "xla_tpu_enable_sparse_core_collective_offload_2d_all_gather=true",
    "xla_tpu_enable_sparse_core_collective_offload_3d_all_gather=true",
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=true",
    "xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter=true",
    "xla_tpu_enable_sparse_core_collective_offload_all_reduce=true",
    "xla_tpu_use_tc_device_shape_on_sc=true",
    "xla_sc_enable_instruction_fusion=false",
    "xla_sc_disable_megacore_partitioning=true",
)
"""Run gathers and scatters on the SparseCores of v5p and v6e, next to matrix products. From MaxText's flags for v6e
(ENABLE_SPARSECORE_OFFLOADING_FOR_RS_AG_AR, same file), with those for several axes of the torus."""
UNTRIED = "Not yet compiled with V5E_OVERLAP (v5e) or SPARSECORE_OVERLAP (v5p, v6e); try them with --train.xla-options."
NO_GAIN = "With V5E_OVERLAP 58 % of the bytes overlap, as without options."
REPLICATED = "Weights are not gathered; only gradients are exchanged, once a step."

# Sources of MFU: GPT-2: llm.c's report for 1.6B on eight H100 (karpathy/llm.c, discussion 677: about half of the peak);
# Llama 3 on TPUs: at most MaxText's reports for v6e (8B 45 %, 70B 50 %, 405B 39 %) and v5p (65 % for Llama 2 70B); on
# H100: the training of Llama 3 (arXiv:2407.21783, table 4: 38 to 43 %).
LAYOUTS = {
    row.name: row
    for row in (
        Layout("gpt2_124m", "h100:1", ONE_COPY, 8, "none", 0.45, scan_layers=False),
        Layout("gpt2_124m", "v5e:2x2", ONE_COPY, 2, "none", 0.40, scan_layers=False, no_xla_options=REPLICATED),
        Layout("gpt2_124m", "v6e:2x4", ONE_COPY, 1, "none", 0.35, scan_layers=False, no_xla_options=REPLICATED),
        Layout("gpt2_355m", "h100:8", ONE_COPY, 1, "none", 0.45, scan_layers=False),
        Layout("gpt2_355m", "v5e:4x4", ONE_COPY, 4, "minimal_with_context", 0.40, no_xla_options=REPLICATED),
        Layout("gpt2_774m", "h100:8", fsdp(8), 2, "minimal_with_context", 0.45),
        Layout("gpt2_774m", "v5e:4x4", fsdp(16), 4, "minimal", 0.40, no_xla_options=NO_GAIN),
        Layout("gpt2_1558m", "h100:8", fsdp(8), 8, "minimal_with_context", 0.50, xla_options=GPU_OVERLAP),
        Layout("gpt2_1558m", "v5e:4x4", fsdp(16), 8, "full", 0.40, no_xla_options=UNTRIED),
        Layout("modern_124m", "h100:1", ONE_COPY, 8, "none", 0.45, scan_layers=False),
        Layout("modern_124m", "v6e:2x4", ONE_COPY, 1, "none", 0.35, scan_layers=False, no_xla_options=REPLICATED),
        Layout("llama3_1b", "v6e:2x4", fsdp(8), 32, "save_qkv_proj", 0.40, no_xla_options=UNTRIED),
        Layout("llama3_8b", "v5p:4x4x2", fsdp(32), 8, "minimal_with_context", 0.50, xla_options=SPARSECORE_OVERLAP),
        Layout("llama3_8b", "v6e:8x8", fsdp(64), 4, "save_qkv_proj", 0.45, no_xla_options=UNTRIED),
        Layout("llama3_8b", "h100:32", fsdp(32), 8, "save_dot_with_context_except_mlp", 0.40, xla_options=GPU_OVERLAP),
        Layout("llama3_8b", "h100:64", fsdp(64), 4, "save_dot_with_context_except_mlp", 0.40, xla_options=GPU_OVERLAP),
        # Each node has a copy of the parameters: weights are gathered over NVLink, and nodes exchange only gradients.
        Layout("llama3_8b", "h100:512", fsdp(8, zero1=True), 1, "minimal_with_context", 0.40),
        Layout("llama3_8b", "h100:1024", fsdp(4, tensor=2, zero1=True), 1, "minimal_with_context", 0.40),
        Layout("llama3_70b", "v5p:8x8x4", fsdp(256), 1, "full", 0.55, no_xla_options=UNTRIED),
        Layout("llama3_70b", "h100:512", fsdp(64, tensor=8), 4, "minimal_with_context", 0.40),
        Layout("llama3_70b", "h100:1024", fsdp(128, tensor=8), 2, "minimal_with_context", 0.40),
        Layout("llama3_70b_128k", "v5p:8x8x4", fsdp(16, context=16), 2, "full", 0.40, no_xla_options=UNTRIED),
        Layout("llama3_405b", "v5p:16x16x16", fsdp(2048, tensor=2), 1, "full", 0.40, no_xla_options=UNTRIED),
        Layout("llama3_405b", "h100:1024", fsdp(1024), 2, "full", 0.40),
    )
}
"""{name: layout}; the first of each model is the default of its config."""


def layout_of(name: str, current: str = "") -> Layout:
    """Return the row (Layout) called `name`, such as "llama3_8b/v5p:4x4x2". Only "v5p:4x4x2" means this hardware for
    the model of the row called `current`. Raises UsageError, with the known names, if there is no such row."""
    model, slash, topology = name.strip().rpartition("/")
    model = model if slash else current.rpartition("/")[0]
    rows = [row for row in LAYOUTS.values() if row.model == model]
    if rows:
        found = row_on(model, topology_of(topology))
        if found is not None:
            return found
    there = ", ".join(row.name for row in rows or LAYOUTS.values())
    whose = f"the layouts of {model} are" if rows else "a layout is MODEL/HARDWARE, one of"
    raise UsageError(
        f"train.layout = {shown(name)}, but {whose} {there}. Choose one, or set train.mesh, train.remat and "
        "train.micro_batches yourself (launch.plan --search finds what fits)."
    )


def row_on(model: str, topology: Topology) -> Layout | None:
    """Return the row of the model for a topology, or None. The order of the axes does not matter: v5p-64, v5p:2x4x4 and
    v5p:4x4x2 are the same slice."""
    turned = lambda one: (one.chip.name, one.slices, sorted(one.shape))
    rows = [row for row in LAYOUTS.values() if row.model == model]
    return next((row for row in rows if turned(topology_of(row.topology)) == turned(topology)), None)


def first_layout(model: str) -> Layout:
    """Return the default row of the config `model`: the first one."""
    return next(row for row in LAYOUTS.values() if row.model == model)


USUAL_MFU = 0.4


def on_hardware(model: ModelConfig, train: TrainConfig, asked: str) -> tuple[Topology, float, ModelConfig, TrainConfig]:
    """Return (topology, MFU to assume, model, train) for planning on the hardware `asked`; if that is "", on that of
    train.layout.

    If both configs equal their row in LAYOUTS, they get the values of the same model's row for that hardware, if it
    exists. Configs that the user changed stay unchanged, except for the XLA options of a row, which are for its chip:
    on another chip, those of the model's row are used, if it exists, else none. Raises UsageError if no known hardware
    is named.
    """
    row = LAYOUTS.get(train.layout)
    if not asked and row is None:
        raise UsageError("Give the hardware, such as --topology v5e:4x4, v5p-512, 2xv6e-256 or h100:8.")
    topology = topology_of(asked or (row.topology if row else ""))
    there = row_on(row.model, topology) if row else None
    topology = topology_of(there.topology) if there else topology
    if row is not None and there is not None and row.of(model, train) == (model, train):
        return topology, there.mfu, *there.of(model, train)
    if row is not None and train.xla_options == row.xla_options and topology.chip != topology_of(row.topology).chip:
        train = dataclasses.replace(train, xla_options=there.xla_options if there else ())
    return topology, USUAL_MFU if there is None else there.mfu, model, train
