"""Generate whole texts from prompts: samples during training and of the finished model."""

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from lm.config import ModelConfig
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams, check_prompt
from lm.model.transformer import Transformer
from lm.tokenizer.base import Tokenizer

DECODE_STEPS = 32
"""Tokens per call of the engine; large, because nothing is streamed."""


def sample_texts(
    model: Transformer,
    config: ModelConfig,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    temperatures: Sequence[float],
    tokens: int,
    *,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> list[str]:
    """Return each prompt with its continuation, up to the end of the document or `tokens` tokens in total.

    Text i continues prompts[i], at the beginning of a document, with temperatures[i] and a seed from `key` and i.
    `mesh` is the mesh that the model is sharded over (None: one device); all processes must make the same call. Raises
    UsageError if a prompt is too long.
    """
    rows = [check_prompt(tokenizer, prompt, tokens) for prompt in prompts]
    seeds = [int(jax.random.bits(jax.random.fold_in(key, number), dtype="uint32")) for number in range(len(rows))]
    settings = [SamplingParams(tokens, one, seed=seed) for one, seed in zip(temperatures, seeds, strict=True)]
    requests = [GenerationRequest(tuple(row), one) for row, one in zip(rows, settings, strict=True)]
    engine = Engine(
        model, config, tokenizer, slots=len(rows), context=tokens, mesh=mesh, decode_steps=min(DECODE_STEPS, tokens)
    )
    completions = engine.complete(requests)
    starts = [len(row) - len(tokenizer.encode(prompt)) for row, prompt in zip(rows, prompts, strict=True)]
    return [
        tokenizer.decode([*row[start:], *one.tokens]) for row, start, one in zip(rows, starts, completions, strict=True)
    ]
