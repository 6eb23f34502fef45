# ruff: noqa: N815  (names of fields end in their axes)
"""Inspect a model with its config and tokenizer. Programs are compiled once per padded length, for all models of one
architecture on the same mesh.

Axes: N tokens of a text, or positions of one chunk, V vocabulary, K alternatives, D width; T positions, the first of
which is BOS and not a token of the text; L layers, E the L + 1 stages of the residual stream (after the
embedding and after each block), H heads, S key positions.
"""

import contextlib
import functools
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lm.config import ModelConfig
from lm.errors import InputError, UsageError
from lm.inspect.architecture import Part, architecture
from lm.model.attention.mask import AttentionMask
from lm.model.transformer import Transformer, map_positions
from lm.parallel import constrain, devices_of, on_host, traced_on
from lm.tokenizer import Tokenizer

SHORTEST = 32
"""Minimum padded length of a text."""
LOGITS_AT_ONCE = 1 << 26
"""Maximum number of logits in memory: 256 MB of float32."""
ALTERNATIVES = 20
"""Number of most likely tokens; fixed, so that one program serves all calls."""
MOST_POSITIONS = 64
"""Maximum number of positions in `layers`."""
MOST_SHARES = 1 << 22
"""Maximum number of attention weights, over all layers and heads, returned by `layers`: 16 MB."""
REMEMBERED = 8
"""Number of texts whose results are cached; a page requests the scores of a text and then the next token."""
GZIP_FRAME = 18
"""Bytes of a gzip file in addition to its deflated data: 10 of header without a name, 8 of checksum and length (RFC
1952)."""
type Tell = Callable[[str], None]


def silent(text: str) -> None:
    """Do nothing: the default for `tell`, which gets messages."""


class Score(NamedTuple):
    """Scores of each token of a text, given the tokens before it and BOS."""

    ids_N: np.ndarray
    """(N,) int32."""
    pieces: list[bytes]
    """Bytes of each token; empty for a special token."""
    bits_N: np.ndarray
    """(N,) float32: -log2 p of the token."""
    ranks_N: np.ndarray
    """(N,) int32: 1 if no token is more likely, 2 if one is, ..."""
    top_ids_NK: np.ndarray
    """(N, K) int32: most likely tokens at this position, best first."""
    top_probabilities_NK: np.ndarray
    """(N, K) float32."""
    bits_per_byte_N: np.ndarray
    """(N,) float64: bits per byte of the text up to and including this token; NaN before the first byte."""
    gzip_bits_per_byte_N: np.ndarray
    """(N,) float64: bits per byte of `gzip -9` for the same bytes, as a separate file."""
    dropped: int
    """Number of tokens at the end of the text that exceeded the limit and were not read."""


class Next(NamedTuple):
    """Logits of the token after a text."""

    logits_V: np.ndarray
    """(V,) float32, before the softmax, and after softcapping if the model has it; V is the tokenizer's vocabulary
    size."""
    tokens: int
    """Number of tokens read, without BOS."""
    dropped: int
    """Number of tokens at the end of the text that exceeded the limit and were not read."""


class Layers(NamedTuple):
    """Attention, residual stream and logit lens while reading a text. Position t predicts the token at t + 1."""

    ids_T: np.ndarray
    """(T,) int32: BOS, then the tokens of the text."""
    attention_LHTS: np.ndarray
    """(L, H, T, T) float32: attention weights of each query position over the key positions. Rows sum to 1."""
    stream_ET: np.ndarray
    """(L + 1, T) float32: root mean square, over the channels, of the residual stream: after the embedding, and after
    each block."""
    after_attention_LT: np.ndarray
    """(L, T) float32: the same between a block's attention and its MLP."""
    attention_out_LT: np.ndarray
    """(L, T) float32: the same of the output of attention, which is added to the stream."""
    mlp_out_LT: np.ndarray
    """(L, T) float32: the same of the output of the MLP."""
    lens_ids_ETK: np.ndarray
    """(L + 1, T, K) int32: most likely next tokens if the network ended at this stage: last norm and output projection
    applied to the stream (nostalgebraist 2020, "the logit lens"). The last stage is the model's prediction."""
    lens_probabilities_ETK: np.ndarray
    """(L + 1, T, K) float32."""
    next_probability_ET: np.ndarray
    """(L + 1, T) float32: probability of the actual next token at each stage; NaN at the last position."""
    next_rank_ET: np.ndarray
    """(L + 1, T) int32: its rank, from 1; 0 at the last position."""
    dropped: int
    """Number of tokens at the end of the text that exceeded the limit and were not read."""


def bits_per_byte(bits_N: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    """Return bits per byte of the first one, two, ... tokens: (N,) float64, NaN before the first byte."""
    return per_byte(np.cumsum(bits_N.astype(np.float64)), pieces)


def per_byte(bits_N: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    bytes_N = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return np.divide(bits_N, bytes_N, out=np.full(len(pieces), np.nan), where=bytes_N > 0)


def gzip_bits_per_byte(pieces: Sequence[bytes]) -> np.ndarray:
    """Return the size of `gzip -9`, in bits per byte, of the first one, two, ... tokens' bytes: (N,) float64. Each
    prefix counts as a file of its own."""
    deflater, done, sizes = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), 0, []
    for piece in pieces:
        done += len(deflater.compress(piece))
        sizes.append(GZIP_FRAME + done + len(deflater.copy().flush()))
    return per_byte(8.0 * np.array(sizes, np.float64), pieces)


class Guesses(NamedTuple):
    """Predictions at each position of a text, and how they rate the actual next token."""

    losses_T: jax.Array
    """-log p of the actual token, in nats, float32."""
    ranks_T: jax.Array
    """1 if no token is more likely, 2 if one is, ..."""
    ids_TK: jax.Array
    """The most likely tokens, best first."""
    probabilities_TK: jax.Array
    """Of the most likely tokens, best first."""


def padded_length(tokens: int, config: ModelConfig, mesh: Mesh) -> int:
    """Return the length to pad `tokens` tokens to: a power of two, and a multiple of the devices that share positions,
    at most the context length."""
    parts = devices_of("length", mesh)
    power = 1 << max(0, tokens - 1).bit_length()
    return min(config.context_length, parts * math.ceil(max(SHORTEST, power) / parts))


def guesses(logits_NV: jax.Array, next_N: jax.Array, symbols: int) -> Guesses:
    """Return the predictions at N positions from their logits, and how they rate the actual next tokens `next_N`. Only
    the tokenizer's `symbols` ids are predicted."""
    log_sums_N1 = jax.nn.logsumexp(logits_NV, axis=-1, keepdims=True)
    target_N1 = jnp.take_along_axis(logits_NV, next_N[:, None], axis=-1)
    best_NK, ids_NK = jax.lax.top_k(logits_NV[:, :symbols], min(ALTERNATIVES, symbols))
    ranks_N = 1 + jnp.sum(logits_NV[:, :symbols] > target_N1, axis=-1, dtype=jnp.int32)
    return Guesses((log_sums_N1 - target_N1)[:, 0], ranks_N, ids_NK, jnp.exp(best_NK - log_sums_N1))


def whole[Arrays](arrays: Arrays) -> Arrays:
    """Constrain all arrays to be replicated on every device."""
    return jax.tree.map(lambda array: constrain(array, *[None] * array.ndim), arrays)


def read_text(symbols: int, model: Transformer, tokens_1T: jax.Array, last: jax.Array) -> tuple[Guesses, jax.Array]:
    """Return (predictions at all positions of a text, logits of `symbols` ids after position `last`). Padding after the
    text does not affect them."""
    x_1TD = model.read(tokens_1T, jnp.ones_like(tokens_1T))
    parts = math.ceil(tokens_1T.shape[1] * model.embedding.shape[0] / LOGITS_AT_ONCE)
    found = map_positions(model, tokens_1T, x_1TD, parts, functools.partial(guesses, symbols=symbols))
    logits_V = model.logits(jax.lax.dynamic_slice_in_dim(x_1TD, last, 1, axis=1))[0, 0, :symbols]
    return whole((found, logits_V))


def look_inside(symbols: int, model: Transformer, tokens_1T: jax.Array) -> tuple[list[jax.Array], Guesses]:
    """Return (fields `attention_LHTS` to `mlp_out_LT` of Layers; logit-lens predictions, with a first axis E)."""
    names = ("embedding", "blocks.*.attention.weights", "blocks.*.*.out", "blocks.*.*.residual")
    found = model.forward_with_taps(tokens_1T, AttentionMask(jnp.ones_like(tokens_1T)), names)
    of_layers = lambda name: jnp.concatenate([found[f"blocks.{one}.{name}"] for one in range(model.layers)])
    stream_ETD = jnp.concatenate([found["embedding"], of_layers("mlp.residual")])
    next_T = jnp.roll(tokens_1T[0], -1)
    said = lambda x_TD: guesses(model.logits(model.norm(x_TD[None]))[0], next_T, symbols)
    lens = jax.lax.map(said, stream_ETD)
    size = lambda x: jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1))
    parts = [of_layers(f"attention.{name}") for name in ("residual", "out")] + [of_layers("mlp.out")]
    return whole(([of_layers("attention.weights"), *map(size, (stream_ETD, *parts))], lens))


@functools.cache
def programs(mesh: Mesh, symbols: int) -> tuple[dict[str, Callable[..., Any]], set[tuple[ModelConfig, str, int]]]:
    """Return ({name: jitted function} for models on this mesh and tokenizers of `symbols` ids; the set of (config,
    name, padded length) that were compiled, to which callers add). Cached for all checkpoints of a run."""
    jitted = lambda function: traced_on(mesh, jax.jit(functools.partial(function, symbols)))
    return {"read_text": jitted(read_text), "look_inside": jitted(look_inside)}, set()


class Inspector:
    """Inspects a model. Texts are read as documents, after BOS, which does not count as one of their tokens. A text is
    a string, in which names of special tokens are plain text, or token ids, whose first may be BOS."""

    def __init__(self, model: Transformer, config: ModelConfig, tokenizer: Tokenizer, mesh: Mesh):
        """`model` is on `mesh`, or prepared by lm.inference.weights. The value of
        configs.experiment.run_folder.RunFolder.load has all four arguments."""
        self.model, self.config, self.tokenizer, self.mesh = model, config, tokenizer, mesh
        self._programs, self._ready = programs(mesh, tokenizer.vocab_size)
        self._special = frozenset(tokenizer.special_tokens.values())
        self._remembered: OrderedDict[tuple[int, ...], tuple[Guesses, np.ndarray]] = OrderedDict()

    @property
    def parameters(self) -> int:
        """Number of parameters, counted from the config."""
        return self.architecture().parameters

    @property
    def room(self) -> int:
        """Maximum number of tokens of a text that the model reads: the context without BOS."""
        return self.config.context_length - 1

    def architecture(self) -> Part:
        """Return the tree of the network's parts."""
        return architecture(self.config)

    def score(self, text: str | Sequence[int], top: int = 5, most: int | None = None, tell: Tell = silent) -> Score:
        """Score each token of a text, with the `top` most likely tokens (at most 20) at its position. At most `most`
        tokens are read, and no more than the model's context holds. `tell` is called with a message before a program is
        compiled. Raises UsageError for an invalid id, InputError for text that cannot be encoded or NaN."""
        ids, dropped = self.cut(text, most)
        found, _ = self._read(ids, tell)
        scored = jax.tree.map(lambda array: array[: len(ids)], found)
        check_finite(scored.losses_T)
        pieces = [b"" if id in self._special else self.tokenizer.token_bytes(id) for id in ids]
        bits_N = scored.losses_T / np.float32(math.log(2))
        return Score(
            np.array(ids, np.int32), pieces, bits_N, scored.ranks_T,
            scored.ids_TK[:, : self._checked(top)], scored.probabilities_TK[:, :top],
            bits_per_byte(bits_N, pieces), gzip_bits_per_byte(pieces), dropped,
        )  # fmt: skip

    def next_logits(self, text: str | Sequence[int], most: int | None = None, tell: Tell = silent) -> Next:
        """Return the logits of the token after a text. Arguments and errors are those of `score`."""
        ids, dropped = self.cut(text, most)
        logits_V = self._read(ids, tell)[1]
        check_finite(logits_V)
        return Next(logits_V, len(ids), dropped)

    def layers(self, text: str | Sequence[int], top: int = 5, tell: Tell = silent) -> Layers:
        """Return attention, residual stream and logit lens for BOS and the first tokens of a text, up to MOST_POSITIONS
        positions and MOST_SHARES attention weights. Errors are those of `score`."""
        heads = self.config.layers * self.config.heads
        ids, dropped = self.cut(text, min(MOST_POSITIONS - 1, max(1, math.isqrt(MOST_SHARES // heads) - 1)))
        tokens, top = [self.tokenizer.bos_id, *ids], self._checked(top)
        count = len(tokens)
        row_1T = self._row(tokens)
        with self._compiled_once("look_inside", row_1T.shape[1], tell):
            inside, lens = jax.tree.map(on_host, self._programs["look_inside"](self.model, row_1T))
        attention_LHTS, *sizes = inside
        lens = jax.tree.map(lambda array: array[:, :count], lens)
        check_finite(lens.probabilities_TK)
        next_ET, rank_ET = np.exp(-lens.losses_T), lens.ranks_T.copy()
        next_ET[:, -1], rank_ET[:, -1] = np.nan, 0
        return Layers(
            np.array(tokens, np.int32), attention_LHTS[:, :, :count, :count], *(one[:, :count] for one in sizes),
            lens.ids_TK[..., :top], lens.probabilities_TK[..., :top], next_ET, rank_ET, dropped,
        )  # fmt: skip

    def warm(self, most: int | None = None) -> None:
        """Compile the programs for texts of all lengths up to `most` tokens."""
        room = self.room if most is None else min(most, self.room)
        for tokens in sorted({min(1 << power, room) for power in range(room.bit_length() + 1)}):
            self._read_uncached((self.tokenizer.bos_id,) * tokens)
        for positions in sorted({1, min(MOST_POSITIONS, self.config.context_length)}):
            self.layers([self.tokenizer.bos_id] * positions)

    def ids_of(self, text: str | Sequence[int]) -> list[int]:
        """Return the ids of a text without BOS. Raises UsageError for an invalid id, InputError if it cannot be
        encoded."""
        if isinstance(text, str):
            return self.tokenizer.encode(text)
        ids = [int(id) for id in text]
        if wrong := [id for id in ids if not 0 <= id < self.tokenizer.vocab_size]:
            raise UsageError(f"{wrong[0]} is not a token id: ids range from 0 to {self.tokenizer.vocab_size - 1:,}.")
        return ids[1:] if ids[:1] == [self.tokenizer.bos_id] else ids

    def cut(self, text: str | Sequence[int], most: int | None) -> tuple[tuple[int, ...], int]:
        """Return (first tokens of a text, at most `most` and no more than the context holds; number of tokens after
        them). Errors are those of `ids_of`."""
        ids, room = self.ids_of(text), self.room if most is None else min(most, self.room)
        return tuple(ids[:room]), max(0, len(ids) - room)

    def _checked(self, top: int) -> int:
        if not 0 <= top <= ALTERNATIVES:
            raise UsageError(f"top is {top}; it must be from 0 to {ALTERNATIVES}.")
        return top

    def _row(self, tokens: Sequence[int]) -> jax.Array:
        row_1T = np.zeros((1, padded_length(len(tokens), self.config, self.mesh)), np.int32)
        row_1T[0, : len(tokens)] = tokens
        return jnp.asarray(row_1T)

    @contextlib.contextmanager
    def _compiled_once(self, program: str, length: int, tell: Tell) -> Generator[None]:
        """Context manager around a call of a program: reports the compilation, if no earlier call has returned."""
        key = self.config, program, length
        if key not in self._ready:
            tell(f"compiling a program for texts of up to {length - 1:,} tokens (once)")
        yield
        self._ready.add(key)

    def _read(self, ids: tuple[int, ...], tell: Tell) -> tuple[Guesses, np.ndarray]:
        """Like `_read_uncached`, with a cache of the last results. Not by functools.lru_cache, which would keep the
        Inspector and its parameters in a reference cycle that is collected late."""
        found = self._remembered.pop(ids, None)
        found = self._remembered[ids] = self._read_uncached(ids, tell) if found is None else found
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    def _read_uncached(self, ids: tuple[int, ...], tell: Tell = silent) -> tuple[Guesses, np.ndarray]:
        """Return (predictions at BOS and each token of a text, logits after it)."""
        row_1T = self._row([self.tokenizer.bos_id, *ids])
        with self._compiled_once("read_text", row_1T.shape[1], tell):
            return jax.tree.map(on_host, self._programs["read_text"](self.model, row_1T, jnp.int32(len(ids))))


def check_finite(array: np.ndarray) -> None:
    """Raise InputError if a value computed by the model is NaN or infinite."""
    if not np.isfinite(array).all():
        raise InputError(
            "The model's probabilities are NaN or infinite: its training has diverged, or its "
            "parameters are damaged. Look at an earlier step."
        )
