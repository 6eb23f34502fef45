"""Vocabularies for the page "Tokens", and an exported page with only that page."""

from pathlib import Path
from typing import Any

import numpy as np

from lm.errors import InputError
from lm.storage import write_atomically
from lm.tokenizer import BytePairTokenizer, Tokenizer
from lm.tokenizer.sentencepiece import SentencePieceTokenizer
from lm.tokenizer.sentencepiece_model import BPE, NORMAL, USER_DEFINED, read_model
from viewer.answers import key_of, packed
from viewer.page import window_html
from viewer.tokenizer.comparison import comparison
from viewer.tokenizer.corpus import Corpus
from viewer.tokenizer.finding import Reading
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
    found: dict[str, Any] = {
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


def tokens_html(readings: list[Reading], corpora: list[Corpus]) -> str:
    """Return an exported page with only the page "Tokens", for one or two tokenizers; `corpora` has one entry for each,
    or is empty."""
    first, others = readings[0], [one.name for one in readings[1:]]
    names = " and ".join(one.name for one in readings)
    answers = {
        key_of("model", {}): {"name": names, "prompt": first.text, "beside": next(iter(others), "")},
        key_of("comparison", {}): comparison({one.name: one.tokenizer for one in readings}, corpora),
    }
    for one in readings:
        of = {} if one is first else {"tokenizer": one.name}
        answers[key_of("vocabulary", of)] = vocabulary(one.name, one.tokenizer) | {"others": others}
        if one.tokenizer.kind not in IN_PAGE:  # the page asks for the text as JavaScript cuts it, in UTF-16
            units = one.text.encode("utf-16-le", "surrogatepass")[: 2 * MOST_CHARACTERS]
            text = units.decode("utf-16-le", "replace")
            ids = packed(np.array(one.tokenizer.encode(text), np.int32))
            answers[key_of("encode", of | {"text": text})] = {"ids": ids}
    return window_html(answers, pages=("tokens",))


def write_page(path: Path, readings: list[Reading], corpora: list[Corpus]) -> Path:
    """Write the page of `tokens_html` to `path`, and return the path. Raises InputError if it cannot be written."""
    try:
        write_atomically(path, tokens_html(readings, corpora))
    except OSError as error:
        raise InputError(
            f"--html {path} cannot be written: {error.strerror}. Give a file in an existing folder."
        ) from None
    return path
