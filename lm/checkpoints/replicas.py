"""With data parallelism over several processes, the first replica reads a checkpoint and broadcasts it to the others.

Orbax's SingleReplicaArrayHandler adds floating numbers to zeros, which turns -0.0 into 0.0, starts the broadcast in the
other processes before it is known whether the first could read, and refuses arrays that are sharded over the replicas.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding

REPLICAS = "data"
"""Mesh axis whose positions are the replicas."""
PIECE_BYTES: int = 1 << 25
"""Bytes of an array that are broadcast at a time; a device needs twice as much memory in addition to the state."""


@functools.cache
def first_replica(sharding: Sharding | None) -> NamedSharding | None:
    """Return the sharding of an array over the devices of the first replica, if that replica reads it for the others.
    None if every process reads what its own devices need: because all replicas of a shard are in one process, or
    because the array is sharded over the replicas (ZeRO-1's moments)."""
    if not isinstance(sharding, NamedSharding) or REPLICAS not in sharding.mesh.shape:
        return None
    if REPLICAS in jax.tree.leaves(tuple(sharding.spec)):
        return None
    mesh = cast(Mesh, sharding.mesh)
    axis = mesh.axis_names.index(REPLICAS)
    processes = np.vectorize(lambda device: device.process_index)(mesh.devices)
    if (processes == processes.take([0], axis)).all():
        return None
    first = Mesh(mesh.devices.take([0], axis), mesh.axis_names, axis_types=mesh.axis_types)
    return NamedSharding(first, sharding.spec)


def broadcast(array: jax.Array | None, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Return an exact copy, with the sharding of `like`, of an array that only the first replica's devices hold. All
    processes of the mesh must call it, for the same arrays in the same order; those without a device of the first
    replica pass None. `array` is deleted."""
    sharding = cast(NamedSharding, like.sharding)
    held = {part.device: part.data for part in array.addressable_shards} if array is not None else {}
    shape = sharding.shard_shape(like.shape)
    parts = [
        held[device] if device in held else jnp.zeros(shape, like.dtype, device=device)
        for device in sharding.addressable_devices
    ]
    whole = jax.make_array_from_single_device_arrays(like.shape, sharding, parts)
    # One at a time: a CPU runs two programs at once, and not in the same order in every process.
    return jax.block_until_ready(broadcast_parts(whole, sharding))


@functools.partial(jax.jit, static_argnums=1, donate_argnums=0)
def broadcast_parts(whole: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Return `whole`, which is donated, with every replica's shards replaced by those of the first replica."""

    def share(piece: jax.Array) -> jax.Array:
        # Integers, since -0.0 + 0.0 is 0.0 and sums of NaN lose bits; of 32 bits, since NCCL adds none of 16.
        bits = jax.lax.bitcast_convert_type(piece, f"uint{8 * piece.dtype.itemsize}")
        own = bits.astype(jnp.promote_types(bits.dtype, jnp.uint32)) * (jax.lax.axis_index(REPLICAS) == 0)
        return jax.lax.bitcast_convert_type(jax.lax.psum(own, REPLICAS).astype(bits.dtype), piece.dtype)

    def share_pieces(part: jax.Array) -> jax.Array:
        size = part.size * 4
        if size <= PIECE_BYTES:
            return share(part)
        axis = int(np.argmax(part.shape))
        rows = max(1, part.shape[axis] * PIECE_BYTES // size)

        def step(number: jax.Array, part: jax.Array) -> jax.Array:
            # The last piece ends at the end of the array, so its first rows may be broadcast twice.
            piece = share(jax.lax.dynamic_slice_in_dim(part, number * rows, rows, axis))
            return jax.lax.dynamic_update_slice_in_dim(part, piece, number * rows, axis)

        return jax.lax.fori_loop(0, -(-part.shape[axis] // rows), step, part)

    return jax.shard_map(
        share_pieces, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=sharding.spec, check_vma=False
    )(whole)
