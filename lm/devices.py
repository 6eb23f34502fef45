"""Devices of a run, and the mesh axes that they are divided into. Does not import JAX: settings that do not fit the
devices are rejected before JAX starts (lm/training/preflight.py)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm.config import MeshConfig, ModelConfig, TrainConfig
from lm.errors import UsageError

if TYPE_CHECKING:
    import jax

CUT = (
    ("vocab_size", ("tensor",)),
    ("ngram_rows", ("tensor",)),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("mlp_width", ("tensor",)),
    ("width", ("fsdp", "context")),
    ("context_length", ("context",)),
)
"""Fields of the model, each with the mesh axes over which it is sharded; their product must divide it."""


@dataclass(frozen=True)
class Target:
    """Hardware that a program is compiled for."""

    platform: str
    """cpu, cuda, rocm or tpu, as in JAX's lowering rules."""
    capability: tuple[int, int] = (0, 0)
    """CUDA compute capability, such as (9, 0) of an H100; unused on other platforms."""


@dataclass(frozen=True)
class Devices:
    """All devices of a run, which are of one kind."""

    count: int
    """Number of devices of all processes."""
    kind: str
    """JAX's name of the devices, such as "NVIDIA H100 80GB HBM3"."""
    target: Target
    slices: int = 1
    """Number of TPU slices. A slice has a fast network between its chips; the data-center network joins slices."""


def target_of(device: "jax.Device") -> Target:
    """Return the hardware target of a JAX device."""
    version = device.client.platform_version
    if "cuda" in version:
        # A device of a topology that is only compiled for has the capability in its version.
        major, minor = getattr(device, "compute_capability", version.rpartition(" ")[2]).split(".")
        return Target("cuda", (int(major), int(minor)))
    return Target("rocm" if device.platform == "gpu" else device.platform)


def describe(devices: "Sequence[jax.Device]") -> Devices:
    """Return the count, kind, target and slices of JAX devices, which are all of one kind."""
    target = target_of(devices[0])
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if target.platform == "tpu" else 1
    return Devices(len(devices), devices[0].device_kind, target, slices)


def mesh_sizes(
    config: MeshConfig, model: ModelConfig, batch_size: int, devices: Devices, micro_batches: int = 1
) -> dict[str, int]:
    """Return {mesh axis: number of devices}, in the order of the mesh. "data" gets the devices that fsdp, context and
    tensor leave. Raises UsageError if devices, model or micro-batch cannot be divided."""
    inner = config.fsdp * config.context * config.tensor
    if devices.count % inner:
        there, remedy = f"{devices.count} devices", f"Choose numbers whose product divides {devices.count}."
        if devices.count == 1:
            there, remedy = "1 device", "Leave all three at 1."
        raise UsageError(
            f"train.mesh: fsdp = {config.fsdp} times context = {config.context} times tensor = {config.tensor} is "
            f"{inner}, which does not divide {there} ({devices.kind}). {remedy}"
        )
    sizes = {
        "data": devices.count // inner, "fsdp": config.fsdp, "context": config.context, "tensor": config.tensor,
    }  # fmt: skip
    if sizes["data"] % devices.slices:
        raise UsageError(
            f"train.mesh: fsdp x context x tensor = {inner} leaves data = {sizes['data']} over, which the "
            f"{devices.slices} slices do not divide: parameters would be sharded over the data-center network. Choose "
            f"numbers whose product divides the {devices.count // devices.slices} devices of a slice."
        )
    for field, axes in CUT:
        axes = [axis for axis in axes if sizes[axis] > 1] or axes[:1]
        if getattr(model, field) % math.prod(sizes[axis] for axis in axes):
            over = " times ".join(f"train.mesh.{axis} = {sizes[axis]}" for axis in axes)
            raise UsageError(
                f"model.{field} = {getattr(model, field)} is sharded over {over}, which does not divide it. Change "
                "one of them."
            )
    parts = sizes["data"] * sizes["fsdp"] * sizes["context"]
    if config.zero1 and model.width % parts:
        raise UsageError(
            f"train.mesh.zero1 shards model.width = {model.width} over data x fsdp x context = {sizes['data']} x "
            f"{sizes['fsdp']} x {sizes['context']} devices, which do not divide it. Set --train.mesh.zero1 False."
        )
    least = sizes["data"] * sizes["fsdp"] * micro_batches
    if batch_size % least:
        parts = f" in train.micro_batches = {micro_batches} parts" if micro_batches > 1 else ""
        raise UsageError(
            f"train.batch_size = {batch_size} sequences{parts} cannot be split over data x fsdp = {sizes['data']} x "
            f"{sizes['fsdp']} devices. Make it a multiple of {least}."
        )
    return sizes


def training_mesh_sizes(train: TrainConfig, model: ModelConfig, devices: Devices) -> dict[str, int]:
    """Return the `mesh_sizes` of a training run. Raises UsageError if the mesh cannot divide the batch of any step."""
    sizes: dict[str, int] = {}
    stages = train.stages(model.context_length)
    for stage in stages.between(0, train.steps):
        try:
            sizes = mesh_sizes(train.mesh, stage.model(model), stage.shape[0], devices, stage.micro_batches)
        except UsageError as error:
            if len(stages) == 1 and stage.parts == 1:
                raise
            raise UsageError(f"From step {stage.first_step:,} on, with {stage.describe()}: {error}") from error
    return sizes
