"""Tokens to bits and back: a range coder (Martin 1979), by the constriction library (arXiv:2201.01741), which gets the
model's probabilities of each next token.

A token of probability p takes -log2 p bits. The library makes integers of 24 bits of the probabilities, each at least
1: that costs log2(1 / (1 - V / 2^24)) bits a token, .0004 for 4,096 symbols, .011 for 128,000.

Axes: B segments, S a segment's tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import constriction
import numpy as np

from lm.compression.token_model import TokenModel, probabilities
from lm.tokenizer import Tokenizer

stream: Any = constriction.stream  # ty: ignore[missing-attribute]  (a module of Rust, without types)

type Progress = Callable[[int], None]
"""Is told the number of tokens that are done."""
PRECISION = 24
"""Bits of constriction's probabilities."""
BITS_SLACK = 1.05
"""How many times more bits tokens may have by the model's probabilities than the coder wrote, whose are rounded."""
BLOCK = 4096
"""Tokens of each segment for which memory is taken at once."""


class Coded(NamedTuple):
    """What the coder wrote."""

    data: bytes
    bits: float
    """-log2 of the probabilities that the model gave the tokens, summed: the cross-entropy."""


def usable_symbols(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) bool: the ids that a text can have. Special tokens and unused ids stand for no text: their probability is
    shared by the others."""
    special = set(tokenizer.special_tokens.values())
    return np.array([i not in special and bool(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])


def most_tokens(data: bytes, symbols: int) -> int:
    """Tokens that so much of the coder's output can hold: even the likeliest takes a share of a bit."""
    least = -np.log2(1 - (symbols - 1) / 2**PRECISION) if symbols > 1 else 2.0**-PRECISION
    return int((8 * len(data) + 64) / least) + 1


def encode(tokens: list[int], model: TokenModel, tokenizer: Tokenizer, progress: Progress) -> Coded:
    """The tokens, coded. Raises FloatingPointError as `probabilities`."""
    layout, usable_V = model.layout, usable_symbols(tokenizer)
    encoder, family, bits = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False), 0.0
    tokens_BS = layout.rows(tokens)
    done = 0
    logits_BV = model.read(np.full(layout.segments, tokenizer.bos_id, np.int32))
    for step in range(layout.steps):
        # Asked for before these are coded: the devices work on while the host does.
        following = model.read(tokens_BS[:, step]) if step + 1 < layout.steps else logits_BV
        active = layout.active(step)
        p_BV, tokens_B = probabilities(logits_BV, usable_V)[:active], tokens_BS[:active, step]
        encoder.encode(tokens_B, family, p_BV)
        bits -= float(np.log2(p_BV[np.arange(active), tokens_B] / p_BV.sum(axis=1)).sum())
        logits_BV, done = following, done + active
        progress(done)
    return Coded(encoder.get_compressed().astype("<u4").tobytes(), bits)


def decode(data: bytes, model: TokenModel, tokenizer: Tokenizer, progress: Progress) -> Iterator[list[int]]:
    """Return the tokens again, in order and in parts, if the model gives the same bits; else others.

    Memory and time grow with the tokens that `data` holds, whatever number of them is claimed. Raises ValueError if
    `data` is nothing that the coder writes, or is used up before the last token, FloatingPointError as `probabilities`.
    """
    layout, usable_V = model.layout, usable_symbols(tokenizer)
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes of the coder, which writes four at a time")
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
        except AssertionError as error:  # constriction's word for it
            raise ValueError(f"what no coder has written: {error}") from error
        blocks[-1][:active, at] = tokens_B
        shares_B = p_BV[np.arange(active), tokens_B] / p_BV.sum(axis=1)
        bits -= float(np.log2(np.maximum(shares_B, 2.0**-PRECISION)).sum())
        last_B, done = blocks[-1][:, at].copy(), done + active
        if bits > most:
            raise ValueError(f"{len(data):,} bytes of the coder, which are used up by {done:,} tokens")
        progress(done)
    return layout.flat(blocks)
