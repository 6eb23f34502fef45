"""The devices that a trained model is evaluated and sampled on."""

import jax
from jax.sharding import Mesh, NamedSharding

from lm.config import MeshConfig, ModelConfig
from lm.errors import UsageError
from lm.parallel import MESH_AXES, devices_of, make_mesh, one_device_mesh


def inference_mesh(config: MeshConfig, model: ModelConfig) -> tuple[Mesh, str]:
    """(a mesh of all devices, as `config` shares them; "", or why it is of one device alone: `config` does not fit
    those that are here).

    Raises UsageError where it does not fit the devices of several processes: each of them holds a part of the model.
    """
    try:
        return make_mesh(config, model, batch_size=jax.device_count()), ""  # rows are filled up to whatever shares them
    except UsageError as error:
        if jax.process_count() > 1:
            raise
        return one_device_mesh(model), str(error)


def mesh_for_rows(mesh: Mesh, rows: int) -> Mesh:
    """A mesh of the same devices for tokens that are drawn, which have no length to cut: devices along context take
    rows of their own, where there are enough `rows`; else they would repeat one another's work. Else `mesh` itself.

    Each device holds the same part of a parameter on both: fsdp and context cut the same axis.
    """
    devices = mesh.shape["context"] * devices_of("batch", mesh)
    if mesh.shape["context"] == 1 or rows % devices:
        return mesh
    sizes = dict(mesh.shape) | {"fsdp": mesh.shape["fsdp"] * mesh.shape["context"], "context": 1}
    grid = mesh.devices.reshape([sizes[axis] for axis in MESH_AXES])  # the two are neighbours in it
    return Mesh(grid, mesh.axis_names, axis_types=mesh.axis_types)


def moved_onto[Tree](arrays: Tree, mesh: Mesh) -> Tree:
    """The same `arrays`, cut by axes of the same name of `mesh`, on which every device has the part that it has now:
    nothing is copied."""

    def moved(leaf: jax.Array) -> jax.Array:
        assert isinstance(leaf.sharding, NamedSharding)
        parts = [one.data for one in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(mesh, leaf.sharding.spec), parts)

    return jax.tree.map(moved, arrays)
