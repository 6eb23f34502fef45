"""Generation speed of the engine (lm/inference/engine.py).

    python -m tests.bench.generate --batch B [--bf16 | --int8] [--prompt 64] [--new 128] [--runs 3]

GPT-2 124M shapes, random weights, greedy. Prints a JSON line: new tokens_per_second including prefill, as counted by
../shared/bench/hf_generate.py (best run); prefill_ms, until every row has its first token; decode_ms of a step;
step_mb, bytes of weights that a step reads; memory_gb_per_second of plain sums by all threads; and
memory_bound_tokens_per_second, the limit from these two.
"""

import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from configs.gpt2_124m import get_config
from lm.config import ModelConfig
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.inference.weights import Weights, for_inference
from lm.model.transformer import Transformer
from lm.tokenizer.characters import CharacterTokenizer
from tests.bench.runner import run_benchmark


def timed(engine: Engine, requests: list[GenerationRequest]) -> tuple[float, float]:
    """Return the seconds until every request has its first token, and until all are complete."""
    begun, waiting, first = time.perf_counter(), {engine.submit(one) for one in requests}, 0.0
    while engine.has_work:
        waiting -= {event.request_id for event in engine.step() if event.tokens}
        if not waiting and not first:
            first = time.perf_counter() - begun
    return first, time.perf_counter() - begun


def memory_speed(megabytes: int = 256) -> float:
    """Bytes per second of a sum over more data than the caches hold."""
    words_PN = jnp.ones((64, megabytes * 2**20 // 256), jnp.float32)
    total = jax.jit(lambda words_PN: jnp.sum(words_PN.reshape(64, -1, 64), axis=1))
    total(words_PN).block_until_ready()
    seconds = []
    for _ in range(8):
        begun = time.perf_counter()
        total(words_PN).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return words_PN.nbytes / min(seconds)


def step_bytes(model: Transformer) -> int:
    """Bytes of the weights that one step reads: all except embeddings, whose rows it looks up."""
    tables = (model.embedding[...], *([] if model.positions is None else [model.positions[...]]))
    return sum(leaf.nbytes for leaf in jax.tree.leaves(model)) - sum(table.nbytes for table in tables)


def characters(symbols: int) -> CharacterTokenizer:
    """A tokenizer with `symbols` symbols, including printable ASCII."""
    ascii = "\n" + "".join(map(chr, range(32, 127)))
    return CharacterTokenizer(ascii + "".join(map(chr, range(0x10000, 0x10000 + symbols - len(ascii)))))


def measure(
    config: ModelConfig, weights: Weights, batch: int, prompt: int, new: int, runs: int
) -> dict[str, str | int | float]:
    """Return the row of a model with random parameters."""
    model = for_inference(jax.jit(Transformer, static_argnums=0)(config, jax.random.key(0)), config, weights)
    generator = np.random.default_rng(0)
    params = SamplingParams(max_tokens=new, temperature=0.0)
    requests = [
        GenerationRequest(tuple(generator.integers(0, config.vocab_size, prompt).tolist()), params)
        for _ in range(batch)
    ]
    engine = Engine(model, config, characters(config.vocab_size), slots=batch, context=prompt + new)
    timed(engine, requests)  # compiles
    first, whole = min((timed(engine, requests) for _ in range(runs)), key=lambda one: one[1])
    read, speed = step_bytes(model), memory_speed()
    return {
        "batch": batch,
        "weights": weights,
        "tokens_per_second": round(batch * new / whole, 1),
        "prefill_ms": round(1e3 * first, 1),
        "decode_ms": round(1e3 * (whole - first) / (new - 1), 2),
        "step_mb": round(read / 1e6, 1),
        "memory_gb_per_second": round(speed / 1e9, 1),
        "memory_bound_tokens_per_second": round(batch * speed / read, 1),
    }


def main(
    batch: int = 1, prompt: int = 64, new: int = 128, runs: int = 3, bf16: bool = False, int8: bool = False
) -> Iterator[dict[str, str | int | float]]:
    config = dataclasses.replace(get_config().model, parameter_dtype="float32", compute_dtype="float32")
    yield measure(config, "bfloat16" if bf16 else "int8" if int8 else "float32", batch, prompt, new, runs)


if __name__ == "__main__":
    run_benchmark(main)
