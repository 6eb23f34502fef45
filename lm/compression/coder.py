"""Convert tokens to bits and back: a range coder (Martin 1979), from the constriction library (arXiv:2201.01741),
driven by the model's probabilities of each next token.

A token of probability p takes -log2 p bits. The library rounds probabilities to 24-bit integers, each at least 1: that
costs log2(1 / (1 - V / 2^24)) bits per token, .0004 for 4,096 symbols, .011 for 128,000.

Axes: B segments, S tokens of a segment, V vocabulary.
"""

import platform
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lm.compression.token_model import TokenModel, probabilities
from lm.errors import UsageError
from lm.tokenizer import Tokenizer

try:
    import constriction
except ImportError as error:
    raise UsageError(
        f"Compression needs the package constriction: {error}. There is no wheel for Linux on {platform.machine()}. "
        "Compress on x86_64 or macOS, or build the package (with a Rust compiler): make add PACKAGE=constriction."
    ) from error

stream: Any = constriction.stream  # ty: ignore[missing-attribute]  (a module of Rust, without types)

type Progress = Callable[[int], None]
"""Called with the number of tokens done."""
PRECISION = 24
"""Number of bits of constriction's probabilities."""
BITS_SLACK = 1.05
"""The cross-entropy of the decoded tokens may exceed the coder's bits by this factor, since the coder rounds
probabilities."""
BLOCK = 4096
"""Tokens of each segment for which the decoder allocates memory at once."""


class Coded(NamedTuple):
    """Output of the coder."""

    data: bytes
    bits: float
    """Cross-entropy: the sum of -log2 of the tokens' probabilities."""


def usable_symbols(tokenizer: Tokenizer) -> np.ndarray:
    """Return bool (V,): whether a text can contain the token. Special tokens and unused ids get no probability."""
    special = set(tokenizer.special_tokens.values())
    return np.array([i not in special and bool(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])


def most_tokens(data: bytes, symbols: int) -> int:
    """Return the maximum number of tokens in coded `data`: even the most likely token takes a fraction of a bit."""
    least = -np.log2(1 - (symbols - 1) / 2**PRECISION) if symbols > 1 else 2.0**-PRECISION
    return int((8 * len(data) + 64) / least) + 1


def encode(tokens: list[int], model: TokenModel, tokenizer: Tokenizer, progress: Progress) -> Coded:
    """Code the tokens of a file. Raises FloatingPointError if the model's logits are not finite."""
    layout, usable_V = model.layout, usable_symbols(tokenizer)
    encoder, family, bits = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False), 0.0
    tokens_BS = layout.rows(tokens)
    done = 0
    logits_BV = model.read(np.full(layout.segments, tokenizer.bos_id, np.int32))
    for step in range(layout.steps):
        # Dispatch the next step before coding this one: devices and host work in parallel.
        following = model.read(tokens_BS[:, step]) if step + 1 < layout.steps else logits_BV
        active = layout.active(step)
        p_BV, tokens_B = probabilities(logits_BV, usable_V)[:active], tokens_BS[:active, step]
        encoder.encode(tokens_B, family, p_BV)
        bits -= float(np.log2(p_BV[np.arange(active), tokens_B] / p_BV.sum(axis=1)).sum())
        logits_BV, done = following, done + active
        progress(done)
    return Coded(encoder.get_compressed().astype("<u4").tobytes(), bits)


def decode(data: bytes, model: TokenModel, tokenizer: Tokenizer, progress: Progress) -> Iterator[list[int]]:
    """Decode the tokens, in order and in parts. They are right only if the model computes the same bits as in `encode`.

    Memory and time depend on the tokens that `data` can hold, not on the number in the file's header. Raises ValueError
    if `data` is not output of the coder, or ends before the last token, FloatingPointError if the model's logits are
    not finite.
    """
    layout, usable_V = model.layout, usable_symbols(tokenizer)
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes of the coder, not a multiple of 4")
    decoder = stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
    family = stream.model.Categorical(perfect=False)
    blocks: list[np.ndarray] = []
    done, bits, most = 0, 0.0, 8 * len(data) * BITS_SLACK + 1024
    last_B = np.full(layout.segments, tokenizer.bos_id, np.int32)
    for step in range(layout.steps):
        active = layout.active(step)
        p_BV = probabilities(model.read(last_B), usable_V)[:active]
        at = step % BLOCK
        if not at:
            blocks.append(np.zeros((layout.segments, min(BLOCK, layout.steps - step)), np.int32))
        try:
            tokens_B = decoder.decode(family, p_BV)
        except AssertionError as error:  # constriction's error for invalid data
            raise ValueError(f"bytes that the coder cannot have written: {error}") from error
        blocks[-1][:active, at] = tokens_B
        shares_B = p_BV[np.arange(active), tokens_B] / p_BV.sum(axis=1)
        bits -= float(np.log2(np.maximum(shares_B, 2.0**-PRECISION)).sum())
        last_B, done = blocks[-1][:, at].copy(), done + active
        if bits > most:
            raise ValueError(f"{len(data):,} bytes of the coder, which end after {done:,} tokens")
        progress(done)
    return layout.flat(blocks)
