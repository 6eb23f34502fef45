"""Speed of a training step, compared with a bare matrix product on the same machine.

    python -m tests.bench.train --shape {S,M,gpt2_124m,gpt2_1558m,demo} [--vocab 65] [--bf16] [--seconds 10] [--batch N]

Prints a JSON line: tokens_per_second (median step, batches cut from random tokens), compile_seconds, peak_mb of the
process, gflops_per_second (lm/model/cost.py) and matmul_peak_gflops_per_second, the best of some products of the
model's shapes (lm/metrics/hardware.py).

Shapes S and M (layers, heads, width, context, batch = 4, 4, 128, 64, 12 and 6, 6, 384, 256, 8) do the work of nanoGPT's
step: pre-norm blocks, GELU, tied head, AdamW, clipping at 1; ../shared/bench/torch_gpt.py does the same in PyTorch.
"""

import dataclasses
import resource
from collections.abc import Callable, Iterator

import jax
import numpy as np

from configs import demo, fineweb
from lm.config import ModelConfig, TrainConfig
from lm.data.batches import Batch, host_batch
from lm.metrics.hardware import matmul_peak, median_seconds
from lm.model.cost import count_parameters, flops_per_token
from lm.parallel import training_mesh
from lm.training.aot_compile import Step, StepCost, compile_ahead, example_batch
from lm.training.optimizer import make_optimizer
from lm.training.state import TrainState, abstract_state, initializer
from lm.training.step import compile_step
from tests.bench.runner import choose, run_benchmark

SHAPES = {
    "S": (4, 4, 128, 64, 12),
    "M": (6, 6, 384, 256, 8),
    "gpt2_124m": (12, 12, 768, 1024, 32),
    "gpt2_1558m": (48, 25, 1600, 1024, 8),
}


def compiled(model: ModelConfig, train: TrainConfig) -> tuple[Step, StepCost, Callable[[], TrainState]]:
    """Return the step of the first stage, compiled for all devices with train.xla_options, and the initializer of its
    state."""
    mesh, optimizer = training_mesh(train, model), make_optimizer(train.optimizer, train.steps)
    state = abstract_state(model, optimizer, mesh, train.spikes, train.mesh.zero1)
    batch, step = example_batch(train.batch_size, model.context_length), compile_step(optimizer, state, mesh, train)
    program, cost = compile_ahead(step, state, batch, mesh, model, train.xla_options)
    return program, cost, initializer(model, optimizer, train.seed, mesh, train.spikes, train.mesh.zero1)


def random_batches(model: ModelConfig, batch_size: int) -> Callable[[], Batch]:
    """Return a function that cuts batches from random tokens."""
    generator, length = np.random.default_rng(0), model.context_length
    data = generator.integers(0, model.vocab_size, 1 << 20, np.int32)
    ones = np.ones((batch_size, length), np.int32)

    def batch() -> Batch:
        starts = generator.integers(0, len(data) - length - 1, batch_size)
        windows = np.stack([data[start : start + length + 1] for start in starts])
        return host_batch(windows[:, :-1], windows[:, 1:], ones, ones.astype(np.float32))

    return batch


def step_seconds(step: Step, state: TrainState, batch: Callable[[], Batch], seconds: float) -> float:
    """Median time of one step, including its batch."""

    def one_step() -> None:
        nonlocal state
        state, metrics = step(state, batch())
        float(metrics["loss"])

    return median_seconds(one_step, seconds)


def main(
    shape: str = "M",
    vocab: int = 65,
    batch: int | None = None,
    loss_chunks: int = 1,
    bf16: bool = False,
    seconds: float = 10,
) -> Iterator[dict[str, object]]:
    """Args:
    shape: S, M, gpt2_124m, gpt2_1558m, or demo (model, batch and optimizer of configs/demo.py).
    bf16: Products in bfloat16; parameters stay float32.
    """
    if shape == "demo":
        experiment = demo.get_config()
        model, train = experiment.model, experiment.train
    else:
        layers, heads, width, length, usual_batch = choose(SHAPES, shape)
        experiment = fineweb.get_config()
        model = dataclasses.replace(
            experiment.model, vocab_size=vocab, context_length=length, layers=layers, width=width, heads=heads,
            kv_heads=heads, mlp_width=4 * width, compute_dtype="bfloat16" if bf16 else "float32",
        )  # fmt: skip
        optimizer = dataclasses.replace(
            experiment.train.optimizer, learning_rate=1e-3, final_learning_rate=1e-3, beta2=0.99
        )
        train = dataclasses.replace(
            experiment.train, batch_size=batch or usual_batch, loss_chunks=loss_chunks, optimizer=optimizer
        )
    step, cost, make_state = compiled(model, train)
    taken = step_seconds(step, make_state(), random_batches(model, train.batch_size), seconds)
    tokens = train.batch_size * model.context_length
    yield {
        "shape": shape,
        "vocab": model.vocab_size,
        "bf16": bf16,
        "device": jax.devices()[0].device_kind,
        "parameters": count_parameters(model),
        "tokens_per_second": round(tokens / taken, 1),
        "compile_seconds": round(cost.compile_seconds, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "gflops_per_second": round(flops_per_token(model) * tokens / taken / 1e9, 1),
        "matmul_peak_gflops_per_second": round(matmul_peak(model, tokens) / 1e9, 1),
    }


if __name__ == "__main__":
    run_benchmark(main)
