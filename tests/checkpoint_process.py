"""One of two processes that save and restore together, without training, for tests of checkpoints.

    python -m tests.checkpoint_process FOLDER

The arrays are sharded over all devices. Prints a JSON line at the end: the files after each save, the bytes that this
process has read for it, and the restored values.
"""

import contextlib
import json
import os
import resource
import sys
from pathlib import Path


def disk_of(bytes_a_file: int) -> None:
    """Limit the size of files that this process writes from now on; -1 for no limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, resource.RLIM_INFINITY))


def bytes_read() -> int:
    """Bytes that this process has read so far, from any file."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


def flip_a_bit(folder: Path, process: int) -> None:
    """Size of the largest file that the process wrote."""
    path = max(folder.rglob(f"ocdbt.process_{process}/**/*"), key=lambda path: path.is_file() and path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def main() -> None:
    from launch.stages.command import handle_cli_errors
    from launch.stages.processes import initialize_distributed

    folder = Path(sys.argv[1])
    with handle_cli_errors("checkpoint_process"):
        initialize_distributed()
        report(folder)


def report(folder: Path) -> None:
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from lm.checkpoints.manager import Checkpoints
    from lm.checkpoints.manifest import RetentionPolicy
    from lm.checkpoints.reading import verify_together
    from lm.config import SpikeConfig
    from lm.resilience.multihost import settle
    from lm.training.anomaly_guard import make_guard
    from lm.training.state import TrainState

    mesh = jax.make_mesh((jax.device_count(),), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    cut, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())

    def state_of(step: int) -> TrainState:
        def make() -> TrainState:
            model = {"w": jnp.arange(2**21, dtype=jnp.float32).reshape(64, 2**15) * step}
            moments = {"mu": model["w"] / 7, "count": jnp.array(step, jnp.int32)}
            return TrainState(jnp.array(step, jnp.int32), model, moments, make_guard(SpikeConfig()))  # ty: ignore[invalid-argument-type]

        shapes = jax.eval_shape(make)
        return jax.jit(make, out_shardings=jax.tree.map(lambda x: cut if x.ndim == 2 else whole, shapes))()

    found = {}
    with contextlib.closing(Checkpoints(folder, RetentionPolicy(newest=9))) as checkpoints:
        for step in (1, 2, 3, 4, 5):
            if (step, jax.process_index()) in ((3, 1), (4, 0)):
                disk_of(10_000)
            before = bytes_read()
            checkpoints.save(step, state_of(step), {"told": step})
            checkpoints.settled()
            failure = str(checkpoints.failure or "")
            found[f"save {step}"] = {
                "there": checkpoints.steps(), "failure": failure, "read": bytes_read() - before,
            }  # fmt: skip
            disk_of(-1)
        before = bytes_read()
        verify_together(folder / "5")
        found["read to verify"] = bytes_read() - before
        settle("all have looked", None, bool)
        if jax.process_index() == 0:
            flip_a_bit(folder / "5", 1)
        settle("damaged", None, bool)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(0))
        restored = checkpoints.restore_newest(like)
        assert restored is not None
        state, about = restored
        same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), state, state_of(about["step"]))
        found |= {"about": about, "same": all(jax.tree.leaves(same))}
    found |= {"process": jax.process_index(), "of": jax.process_count(), "pid": os.getpid()}
    print(json.dumps(found), flush=True)
    settle("leave", None, bool)


if __name__ == "__main__":
    main()
