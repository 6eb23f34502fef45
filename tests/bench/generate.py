"""How fast a model generates, by the engine that users run (lm/inference/engine.py).

    python -m tests.bench.generate --batch B [--bf16 | --int8] [--prompt 64] [--new 128] [--runs 3]

GPT-2 124M shapes, random weights, greedy. Prints one JSON line:

- tokens_per_second: new tokens, the reading of the prompts included, as ../shared/bench/hf_generate.py counts them; the
  best of some runs. prefill_ms: until every row has its first token. decode_ms: a step of all rows.
- step_mb: bytes of weights that a step reads; memory_gb_per_second: what the memory gives to plain sums by all threads;
  memory_bound_tokens_per_second: what the two allow, if steps did nothing else.
"""

import argparse
import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs.gpt2_124m import get_config
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.inference.weights import Weights, for_inference
from lm.model.transformer import Transformer
from lm.tokenizer.characters import CharacterTokenizer

SYMBOLS = 50_257


def timed(engine: Engine, requests: list[GenerationRequest]) -> tuple[float, float]:
    """Seconds until every request has its first token, and until all are done."""
    begun, waiting, first = time.perf_counter(), {engine.submit(one) for one in requests}, 0.0
    while engine.has_work:
        waiting -= {event.request_id for event in engine.step() if event.tokens}
        if not waiting and not first:
            first = time.perf_counter() - begun
    return first, time.perf_counter() - begun


def memory_speed(megabytes: int = 256) -> float:
    """Bytes a second of a sum over more than the caches hold."""
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
    """Bytes of the weights that one step reads: all but the embeddings, of which it looks up rows."""
    tables = (model.embedding[...], *([] if model.positions is None else [model.positions[...]]))
    return sum(leaf.nbytes for leaf in jax.tree.leaves(model)) - sum(table.nbytes for table in tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--bf16", dest="weights", action="store_const", const="bfloat16", default="float32")
    form.add_argument("--int8", dest="weights", action="store_const", const="int8")
    arguments = parser.parse_args()
    weights: Weights = arguments.weights
    config = dataclasses.replace(
        get_config().model, vocab_size=SYMBOLS, parameter_dtype="float32", compute_dtype="float32"
    )
    model = for_inference(jax.jit(Transformer, static_argnums=0)(config, jax.random.key(0)), config, weights)
    tokenizer = CharacterTokenizer("\n" + "".join(map(chr, range(0x10000, 0x10000 + SYMBOLS - 1))))
    generator = np.random.default_rng(0)
    params = SamplingParams(max_tokens=arguments.new, temperature=0.0)
    requests = [
        GenerationRequest(tuple(generator.integers(0, SYMBOLS, arguments.prompt).tolist()), params)
        for _ in range(arguments.batch)
    ]
    context = arguments.prompt + arguments.new
    engine = Engine(model, config, tokenizer, slots=arguments.batch, context=context)
    timed(engine, requests)  # compiles
    first, whole = min((timed(engine, requests) for _ in range(arguments.runs)), key=lambda one: one[1])
    read, speed = step_bytes(model), memory_speed()
    row = {
        "bench": "generate",
        "batch": arguments.batch,
        "weights": weights,
        "tokens_per_second": round(arguments.batch * arguments.new / whole, 1),
        "prefill_ms": round(1e3 * first, 1),
        "decode_ms": round(1e3 * (whole - first) / (arguments.new - 1), 2),
        "step_mb": round(read / 1e6, 1),
        "memory_gb_per_second": round(speed / 1e9, 1),
        "memory_bound_tokens_per_second": round(arguments.batch * speed / read, 1),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
