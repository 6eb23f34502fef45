"""The device mesh, and the one table from the model's logical axes to the mesh's axes.

Every parameter names its logical axes where it is made (lm.model.layers.parameter); this file alone says over which
devices each is cut. XLA's partitioner (Auto axes) then chooses the communication.
"""

import functools
from collections.abc import Callable
from typing import cast

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lm.config import MeshConfig
from lm.devices import describe, mesh_sizes
from lm.model.config import ModelConfig

MESH_AXES = ("data", "fsdp", "context", "tensor")

RULES: dict[str, str | None] = {
    "vocabulary": "tensor",
    "ngram": "tensor",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "position": None,
    "layers": None,
}
BATCH = PartitionSpec(("data", "fsdp"), "context")
"""How a (B, T) array is cut: sequences over data and fsdp (whose devices also hold a part of each parameter), positions
over context. Devices along tensor hold the same tokens."""


def make_mesh(
    config: MeshConfig,
    model: ModelConfig,
    batch_size: int,
    devices: list[jax.Device] | None = None,
    micro_batches: int = 1,
) -> Mesh:
    """A mesh of MESH_AXES over all devices, by mesh_sizes. Raises UsageError as it does."""
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, model, batch_size, describe(devices), micro_batches)
    grid = np.array(devices).reshape([sizes[axis] for axis in MESH_AXES])
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def is_parameter(node: object) -> bool:
    return isinstance(node, nnx.Variable)


def shardings(tree: object, mesh: Mesh) -> object:
    """The NamedSharding of every leaf of `tree`, a model, an optimizer state or both: parameters and their moments by
    RULES, anything else whole on every device."""

    def of(node: object) -> object:
        if not is_parameter(node):
            return NamedSharding(mesh, PartitionSpec())
        axes = node.get_metadata()["axes"]  # ty: ignore[missing-attribute]
        spec = PartitionSpec(*(RULES[axis] for axis in axes))
        # Adafactor has rows, columns and single values in a parameter's place: those are small, and whole everywhere.
        cut = [mesh.shape[RULES[axis]] if RULES[axis] else 1 for axis in axes]
        even = lambda leaf: leaf.ndim == len(cut) and not np.any(np.array(leaf.shape) % np.array(cut))
        fits = lambda leaf: spec if even(leaf) else PartitionSpec()
        return jax.tree.map(lambda leaf: NamedSharding(mesh, fits(leaf)), node)

    return jax.tree.map(of, tree, is_leaf=is_parameter)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a (B, T) array of a batch lies on the mesh."""
    return NamedSharding(mesh, BATCH)


def own_rows(mesh: Mesh, batch_size: int, context_length: int) -> slice:
    """The rows of a batch that this process's devices need: all of them, where there is but one process."""
    shape = (batch_size, context_length)
    parts = cast(dict[object, tuple[slice, ...]], batch_sharding(mesh).addressable_devices_indices_map(shape))
    rows = [part[0] for part in parts.values()]
    return slice(min(one.start or 0 for one in rows), max(batch_size if one.stop is None else one.stop for one in rows))


def place[Arrays](batch: Arrays, mesh: Mesh, batch_size: int, first_row: int = 0) -> Arrays:
    """The batch on the mesh's devices. `batch` has the rows from `first_row` on: those of `own_rows` or more."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)

    def spread(local: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            rows, columns = index
            stop = batch_size if rows.stop is None else rows.stop
            return local[(rows.start or 0) - first_row : stop - first_row, columns]

        return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, part)

    return jax.tree.map(spread, batch)


def on_host(array: jax.Array) -> np.ndarray:
    """The whole array, also where other processes hold parts of it; all of them must ask."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def traced_on[**P, R](mesh: Mesh, function: Callable[P, R]) -> Callable[P, R]:
    """`function` with the mesh's axes named while it is traced, for what XLA cannot cut by itself: kernels find them by
    jax.sharding.get_abstract_mesh()."""

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced
