"""Devices for evaluation and sampling of a trained model."""

import jax
from jax.sharding import Mesh, NamedSharding

from lm.config import MeshConfig, ModelConfig
from lm.errors import UsageError
from lm.parallel import MESH_AXES, devices_of, make_mesh, one_device_mesh


def inference_mesh(config: MeshConfig, model: ModelConfig) -> tuple[Mesh, str]:
    """Return (mesh of all devices as `config` shapes it, ""), or (mesh of one device, reason) if they do not fit
    `config`. Raises UsageError instead if there are several processes: each has only a part of the model."""
    try:
        return make_mesh(config, model, batch_size=jax.device_count()), ""  # rows are padded to the number of devices
    except UsageError as error:
        if jax.process_count() > 1:
            raise
        return one_device_mesh(model), str(error)


def mesh_for_rows(mesh: Mesh, rows: int) -> Mesh:
    """Return a mesh of the same devices for decoding `rows` sequences, with the axis "context" merged into "fsdp":
    there is no sequence axis to shard, so these devices get rows of their own. Returns `mesh` if the rows cannot be
    divided evenly.

    Each device holds the same shard of every parameter on the two meshes, because fsdp and context shard the same axis.
    """
    devices = mesh.shape["context"] * devices_of("batch", mesh)
    if mesh.shape["context"] == 1 or rows % devices:
        return mesh
    sizes = dict(mesh.shape) | {"fsdp": mesh.shape["fsdp"] * mesh.shape["context"], "context": 1}
    grid = mesh.devices.reshape([sizes[axis] for axis in MESH_AXES])  # fsdp and context are adjacent axes
    return Mesh(grid, mesh.axis_names, axis_types=mesh.axis_types)


def moved_onto[Tree](arrays: Tree, mesh: Mesh) -> Tree:
    """Return the arrays on `mesh`, with unchanged partition specs. Nothing is copied: each device must already have the
    shards that it gets."""

    def moved(leaf: jax.Array) -> jax.Array:
        assert isinstance(leaf.sharding, NamedSharding)
        parts = [one.data for one in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(mesh, leaf.sharding.spec), parts)

    return jax.tree.map(moved, arrays)
