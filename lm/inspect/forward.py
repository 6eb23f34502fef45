# ruff: noqa: N815  (names of fields end in their axes)
"""Programs of an Inspector: predictions for a text, and internal values of the network.

Each is compiled once per padded length, for all models of the same architecture on the same mesh.

Axes: T positions, N positions of one chunk, V vocabulary, D width, K alternatives; L layers, E the L + 1 stages of the
residual stream (after the embedding and after each block), H heads, S key positions.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm.config import ModelConfig
from lm.model.attention.mask import AttentionMask
from lm.model.transformer import Transformer
from lm.parallel import constrain, devices_of, forward_only, traced_on

SHORTEST = 32
"""Minimum padded length of a text."""
LOGITS_AT_ONCE = 1 << 26
"""256 MB of float32."""
ALTERNATIVES = 20
"""Number of most likely tokens; fixed, so that one program serves all calls."""


class Guesses(NamedTuple):
    """Predictions at each position, compared with the actual next token."""

    losses_T: jax.Array
    """-log p of the actual token, in nats, float32."""
    ranks_T: jax.Array
    """1 if no token is more likely, 2 if one is, ..."""
    ids_TK: jax.Array
    probabilities_TK: jax.Array
    """Of the most likely tokens, best first."""


class Inside(NamedTuple):
    """Internal values of the network."""

    attention_LHTS: jax.Array
    """Attention weights, float32."""
    stream_ET: jax.Array
    """Root mean square of the residual stream over the channels."""
    behind_attention_LT: jax.Array
    """The same between a block's attention and its MLP."""
    attention_out_LT: jax.Array
    mlp_out_LT: jax.Array
    """The same of the outputs of attention and MLP."""
    lens: Guesses
    """With an additional first axis E: the model's last norm and output projection applied to each stage of the
    stream."""


def padded_length(tokens: int, config: ModelConfig, mesh: Mesh) -> int:
    """Round up to a power of two, or to a multiple of the devices along length; at most the context length."""
    parts = devices_of("length", mesh)
    power = 1 << max(0, tokens - 1).bit_length()
    return min(config.context_length, parts * math.ceil(max(SHORTEST, power) / parts))


def guesses(logits_NV: jax.Array, next_N: jax.Array, symbols: int) -> Guesses:
    """Predictions among the first `symbols` ids, the tokenizer's; further rows of the table are unused."""
    log_sums_N1 = jax.nn.logsumexp(logits_NV, axis=-1, keepdims=True)
    target_N1 = jnp.take_along_axis(logits_NV, next_N[:, None], axis=-1)
    best_NK, ids_NK = jax.lax.top_k(logits_NV[:, :symbols], min(ALTERNATIVES, symbols))
    ranks_N = 1 + jnp.sum(logits_NV[:, :symbols] > target_N1, axis=-1, dtype=jnp.int32)
    return Guesses((log_sums_N1 - target_N1)[:, 0], ranks_N, ids_NK, jnp.exp(best_NK - log_sums_N1))


def whole[Arrays](arrays: Arrays) -> Arrays:
    """Replicate on every device."""
    return jax.tree.map(lambda array: constrain(array, *[None] * array.ndim), arrays)


def read_text(symbols: int, model: Transformer, tokens_1T: jax.Array, last: jax.Array) -> tuple[Guesses, jax.Array]:
    """Return (predictions at every position, logits of `symbols` ids after position `last`). Padding follows the text,
    and is not visible to it."""
    length = tokens_1T.shape[1]
    with forward_only():
        x_1TD = model.read(tokens_1T, jnp.ones_like(tokens_1T))
        parts = math.ceil(length * model.embedding.shape[0] / LOGITS_AT_ONCE)
        padding = (0, -length % parts)
        x_PND = jnp.pad(x_1TD[0], (padding, (0, 0))).reshape(parts, -1, x_1TD.shape[-1])
        next_PN = jnp.pad(jnp.roll(tokens_1T[0], -1), padding).reshape(parts, -1)
        of_part = lambda part: guesses(model.logits(part[0][None])[0], part[1], symbols)
        found = jax.lax.map(of_part, (x_PND, next_PN))
        logits_V = model.logits(jax.lax.dynamic_slice_in_dim(x_1TD, last, 1, axis=1))[0, 0, :symbols]
    return whole((jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:length], found), logits_V))


def look_inside(symbols: int, model: Transformer, tokens_1T: jax.Array) -> Inside:
    """Return all internal values captured by the taps."""
    names = ("embedding", "blocks.*.attention.weights", "blocks.*.*.out", "blocks.*.*.residual")
    with forward_only():
        found = model.forward_with_taps(tokens_1T, AttentionMask(jnp.ones_like(tokens_1T)), names)
        of_layers = lambda name: jnp.concatenate([found[f"blocks.{one}.{name}"] for one in range(model.layers)])
        stream_ETD = jnp.concatenate([found["embedding"], of_layers("mlp.residual")])
        next_T = jnp.roll(tokens_1T[0], -1)
        said = lambda x_TD: guesses(model.logits(model.norm(x_TD[None]))[0], next_T, symbols)
        lens = jax.lax.map(said, stream_ETD)
    size = lambda x: jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1))
    return whole(
        Inside(
            of_layers("attention.weights"),
            size(stream_ETD),
            size(of_layers("attention.residual")),
            size(of_layers("attention.out")),
            size(of_layers("mlp.out")),
            lens,
        )
    )


class Programs(NamedTuple):
    """Jitted functions."""

    read_text: Callable[..., tuple[Guesses, jax.Array]]
    look_inside: Callable[..., Inside]
    ready: set[tuple[ModelConfig, str, int]]
    """(config, program, padded length) of compiled programs."""


@functools.cache
def programs(mesh: Mesh, symbols: int) -> Programs:
    """Return the programs for models on this mesh with `symbols` tokens; all steps of a run share them."""
    jitted = lambda function: traced_on(mesh, jax.jit(functools.partial(function, symbols)))
    return Programs(jitted(read_text), jitted(look_inside), set())
