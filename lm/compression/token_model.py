"""The model as the coder uses it: next-token logits of all segments at once, one token at a time.

Compression and decompression run the same compiled programs on the same shapes in the same order, so they compute the
same bits: a forward pass over whole sequences, or over more rows, would add in another order.

Axes: B segments, N tokens in total, S tokens of a segment, H tokens read at a restart, T positions, V vocabulary.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig
from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import Cache, empty_cache
from lm.model.transformer import Transformer, row_positions
from lm.parallel import on_host, traced_on

LEAST_TOKENS, CONTEXTS = 512, 2
"""If a file has several segments, each has at least LEAST_TOKENS tokens and CONTEXTS times the model's context. The
first tokens of a segment lack context, which costs a few bytes; most have as much as without the split."""
MOST_SEGMENTS = 64
LEAST_CAPACITY = 32
"""Minimum number of positions in the cache. The number is a power of two, so that few shapes are compiled."""


def segments_for(tokens: int, context: int) -> int:
    """Return the number of segments for a file: the largest power of two, up to MOST_SEGMENTS, for which no segment is
    shorter than the minimum (LEAST_TOKENS, CONTEXTS); 1 if there is none."""
    whole = tokens // max(LEAST_TOKENS, CONTEXTS * context)
    return min(1 << (max(whole, 1).bit_length() - 1), MOST_SEGMENTS)


@dataclass(frozen=True)
class Layout:
    """Division of a file's tokens into segments, read in parallel. The first segments may have one more token."""

    tokens: int
    segments: int
    context: int
    """Context length of the model."""

    @property
    def steps(self) -> int:
        """Number of tokens in the longest segment."""
        return -(-self.tokens // self.segments)

    def active(self, step: int) -> int:
        """Return the number of segments that have a token at this step: the first ones of the file."""
        return self.segments if step < self.tokens // self.segments else self.tokens % self.segments

    @property
    def capacity(self) -> int:
        """Number of positions in the key-value cache: the context length, or fewer if segments are shorter."""
        return min(self.context, max(LEAST_CAPACITY, 1 << max(self.steps - 1, 0).bit_length()))

    @property
    def kept(self) -> int:
        """Number of tokens that are read again when the context is full: its later half."""
        return max(1, self.context // 2)

    @property
    def restarts(self) -> bool:
        return self.steps > self.context

    def rows(self, tokens: list[int]) -> Int[np.ndarray, "B S"]:
        """Return the file's tokens with each segment in a row, padded with 0."""
        tokens_BS = np.zeros((self.segments, self.steps), np.int32)
        whole, more = divmod(self.tokens, self.segments)
        for row in range(self.segments):
            start = row * whole + min(row, more)
            segment = tokens[start : start + whole + (row < more)]
            tokens_BS[row, : len(segment)] = segment
        return tokens_BS

    def flat(self, blocks: Sequence[Int[np.ndarray, "B _"]]) -> Iterator[list[int]]:
        """Yield the file's tokens in order; `blocks` are the array of `rows`, cut along the axis of tokens."""
        whole, more = divmod(self.tokens, self.segments)
        for row in range(self.segments):
            left = whole + (row < more)
            for block in blocks:
                yield block[row, :left].tolist()
                left = max(0, left - block.shape[1])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def no_tokens(config: ModelConfig, segments: int, capacity: int) -> Cache:
    return empty_cache(config, segments, capacity)


def next_logits(
    model: Transformer, cache: Cache, tokens_BT: Int[Array, "B T"], positions_BT: Int[Array, "#B T"]
) -> tuple[Float[Array, "B V"], Cache]:
    mask = AttentionMask(jnp.ones_like(tokens_BT))
    x_BTD, read = model(tokens_BT, positions_BT, mask, cache)
    return model.logits(x_BTD[:, -1:])[:, 0].astype(jnp.float32), cast(Cache, read)


@functools.partial(jax.jit, donate_argnums=1)
def read_token(model: Transformer, cache: Cache, tokens_B: Int[Array, " B"]) -> tuple[Float[Array, "B V"], Cache]:
    """Read one more token of each segment; return (next-token logits, cache)."""
    return next_logits(model, cache, tokens_B[:, None], cache.lengths_B[:, None])


@functools.partial(jax.jit, donate_argnums=1)
def read_tokens(model: Transformer, cache: Cache, tokens_BH: Int[Array, "B H"]) -> tuple[Float[Array, "B V"], Cache]:
    """Read the first tokens of each segment into an empty cache; return (next-token logits, cache)."""
    return next_logits(model, cache, tokens_BH, row_positions(tokens_BH))


class TokenModel:
    """Reader of a file's segments, token by token; it returns next-token logits."""

    def __init__(self, model: Transformer, config: ModelConfig, mesh: Mesh, layout: Layout):
        """`model` is sharded over `mesh`."""
        self.model, self.config, self.mesh, self.layout = model, config, mesh, layout
        self.read_token, self.read_tokens = traced_on(mesh, read_token), traced_on(mesh, read_tokens)
        self.cache = self.empty()
        self.position = 0
        self.history_BS = np.zeros((layout.segments, layout.context), np.int32)
        """Tokens in the cache, by slot."""

    def empty(self) -> Cache:
        return traced_on(self.mesh, no_tokens)(self.config, self.layout.segments, self.layout.capacity)

    def read(self, tokens_B: Int[np.ndarray, " B"]) -> jax.Array:
        """Read one more token of each segment; return the next-token logits (B, V). When the context is full, its later
        half is read again into an empty cache."""
        if self.position == self.layout.context:
            kept = self.layout.kept
            last_BH = np.concatenate([self.history_BS[:, self.position - kept + 1 :], tokens_B[:, None]], axis=1)
            self.history_BS[:, :kept] = last_BH
            self.position = kept
            logits_BV, self.cache = self.read_tokens(self.model, self.empty(), last_BH)
            return logits_BV
        self.history_BS[:, self.position] = tokens_B
        self.position += 1
        logits_BV, self.cache = self.read_token(self.model, self.cache, tokens_B)
        return logits_BV

    def program(self) -> bytes:
        """Return the SHA-256 of the programs as passed to XLA, which may differ with other model code or JAX
        versions."""
        cache = jax.eval_shape(lambda: empty_cache(self.config, self.layout.segments, self.layout.capacity))
        shape = lambda *axes: jax.ShapeDtypeStruct((self.layout.segments, *axes), jnp.int32)
        texts = [traced_on(self.mesh, read_token.lower)(self.model, cache, shape()).as_text()]
        if self.layout.restarts:
            texts.append(traced_on(self.mesh, read_tokens.lower)(self.model, cache, shape(self.layout.kept)).as_text())
        return hashlib.sha256("\n".join(texts).encode()).digest()


def probabilities(logits_BV: jax.Array, usable_V: np.ndarray) -> Float[np.ndarray, "B V"]:
    """Return unnormalized probabilities for the coder: float64, 1 for the most likely id, 0 for ids that are not text.
    Computed on the host, for coding and decoding alike. Raises FloatingPointError if logits are not finite."""
    scores_BV = np.where(usable_V, on_host(logits_BV)[:, : len(usable_V)], np.float32(-np.inf))
    greatest_B1 = scores_BV.max(axis=1, keepdims=True)
    if not np.isfinite(greatest_B1).all():
        raise FloatingPointError("the model's logits are not finite")
    return np.exp((scores_BV - greatest_B1).astype(np.float64))
