"""Whole texts behind prompts, by the engine: samples during training, and of the finished model."""

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from lm.config import ModelConfig
from lm.errors import UsageError, shown
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.model.transformer import Transformer
from lm.tokenizer.base import Tokenizer

DECODE_STEPS = 32
"""Nobody waits for the first words alone."""


def check_prompt(
    tokenizer: Tokenizer, prompt: str, tokens: int, remedy: str = "Ask for more tokens, or shorten the prompt."
) -> list[int]:
    """The prompt's tokens (Tokenizer.prompt_ids). Raises UsageError, with the `remedy`, when `tokens` leaves no room
    after them."""
    row = tokenizer.prompt_ids(prompt)
    if len(row) >= tokens:
        raise UsageError(
            f"The prompt {shown(prompt)} is {len(row):,} tokens with the document's head; that leaves nothing of "
            f"{tokens}. {remedy}"
        )
    return row


def sample_texts(
    model: Transformer,
    config: ModelConfig,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    temperatures: Sequence[float],
    tokens: int,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> list[str]:
    """The text behind each prompt, prompt included, up to the end of the document or `tokens` tokens in all.

    Row i continues prompts[i] at temperatures[i], as the beginning of a document, by a seed of `key` and i. The devices
    of `mesh`, over which the model is laid out, share the rows; of several processes all must ask. Raises UsageError
    when a prompt is too long.
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
