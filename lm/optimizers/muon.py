"""Direction of a Muon update (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, orthogonalized by
Newton-Schulz iterations, whose matrix products are distributed over a device mesh.

With plain XLA sharding, every data-parallel device would compute the products of every matrix, and each product of each
iteration would need a collective over the axes that shard parameters. Here each device runs all iterations of its own
matrices, which are sent to it before (by an all-to-all if parameters are sharded) and back afterwards. Axes: N
matrices, M rows, K columns, M <= K.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float
from optax.contrib import MuonState

from lm.parallel import cuts_evenly, is_parameter, mesh_axes

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x**3 and x**5 in an iteration on each singular value x, by Jordan et al."""
EPSILON = 1e-8  # added to the norm of a matrix


def scale_by_muon(momentum: float, iterations: int) -> optax.GradientTransformation:
    """Return a transformation: Nesterov momentum with bias correction (as in optax), each matrix orthogonalized.

    The last two axes of every parameter are a matrix; the axes before them count matrices.
    """

    def init(params: optax.Params) -> MuonState:
        zeros = optax.tree.zeros_like(params)
        return MuonState(jnp.zeros((), jnp.int32), zeros, jnp.asarray(COEFFICIENTS))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        before = cast(MuonState, state)
        count = optax.safe_increment(before.count)
        mean = optax.tree.update_moment(updates, before.mu, momentum, 1)
        ahead = optax.tree.bias_correction(mean, momentum, optax.safe_increment(count))
        new = optax.tree.bias_correction(updates, momentum, count)
        direction = jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g, ahead, new)
        return orthogonal(direction, iterations), MuonState(count, mean, before.ns_coeffs)

    return optax.GradientTransformation(init, update)


class Kind(NamedTuple):
    """Shape and sharding shared by a set of matrices, which are sent between devices together."""

    axes: tuple[str, str]
    """Logical axes of rows and columns; the rows are the smaller side."""
    shape: tuple[int, int]
    """Number of rows and columns."""


def orthogonal(tree: Any, iterations: int) -> Any:
    """Replace each matrix U S V^T in a tree of parameters by about U V^T, on the mesh set by lm.parallel.traced_on."""
    nodes, structure = jax.tree.flatten(tree, is_leaf=is_parameter)
    kinds: dict[Kind, list[int]] = {}
    for place, node in enumerate(nodes):
        if jax.tree.leaves(node):  # optax masks other optimizers' parameters with empty nodes
            kinds.setdefault(kind_of(node), []).append(place)
    for kind, places in kinds.items():
        turned = [axes_of(nodes[place]) != kind.axes for place in places]  # stored as the transposes
        found = orthogonal_matrices([nodes[place][...] for place in places], turned, kind, iterations)
        for place, value in zip(places, found, strict=True):
            nodes[place] = jax.tree.map(lambda _, value=value: value, nodes[place])
    return jax.tree.unflatten(structure, nodes)


def axes_of(node: Any) -> tuple[str, str]:
    return node.get_metadata()["axes"][-2:]


def kind_of(node: Any) -> Kind:
    """Return the kind of a parameter's matrices. Their rows are the smaller side; for squares, the axis whose name
    sorts first."""
    (rows, columns), sides = node.shape[-2:], axes_of(node)
    (rows, first), (columns, second) = sorted([(rows, sides[0]), (columns, sides[1])])
    return Kind((first, second), (rows, columns))


def orthogonal_matrices(
    arrays: Sequence[jax.Array], turned: Sequence[bool], kind: Kind, iterations: int
) -> list[jax.Array]:
    """Orthogonalize the matrices of one kind: arrays[i] is (..., M, K), or (..., K, M) if turned[i]."""
    counts = [math.prod(array.shape[:-2]) for array in arrays]
    layout = layout_of(kind, sum(counts))
    orient = lambda arrays: [array.mT if turn else array for array, turn in zip(arrays, turned, strict=True)]
    if layout.devices == 1:  # array by array, to save memory
        on_its_own = lambda one: newton_schulz(one.reshape(-1, *one.shape[-2:]), iterations).reshape(one.shape)
        return orient([on_its_own(one) for one in orient(arrays)])

    def share(*parts: jax.Array) -> list[jax.Array]:
        oriented = orient(parts)
        stack_NMK = jnp.concatenate([part.reshape(-1, *part.shape[-2:]) for part in oriented])
        stack_NMK = layout.orthogonal(stack_NMK, iterations)
        stacks = jnp.split(stack_NMK, np.cumsum(counts)[:-1].tolist())
        return orient([one.reshape(part.shape) for one, part in zip(stacks, oriented, strict=True)])

    sides = [layout.cut[::-1] if turn else layout.cut for turn in turned]
    specs = [PartitionSpec(*[None] * (array.ndim - 2), *side) for array, side in zip(arrays, sides, strict=True)]
    # check_vma=False: gathered values are equal on all devices along an axis, which JAX cannot infer.
    return jax.shard_map(share, in_specs=tuple(specs), out_specs=specs, check_vma=False)(*arrays)


class Layout(NamedTuple):
    """Assignment of the matrices of one kind to groups of devices, equally many devices and matrices per group."""

    axes: dict[str, int]
    """{mesh axis: number of devices}, for axes with more than one device."""
    cut: tuple[tuple[str, ...], ...]
    """Mesh axes over which the rows and the columns of the parameters are sharded."""
    group: int
    """Devices that share a matrix, sharded by columns; 1 if there are enough matrices for all devices."""

    @property
    def devices(self) -> int:
        return math.prod(self.axes.values())

    def orthogonal(self, x_NMK: Float[Array, "N M K"], iterations: int) -> Float[Array, "N M K"]:
        """Orthogonalize sharded matrices: takes and returns one device's shard of all matrices (in shard_map)."""
        count, groups = len(x_NMK), self.devices // self.group
        x_NMK = jnp.pad(x_NMK, ((0, -count % groups), (0, 0), (0, 0)))  # zero matrices stay zero
        numbers = np.arange(self.devices).reshape(groups, self.group).tolist()
        total = lambda x: jax.lax.psum(x, tuple(self.axes), axis_index_groups=numbers)
        own_NMK = newton_schulz(self.sent(x_NMK), iterations, total if self.group > 1 else lambda x: x)
        return self.brought_back(own_NMK, len(x_NMK), *x_NMK.shape[1:])[:count]

    def sent(self, x_NMK: Float[Array, "N M K"]) -> Float[Array, "n m k"]:
        """Send matrices to the devices that compute them (in shard_map). Returns the n matrices of this device's group,
        with all rows and 1 / group of the columns (all columns if a group is one device).

        Rows and columns may arrive permuted, which does not change the iteration; `brought_back` restores their order.
        """
        (count, rows, columns), groups = x_NMK.shape, self.devices // self.group
        x = x_NMK.reshape(groups, count // groups, rows, self.group, columns // self.group)
        x = x.transpose(0, 3, 1, 2, 4).reshape(*self.axes.values(), count // groups, rows, columns // self.group)
        for place, axis in enumerate(self.axes):
            if (side := self.side(axis)) is None:  # parameters are replicated over this axis
                x = jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis), 1, place)
            else:
                x = jax.lax.all_to_all(x, axis, place, side, tiled=True)
        return x.reshape(x.shape[len(self.axes) :])

    def brought_back(self, x_NMK: Float[Array, "n m k"], count: int, rows: int, columns: int) -> Float[Array, "N M K"]:
        """Invert `sent`, whose input had the shape (count, rows, columns): return a shard of all matrices."""
        groups = self.devices // self.group
        x = x_NMK.reshape(*[1] * len(self.axes), *x_NMK.shape)
        for place, axis in reversed([*enumerate(self.axes)]):
            if (side := self.side(axis)) is None:
                x = jax.lax.all_gather(x, axis, axis=place, tiled=True)
            else:
                x = jax.lax.all_to_all(x, axis, side, place, tiled=True)
        x = x.reshape(groups, self.group, count // groups, rows, columns // self.group)
        return x.transpose(0, 2, 3, 1, 4).reshape(count, rows, columns)

    def side(self, axis: str) -> int | None:
        """Return the dimension that the mesh axis `axis` shards; None if it shards none. The array has one dimension
        per mesh axis of the layout, then matrices, rows and columns."""
        rows, columns = self.cut
        after = len(self.axes) + 1
        return after if axis in rows else after + 1 if axis in columns else None


def layout_of(kind: Kind, count: int) -> Layout:
    """Return the layout of `count` matrices on the current mesh that needs the fewest multiplications per device."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = {} if mesh.empty or mesh.manual_axes else {name: size for name, size in mesh.shape.items() if size > 1}
    even = cuts_evenly(mesh, kind.axes, kind.shape)
    # As in lm.parallel.shardings.
    cut = tuple(tuple(name for name in mesh_axes(axis) if name in axes and even) for axis in kind.axes)
    (rows, columns), devices = kind.shape, math.prod(axes.values())
    held = columns // math.prod(axes[name] for name in cut[1])

    def products(group: int) -> int:
        """Multiplications per device and iteration: two products over the columns, and one of (rows, rows) matrices."""
        own = -(-count * group // devices)
        return own * (2 * rows * rows * columns // group + rows**3)

    groups = [group for group in range(1, devices + 1) if devices % group == 0 and held % group == 0]
    return Layout(axes, cut, min(groups, key=products))


def newton_schulz(
    x_NMK: Float[Array, "N M K"], iterations: int, total: Callable[[jax.Array], jax.Array] = lambda x: x
) -> Float[Array, "N M K"]:
    """Move the singular values of each matrix close to 1. `total` sums over the devices that share the columns."""
    a, b, c = COEFFICIENTS
    squares_N11 = total(jnp.sum(x_NMK * x_NMK, axis=(1, 2), keepdims=True))
    x_NMK = x_NMK / (jnp.sqrt(squares_N11) + EPSILON)
    for _ in range(iterations):
        gram_NMM = total(x_NMK @ x_NMK.mT)
        x_NMK = a * x_NMK + (b * gram_NMM + c * gram_NMM @ gram_NMM) @ x_NMK
    return x_NMK
