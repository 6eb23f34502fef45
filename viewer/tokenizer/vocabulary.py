"""Vocabularies for the page "Tokens"."""

from typing import Any

from lm.tokenizer import BytePairTokenizer, Tokenizer
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, NORMAL, USER_DEFINED, read_model
from viewer.training_data import visible

IN_PAGE = ("bpe", "characters")
"""Kinds of tokenizers that static/bpe.js runs in the page; the server encodes for others (/v1/inspect/encode), and for
split patterns that JavaScript does not support."""
MOST_CHARACTERS = 20_000
"""Maximum characters of a text for "encode"."""


def vocabulary(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a tokenizer as JSON: text and bytes (in hexadecimal) of each id, special tokens, and the order of merges:
    that of the ids for a byte-level BPE, "order" for sentencepiece."""
    parts = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    found = {
        "name": name,
        "kind": tokenizer.kind,
        "tokens": [visible(part) for part in parts],
        "bytes": [part.hex() for part in parts],
        "special": dict(tokenizer.special_tokens),
    }
    if isinstance(tokenizer, BytePairTokenizer):
        found["pattern"] = tokenizer.pattern
    elif isinstance(tokenizer, SentencePieceTokenizer) and (order := merge_order(tokenizer)):
        found["order"] = order
    return found


def merge_order(tokenizer: SentencePieceTokenizer) -> list[int]:
    """Return the rank, from 0, at which each id is merged, by its score in a BPE model of sentencepiece; -1 for bytes
    and special tokens, which are not merged. Empty for other models, and for those with user-defined pieces."""
    model = read_model(tokenizer.model)
    if model.kind != BPE or any(piece.kind == USER_DEFINED for piece in model.pieces):
        return []
    merged = sorted((-piece.score, id) for id, piece in enumerate(model.pieces) if piece.kind == NORMAL)
    order = [-1] * len(model.pieces)
    for place, (_, id) in enumerate(merged):
        order[id] = place
    return order
