# ruff: noqa: N815  (names of fields end in their axes)
"""What an Inspector answers: arrays with names.

Axes: N tokens of a text, V vocabulary, K alternatives; T positions, the first of which is the document's head and not a
token of the text; L layers, E the L + 1 stages of the residual stream, H heads, S key positions.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GZIP_FRAME = 18
"""Bytes of a gzip file around its deflated data: a header of 10 without a name, 8 of checksum and length (RFC 1952)."""


class Score(NamedTuple):
    """What a model makes of each token of a text, given those before it; of the first, given the document's head."""

    ids_N: np.ndarray
    """(N,) int32."""
    pieces: list[bytes]
    """The bytes that each token stands for; none for a special token."""
    bits_N: np.ndarray
    """(N,) float32: -log2 p of the token."""
    ranks_N: np.ndarray
    """(N,) int32: 1 where no token was likelier, 2 where one was, ..."""
    top_ids_NK: np.ndarray
    """(N, K) int32: the likeliest tokens in its place, the likeliest first."""
    top_probabilities_NK: np.ndarray
    """(N, K) float32."""
    bits_per_byte_N: np.ndarray
    """(N,) float64: bits of the text so far, this token included, for each byte of it; NaN before the first byte."""
    gzip_bits_per_byte_N: np.ndarray
    """(N,) float64: what `gzip -9` needs for the same bytes, as a file of their own."""
    dropped: int
    """Tokens at the text's end that were beyond the limit, and not read."""


class Next(NamedTuple):
    """The distribution behind a text."""

    logits_V: np.ndarray
    """(V,) float32, before the softmax, softcapped where the model does so; V is the tokenizer's symbols."""
    tokens: int
    """That were read, the document's head not counted."""
    dropped: int


class Layers(NamedTuple):
    """What goes on inside the network while it reads a text. At position t it guesses the token of position t + 1."""

    ids_T: np.ndarray
    """(T,) int32: the document's head, then the text's tokens."""
    attention_LHTS: np.ndarray
    """(L, H, T, T) float32: the share of each key position in what a query position gathers. Rows add up to 1."""
    stream_ET: np.ndarray
    """(L + 1, T) float32: root mean square, over the channels, of the residual stream: embedded, then behind each
    block."""
    behind_attention_LT: np.ndarray
    """(L, T) float32: the same between a block's attention and its MLP."""
    attention_out_LT: np.ndarray
    """(L, T) float32: the same of what attention adds to the stream,"""
    mlp_out_LT: np.ndarray
    """(L, T) float32: and of what the MLP adds."""
    lens_ids_ETK: np.ndarray
    """(L + 1, T, K) int32: the likeliest next tokens, if the network ended there: its last norm and its output
    projection on each stage of the stream (nostalgebraist 2020, "the logit lens"). The last stage is the model's own
    answer."""
    lens_probabilities_ETK: np.ndarray
    """(L + 1, T, K) float32."""
    came_ET: np.ndarray
    """(L + 1, T) float32: the probability that each stage gives the token that came next; NaN at the last position."""
    came_rank_ET: np.ndarray
    """(L + 1, T) int32: its rank, from 1; 0 at the last position."""
    dropped: int


def bits_per_byte(bits_N: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    """The running mean, in float64."""
    return per_byte(np.cumsum(bits_N.astype(np.float64)), pieces)


def per_byte(bits_N: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    bytes_N = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return np.divide(bits_N, bytes_N, out=np.full(len(pieces), np.nan), where=bytes_N > 0)


def gzip_bits_per_byte(pieces: Sequence[bytes]) -> np.ndarray:
    """8 times the size of `gzip -9` of the first one, two, ... pieces, for each byte of them: each prefix is a file of
    its own, with header and trailer. The deflater goes on from prefix to prefix; a copy of it is ended at each."""
    deflater, done, sizes = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), 0, []
    for piece in pieces:
        done += len(deflater.compress(piece))
        sizes.append(GZIP_FRAME + done + len(deflater.copy().flush()))
    return per_byte(8.0 * np.array(sizes, np.float64), pieces)
