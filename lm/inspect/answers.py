# ruff: noqa: N815  (names of fields end in their axes)
"""Results of an Inspector, as named arrays.

Axes: N tokens of a text, V vocabulary, K alternatives; T positions, the first of which is the document head and not a
token of the text; L layers, E the L + 1 stages of the residual stream, H heads, S key positions.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GZIP_FRAME = 18
"""Bytes of a gzip file in addition to its deflated data: 10 of header without a name, 8 of checksum and length (RFC
1952)."""


class Score(NamedTuple):
    """Scores of each token of a text, given the previous tokens and the document head."""

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
    """Distribution of the token after a text."""

    logits_V: np.ndarray
    """(V,) float32, before the softmax, and after softcapping if the model has it; V is the tokenizer's vocabulary
    size."""
    tokens: int
    """Number of tokens read, without the document head."""
    dropped: int


class Layers(NamedTuple):
    """Internal values of the network while it reads a text. Position t predicts the token at position t + 1."""

    ids_T: np.ndarray
    """(T,) int32: document head, then the tokens of the text."""
    attention_LHTS: np.ndarray
    """(L, H, T, T) float32: attention weights of each query position over the key positions. Rows sum to 1."""
    stream_ET: np.ndarray
    """(L + 1, T) float32: root mean square, over the channels, of the residual stream: after the embedding, and after
    each block."""
    behind_attention_LT: np.ndarray
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
    came_ET: np.ndarray
    """(L + 1, T) float32: probability of the actual next token at each stage; NaN at the last position."""
    came_rank_ET: np.ndarray
    """(L + 1, T) int32: its rank, from 1; 0 at the last position."""
    dropped: int


def bits_per_byte(bits_N: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    """Running mean of bits per byte, in float64."""
    return per_byte(np.cumsum(bits_N.astype(np.float64)), pieces)


def per_byte(bits_N: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    bytes_N = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return np.divide(bits_N, bytes_N, out=np.full(len(pieces), np.nan), where=bytes_N > 0)


def gzip_bits_per_byte(pieces: Sequence[bytes]) -> np.ndarray:
    """Return the size of `gzip -9` in bits per byte of the first one, two, ... pieces, each prefix as a separate file
    with header and trailer. The deflater continues from prefix to prefix; a copy of it is flushed at each."""
    deflater, done, sizes = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), 0, []
    for piece in pieces:
        done += len(deflater.compress(piece))
        sizes.append(GZIP_FRAME + done + len(deflater.copy().flush()))
    return per_byte(8.0 * np.array(sizes, np.float64), pieces)
