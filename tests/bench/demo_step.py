"""How fast the demo's model trains on this machine, beside what a bare matrix product reaches.

    python -m tests.bench.demo_step [--seconds 10]

Prints one JSON line: tokens per second and compile time of the step in configs/demo.py, the arithmetic that it does
(lm/model/cost.py), and the rate of the best of some products of the model's own shapes (lm/metrics/hardware.py).
"""

import argparse
import json
import time

import jax
import numpy as np

from configs.demo import get_config
from lm.data.batches import host_batch
from lm.metrics.hardware import matmul_peak, median_seconds
from lm.model.cost import count_parameters, flops_per_token
from lm.parallel import make_mesh
from lm.training.optimizer import make_optimizer
from lm.training.state import initializer
from lm.training.step import compile_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of steps (default: 10)")
    seconds = parser.parse_args().seconds
    experiment = get_config()
    model, train = experiment.model, experiment.train
    shape = (train.batch_size, model.context_length)
    mesh, optimizer = make_mesh(train.mesh, model, train.batch_size), make_optimizer(train.optimizer, train.steps)
    tokens_BT = np.random.default_rng(0).integers(0, model.vocab_size, shape, np.int32)
    batch = host_batch(tokens_BT, tokens_BT, np.ones(shape, np.int32), np.ones(shape, np.float32))
    state = initializer(model, optimizer, 0, mesh, train.spikes)()
    step = compile_step(optimizer, state, mesh, train)

    def one_step() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    start = time.perf_counter()
    one_step()
    compile_seconds = time.perf_counter() - start
    step_seconds = median_seconds(one_step, seconds)
    row = {
        "bench": "demo_step",
        "device": jax.devices()[0].device_kind,
        "parameters": count_parameters(model),
        "tokens_per_second": round(tokens_BT.size / step_seconds),
        "compile_seconds": round(compile_seconds, 1),
        "gflops_per_second": round(flops_per_token(model) * tokens_BT.size / step_seconds / 1e9, 1),
        "matmul_gflops_per_second": round(matmul_peak(model, tokens_BT.size) / 1e9, 1),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
