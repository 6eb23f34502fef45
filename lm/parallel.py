"""The device mesh, and the table from logical axes of parameters and activations to mesh axes.

Every parameter gets the names of its logical axes when it is created (lm.model.layers.parameter), and every large
activation when it is computed (`constrain`); only this file maps them to devices. XLA's partitioner (Auto axes) then
chooses the communication. Activations are constrained because XLA may otherwise shard them like the parameters: with
fsdp over 8 devices it all-reduced activations and logits of the whole batch.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lm.config import MeshConfig, ModelConfig, TrainConfig
from lm.devices import Target, describe, mesh_sizes, target_of, training_mesh_sizes

MESH_AXES = ("data", "fsdp", "context", "tensor")

type Table = Mapping[str, str | tuple[str, ...] | None]
"""{logical axis: mesh axes over which it is sharded}."""
AXES: Table = {
    "batch": ("data", "fsdp"),
    "rows": "data",
    "drawn": ("data", "fsdp", "context", "tensor"),
    "length": "context",
    "residual_length": ("context", "tensor"),
    "embed": None,
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "ngram": "tensor",
    "width": ("fsdp", "context"),
    "position": None,
    "layers": None,
    "rank": None,
}
"""Activations have batch, length, residual_length (between blocks, sharded along tensor too: sequence parallelism,
arXiv:2205.05198), embed, rows (of the batch, if activations move to the weights: `Context.weights_stay`), and drawn
(rows whose next token is sampled, over all devices). Parameters have ngram, width (of the residual stream; also sharded
along context), position, layers, rank (of an adapter). Both have heads, kv_heads, mlp, vocab."""

TABLES = ("vocab", "position", "ngram")
"""Logical axes of tables, whose rows are looked up one by one, and of the output projection, whose columns each score
one token."""

ZERO1: Table = {**AXES, "width": ("fsdp", "context", "data")}
"""For optimizer state with MeshConfig.zero1. `data` is the last axis, so that the shards of devices along it are
neighbors within the shard of the parameter that these devices hold."""


def spec_of(*axes: str | None, table: Table = AXES) -> PartitionSpec:
    """Return the PartitionSpec of an array with these logical axes; None: not sharded."""
    return PartitionSpec(*(table[axis] if axis else None for axis in axes))


TOKENS = ("batch", "length")
BATCH = spec_of(*TOKENS)
"""Sharding of a (B, T) array: sequences over data and fsdp (whose devices also hold a shard of each parameter),
positions over context. Devices along tensor hold the same tokens."""


def mesh_axes(axis: str | None, table: Table = AXES) -> tuple[str, ...]:
    """Return the mesh axes over which a logical axis is sharded."""
    cut = table[axis] if axis else None
    return (cut,) if isinstance(cut, str) else cut or ()


def devices_of(axis: str | None, mesh: Mesh | AbstractMesh | None = None, table: Table = AXES) -> int:
    """Return the number of shards of the logical axis on the mesh, by default on that of this trace."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    return math.prod(mesh.shape.get(name, 1) for name in mesh_axes(axis, table))


def cuts_evenly(
    mesh: Mesh | AbstractMesh, axes: Sequence[str | None], shape: Sequence[int], table: Table = AXES
) -> bool:
    """Whether the mesh divides an array of this shape evenly; `axes` are the logical names of its leading axes."""
    return not any(size % devices_of(axis, mesh, table) for axis, size in zip(axes, shape, strict=False))


def constrain[A: jax.Array](x: A, *axes: str | None) -> A:
    """Shard each axis of `x` over the mesh axes that AXES has for its logical name. If these do not divide the axis,
    the last of them are left out. Return `x` unchanged without a mesh, and within `on_each_device`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return x

    def dividing(axis: str | None, size: int) -> tuple[str, ...]:
        names = mesh_axes(axis)
        while names and size % math.prod(mesh.shape[name] for name in names):
            names = names[:-1]
        return names

    return jax.lax.with_sharding_constraint(x, PartitionSpec(*map(dividing, axes, x.shape)))


@dataclass(frozen=True)
class Context:
    """What a function is traced for, besides JAX's own mesh (jax.sharding.get_abstract_mesh). Set by `traced_on`; for
    another Context, a jitted function is traced again."""

    target: Target
    """Devices to compile for."""
    training: bool = True
    """Whether gradients are taken."""
    scatter_steps: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Result of `scatter_steps` for the mesh."""

    @property
    def width_is_sharded(self) -> bool:
        """Whether the width of parameters is sharded; False within `on_each_device`, where arrays are shards."""
        return not jax.sharding.get_abstract_mesh().manual_axes and devices_of("width") > 1

    @property
    def gathers_weights(self) -> bool:
        """Whether to gather weights explicitly, by `gather_width` within `on_each_device`."""
        return self.training and self.width_is_sharded

    def weights_stay(self, tokens: int, weight: jax.Array) -> bool:
        """Whether to move the activations of this many tokens instead of the weight (I, O) that multiplies them: if
        there are no gradients and the activations are smaller, as in generation (arXiv:2211.05102, section 3.2)."""
        return not self.training and self.width_is_sharded and tokens * sum(weight.shape) < weight.size


CONTEXT = jax.make_user_context()


def context() -> Context:
    """Return the context of this trace; outside of `traced_on`, that of the default device."""
    return CONTEXT.value or Context(target_of(jax.devices()[0]))


def when_ready[A: jax.Array](x: A, weight: A) -> tuple[A, A]:
    """Return `x` and `weight` unchanged. Without gradients, no use of the weight starts before `x` is computed: XLA
    would otherwise gather the weights of all layers at the start. With gradients, XLA may gather early, which is
    faster."""
    if context().training or not context().width_is_sharded:
        return x, weight
    return jax.lax.optimization_barrier((x, weight))


def manual_axes(*axes: str) -> tuple[str, ...]:
    """Return the mesh axes of these logical axes that are manual in this trace: those along which `on_each_device` has
    split arrays into one shard per device."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(name for axis in axes for name in mesh_axes(axis) if name in mesh.manual_axes and mesh.shape[name] > 1)


def on_each_device[**P, R](
    in_axes: Sequence[Sequence[str | None]], out_axes: object, left_to_xla: Sequence[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that each device applies to its shards of the arguments (jax.shard_map), on the mesh of
    `traced_on`. XLA shards nothing in it and adds no communication, except over the mesh axes `left_to_xla`. Without a
    mesh, or if the mesh does not divide an argument, the function is applied to the whole arguments.

    `in_axes` has the logical names of the leading axes of each argument, or of each array in a pytree. Within the
    function, sum over `manual_axes`. Keyword arguments are equal on all devices.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def mapped(*args: P.args, **kwargs: P.kwargs) -> R:
            mesh = jax.sharding.get_abstract_mesh()
            if mesh.empty or mesh.size == 1 or mesh.manual_axes:
                return function(*args, **kwargs)
            for argument, axes in zip(args, in_axes, strict=True):
                if not all(cuts_evenly(mesh, axes, leaf.shape) for leaf in jax.tree.leaves(argument)):
                    return function(*args, **kwargs)
            is_axes = lambda value: (
                isinstance(value, tuple) and all(one is None or isinstance(one, str) for one in value)
            )
            left = {name for name in left_to_xla if mesh.shape[name] > 1}
            names_of = lambda axis: tuple(name for name in mesh_axes(axis) if name not in left) or None
            spec = lambda axes: PartitionSpec(*map(names_of, axes))
            out_specs = jax.tree.map(spec, out_axes, is_leaf=is_axes)
            # check_vma off: pallas_call does not say over which axes its results vary.
            on_parts = jax.shard_map(
                functools.partial(function, **kwargs), in_specs=tuple(map(spec, in_axes)), out_specs=out_specs,
                axis_names={*mesh.axis_names} - left, check_vma=False,
            )  # fmt: skip
            return cast(Callable[..., R], on_parts)(*args)

        return mapped

    return decorate


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather_width(part: jax.Array, axis: int) -> jax.Array:
    """Within `on_each_device`: all-gather an array whose axis number `axis` is the sharded width. The gradient is
    reduce-scattered by `reduce_scatter_width`.

    `constrain` would gather it too; but XLA then sums the gradient by an all-reduce, twice the bytes of a
    reduce-scatter, and slices it.
    """
    names = manual_axes("width")
    return jax.lax.all_gather(part, names, axis=axis, tiled=True) if names else part


def reduce_scatter_width(gradient: jax.Array, axis: int) -> jax.Array:
    """Within `on_each_device`: sum the gradient over the devices that share the width; each keeps its part of axis
    number `axis`.

    libtpu turns a reduce-scatter over three axes of a torus, or over two of a v6e's, into an all-reduce. So the sum is
    done in the steps of `scatter_steps`. It also all-reduces if the minor axis of an array is cut into less than a
    register's 128 columns, so on TPUs the width is made the first axis."""
    on_tpu = context().target.platform == "tpu"
    steps, first = dict(context().scatter_steps), 0 if on_tpu else axis
    gradient = jnp.moveaxis(gradient, axis, first)
    for name in manual_axes("width"):
        count, outer = jax.lax.axis_size(name), 1
        for size in steps.get(name, (count,)):
            inner = count // outer // size
            lines = [
                [(block * size + step) * inner + last for step in range(size)]
                for block in range(outer) for last in range(inner)
            ]  # fmt: skip
            gradient = jax.lax.psum_scatter(
                gradient, name, scatter_dimension=first, tiled=True,
                axis_index_groups=lines if size < count else None,
            )  # fmt: skip
            outer *= size
    return jnp.moveaxis(gradient, first, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def sum_over(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """Within `on_each_device`: sum over the devices along these mesh axes, for a result that all of them return. The
    backward pass only multiplies the gradient by the number of devices, by which shard_map divides it. With
    jax.lax.psum it would be another all-reduce."""
    return jax.lax.psum(x, names)


sum_over.defvjp(
    lambda x, names: (sum_over(x, names), None),
    lambda names, _, gradient: (gradient * math.prod(map(jax.lax.axis_size, names)),),
)


def gather_tokens(ids_BT: jax.Array, rows_are_cut: bool = True) -> jax.Array:
    """Within `on_each_device`: all-gather the (B, T) token ids of the devices that share the width. With `rows_are_cut`
    False all of them have the same rows."""
    for name in manual_axes("width"):
        if name not in mesh_axes("batch"):
            ids_BT = jax.lax.all_gather(ids_BT, name, axis=1, tiled=True)
        elif rows_are_cut:
            ids_BT = jax.lax.all_gather(ids_BT, name, axis=0, tiled=True)
    return ids_BT


def exchange_width(x_BTW: jax.Array) -> jax.Array:
    """Within `on_each_device`: all-to-all, from this device's part of the width for the tokens of all devices
    (`gather_tokens`) to the whole width for its own tokens, (B, T, D)."""
    for name in reversed(manual_axes("width")):
        x_BTW = jax.lax.all_to_all(x_BTW, name, 0 if name in mesh_axes("batch") else 1, 2, tiled=True)
    return x_BTW


gather_width.defvjp(
    lambda part, axis: (gather_width(part, axis), None), lambda axis, _, g: (reduce_scatter_width(g, axis),)
)


def scatter_steps(mesh: Mesh) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return (mesh axis, sizes) for each axis of a mesh of TPUs that spans several axes of the torus. sizes are the
    group sizes of two reduce-scatters: first along all of these axes but the fastest, then along the fastest."""
    found = []
    for number, name in enumerate(mesh.axis_names):
        line = np.moveaxis(mesh.devices, number, 0).reshape(mesh.devices.shape[number], -1)[:, 0]
        if len(line) == 1 or line[0].platform != "tpu":
            continue
        places = np.array([chip.coords for chip in line]).T
        crossed = [axis for axis in places if np.ptp(axis)]
        slowest_first = sorted(crossed, key=lambda axis: -np.flatnonzero(axis != axis[0])[0])
        sizes = [len(np.unique(axis)) for axis in slowest_first]
        if len(sizes) > 1 and math.prod(sizes) == len(line):
            found.append((name, (math.prod(sizes[:-1]), sizes[-1])))
    return tuple(found)


def device_grid(shape: list[int], devices: Sequence[jax.Device], slices: int = 1) -> np.ndarray:
    """Return the devices as an array of this shape.

    On TPUs, neighbors along an axis are neighbors in the torus, as far as its shape allows. Slices, which are
    connected only by the data-center network, divide the first axis, so only gradient sums cross it.
    """
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    inside, across = [shape[0] // slices, *shape[1:]], [slices, *(1 for _ in shape[1:])]
    return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)


def make_mesh(
    config: MeshConfig,
    model: ModelConfig,
    batch_size: int,
    devices: list[jax.Device] | None = None,
    micro_batches: int = 1,
) -> Mesh:
    """Return a mesh of MESH_AXES over all devices. Raises UsageError like `mesh_sizes`."""
    devices = jax.devices() if devices is None else devices
    found = describe(devices)
    sizes = mesh_sizes(config, model, batch_size, found, micro_batches)
    grid = device_grid([sizes[axis] for axis in MESH_AXES], devices, found.slices)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def training_mesh(train: TrainConfig, model: ModelConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Return the mesh of a training run over all devices. Raises UsageError like `training_mesh_sizes`."""
    devices = jax.devices() if devices is None else devices
    training_mesh_sizes(train, model, describe(devices))
    stage = train.stages(model.context_length).at(0)
    return make_mesh(train.mesh, stage.model(model), stage.shape[0], devices, stage.micro_batches)


def one_device_mesh(model: ModelConfig) -> Mesh:
    """Return a mesh of one device of this process."""
    return make_mesh(MeshConfig(), model, 1, jax.local_devices()[:1])


def is_parameter(node: object) -> bool:
    return isinstance(node, nnx.Variable)


def shardings(tree: object, mesh: Mesh | AbstractMesh, zero1: bool = False) -> object:
    """Return the NamedSharding of every leaf of `tree`, a model, an optimizer state or both. Parameters and their
    moments follow the table AXES, with `zero1` the table ZERO1; other leaves are replicated."""
    table = ZERO1 if zero1 else AXES

    def of(node: object) -> object:
        if not is_parameter(node):
            return NamedSharding(mesh, PartitionSpec())
        axes = node.get_metadata()["axes"]  # ty: ignore[missing-attribute]
        # Adafactor has rows, columns and single values instead of a parameter: those are small, and replicated.
        even = lambda leaf: leaf.ndim == len(axes) and cuts_evenly(mesh, axes, leaf.shape, table)
        fits = lambda leaf: spec_of(*axes, table=table) if even(leaf) else PartitionSpec()
        return jax.tree.map(lambda leaf: NamedSharding(mesh, fits(leaf)), node)

    return jax.tree.map(of, tree, is_leaf=is_parameter)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a (B, T) array of a batch."""
    return NamedSharding(mesh, BATCH)


def own_rows(mesh: Mesh, batch_size: int, context_length: int, process: int | None = None) -> np.ndarray:
    """Return the row numbers of a batch that the devices of a process need, ascending; by default of this process.
    They may be scattered, since the mesh follows the torus."""
    process = jax.process_index() if process is None else process
    parts = batch_sharding(mesh).devices_indices_map((batch_size, context_length))
    cut = cast(dict[jax.Device, tuple[slice, ...]], parts).items()
    mine = [np.arange(batch_size)[rows] for device, (rows, _) in cut if device.process_index == process]
    return np.unique(np.concatenate(mine))


@jax.transfer_guard("allow")  # an explicit transfer, which JAX cannot recognize with several processes
def shard_batch[Arrays](batch: Arrays, mesh: Mesh, batch_size: int, rows: np.ndarray | None = None) -> Arrays:
    """Put a batch on the devices of the mesh. `batch` has the rows with the numbers `rows` (None: all rows), which must
    include those of `own_rows`."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    there = np.arange(batch_size) if rows is None else rows

    def spread(local: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            rows, columns = index
            return local[np.searchsorted(there, np.arange(batch_size)[rows]), columns]

        return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, part)

    return jax.tree.map(spread, batch)


def on_host(array: jax.Array) -> np.ndarray:
    """Return the whole array, even if other processes hold shards of it; all processes must call it."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def traced_on[**P, R](mesh: Mesh, function: Callable[P, R], *, training: bool = False) -> Callable[P, R]:
    """Return `function` with the mesh, for `constrain` and `on_each_device`, and its `context` set while it is
    traced. `training`: gradients are taken."""
    traced_for = Context(target_of(mesh.devices.flat[0]), training, scatter_steps(mesh))

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with CONTEXT(traced_for), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced
