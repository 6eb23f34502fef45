# ruff: noqa: N815  (names of fields end in their axes)
"""The programs behind an Inspector: what a model makes of one text, and what goes on inside it.

Each is compiled once for each padded length, whatever the text, for all models of one form on one mesh.

Axes: T positions, N those of one part, V vocabulary, D width, K alternatives; L layers, E the L + 1 stages of the
residual stream (embedded, then behind each block), H heads, S key positions.
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
"""Positions that a text is filled up to, at least."""
LOGITS_AT_ONCE = 1 << 26
"""256 MB of float32."""
ALTERNATIVES = 20
"""The likeliest tokens that are looked for, always as many: so it is one program."""


class Guesses(NamedTuple):
    """At each position, what may come next: the distribution, and the token that came."""

    losses_T: jax.Array
    """-log p of the token that came, in nats, float32."""
    ranks_T: jax.Array
    """1 where no token was likelier, 2 where one was, ..."""
    ids_TK: jax.Array
    probabilities_TK: jax.Array
    """The likeliest tokens, the likeliest first."""


class Inside(NamedTuple):
    """What goes on inside the network."""

    attention_LHTS: jax.Array
    """The share of each key in what a query gathers, float32."""
    stream_ET: jax.Array
    """Root mean square over the channels of the residual stream."""
    behind_attention_LT: jax.Array
    """The same between a block's attention and its MLP."""
    attention_out_LT: jax.Array
    mlp_out_LT: jax.Array
    """The same of what attention and MLP add."""
    lens: Guesses
    """With an axis E before the others: the model's last norm and output projection on each stage of the stream."""


def padded_length(tokens: int, config: ModelConfig, mesh: Mesh) -> int:
    """A power of two, or what the mesh divides; the whole context at most."""
    parts = devices_of("length", mesh)
    power = 1 << max(0, tokens - 1).bit_length()
    return min(config.context_length, parts * math.ceil(max(SHORTEST, power) / parts))


def guesses(logits_NV: jax.Array, next_N: jax.Array, symbols: int) -> Guesses:
    """Among the first `symbols` ids, the tokenizer's: rows of the table beyond them stand for nothing."""
    log_sums_N1 = jax.nn.logsumexp(logits_NV, axis=-1, keepdims=True)
    target_N1 = jnp.take_along_axis(logits_NV, next_N[:, None], axis=-1)
    best_NK, ids_NK = jax.lax.top_k(logits_NV[:, :symbols], min(ALTERNATIVES, symbols))
    ranks_N = 1 + jnp.sum(logits_NV[:, :symbols] > target_N1, axis=-1, dtype=jnp.int32)
    return Guesses((log_sums_N1 - target_N1)[:, 0], ranks_N, ids_NK, jnp.exp(best_NK - log_sums_N1))


def whole[Arrays](arrays: Arrays) -> Arrays:
    """On every device."""
    return jax.tree.map(lambda array: constrain(array, *[None] * array.ndim), arrays)


def read_text(symbols: int, model: Transformer, tokens_1T: jax.Array, last: jax.Array) -> tuple[Guesses, jax.Array]:
    """(the guesses at every position, the logits of `symbols` ids behind position `last`). Padding comes behind the
    text, where no position of it sees any."""
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
    """All that the taps of the forward pass give."""
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
    """Jitted."""

    read_text: Callable[..., tuple[Guesses, jax.Array]]
    look_inside: Callable[..., Inside]
    ready: set[tuple[ModelConfig, str, int]]
    """(model, program, padded length) of those that have been compiled."""


@functools.cache
def programs(mesh: Mesh, symbols: int) -> Programs:
    """For models on this mesh, whose tokenizer has so many symbols: all steps of a run share them."""
    jitted = lambda function: traced_on(mesh, jax.jit(functools.partial(function, symbols)))
    return Programs(jitted(read_text), jitted(look_inside), set())
