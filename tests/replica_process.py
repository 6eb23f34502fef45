"""One of four processes that save or restore a state together: two replicas, of two processes each.

    python -m tests.replica_process FOLDER save | restore [OBJECT]

OBJECT is deleted after the checkpoint was verified. Prints a JSON line at the end.
"""

import contextlib
import json
import math
import sys

import numpy as np

SHAPES = {"float32": (64, 2**13), "bfloat16": (64, 2**14), "int32": (64, 2**12)}


def values_of(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """All bit patterns; for floating-point dtypes including -0.0 and a signaling NaN."""
    import jax.numpy as jnp

    kind = np.dtype(jnp.dtype(dtype))
    bits = np.random.default_rng(0).integers(0, 256, math.prod(shape) * kind.itemsize, np.uint8)
    if jnp.issubdtype(kind, jnp.floating):
        word = np.dtype(f"uint{8 * kind.itemsize}")
        odd = np.array([-0.0, np.inf], kind).view(word) + np.array([0, 1], word)
        bits.view(word)[:2] = odd[: bits.view(word).size]
    return bits.view(kind).reshape(shape)


def main() -> None:
    from launch.stages.command import handle_cli_errors
    from launch.stages.processes import ending_together, initialize_distributed

    with ending_together(), handle_cli_errors("replica_process"):
        initialize_distributed()
        act(sys.argv[1], *sys.argv[2:])


def act(address: str, verb: str, victim: str = "") -> None:
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from lm.checkpoints import manager, replicas
    from lm.checkpoints.manifest import RetentionPolicy
    from lm.config import SpikeConfig
    from lm.parallel import MESH_AXES
    from lm.resilience.multihost import settle
    from lm.storage import place_of
    from lm.training.anomaly_guard import make_guard
    from lm.training.state import TrainState

    replicas.PIECE_BYTES = 300_000  # an array of several chunks, and a partial one
    mesh = jax.make_mesh((2, 2, 1, 1), MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 4)
    whole, cut, zero1 = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("fsdp",), (("fsdp", "data"),)))

    def laid(values: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    model = {name: laid(values_of(name, shape), cut) for name, shape in SHAPES.items()}
    moments = {
        "cut": laid(values_of("float32", (64, 2**13)), zero1),
        "whole": laid(values_of("bfloat16", (99,)), whole),
    }
    guard = jax.tree.map(lambda x: laid(np.asarray(x), whole), make_guard(SpikeConfig(window=4)))
    state = TrainState(laid(np.int32(7), whole), model, moments, guard)  # ty: ignore[invalid-argument-type]
    with contextlib.closing(manager.Checkpoints(place_of(address), RetentionPolicy(newest=9))) as checkpoints:
        if verb == "save":
            checkpoints.save(7, state, {})
            checkpoints.settled()
            return
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        about = checkpoints.newest_whole()
        assert about is not None
        if victim:
            settle("all have verified", None, bool)
            if jax.process_index() == 0:
                place_of(victim).unlink()
            settle("deleted", None, bool)
        found = checkpoints.restore(place_of(address) / str(about["step"]), like)

    def same(one: jax.Array, other: jax.Array) -> bool:
        pairs = zip(one.addressable_shards, other.addressable_shards, strict=True)
        return one.sharding == other.sharding and all(
            np.asarray(a.data).tobytes() == np.asarray(b.data).tobytes() for a, b in pairs
        )

    print(json.dumps({"same": all(jax.tree.leaves(jax.tree.map(same, found, state)))}), flush=True)
    settle("leave", None, bool)


if __name__ == "__main__":
    main()
