"""Attention with sequences sharded over devices (context parallelism, arXiv:2407.21783, section 3.3.2).

A sequence of T positions is sharded over N devices, T / N consecutive positions on each. Causal queries attend to
earlier positions, so the last device would have almost twice the average work. Therefore attention splits the sequence
into 2 N parts, and device n computes the queries of parts n and 2 N - 1 - n, which together attend to as many keys as
those of any other device. Queries are sent to that device and results back; keys and values are all-gathered, and
gathered again in the backward pass. The rest of the model is not affected: each position stays on its device.

Axes: as in lm/model/attention/kernels.py; N devices along context.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lm.model.arrays import Keys, Queries
from lm.model.attention.mask import AttentionMask
from lm.model.attention.pairs import KEPT, Blocks, by_pairs
from lm.model.attention.plain import xla
from lm.parallel import constrain, cuts_evenly, devices_of, mesh_axes, spec_of

(AXIS,) = mesh_axes("length")
LONGEST_BLOCK = 512
"""Maximum number of queries, and of keys, in a pair of blocks, whose scores plain operations hold at once."""

Local = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""Computation of one device: (its shard of the plan, its queries, all keys, all values, segment ids of its queries,
segment ids of all keys) -> output."""


def parts_of(devices: int) -> np.ndarray:
    """Return the indices of the two parts of a sequence whose queries each device computes: (devices, 2). A sequence
    has 2 * `devices` equal parts. The even index comes first, as in the result of `exchanged`."""
    low = np.arange(devices)
    both = np.stack([low, 2 * devices - 1 - low], axis=1)
    return np.where((low % 2 == 0)[:, None], both, both[:, ::-1])


def routes(devices: int) -> list[list[tuple[int, int]]]:
    """Return two lists of (source, destination) devices for `exchanged`: the first list is for the first half of each
    source's positions, the second list for the second half."""
    attends = {int(part): n for n, parts in enumerate(parts_of(devices)) for part in parts}
    return [[(n, attends[2 * n + half]) for n in range(devices)] for half in range(2)]


def exchanged(x_BT: jax.Array, devices: int, back: bool = False) -> jax.Array:
    """Send positions of (B, T, ...) to the devices that compute their queries. The input has the device's own T / N
    consecutive positions, the output the positions of its two parts (see `parts_of`). With `back`, send the results to
    the devices that own the positions."""
    sent = lambda half, route: jax.lax.ppermute(half, AXIS, [pair[::-1] for pair in route] if back else route)
    return jnp.concatenate(list(map(sent, jnp.split(x_BT, 2, axis=1), routes(devices))), axis=1)


def gathered(x_BT: jax.Array) -> jax.Array:
    """All-gather the positions of (B, T, ...); gradients are reduce-scattered."""
    # Gather along a new first axis: for any other axis, libtpu sums the gradient by all-reduce, not reduce-scatter.
    x_BNT = jnp.moveaxis(jax.lax.all_gather(x_BT, AXIS), 0, 1)
    return x_BNT.reshape(x_BT.shape[0], -1, *x_BT.shape[2:])


def plan_of_pairs(devices: int, length: int, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Plan the attention of sequences sharded over N `devices`, for `by_pairs`. Return (starts, pairs).

    starts, (N, blocks), has the position of the first query in each of a device's query blocks. pairs, (N, P, 2), has
    the (query block, key block) pairs that the device computes: a query block is an index into the device's blocks, a
    key block an index into the blocks of the whole sequence. Without a `window`, all devices have equally many pairs.
    With a window, shorter lists are padded to P pairs, and the padding contributes nothing.
    """
    part = length // (2 * devices)
    rows = next(rows for rows in range(min(part, LONGEST_BLOCK), 0, -1) if part % rows == 0)
    inside = np.arange(0, part, rows)
    starts = (parts_of(devices)[..., None] * part + inside).reshape(devices, -1)
    pairs = []
    for own in starts:
        first = np.zeros_like(own) if window is None else np.maximum(own - window + 1, 0) // rows
        pairs.append([(n, key) for n, start in enumerate(own) for key in range(first[n], start // rows + 1)])
    # Padding pairs have the last keys, which are after all queries of the lower part, so they contribute nothing.
    lower = np.argmin(starts, axis=1)
    most = max(map(len, pairs))
    filled = [own + [(low, length // rows - 1)] * (most - len(own)) for own, low in zip(pairs, lower, strict=True)]
    return starts.astype(np.int32), np.array(filled, np.int32)


def plain_locally(devices: int, length: int, heads: int, window: int | None) -> tuple[Any, Any, Local]:
    """Return (plans of all devices, their PartitionSpecs, function that computes attention on one device)."""
    plans, of_device = plan_of_pairs(devices, length, window), PartitionSpec(AXIS)

    def attend(plan: Any, q: jax.Array, k: jax.Array, v: jax.Array, own: jax.Array, documents: jax.Array) -> jax.Array:
        starts, pairs = plan
        return by_pairs(q, k, v, Blocks(starts[0], own, documents), pairs[0], window)

    return plans, (of_device, of_device), attend


def splash_locally(
    devices: int, length: int, heads: int, window: int | None, interpret: bool = False
) -> tuple[Any, Any, Local]:
    """Return (kernel of splash attention, its PartitionSpecs, function that computes attention on one device). `heads`
    is the number of heads on one device."""
    from lm.model.attention.splash import attend_by_splash, splash_kernel

    part = length // (2 * devices)
    positions = (parts_of(devices)[..., None] * part + np.arange(part)).reshape(-1).astype(np.int32)
    kernel = splash_kernel(heads, positions, window, devices, interpret)
    mesh = jax.sharding.get_abstract_mesh()
    return kernel, kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, AXIS))), attend_by_splash


LOCALLY: dict[str, Callable[..., tuple[Any, Any, Local]]] = {"xla": plain_locally, "splash": splash_locally}
"""By the names in lm.model.attention.choice."""


def over_context(choice: str) -> Callable[..., jax.Array]:
    """Return the named implementation for sharded sequences: (q_BTHC, k_BTKC, v_BTKC, AttentionMask) -> out_BTHC."""

    def attend(
        q_BTHC: Queries,
        k_BTKC: Keys,
        v_BTKC: Keys,
        mask: AttentionMask,
    ) -> Queries:
        mesh = jax.sharding.get_abstract_mesh()
        devices, tensor = mesh.shape[AXIS], devices_of("heads", mesh)
        length, heads = q_BTHC.shape[1:3]
        even = length % (2 * devices) == 0 and cuts_evenly(mesh, ("batch", "length", "kv_heads"), k_BTKC.shape)
        if mask.prefix_B is not None or not even:
            return of_whole_sequences(q_BTHC, k_BTKC, v_BTKC, mask)
        plans, plan_specs, locally = LOCALLY[choice](devices, length, heads // tensor, mask.window)

        def on_device(plan: Any, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
            own, documents = exchanged(segments, devices), gathered(segments)

            @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
            def attended(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
                return locally(plan, q, gathered(k), gathered(v), own, documents)

            return exchanged(attended(exchanged(q, devices), k, v), devices, back=True)

        of_q, of_kv = spec_of("batch", "length", "heads"), spec_of("batch", "length", "kv_heads")
        on_devices = jax.shard_map(
            on_device, in_specs=(plan_specs, of_q, of_kv, of_kv, spec_of("batch", "length")), out_specs=of_q,
            check_vma=False,
        )  # fmt: skip
        return on_devices(plans, q_BTHC, k_BTKC, v_BTKC, mask.segment_ids_BT)

    return attend


@jax.checkpoint
def of_whole_sequences(q_BTHC: jax.Array, k_BTKC: jax.Array, v_BTKC: jax.Array, mask: AttentionMask) -> jax.Array:
    """Plain attention for inputs that cannot be balanced over devices (a prefix, or an odd length): keys and values are
    gathered, and each device compares its queries with all of them. The backward pass recomputes the attention."""
    # Without this, XLA gathers the queries instead, once for each block of them.
    k_BTKC, v_BTKC = (constrain(x, "batch", None, "kv_heads", None) for x in (k_BTKC, v_BTKC))
    return xla(q_BTHC, k_BTKC, v_BTKC, mask)
