"""What a small model learns with bfloat16 parameters, by how updates are rounded, beside float32.

    python -m tests.bench.rounding [--steps 1000] [--only adamw]

A transformer of 2 layers of 64 channels on the bytes of this repository's files, 8 x 64 a step; the last tenth of the
bytes is held out. Prints one JSON line an optimizer: nats a byte on 100 held-out batches, with float32 parameters, and
with bfloat16 ones whose updates are rounded to the nearest, stochastically (lm/optimizers/rounding.py), or kept in a
float32 master copy. One seed; the same batches for all.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lm.config import MuonConfig, OptimizerConfig, TrainConfig
from lm.data.batches import Batch, host_batch
from lm.model.transformer import Transformer
from lm.optimizers.rounding import apply_updates
from lm.training.optimizer import make_optimizer
from lm.training.step import loss_and_gradients
from tests.corpus import tiny_experiment

REPOSITORY = Path(__file__).parents[2]
WAYS = ("float32", "nearest", "stochastic", "master copy")
RULES: dict[str, dict[str, Any]] = {
    "adamw": {"learning_rate": 3e-3},
    "adamw, a tenth of the rate": {"learning_rate": 3e-4},
    "muon beside adamw": {"learning_rate": 3e-3, "muon": MuonConfig(0.02, 0.95, 5)},
    "lion": {"name": "lion", "learning_rate": 5e-4, "beta2": 0.99},
    "adafactor": {"name": "adafactor", "learning_rate": 1e-2, "beta1": 0.0},
}
BASE = tiny_experiment()
MODEL = dataclasses.replace(
    BASE.model, vocab_size=256, context_length=64, width=64, kv_heads=2, mlp_width=192, mlp="relu_squared"
)


def batches(data: np.ndarray, seed: int, count: int) -> Iterator[Batch]:
    generator = np.random.default_rng(seed)
    ones = np.ones((8, 64), np.int32)
    for _ in range(count):
        rows = np.stack([data[start : start + 65] for start in generator.integers(0, len(data) - 65, 8)])
        yield host_batch(rows[:, :-1], rows[:, 1:], ones, ones.astype(np.float32))


def held_out_loss(train: TrainConfig, way: str, bytes_: np.ndarray) -> float:
    """After train.steps steps, in nats a byte."""
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
    narrow = lambda tree: jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
    optimizer, split = make_optimizer(train.optimizer, train.steps), len(bytes_) * 9 // 10
    first = Transformer(MODEL, jax.random.key(0))
    model = first if way == "float32" else narrow(first)

    @jax.jit
    def step(model: Any, master: Any, state: Any, batch: Batch, number: jax.Array) -> tuple[Any, Any, Any]:
        _, gradients = loss_and_gradients(model, batch, train)
        held = model if master is None else master
        changes, state = optimizer.update(cast(optax.Updates, gradients), state, held)
        if way in ("float32", "stochastic"):
            return apply_updates(held, changes, jax.random.fold_in(jax.random.key(1), number)), None, state
        after = jax.tree.map(jnp.add, wide(held), changes)
        return narrow(after), after if way == "master copy" else None, state

    master, state = wide(model) if way == "master copy" else None, optimizer.init(cast(optax.Params, model))
    for number, batch in enumerate(batches(bytes_[:split], 0, train.steps)):
        model, master, state = step(model, master, state, batch, number)
    loss = jax.jit(lambda model, batch: loss_and_gradients(model, batch, train)[0])
    return float(np.mean([loss(model, batch) for batch in batches(bytes_[split:], 1, 100)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", choices=RULES, help="one of the optimizers (default: all)")
    given = parser.parse_args()
    rooms = ("docs/*.md", "lm/**/*.py", "data_prep/**/*.py", "tests/**/*.py")
    files = [path for room in rooms for path in sorted(REPOSITORY.glob(room))]
    bytes_ = np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8).astype(np.int32)
    plain: OptimizerConfig = dataclasses.replace(
        BASE.train.optimizer, warmup_steps=min(50, given.steps // 10), beta2=0.95, weight_decay=0.1
    )
    for name in [given.only] if given.only else RULES:
        rule = dataclasses.replace(plain, **RULES[name], final_learning_rate=0.1 * RULES[name]["learning_rate"])
        train = dataclasses.replace(BASE.train, steps=given.steps, optimizer=rule)
        found = {way: round(held_out_loss(train, way, bytes_), 4) for way in WAYS}
        print(json.dumps({"bench": "rounding", "optimizer": name, "steps": given.steps} | found), flush=True)


if __name__ == "__main__":
    main()
