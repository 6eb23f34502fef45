"""Cost of a checkpoint of 1.5 GB, compared with plain Orbax.

    python -m tests.bench.checkpoint [--megabytes 1536] [--turns 7]

Prints a JSON line for lm.checkpoints.manager and for Orbax's AsyncCheckpointer, with medians: held_seconds, for which
`save` blocks the loop; the steps after it and a usual step (half a second, which overwrites the whole state like
training); seconds until the checkpoint is on disk, with SHA-256 manifest; seconds to restore and verify it.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from lm.checkpoints.manager import Checkpoints, named_items
from lm.checkpoints.manifest import RetentionPolicy
from lm.config import SpikeConfig
from lm.training.anomaly_guard import make_guard
from lm.training.state import TrainState
from tests.bench.runner import run_benchmark


def make_state(megabytes: int) -> TrainState:
    """Parameters and two moments of each, all random and incompressible."""
    rows = megabytes * 2**20 // (12 * 4 * 8192)
    arrays = [jax.random.normal(jax.random.key(i), (rows, 8192)) for i in range(12)]
    names = ("w0", "w1", "w2", "w3")
    parts = [dict(zip(names, arrays[i : i + 4], strict=True)) for i in (0, 4, 8)]
    moments = {"mu": parts[1], "nu": parts[2]}
    return TrainState(jnp.zeros((), jnp.int32), parts[0], moments, make_guard(SpikeConfig()))  # ty: ignore[invalid-argument-type]


@jax.jit
def bare(x: jax.Array) -> jax.Array:
    for _ in range(12):
        x = jnp.tanh(x @ x * 1e-3)
    return x


def body(state: TrainState) -> TrainState:
    shift = 1e-6 * bare(state.model["w0"][:2048, :2048])[0, 0]  # ty: ignore[not-subscriptable]
    return jax.tree.map(lambda x: x * 1.0001 + shift if x.dtype == jnp.float32 else x, state)


STEP = jax.jit(body, donate_argnums=0)


class Loop:
    """The state, and a step that donates its memory to the next state."""

    def __init__(self, megabytes: int):
        self.state = make_state(megabytes)
        for _ in range(3):
            self.step()

    def step(self) -> float:
        start = time.perf_counter()
        self.state = STEP(self.state)
        jax.block_until_ready(self.state)
        return time.perf_counter() - start


def measure(loop: Loop, save: Callable[[int], object], wait: Callable[[], object], turns: int) -> dict[str, float]:
    figures: dict[str, list[float]] = {"held_seconds": [], "first_step": [], "second_step": [], "total_seconds": []}
    usual = [loop.step() for _ in range(5)]
    for turn in range(turns):
        start = time.perf_counter()
        save(2 * turn + 1)
        figures["held_seconds"].append(time.perf_counter() - start)
        figures["first_step"].append(loop.step())
        figures["second_step"].append(loop.step())
        wait()
        start = time.perf_counter()
        save(2 * turn + 2)
        wait()
        figures["total_seconds"].append(time.perf_counter() - start)
    medians = {name: round(statistics.median(values), 4) for name, values in figures.items()}
    return medians | {"usual_step": round(statistics.median(usual), 4)}


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def main(megabytes: int = 1536, turns: int = 7) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        root, loop = Path(name), Loop(megabytes)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), loop.state)
        ours = Checkpoints(root / "ours", RetentionPolicy(newest=1))
        ours.prepare(loop.state)
        save_ours = lambda number: ours.save(number, loop.state, {})
        rows = {"lm.checkpoints.manager": measure(loop, save_ours, ours.settled, turns)}
        ours.close()
        plain = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

        def save(number: int) -> None:
            shutil.rmtree(root / f"plain{number - 1}", ignore_errors=True)
            items = {name: ocp.args.StandardSave(item) for name, item in named_items(loop.state).items()}
            plain.save(root / f"plain{number}", args=ocp.args.Composite(**items))

        rows["orbax"] = measure(loop, save, plain.wait_until_finished, turns)
        del loop.state
        wanted = {name: ocp.args.StandardRestore(item) for name, item in named_items(like).items()}
        reader = Checkpoints(root / "ours", RetentionPolicy(newest=1))
        restore = {
            "lm.checkpoints.manager": lambda: reader.restore_newest(like),
            "orbax": lambda: dict(plain.restore(root / f"plain{2 * turns}", args=ocp.args.Composite(**wanted)).items()),
        }
        times: dict[str, list[float]] = {name: [] for name in restore}
        for _ in range(turns):
            for name, function in restore.items():
                times[name].append(timed(function))
        for name, row in rows.items():
            yield {
                "by": name,
                "megabytes": megabytes,
                **row,
                "restore_seconds": round(statistics.median(times[name]), 4),
            }


if __name__ == "__main__":
    run_benchmark(main)
