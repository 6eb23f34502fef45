"""Text from a model: each token drawn from its next-token distribution, its key and value kept in a cache.

Axes: B sequences, S positions, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig
from lm.errors import UsageError, shown
from lm.model.kv_cache import empty_cache
from lm.model.transformer import Transformer
from lm.parallel import on_host
from lm.tokenizer.encoding import Tokenizer


def draw(logits_BV: Float[Array, "B V"], temperature_B: Float[Array, " B"], key: jax.Array) -> Int[Array, " B"]:
    """One id a row: the likeliest at temperature 0, else a sample of softmax(logits / temperature)."""
    warm_B = jnp.where(temperature_B > 0, temperature_B, 1.0)
    sampled_B = jax.random.categorical(key, logits_BV / warm_B[:, None], axis=-1)
    return jnp.where(temperature_B > 0, sampled_B, jnp.argmax(logits_BV, axis=-1))


@functools.partial(jax.jit, static_argnums=(1, 2))
def continue_tokens(
    model: Transformer,
    config: ModelConfig,
    symbols: int,
    prompts_BS: Int[Array, "B S"],
    prompt_lengths_B: Int[Array, " B"],
    temperature_B: Float[Array, " B"],
    key: jax.Array,
) -> Int[Array, "B S"]:
    """Row b keeps its first prompt_lengths_B[b] tokens; the rest is drawn, from the first `symbols` ids alone (rows
    of the embedding beyond the tokenizer's symbols stand for nothing)."""
    length = prompts_BS.shape[1]

    def next_token(carry, position):
        tokens_BS, cache = carry
        logits_BV, cache = model.decode(tokens_BS[:, position], position, cache)
        drawn_B = draw(logits_BV[:, :symbols], temperature_B, jax.random.fold_in(key, position))
        token_B = jnp.where(position + 1 < prompt_lengths_B, tokens_BS[:, position + 1], drawn_B)
        return (tokens_BS.at[:, position + 1].set(token_B.astype(tokens_BS.dtype)), cache), None

    carry = (prompts_BS, empty_cache(config, prompts_BS.shape[0]))
    (tokens_BS, _), _ = jax.lax.scan(next_token, carry, jnp.arange(length - 1))
    return tokens_BS


def check_prompt(tokenizer: Tokenizer, prompt: str, tokens: int) -> list[int]:
    """The prompt's tokens after a document's head. Raises UsageError when `tokens` leaves no room after them."""
    row = [tokenizer.start_of_text, *tokenizer.encode(prompt)]
    if len(row) >= tokens:
        raise UsageError(
            f"The prompt {shown(prompt)} is {len(row):,} tokens with the document's head; that leaves nothing of "
            f"{tokens}. Ask for more tokens, or shorten the prompt."
        )
    return row


def sample_texts(
    model: Transformer,
    config: ModelConfig,
    tokenizer: Tokenizer,
    prompts: list[str],
    temperatures: list[float],
    tokens: int,
    key: jax.Array,
) -> list[str]:
    """The text behind each prompt, prompt included, up to the end of the document or `tokens` tokens in all.

    Row i continues prompts[i] at temperatures[i], as the beginning of a document. Raises UsageError when a prompt is
    too long.
    """
    rows = [check_prompt(tokenizer, prompt, tokens) for prompt in prompts]
    prompts_BS = np.zeros((len(rows), tokens), np.int32)
    for padded, row in zip(prompts_BS, rows, strict=True):
        padded[: len(row)] = row
    lengths_B = np.array([len(row) for row in rows], np.int32)
    temperature_B = np.array(temperatures, np.float32)
    drawn = continue_tokens(model, config, tokenizer.vocabulary_size, prompts_BS, lengths_B, temperature_B, key)
    texts = []
    for row, prompt_row in zip(on_host(drawn).tolist(), rows, strict=True):
        body = row[1:]
        ends = [i for i in range(len(prompt_row) - 1, len(body)) if body[i] in tokenizer.ends]
        texts.append(tokenizer.decode(body[: ends[0]] if ends else body))
    return texts
