"""Text from a model: each token drawn from its next-token distribution, its key and value kept in a cache.

Axes: B sequences, S positions, T positions of a prompt, V vocabulary, D width.
"""

import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from lm.config import ModelConfig
from lm.errors import UsageError, shown
from lm.inference.devices import mesh_for_rows, moved_onto
from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import Cache, empty_cache, written
from lm.model.transformer import Transformer
from lm.parallel import forward_only, on_host, traced_on
from lm.tokenizer.encoding import Tokenizer

PROMPT_STEP = 16
"""Tokens: prompts are read as if they were a multiple of so many long."""


def draw(
    logits_BV: Float[Array, "B V"], temperature_B: Float[Array, " B"], keys_B: Key[Array, " B"]
) -> Int[Array, " B"]:
    """One id a row: the likeliest at temperature 0, else a sample of softmax(logits / temperature) by the row's key."""
    warm_B = jnp.where(temperature_B > 0, temperature_B, 1.0)
    sampled_B = jax.vmap(jax.random.categorical)(keys_B, logits_BV / warm_B[:, None])
    return jnp.where(temperature_B > 0, sampled_B, jnp.argmax(logits_BV, axis=-1))


class Progress(NamedTuple):
    """How far the rows have come."""

    tokens_BS: Int[Array, "B S"]  # noqa: N815
    cache: Cache
    logits_BV: Float[Array, "B V"]  # noqa: N815
    """Of each row's next token."""


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def continue_tokens(
    model: Transformer,
    config: ModelConfig,
    symbols: int,
    longest: int,
    prompts_BS: Int[Array, "B S"],
    prompt_lengths_B: Int[Array, " B"],
    temperature_B: Float[Array, " B"],
    key: jax.Array,
) -> Int[Array, "B S"]:
    """Row b keeps its first prompt_lengths_B[b] tokens, at least 1 and at most `longest`; the rest is drawn, from the
    first `symbols` ids alone (rows of the embedding beyond the tokenizer's symbols stand for nothing).

    The prompts are read in one forward pass; then each step draws a token for every row that is not full, wherever that
    row stands. What is drawn depends on the key, the number of the row, its position, and what stands before it.
    """
    batch, length = prompts_BS.shape
    row_keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(batch))

    def forward(
        tokens_BT: jax.Array, positions_BT: jax.Array, real_BT: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits behind each row's last token that is real, which come first."""
        mask = AttentionMask(real_BT.astype(jnp.int32))
        last_B11 = jnp.maximum(jnp.sum(real_BT, axis=1) - 1, 0)[:, None, None]
        with forward_only():
            x_BTD, cache = cast(tuple[jax.Array, Cache], model(tokens_BT, positions_BT, mask, cache))
            return model.logits(jnp.take_along_axis(x_BTD, last_B11, axis=1))[:, 0, :symbols], cache

    def drawn(progress: Progress) -> Progress:
        """The next token of every row that is not full."""
        at_B = progress.cache.lengths_B
        keys_B = jax.vmap(jax.random.fold_in)(row_keys_B, at_B)
        token_B = draw(progress.logits_BV, temperature_B, keys_B).astype(progress.tokens_BS.dtype)
        return progress._replace(tokens_BS=written(progress.tokens_BS, token_B[:, None], at_B[:, None]))

    def step(progress: Progress) -> Progress:
        tokens_BS, cache, _ = progress = drawn(progress)
        at_B1 = cache.lengths_B[:, None]
        token_B1 = jnp.take_along_axis(tokens_BS, jnp.minimum(at_B1, length - 1), axis=1)
        logits_BV, cache = forward(token_B1, at_B1, at_B1 < length, cache)
        return Progress(tokens_BS, cache, logits_BV)

    places_BT = jnp.broadcast_to(jnp.arange(longest), (batch, longest))
    logits_BV, cache = forward(
        prompts_BS[:, :longest], places_BT, places_BT < prompt_lengths_B[:, None], empty_cache(config, batch, length)
    )
    unfinished = lambda progress: jnp.min(progress.cache.lengths_B) < length - 1
    progress = jax.lax.while_loop(unfinished, step, Progress(prompts_BS, cache, logits_BV))
    return drawn(progress).tokens_BS  # nothing has to be read behind the last token


def check_prompt(tokenizer: Tokenizer, prompt: str, tokens: int) -> list[int]:
    """The prompt's tokens after a document's head. Raises UsageError when `tokens` leaves no room after them."""
    row = [tokenizer.bos_id, *tokenizer.encode(prompt)]
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
    mesh: Mesh | None = None,
) -> list[str]:
    """The text behind each prompt, prompt included, up to the end of the document or `tokens` tokens in all.

    Row i continues prompts[i] at temperatures[i], as the beginning of a document. The devices of `mesh`, over which the
    model is laid out, share the rows, where it is given; of several processes all must ask. Raises UsageError when a
    prompt is too long.
    """
    rows = [check_prompt(tokenizer, prompt, tokens) for prompt in prompts]
    prompts_BS = np.zeros((len(rows), tokens), np.int32)
    for padded, row in zip(prompts_BS, rows, strict=True):
        padded[: len(row)] = row
    lengths_B = np.array([len(row) for row in rows], np.int32)
    temperature_B = np.array(temperatures, np.float32)
    symbols = tokenizer.vocab_size
    # In steps, so that few lengths of prompts have to be compiled for.
    longest = min(-(-int(lengths_B.max()) // PROMPT_STEP) * PROMPT_STEP, tokens)
    draw_on = continue_tokens
    if mesh is not None:
        rows_mesh = mesh_for_rows(mesh, len(rows))
        model = model if rows_mesh is mesh else moved_onto(model, rows_mesh)
        draw_on = traced_on(rows_mesh, continue_tokens)
    drawn = draw_on(model, config, symbols, longest, prompts_BS, lengths_B, temperature_B, key)
    texts = []
    for row, prompt_row in zip(on_host(drawn).tolist(), rows, strict=True):
        body = row[1:]
        ends = [i for i in range(len(prompt_row) - 1, len(body)) if body[i] in tokenizer.eos_ids]
        texts.append(tokenizer.decode(body[: ends[0]] if ends else body))
    return texts
